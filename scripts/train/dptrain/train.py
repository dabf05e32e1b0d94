# SPDX-License-Identifier: Apache-2.0
"""Trains one network on one split into a run directory."""

from dataclasses import dataclass

import numpy as np
import torch

from . import data, loop, net, splits, train_default, train_paper

PAPER = ("cnn-app", "cnn-traffic", "sae-app", "sae-traffic")
KINDS = ("default", *PAPER)
# The paper's nets learn from the paper's data set; the default from everything that may be used.
SETS = {"default": None, **{kind: ["iscx"] for kind in PAPER}}
# Packets of a class at most, so that the paper's nets have classes that are roughly balanced.
CAPS = {"cnn-app": 600, "cnn-traffic": 1000, "sae-app": 600, "sae-traffic": 1000}
# With fewer packets to learn from, the default net gets smaller batches and STEPS steps at least.
FEW, STEPS = 10_000, 600
FIRST = 5  # packets of a flow that the default net learns from


@dataclass
class Options:
    """The command line's choices."""

    kind: str
    split: str
    seed: int = 0
    split_seed: int = 0
    sets: list | None = None
    epochs: int = 0
    batch: int = 0
    max_minutes: float = 0.0
    augment: float = 0.3
    negatives: float = 0.3
    first: int = FIRST
    shape: dict | None = None


def problem(ds, options):
    """Rows, targets by task and split that a run is about; evaluation makes the same again."""
    sets = options.sets or (SETS[options.kind] if "iscx" in ds.meta["sets"] else None)
    rows = data.rows_for(ds, "train", sets)
    if options.kind == "default":
        tasks = _labelled(ds, [data.category_task(ds), data.app_task(ds)])
        wanted = np.any([t.target[rows] != -1 for t in tasks], axis=0)
        rows = rows[wanted]
        # Split by the category and the application together: both heads meet every class.
        target = sum(task.target * factor for task, factor in zip(tasks, (1000, 1), strict=False))
    elif options.kind.endswith("-app"):
        tasks = _labelled(ds, [data.app_task(ds)])
    else:
        # The paper's twelve; vpn-tunnel comes with the sets beside the paper's.
        labels = data.CATEGORIES[:12] if sets == ["iscx"] else None
        tasks = _labelled(ds, [data.category_task(ds, labels)])
    if options.kind != "default":
        target = tasks[0].target
        rows = rows[target[rows] >= 0]
    split = splits.make(options.split, ds, rows, target, options.split_seed)
    if options.split == "all":
        _enough_flows(ds, rows, tasks, split)
    return tasks, split


def _labelled(ds, tasks):
    """The tasks that the dataset has labels of."""
    there = [task for task in tasks if task.labels]
    if not there:
        names = " or ".join(task.name for task in tasks)
        raise data.DatasetError(f"{ds.directory}: no capture has a label as {names}")
    return there


def _enough_flows(ds, rows, tasks, split):
    """Refuses labels that a model cannot have, and data of which nothing can be kept out."""
    for task in tasks:
        of_label = task.target[rows], ds.flow[rows]
        flows = [len(np.unique(of_label[1][of_label[0] == i])) for i in range(len(task.labels))]
        few = [f"{name} ({n})" for name, n in zip(task.labels, flows, strict=True) if n < 2]
        if len(task.labels) < 2 or few:
            raise data.DatasetError(
                f"{ds.directory}: {task.name} has too few labels or flows: "
                f"{', '.join(few or task.labels)}; a model needs two labels, of two flows each"
            )
    if not len(split.validation):
        raise data.DatasetError(
            f"{ds.directory}: {len(np.unique(ds.flow[rows]))} flows in all; with fewer than six "
            "none can be kept out to calibrate the model with"
        )


def train(ds, options, directory, log=print):
    """Trains what ``options`` say; returns the state of the loop."""
    return fit(ds, options, directory, *problem(ds, options), log)


def fit(ds, options, directory, tasks, split, log=print):
    """The same with tasks and a split that are given."""
    if options.kind == "default":
        enough_steps(options, len(learnt_rows(ds, options, split)))
        return train_default.run(ds, options, directory, tasks, split, log)
    return train_paper.run(ds, options, directory, tasks[0], split, log)


def enough_steps(options, rows):
    """Smaller batches and more epochs where the default net has few packets to learn from."""
    if rows >= FEW:
        return
    options.batch = options.batch or min(256, max(16, rows // 16))
    per_epoch = -(-rows // options.batch)
    options.epochs = options.epochs or max(14, -(-STEPS // per_epoch))


def spec_of(options, tasks, split, **more):
    """What a checkpoint says of itself; a resumed run must say the same."""
    return {
        "kind": options.kind,
        "split": options.split,
        "seed": options.seed,
        "split_seed": options.split_seed,
        "sets": options.sets,
        "batch": options.batch,
        "first": options.first,
        "augment": options.augment,
        "negatives": options.negatives,
        "labels": {t.name: t.labels for t in tasks},
        "train_packets": len(split.train),
        **more,
    }


def learnt_rows(ds, options, split):
    """The rows that a network of this kind learns from, out of the split's training part."""
    if options.kind == "default":
        return split.train[ds.index[split.train] < options.first]
    tasks, _ = problem(ds, options)
    cap = round(CAPS[options.kind] * splits.TRAIN)
    return data.under_sample(split.train, tasks[0].target, cap, options.seed)


def row_weights(ds, rows, task):
    """The default net's sampling weights, scaled to a mean of one, for a model that is weighted."""
    weight = net.sample_weights(ds.flow[rows], task.target[rows])
    return weight / weight.mean()


def build(spec):
    """The module that a spec describes, without weights."""
    if spec["kind"] == "default":
        thresholds = [np.array(t, dtype=np.float32) for t in spec["thresholds"]]
        return net.DefaultNet(net.shape_from_dict(spec["shape"]), thresholds)
    return train_paper.build(spec)


def load(directory):
    """A run's spec and its best model, ready to be used."""
    spec, weights, epoch = loop.load(directory)
    model = build(spec)
    model.load_state_dict(weights)
    return spec, model.eval(), epoch


def options_of(spec):
    """The options that ``problem`` needs, out of a spec."""
    names = ("kind", "split", "seed", "split_seed", "sets", "first")
    return Options(**{name: spec[name] for name in names})


@torch.no_grad()
def predict(model, packets, chunk=4096):
    """Softmax probabilities by task, as numpy, of uint8 packets [N, 1500]."""
    model.eval()
    device = next(model.parameters()).device
    out = {}
    for at in range(0, len(packets), chunk):
        part = torch.from_numpy(np.asarray(packets[at : at + chunk])).to(device)
        for begin in range(0, len(part), 256):
            for task, values in model(*model.inputs(part[begin : begin + 256])).items():
                out.setdefault(task, []).append(torch.softmax(values, 1).cpu())
    return {task: torch.cat(v).numpy() for task, v in out.items()}


def probabilities(ds, model, rows):
    """The same for rows of a dataset."""
    return predict(model, _Rows(ds.packet, rows))


class _Rows:
    """Rows of a memory-mapped array, read a slice at a time."""

    def __init__(self, array, rows):
        self.array, self.rows = array, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, part):
        return self.array[self.rows[part]]


@torch.no_grad()
def logits(model, *inputs, batch=256):
    """A model's outputs over many rows."""
    model.eval()
    parts = [model(*part) for part in zip(*(i.split(batch) for i in inputs), strict=True)]
    return {task: torch.cat([p[task] for p in parts]) for task in parts[0]}


def generator(seed, epoch):
    """Random numbers of one epoch, whatever was drawn before it."""
    return torch.Generator().manual_seed(seed * 1000 + epoch)
