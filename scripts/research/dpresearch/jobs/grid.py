# SPDX-License-Identifier: Apache-2.0
"""Networks of the paper's grid search: F1 on the validation part against parameters."""

import json
from pathlib import Path

from sklearn.metrics import accuracy_score, f1_score

from dptrain import train

from ..paper import cnn, nets
from .run import recipe

EPOCHS = 8
MINUTES = 10  # a network at most
# Filters, kernel, stride of the two convolutions; each task also has the paper's choice.
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
    """Trains what WORK/grid.jsonl does not have yet; returns all records.

    A record has the task, c1 and c2 (filters, kernel, stride), parameters, mac, epochs, seconds
    and, by packet on the validation part of the packet split, weighted_f1, macro_f1, accuracy.
    """
    path = Path(work) / "grid.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    records = {
        name: record
        for record in read(work)
        if record["recipe"] == recipe()
        for name in [_name(record["task"], record["c1"], record["c2"])]
    }
    wanted = [(task, *shape) for task in KINDS for shape in (*NETS, cnn.CONVOLUTIONS[task])]
    todo = [shape for shape in wanted if _name(*shape) not in records]
    for number, (task, c1, c2) in enumerate(todo, 1):
        log(f"network {number} of {len(todo)}: {task}, {c1}, {c2}")
        name = _name(task, c1, c2)
        records[name] = _train(ds, Path(work) / "grid" / recipe() / name, task, c1, c2, log)
        path.write_text("".join(json.dumps(r) + "\n" for r in records.values()))
    return list(records.values())


def read(work):
    """The records of WORK/grid.jsonl."""
    path = Path(work) / "grid.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _train(ds, directory, name, c1, c2, log):
    options = nets.Options(
        KINDS[name], "packet", epochs=EPOCHS, max_minutes=MINUTES, convolutions=(c1, c2)
    )
    task, parts = nets.problem(ds, options)
    state = nets.fit(ds, options, directory, task, parts, log)
    _, model, _ = nets.load(directory)
    truth = task.target[parts.validation]
    predicted = train.predict(model, ds.packet[parts.validation])[name].argmax(1)
    return {
        "task": name,
        "c1": list(c1),
        "c2": list(c2),
        "parameters": sum(p.numel() for p in model.parameters()),
        "mac": model.mac(),
        "epochs": state.epoch,
        "seconds": round(state.seconds),
        "packets": len(truth),
        "weighted_f1": round(float(f1_score(truth, predicted, average="weighted")), 4),
        "macro_f1": round(float(f1_score(truth, predicted, average="macro")), 4),
        "accuracy": round(float(accuracy_score(truth, predicted)), 4),
        "recipe": recipe(),
    }


def _name(task, c1, c2):
    return ".".join([task, *("-".join(map(str, c)) for c in (c1, c2))])
