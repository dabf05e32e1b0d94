# SPDX-License-Identifier: Apache-2.0
"""Every number of the evaluation and of the paper's reproduction, from the stored predictions."""

import collections
import json
from dataclasses import replace

import numpy as np
from sklearn.metrics import (
    confusion_matrix,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from dptrain import calibration, data

from ..jobs import grid
from ..jobs.job import LEFT_OUT, parse
from ..paper import OUTSIDE_VPN, nets
from . import bootstrap, judges

TREES = ("lightgbm", "lightgbm-anonymous", "random-forest")
COUNTS = (1, 2, 3, 5, 8)  # samples of a flow
POWERS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the number of samples, see growth
FINAL = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.01)  # confidence of an early stop
RIGHT = 0.9  # share of right verdicts at the operating point
LEAST = 20  # verdicts that a threshold is chosen on, at least


def evaluation(store):
    """Everything about the default network and the trees."""
    names = [n for n in store.names if not parse(n).of_paper]
    first = [n for n in names if n.startswith(("default.all.", "lightgbm.all.")) and n[-2:] == ".0"]
    return {
        **_common(store, names),
        "classes": {n: per_class(store, n, "flow") for n in first},
        "differences": _differences(store),
        "calibration": {n: calibrations(store, n) for n in first},
        "growth": growth(store),
        "samples": _samples(store),
        **_unknown(store),
        "operating_points": {
            model: operating_point(store, f"{model}.all.elsewhere.0")
            for model in ("default", "lightgbm")
            if f"{model}.all.elsewhere.0" in store.names
        },
        "elsewhere": elsewhere(store, names),
    }


def paper(store):
    """Everything about the paper's networks and baselines."""
    names = [n for n in store.names if parse(n).of_paper]
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
    """What both have: the data, the scores, the shortcuts, how often test parts were scored."""
    groups = {}
    for name in names:
        if parse(name).variant not in ("leftout", "checksums"):
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


def _differences(store):
    """{OTHER.TASK.SPLIT.WHICH: the default minus another model}."""
    out = {}
    for task in ("category", "app"):
        for split in ("packet", "flow", "capture", *(["elsewhere"] if task == "category" else [])):
            for which in ("all", "seen", "new") if split == "capture" else ("all",):
                for other in TREES[:2]:
                    found = difference(store, task, split, which, other)
                    if found:
                        out[f"{other}.{task}.{split}.{which}"] = found
    return out


def difference(store, task, split, which="all", other="lightgbm"):
    """The default minus ``other`` by flow, means over the seeds of both, in pairs of draws.

    "together" is the macro-F1 where both read packets in which what identifies a connection or a
    host is redrawn, of the first seed, where it was measured.
    """
    pairs = [
        (a, a.replace("default", other, 1))
        for a in store.seeds("default", "all", split)
        if a.replace("default", other, 1) in store.names
    ]
    if not pairs:
        return None
    ours, theirs = zip(*pairs, strict=True)

    def mean(names, key):
        return np.mean([store.figures(n, task, "flow", which)[key] for n in names], axis=0)

    out = {"seeds": len(pairs), "n": store.figures(ours[0], task, "flow", which)["n"]}
    for key in ("macro_f1", "accuracy", "balanced_accuracy"):
        out[key] = bootstrap.interval(mean(ours, key) - mean(theirs, key))
    redrawn = [store.figures(n, task, "flow", which, "together") for n in pairs[0]]
    if all(redrawn):
        out["together"] = bootstrap.interval(redrawn[0]["macro_f1"] - redrawn[1]["macro_f1"])
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


def calibrations(store, name):
    """{TASK.WHICH: calibration by flow, with and without the temperature}."""
    out = {}
    for task in store.tasks(name):
        for which in ("all", "seen", "new") if parse(name).split == "capture" else ("all",):
            part = store.scored(name, task, which)
            if not len(part.rows):
                continue
            _, evidence, truth, _ = part.flows()
            right = evidence.argmax(1) == truth
            temperature = store.temperature(name, task)
            found = {"n": len(truth), "temperature": temperature}
            for key, t in (("before", 1.0), ("after", temperature)):
                confidence = calibration.softmax(evidence, t).max(1)
                found[f"ece_{key}"] = calibration_error(confidence, right)
                found[f"bins_{key}"] = [
                    [n, round(c, 4), round(r, 4)] for n, c, r in bins(confidence, right, 10)
                ]
            out[f"{task}.{which}"] = found
    return out


def bins(confidence, right, count):
    """(n, mean confidence, share right) of each of ``count`` equal bins that is not empty."""
    place = np.minimum((confidence * count).astype(int), count - 1)
    rows = [place == b for b in np.unique(place)]
    return [(int(r.sum()), float(confidence[r].mean()), float(right[r].mean())) for r in rows]


def calibration_error(confidence, right):
    """The expected calibration error over 15 bins."""
    found = bins(confidence, right, 15)
    return round(sum(n * abs(c - r) for n, c, r in found) / len(confidence), 4)


def growth(store):
    """{power: log-loss and calibration error} of the power that the number of samples gets.

    Means over heads and seeds of the default on the validation parts of three splits, each with
    the temperature that fits this power.
    """
    out = {}
    for power in POWERS:
        losses, errors = [], []
        for split in ("packet", "flow", "capture"):
            for name in store.seeds("default", "all", split):
                for task in store.tasks(name):
                    part = store.part(name, task, "validation").known()
                    how = replace(part.aggregation, growth=power)
                    loss, temperature = calibration.least_loss(
                        part.probabilities, part.target, part.flow, part.index, how
                    )
                    _, evidence, truth, _ = part.flows(growth=power)
                    confidence = calibration.softmax(evidence, temperature).max(1)
                    losses.append(loss)
                    errors.append(calibration_error(confidence, evidence.argmax(1) == truth))
        if losses:
            means = [round(float(np.mean(v)), 4) for v in (losses, errors)]
            out[str(power)] = dict(zip(("log_loss", "ece"), means, strict=True))
    return out


def _samples(store):
    """{TASK.SPLIT.SIDE: accuracy against samples, and early stops} of the default."""
    out = {}
    for split in ("flow", "capture"):
        for name in store.seeds("default", "all", split)[:1]:
            for task in store.tasks(name):
                for side in ("validation", "test"):
                    out[f"{task}.{split}.{side}"] = {
                        "counts": COUNTS,
                        **samples(store, name, task, side),
                        "early_stop": early_stop(store, name, task, side),
                    }
    return out


def samples(store, name, task, side):
    """Accuracy by flow against samples, of all flows and of those with as many as the most."""
    part = store.part(name, task, side).known()
    flows, packets = np.unique(part.flow, return_counts=True)
    long = np.isin(part.flow, flows[packets >= max(COUNTS)])
    out = {}
    for which, some in (("all", part), ("long", part.where(long))):
        rights = []
        for n in COUNTS:
            _, evidence, truth, _ = some.flows(samples=n)
            right = evidence.argmax(1) == truth
            rights.append(round(float(right.mean()), 4) if len(truth) else None)
        out[which] = {"n": len(np.unique(some.flow)), "accuracy": rights}
    return out


def early_stop(store, name, task, side):
    """[threshold, mean samples used, accuracy] for each final confidence; above 1 is never."""
    part = store.part(name, task, side).known()
    truth, out = part.flows()[2], []
    for final in FINAL:
        label, used = early(part, store.temperature(name, task), final)
        right = float((label == truth).mean())
        out.append([final, round(float(used.mean()), 3), round(right, 4)])
    return out


def early(part, temperature, final):
    """(label, samples used) of each flow, decided at the first sample with this confidence.

    A flow whose rows end before that is decided with what it has.
    """
    flows = np.unique(part.flow)
    label, used = np.zeros(len(flows), np.int64), np.zeros(len(flows), np.int64)
    undecided = np.ones(len(flows), dtype=bool)
    keys = part.probabilities, part.flow, part.index
    for n in range(1, part.aggregation.samples + 1):
        how = replace(part.aggregation, samples=n)
        _, evidence, counts = calibration.flow_evidence(*keys, how)
        p = calibration.softmax(evidence, temperature)
        label[undecided], used[undecided] = p[undecided].argmax(1), counts[undecided]
        undecided &= p.max(1) < final
    return label, used


def _unknown(store):
    """{"unknown": {job: {kind: figures}}, "roc": {job of seed 0: {kind: curve}}}."""
    found, curves = {}, {}
    for model, split, left_out in (
        ("default", "elsewhere", None),
        ("lightgbm", "elsewhere", None),
        ("default-leftout", "flow", LEFT_OUT),
    ):
        for name in store.seeds(model, "all", split):
            found[name], curves[name] = unknown(store, name, left_out)
    return {"unknown": found, "roc": {n: v for n, v in curves.items() if n.endswith(".0")}}


def unknown(store, name, left_out=None):
    """What the confidence says about traffic of no class: ({kind: figures}, {kind: ROC curve}).

    Known are flows of the validation part: one half of them gives the threshold that 95 % reach,
    the other half is compared with the unknown flows. With ``left_out``, names of applications,
    known and unknown are those of the application head on the test part.
    """
    task = "app" if left_out else "category"
    test, temperature = store.part(name, task), store.temperature(name, task)
    values = store.part(name, task, "validation").known().confidence(temperature)
    half = np.random.default_rng(0).permutation(len(values)) % 2 == 0
    threshold, known = float(np.quantile(values[half], 1 - calibration.KEPT)), values[~half]
    names = store.ds.names(task)[test.rows]
    if left_out:
        known = test.known().confidence(temperature)
        kinds = {"left out": np.isin(names, left_out), **{app: names == app for app in left_out}}
    else:
        kinds = {kind: names == kind for kind in store.ds.meta["no_class"]}
        known_elsewhere = np.isin(names, OUTSIDE_VPN) & ~store.signalling(test.rows)
        kinds["known, elsewhere"] = known_elsewhere
    out, curves = {}, {}
    for kind, rows in kinds.items():
        if not rows.any():
            continue
        strange = test.where(rows).confidence(temperature)
        is_known = np.repeat([1, 0], [len(known), len(strange)])
        confidence = np.concatenate([known, strange])
        out[kind] = {
            "n": len(strange),
            "known": len(known),
            "auroc": round(float(roc_auc_score(is_known, confidence)), 4),
            "threshold": round(threshold, 4),
            "known_kept": round(float((known >= threshold).mean()), 4),
            "rejected": round(float((strange < threshold).mean()), 4),
        }
        strange_kept, known_kept, _ = roc_curve(is_known, confidence)
        some = np.linspace(0, len(known_kept) - 1, min(200, len(known_kept))).astype(int)
        curves[kind] = [v[some].round(3).tolist() for v in (known_kept, strange_kept)]
    return out, curves


def operating_point(store, name):
    """The --min-confidence with verdicts elsewhere >= 90 % right, and the share it covers.

    Chosen on half of the captures and tested on the other half, in both directions; "all" is
    chosen and tested on the same flows, and is what the curve shows. "six" are flows of the
    categories outside a VPN, "signalling" also TLS during calls, which is labelled voip, and "any"
    the six and traffic of no class, where every verdict is wrong.
    """
    part = store.part(name, "category")
    six = [part.labels.index(c) for c in OUTSIDE_VPN]
    part = part.where((part.target == data.NO_CLASS) | np.isin(part.target, six))
    _, evidence, truth, rows = part.flows()
    call, capture = store.signalling(rows), store.ds.capture[rows]
    confidence = part.confidence(store.temperature(name, "category"))
    right = evidence.argmax(1) == truth
    order = np.random.default_rng(0).permutation(np.unique(capture))
    first = np.isin(capture, order[::2])
    out = {}
    kinds = {"six": (truth >= 0) & ~call, "signalling": truth >= 0, "any": ~call}
    for which, some in kinds.items():
        cuts, shares, coverage = _curve(confidence[some], right[some])
        point = {"all": _at(confidence, right, some, _least(cuts, shares, coverage, some.sum()))}
        for key, side in (("first", first), ("second", ~first)):
            chosen = _curve(confidence[some & side], right[some & side])
            threshold = _least(*chosen, (some & side).sum())
            point[f"chosen on {key} half"] = _at(confidence, right, some & ~side, threshold)
        step = max(1, len(cuts) // 150)
        point["curve"] = [
            [round(float(v), 4) for v in row]
            for row in zip(cuts[::step], coverage[::step], shares[::step], strict=True)
        ]
        out[which] = point
    return out


def _curve(confidence, right):
    """Thresholds from the highest down, the share right and the coverage at each."""
    order = np.argsort(-confidence)
    number = np.arange(1, len(order) + 1)
    return confidence[order], np.cumsum(right[order]) / number, number / max(len(order), 1)


def _least(cuts, shares, coverage, n):
    """The lowest threshold with enough right; None if no threshold with LEAST verdicts has it."""
    good = (shares >= RIGHT) & (coverage * n >= LEAST)
    return float(cuts[np.flatnonzero(good)[-1]]) if good.any() else None


def _at(confidence, right, some, threshold):
    if threshold is None:
        return None
    given = some & (confidence >= threshold)
    share = round(float(right[given].mean()), 4) if given.any() else None
    return {
        "min_confidence": round(threshold, 4),
        "n": int(some.sum()),
        "verdicts": int(given.sum()),
        "covered": round(float(given.sum() / some.sum()), 4),
        "right": share,
    }


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
    """{judge: scores and recalls elsewhere} of models, and of judges that learn nothing."""
    out, like = {}, None
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
        like = seeds[0]
    return out | (_rules(store, like) if "default" in out else {})


def _recall(truth, predicted, labels):
    return recall_score(truth, predicted, labels=labels, average=None, zero_division=0)


def _rules(store, like):
    """The judges that learn nothing, on the flows of a job; a flow without a verdict is wrong."""
    out = {}
    for which in ("all", "signalling"):
        part = store.scored(like, "category", which)
        flows, _, target, rows = part.flows()
        truth = np.array([OUTSIDE_VPN.index(part.labels[t]) for t in target], dtype=np.int64)
        none = len(OUTSIDE_VPN)
        for judge, said in judges.verdicts(store.ds, store.work, flows, rows).items():
            predicted = np.array([OUTSIDE_VPN.index(s) if s else none for s in said], np.int64)
            if which == "signalling":
                out[judge]["signalling"] = round(float((predicted == truth).mean()), 4)
                continue
            counts = bootstrap.confusions(truth, predicted, none + 1, flows)
            recall = _recall(truth, predicted, range(none)).round(4).tolist()
            out[judge] = {
                "n": len(flows),
                "without_verdict": int((predicted == none).sum()),
                **{k: bootstrap.interval(v) for k, v in bootstrap.figures(counts).items()},
                "recall": dict(zip(OUTSIDE_VPN, recall, strict=True)),
            }
    return out
