# SPDX-License-Identifier: Apache-2.0
"""Every number of the paper's reproduction, from the stored predictions."""

import collections
import json

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, recall_score

from dptrain import data

from ..jobs import grid
from ..jobs.job import parse
from ..paper import OUTSIDE_VPN, nets
from . import bootstrap


def paper(store):
    """Everything about the paper's networks and baselines."""
    names = store.names
    packet = [n for n in names if parse(n).split == "packet"]
    matrices = {n: confusion(store, n) for n in packet if parse(n).kind in nets.KINDS}
    sent = store.ds.length[data.rows_for(store.ds, "train", [nets.SET])]
    return {
        **_common(store, names),
        "classes": {n: per_class(store, n, "packet") for n in packet},
        "confusions": matrices,
        "lengths": np.bincount(np.minimum(sent, 1525) // 25).tolist(),
        "elsewhere": elsewhere(store, names),
        "grid": grid.read(store.work),
    }


def _common(store, names):
    """The data, the scores, the shortcuts, how often test parts were scored."""
    groups = {}
    for name in names:
        if parse(name).variant != "checksums":
            groups.setdefault(name.rsplit(".", 1)[0], []).append(name)
    tested = (store.work / "tested.jsonl").read_text().splitlines()
    counts = collections.Counter(json.loads(line)["job"] for line in tested)
    return {
        "dataset": {k: store.ds.meta[k] for k in ("packets", "flows", "per_flow", "checksums")},
        "learnt": {
            key: {k: store.meta(seeds[0])[f"train_{k}"] for k in ("packets", "flows")}
            for key, seeds in groups.items()
        },
        "scores": {key: _scores(store, seeds) for key, seeds in groups.items()},
        "shortcuts": shortcuts(store, names),
        "tested": {name: counts[name] for name in names},
    }


def _scores(store, names):
    """{task: {"flow", "packet", on the capture split "seen", "new": scores}} of the seeds' jobs."""
    out = {}
    for task in store.tasks(names[0]):
        out[task] = {level: scores(store, names, task, level) for level in ("flow", "packet")}
        if parse(names[0]).split == "capture":
            for which in ("seen", "new"):
                out[task][which] = scores(store, names, task, "flow", which)
    return out


def scores(store, names, task, level="flow", which="all"):
    """Scores of the seeds' jobs together: n, of each score the mean and its interval.

    The interval is that of the seeds' mean over the same draws of flows; "seeds" has the macro-F1
    of each.
    """
    each = [store.figures(name, task, level, which) for name in names]
    out = {"n": each[0]["n"]}
    for key in each[0]:
        if key != "n":
            out[key] = bootstrap.interval(np.mean([e[key] for e in each], axis=0))
    out["seeds"] = [round(float(e["macro_f1"][0]), 4) for e in each]
    return out


def per_class(store, name, level):
    """{task: {class: precision, recall, f1, n}}, with "weighted" for their means."""
    out = {}
    for task in store.tasks(name):
        part = store.scored(name, task)
        truth, predicted, _ = part.verdicts(level)
        values = precision_recall_fscore_support(
            truth, predicted, labels=range(len(part.labels)), zero_division=0
        )
        mean = precision_recall_fscore_support(
            truth, predicted, labels=np.unique(truth), average="weighted", zero_division=0
        )
        rows = dict(zip(part.labels, zip(*values, strict=True), strict=True))
        rows["weighted"] = (*mean[:3], len(truth))
        keys = ("precision", "recall", "f1")
        out[task] = {
            label: {"n": int(n), **{k: round(float(v), 4) for k, v in zip(keys, v3, strict=True)}}
            for label, (*v3, n) in rows.items()
        }
    return out


def confusion(store, name):
    """{task: labels, shares [C, C] of each class's packets, n [C]}."""
    out = {}
    for task in store.tasks(name):
        part = store.scored(name, task)
        truth, predicted, _ = part.verdicts("packet")
        labels = range(len(part.labels))
        shares = confusion_matrix(truth, predicted, labels=labels, normalize="true")
        n = np.bincount(truth, minlength=len(labels)).tolist()
        out[task] = {"labels": part.labels, "shares": shares.round(4).tolist(), "n": n}
    return out


def shortcuts(store, names):
    """{JOB.TASK: macro-F1 by flow, and what each perturbation costs, with paired intervals}."""
    out = {}
    for name in names:
        for task in store.tasks(name):
            base, lost = store.figures(name, task), {}
            for key in parse(name).perturbations:
                got = store.figures(name, task, shortcut=key)
                if got:
                    lost[key] = bootstrap.interval(base["macro_f1"] - got["macro_f1"])
            if lost:
                value = bootstrap.interval(base["macro_f1"])
                out[f"{name}.{task}"] = {"n": base["n"], "macro_f1": value, "lost": lost}
    return out


def elsewhere(store, names):
    """{model: scores and recalls elsewhere}."""
    out = {}
    for key in dict.fromkeys(n.rsplit(".", 1)[0] for n in names if parse(n).split == "elsewhere"):
        seeds = store.seeds(*key.split("."))
        parts = [store.scored(n, "category").verdicts("flow") for n in seeds]
        labels = store.problem(seeds[0]).tasks[0].labels
        six = [labels.index(c) for c in OUTSIDE_VPN]
        recall = np.mean([_recall(t, p, six) for t, p, _ in parts], axis=0)
        calls = [store.scored(n, "category", "signalling").verdicts("flow") for n in seeds]
        out[key.split(".")[0]] = {
            **scores(store, seeds, "category"),
            "recall": dict(zip(OUTSIDE_VPN, recall.round(4).tolist(), strict=True)),
            "flows": {
                c: int((parts[0][0] == i).sum()) for c, i in zip(OUTSIDE_VPN, six, strict=True)
            },
            "signalling_n": len(calls[0][0]),
            "signalling": round(float(np.mean([(t == p).mean() for t, p, _ in calls])), 4),
        }
    return out


def _recall(truth, predicted, labels):
    return recall_score(truth, predicted, labels=labels, average=None, zero_division=0)
