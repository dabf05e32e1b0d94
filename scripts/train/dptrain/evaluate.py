# SPDX-License-Identifier: Apache-2.0
"""Scores runs and tree baselines on the test part of their split, by packet and by flow."""

import json
import time
from pathlib import Path

import numpy as np

from . import baselines, data, export, metrics, train


def of_run(ds, run, exported=None):
    """The test part's scores of a trained network, or of the ONNX file exported from it."""
    spec, model, _ = train.load(run)
    tasks, split = train.problem(ds, train.options_of(spec))
    rows = split.test
    name = spec["kind"]
    if exported:
        probabilities = export.run_onnx(exported, np.asarray(ds.packet[rows]))
        name += " (ONNX as shipped)"
    else:
        probabilities = train.probabilities(ds, model, spec, rows)
    return _record(
        ds,
        name,
        spec["split"],
        spec["seed"],
        tasks,
        split,
        probabilities,
        {
            "train_packets": spec["used_packets"],
        },
    )


def elsewhere(ds, run):
    """A run's scores on the sets that nothing is trained on: other networks, other years.

    Traffic of a generator (ustc) is no claim of accuracy and stays out.
    """
    spec, model, _ = train.load(run)
    task = data.category_task(ds, spec["labels"]["category"])
    rows = data.rows_for(ds, "evaluate")
    rows = rows[(task.target[rows] >= 0) & (ds.capture_column("set")[rows] != "ustc")]
    p = train.probabilities(ds, model, spec, rows)["category"]
    target, keys = task.target[rows], (ds.flow[rows], ds.index[rows])
    flows, first = np.unique(ds.flow[rows], return_index=True)
    _, sums, _ = metrics.flow_sums(p, *keys)
    recall = {
        task.labels[c]: [
            int(np.sum(target[first] == c)),
            round(float(np.mean(sums.argmax(1)[target[first] == c] == c)), 4),
        ]
        for c in np.unique(target[first])
    }
    return {
        "model": spec["kind"],
        "split": "elsewhere",
        "seed": spec["seed"],
        "train_packets": spec["used_packets"],
        "flows": len(flows),
        "recall_by_flow": recall,
        "tasks": {"category": metrics.by_packet_and_flow(p, target, *keys)},
    }


def by_samples(ds, run, counts=(1, 2, 3, 5, 8)):
    """Accuracy by flow against samples, on the validation part: what the budget is chosen from.

    "all" scores every flow; "long" those with as many payload packets as the longest count, so
    that all counts score the same packets.
    """
    spec, model, _ = train.load(run)
    tasks, split = train.problem(ds, train.options_of(spec))
    rows = split.validation
    probabilities = train.probabilities(ds, model, spec, rows)
    out = []
    for task in tasks:
        p, target = probabilities[task.name], task.target[rows]
        long = np.isin(ds.flow[rows], _with_packets(ds, rows, max(counts)))
        for n in counts:
            record = {"task": task.name, "samples": n}
            for name, part in (("all", target >= 0), ("long", long & (target >= 0))):
                at = rows[part]
                by = metrics.by_packet_and_flow(p[part], target[part], ds.flow[at], ds.index[at], n)
                record[name] = by["flow"]
            out.append(record)
    return out


def _with_packets(ds, rows, least):
    flows, packets = np.unique(ds.flow[rows], return_counts=True)
    return flows[packets >= least]


def of_baseline(ds, kind, split_name, seed, like="default", threads=1, log=print):
    """The test part's scores of a baseline, trained on the rows that ``like`` is trained on."""
    options = train.Options(kind=like, split=split_name, seed=seed)
    tasks, split = train.problem(ds, options)
    rows = train.learnt_rows(ds, options, split)
    probabilities, seconds, used = {}, 0.0, {}
    for task in tasks:
        began = time.monotonic()
        known = rows[task.target[rows] >= 0]
        weight = train.row_weights(ds, known, task)
        probabilities[task.name] = baselines.fit_predict(
            kind,
            np.asarray(ds.packet[known]),
            task.target[known],
            weight,
            ds.packet,
            split.test,
            len(task.labels),
            seed,
            threads,
        )
        used[task.name] = len(known)
        seconds += time.monotonic() - began
        log(f"{kind} {split_name} {task.name}: {len(known)} packets, {seconds:.0f} s so far")
    return _record(ds, kind, split_name, seed, tasks, split, probabilities, {"train_packets": used})


def append(path, record):
    """One line a result, in the order they were made: the log of what was tested."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def table(path):
    """The results as a Markdown table for each task."""
    latest = {}
    for line in Path(path).read_text().splitlines():
        record = json.loads(line)
        for task in record["tasks"]:
            latest[task, record["split"], record["model"], record["seed"]] = record
    out = []
    for task in sorted({k[0] for k in latest}, reverse=True):
        out += [
            f"### {task}",
            "",
            "| split | model | packets: n | accuracy | macro-F1 | weighted F1 "
            "| flows: n | accuracy | macro-F1 | weighted F1 |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        order = {s: i for i, s in enumerate(("packet", "flow", "capture", "elsewhere"))}
        for key in sorted(latest, key=lambda k: (order.get(k[1], 9), k[2], k[3])):
            if key[0] != task:
                continue
            by = latest[key]["tasks"][task]
            cells = [f"{key[1]}{'' if key[1] == 'elsewhere' else ' split'}", key[2]]
            for level in ("packet", "flow"):
                s = by[level]
                cells.append(f"{s['n']:,}")
                cells += [f"{s[m]:.3f}" for m in ("accuracy", "macro_f1", "weighted_f1")]
            out.append("| " + " | ".join(cells) + " |")
        out.append("")
    return "\n".join(out)


def _record(ds, model, split_name, seed, tasks, split, probabilities, more):
    rows = split.test
    out = {"model": model, "split": split_name, "seed": seed, **more, "tasks": {}}
    for task in tasks:
        p, target = probabilities[task.name], task.target[rows]
        scored = metrics.by_packet_and_flow(p, target, ds.flow[rows], ds.index[rows])
        if split_name == "capture":
            scored["flow_by_novelty"] = _by_novelty(ds, task, split, p)
        out["tasks"][task.name] = scored
    return out


def _by_novelty(ds, task, split, probabilities):
    """Flows of captures that were trained on, and flows of captures that were not."""
    rows = split.test
    seen = np.isin(ds.capture[rows], np.unique(ds.capture[split.train]))
    out = {}
    for name, part in (("seen", seen), ("new", ~seen)):
        part = part & (task.target[rows] >= 0)
        if part.any():
            at = rows[part]
            by = metrics.by_packet_and_flow(
                probabilities[part], task.target[at], ds.flow[at], ds.index[at]
            )
            out[name] = by["flow"]
    return out
