# SPDX-License-Identifier: Apache-2.0
"""Nets of the paper's grid search: F1 on the validation part against parameters."""

import json
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

from . import cnn, train

PAPER_NETS = 116  # that the paper searched; NETS below are those that are run here
EPOCHS = 8
MINUTES = 10  # a net at most
# Filters, kernel, stride of the two convolutions; the paper's choice for the task comes after them.
NETS = (
    ((10, 4, 3), (10, 5, 1)),
    ((10, 5, 3), (10, 4, 3)),
    ((25, 4, 3), (25, 5, 1)),
    ((25, 5, 3), (25, 4, 3)),
    ((50, 3, 2), (50, 3, 2)),
    ((50, 4, 3), (50, 5, 1)),
    ((50, 5, 3), (50, 4, 3)),
    ((50, 10, 5), (50, 5, 3)),
    ((100, 3, 3), (100, 3, 3)),
    ((100, 4, 3), (50, 5, 3)),
    ((100, 5, 3), (100, 4, 3)),
    ((100, 7, 3), (100, 7, 3)),
    ((200, 5, 5), (100, 5, 5)),
)
KINDS = {"category": "cnn-traffic", "app": "cnn-app"}


def run(ds, work, log=print):
    """Trains what is not in WORK/grid.jsonl yet; returns all its records.

    A record says task, c1, c2 (filters, kernel, stride), parameters, mac, epochs, seconds and, by
    packet on the validation part of the packet split, weighted_f1, macro_f1, accuracy.
    """
    path = Path(work) / "grid.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if path.is_file() else []
    records = [json.loads(line) for line in lines]
    done = {_key(r["task"], r["c1"], r["c2"]) for r in records}
    nets = [(task, *net) for task in KINDS for net in (*NETS, cnn.CONVOLUTIONS[task])]
    todo = [net for net in nets if _key(*net) not in done]
    for number, (task, c1, c2) in enumerate(todo, 1):
        log(f"net {number} of {len(todo)}: {task}, {c1}, {c2}")
        records.append(_train(ds, work, task, c1, c2, log))
        with path.open("a") as file:
            file.write(json.dumps(records[-1]) + "\n")
    return records


def _train(ds, work, name, c1, c2, log):
    options = train.Options(
        kind=KINDS[name],
        split="packet",
        epochs=EPOCHS,
        max_minutes=MINUTES,
        shape={"convolutions": [list(c1), list(c2)]},
    )
    run = Path(work) / "grid" / _key(name, c1, c2)
    state = train.train(ds, options, run, log)
    _, model, _ = train.load(run)
    [task], split = train.problem(ds, options)
    rows = split.validation
    truth = task.target[rows]
    predicted = train.probabilities(ds, model, rows)[name].argmax(1)
    return {
        "task": name,
        "c1": list(c1),
        "c2": list(c2),
        "parameters": sum(p.numel() for p in model.parameters()),
        "mac": model.mac(),
        "epochs": state.epoch,
        "seconds": round(state.seconds),
        "packets": len(rows),
        "weighted_f1": round(float(f1_score(truth, predicted, average="weighted")), 4),
        "macro_f1": round(float(f1_score(truth, predicted, average="macro")), 4),
        "accuracy": round(float(np.mean(truth == predicted)), 4),
    }


def _key(task, c1, c2):
    return ".".join([task, *("-".join(map(str, c)) for c in (c1, c2))])
