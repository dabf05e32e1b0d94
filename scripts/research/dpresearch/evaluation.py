# SPDX-License-Identifier: Apache-2.0
"""How good is the default network, and all of dpclass, on captures and networks it has never seen?

Captures: those of nets.SET, each judged by a network that was trained without it (dptrain's folds).
Networks: the sets that nothing is trained on. The set "lab", made by dplab, is learnt beside the
others; its captures that are not for training are a test of their own. A flow's verdict is that of
its name or protocol if ``dpclass classify`` says so, otherwise that of the network or of boosted
trees.
"""

import collections
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import recall_score

from dptrain import calibration, data, export, train

from .jobs import baselines, shortcuts
from .paper import nets
from .report import bootstrap, judges

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "models" / "default.json"
FOLDS = 3
BYTES = 256  # of a packet that LightGBM reads; all 1500 take five times as long
# A traffic generator made the set; TLS that a client holds during a call is labelled voip.
GENERATED, SIGNALLING = "ustc", "-signalling"
VPN = "vpn-"
LAB = "lab"  # the set of dplab traffic
KINDS = {"protocol": "protocols", "all": "protocols and names"}


@dataclass
class Test:
    """Flows with labels, and what each model says about them: float [flows, labels]."""

    task: data.Task
    flow: np.ndarray
    truth: np.ndarray
    said: dict  # evidence by model


def run(ds, work, captures=None, threads=1, log=print):
    """All results of the page; trainings and judgements below ``work`` are not repeated."""
    labels = json.loads(SHIPPED.read_text())["labels"]
    beside = [LAB] if LAB in ds.meta["sets"] else None
    options = train.Options(labels=labels, folds=FOLDS, beside=beside)
    train.train(ds, options, work / "default", log)
    learnt = train.finished(ds, work / "default")
    tuned, _ = export.tune(ds, learnt)
    how = data.Aggregation(*(tuned[key] for key in ("samples", "growth", "floor")))
    trees = [_trees(ds, learnt, task, work, threads, log) for task in learnt.tasks]
    tests = {"new captures: category": _captures(ds, learnt, 0, trees[0], how)}
    if len(learnt.tasks) > 1:
        tests["new captures: application"] = _captures(ds, learnt, 1, trees[1], how)
    in_lab = ds.capture_column("set") == LAB
    tests["new networks: category"] = _networks(ds, learnt, ~in_lab, trees[0], how)
    if (in_lab & (ds.capture_column("use") == "evaluate")).any():
        tests["new lab captures: category"] = _networks(ds, learnt, in_lab, trees[0], how)
    flows = np.unique(np.concatenate([test.flow for test in tests.values()]))
    every, first = np.unique(ds.flow, return_index=True)
    rows = first[np.searchsorted(every, flows)]
    told = evidence(ds, rows, captures, work / "evidence.json", log) if captures else {}
    if captures:
        judges.ndpi(ds, rows, captures, work, log)
    out = {"operating_points": tuned["operating_points"], "scores": {}, "recall": {}, "curves": {}}
    for name, test in tests.items():
        out["scores"][name], out["recall"][name] = _judge(ds, test, told, work)
        temperature = tuned["temperature"][test.task.name]
        out["curves"][name] = curves(test.said["network"], test.truth, temperature)
    category = tests["new networks: category"]
    nameless = np.array([not told.get(int(f), {}).get("name") for f in category.flow])
    if told and nameless.any():
        some = Test(
            category.task,
            category.flow[nameless],
            category.truth[nameless],
            {model: said[nameless] for model, said in category.said.items()},
        )
        out["scores"]["new networks: flows without a name"], _ = _judge(ds, some, told, work)
    out["ipv6"] = {t.name: ipv6_loss(ds, learnt, t, how) for t in learnt.tasks}
    return out


def _trees(ds, learnt, task, work, threads, log):
    """Probabilities of LightGBM by row: each row from trees that were fitted without its fold.

    Rows of networks that nothing is trained on get the mean of the folds' trees.
    """
    path = work / f"lightgbm-{task.name}.npz"
    rows = np.flatnonzero((task.target >= 0) & (ds.index < ds.aggregation.samples))
    if path.is_file():
        with np.load(path) as stored:
            if np.array_equal(stored["rows"], rows):
                return dict(stored)
    out = np.zeros((len(rows), len(task.labels)), np.float32)
    new = ds.capture_column("use")[rows] != "train"
    for number, (_, left_out) in enumerate(learnt.judges, 1):
        log(f"lightgbm, {task.name}: fold {number} of {FOLDS}")
        fitted = np.setdiff1d(learnt.learnt[task.target[learnt.learnt] >= 0], left_out)
        weight, target = baselines.weights(ds, fitted, task), task.target[fitted]
        about = target, weight, len(task.labels), 0, threads
        model = baselines.fit("lightgbm", ds.packet[fitted, :BYTES], *about)
        mine = np.isin(rows, left_out)
        out[mine] = model.predict(ds.packet[rows[mine], :BYTES])
        out[new] += model.predict(ds.packet[rows[new], :BYTES]) / FOLDS
    np.savez(path, rows=rows, probabilities=out)
    return {"rows": rows, "probabilities": out}


def _captures(ds, learnt, number, trees, how):
    """The test on captures that the judging network was trained without."""
    task = learnt.tasks[number]
    rows, said = [], []
    for model, left_out in learnt.judges:
        mine = left_out[
            (ds.capture_column("set")[left_out] == nets.SET)
            & (task.target[left_out] >= 0)
            & (ds.index[left_out] < how.samples)
        ]
        rows.append(mine)
        said.append(train.predict(model, export.Rows(ds.packet, mine))[task.name])
    return _test(ds, task, np.concatenate(rows), np.concatenate(said), trees, how)


def _networks(ds, learnt, some, trees, how):
    """The test on those of ``some`` rows whose captures nothing is trained on."""
    task, rows = learnt.tasks[0], data.rows_for(ds, "evaluate")
    in_call = np.array([name.endswith(SIGNALLING) for name in ds.names("app")[rows]], dtype=bool)
    rows = rows[
        some[rows]
        & (task.target[rows] >= 0)
        & (ds.index[rows] < how.samples)
        & (ds.capture_column("set")[rows] != GENERATED)
        & ~in_call
    ]
    said = train.predict(learnt.model, export.Rows(ds.packet, rows))[task.name]
    return _test(ds, task, rows, said, trees, how)


def _test(ds, task, rows, said, trees, how):
    by_row = np.searchsorted(trees["rows"], rows)
    keys = ds.flow[rows], ds.index[rows], how
    flows, network, _ = calibration.flow_evidence(said, *keys)
    _, boosted, _ = calibration.flow_evidence(trees["probabilities"][by_row], *keys)
    truth = task.target[rows[np.unique(ds.flow[rows], return_index=True)[1]]]
    return Test(task, flows, truth, {"network": network, "lightgbm": boosted})


def evidence(ds, rows, captures, path, log=print):
    """{flow: {task: {kind: label}, "name": server name}} of what dpclass decides without a network.

    kind is "protocol" (no names) or "all". ``rows`` has a row of each flow. Flows are found by
    capture, protocol and ports; several with the same are taken in the order of their time.
    """
    if path.is_file():
        return {int(f): e for f, e in json.loads(path.read_text()).items()}
    protocol, ports = judges.transport(ds, rows)
    files = [str(captures / ds.captures[c]["path"]) for c in range(len(ds.captures))]
    wanted = [files[c] for c in np.unique(ds.capture[rows])]
    out = collections.defaultdict(lambda: {"category": {}, "app": {}, "name": ""})
    for kind in ("protocol", "all"):
        log(f"dpclass classify --evidence {kind}: {len(wanted)} captures")
        command = [str(ROOT / "bin" / "dpclass"), "classify", "-o", "json", "--evidence", kind]
        done = subprocess.run([*command, *wanted], capture_output=True, text=True)
        if done.returncode:
            raise data.DatasetError(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")
        found = collections.defaultdict(list)
        for line in sorted(map(json.loads, done.stdout.splitlines()), key=_first_seen):
            ends = sorted((line["src_port"], line["dst_port"]))
            found[line["file"], line["proto"] == "tcp", *ends].append(line)
        for at in np.argsort(ds.time[rows], kind="stable"):
            ends = sorted(ports[at].tolist())
            same = found[files[ds.capture[rows[at]]], bool(protocol[at] == judges.TCP), *ends]
            if same:
                line, flow = same.pop(0) if len(same) > 1 else same[0], int(ds.flow[rows[at]])
                out[flow]["name"] = line["name"]
                for task in ("category", "app"):
                    if line[f"{task}_source"] != "model":
                        out[flow][task][kind] = line[task]
    path.write_text(json.dumps(out) + "\n")
    return dict(out)


def _first_seen(line):
    return line["first_seen"]


def _judge(ds, test, told, work):
    """({row of the table: scores}, {row: {label: recall}}) of a test."""
    labels, answers = test.task.labels, {}
    for model, said in test.said.items():
        alone = said.argmax(1)
        answers[f"{model} alone"] = alone
        if told:
            for kind, shown in KINDS.items():
                answers[f"{model} with {shown}"] = system(test, alone, told, kind)
    ndpi = judges.verdicts(work, test.flow) if test.task.name == "category" else {}
    for judge, said in ndpi.items():
        # Inside a VPN nDPI sees the same packets: its category counts for the VPN's, too.
        inside = np.char.startswith(np.array(labels)[test.truth], VPN)
        numbers = [_number(labels, s, v) for s, v in zip(said, inside, strict=True)]
        answers[judge] = np.array(numbers)
    scores, recalls = {}, {}
    for name, predicted in answers.items():
        counts = bootstrap.confusions(test.truth, predicted, len(labels) + 1, test.flow)
        scores[name] = {
            "n": len(test.flow),
            **{key: bootstrap.interval(v) for key, v in bootstrap.figures(counts).items()},
        }
        present = np.unique(test.truth)
        recall = recall_score(test.truth, predicted, labels=present, average=None, zero_division=0)
        recalls[name] = dict(
            zip([labels[i] for i in present], recall.round(4).tolist(), strict=True)
        )
    return scores, recalls


def system(test, alone, told, kind):
    """The verdicts of protocols and names where there are some, else those of ``alone``.

    Whether a flow is inside a VPN is for the network to say.
    """
    labels, out = test.task.labels, alone.copy()
    for i, flow in enumerate(test.flow.tolist()):
        said = told.get(flow, {}).get(test.task.name, {}).get(kind)
        if said:
            inside = labels[alone[i]].startswith(VPN)
            out[i] = _number(labels, said.removeprefix(VPN) if inside else said, inside)
    return out


def _number(labels, said, inside=False):
    """The number of a label; one too many for what is no label."""
    name = f"{VPN}{said}" if inside and f"{VPN}{said}" in labels else said
    return labels.index(name) if name in labels else len(labels)


def curves(said, truth, temperature):
    """The network's calibration and coverage: its error, ten bins, share right by coverage."""
    p = calibration.softmax(said, temperature)
    confidence, right = p.max(1), p.argmax(1) == truth
    place = np.minimum((confidence * 10).astype(int), 9)
    bins = [
        [int(b.sum()), round(float(confidence[b].mean()), 4), round(float(right[b].mean()), 4)]
        for b in (place == i for i in np.unique(place))
    ]
    order = np.argsort(-confidence, kind="stable")
    at = np.unique(np.linspace(max(len(order) // 50, 1), len(order), 100).astype(int))
    shares = np.cumsum(right[order])[at - 1] / at
    return {
        "calibration_error": round(calibration.calibration_error(right, confidence), 4),
        "bins": bins,
        "coverage": (at / len(order)).round(4).tolist(),
        "right": shares.round(4).tolist(),
        "confidence": confidence[order][at - 1].round(4).tolist(),
    }


def ipv6_loss(ds, learnt, task, how):
    """Scores by flow of IPv4 flows of all captures left out, as captured and as IPv6."""
    parts = []
    for model, left_out in learnt.judges:
        mine = left_out[(task.target[left_out] >= 0) & (ds.index[left_out] < how.samples)]
        mine = mine[ds.packet[mine, 0] >> 4 == 4]
        keys = task.target[mine], ds.flow[mine], ds.index[mine]
        columns = [column[mine] for column in (ds.packet, ds.l4_offset, ds.payload_offset, ds.flow)]
        packets = columns[0], shortcuts.perturb(*columns, "ipv6", None)
        parts.append([(train.predict(model, p)[task.name], *keys) for p in packets])
    out = {}
    for name, part in zip(("captured", "ipv6"), zip(*parts, strict=True), strict=True):
        judged = calibration.Judged(*(np.concatenate(column) for column in zip(*part, strict=True)))
        out[name] = calibration.by_packet_and_flow(judged, how)["flow"]
    return out
