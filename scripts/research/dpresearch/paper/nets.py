# SPDX-License-Identifier: Apache-2.0
"""How the paper's networks are trained: their rows, schedules and pre-training."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from dptrain import Error, data, loop, train

from . import LABELS, cnn, sae, splits

KINDS = ("cnn-app", "cnn-traffic", "sae-app", "sae-traffic")
SET = "iscx"  # the paper's captures
# Packets of a class at most, so that the classes are roughly balanced as in the paper.
CAPS = {"app": 600, "category": 1000}
EPOCHS = {"cnn": 300, "sae": 200}
BATCH = {"cnn": 64, "sae": 128}
PATIENCE = {"cnn": 5, "sae": 0}
# The paper fine-tunes the autoencoder for a fixed number of epochs: its accuracy still grows when
# the validation loss no longer falls.
KEEP = {"cnn": "best", "sae": "last"}
MINUTES = 30  # a training at most


@dataclass
class Options:
    """What is trained on what; 0 and None leave the choice to ``problem`` and the network."""

    kind: str
    split: str = "all"
    seed: int = 0
    split_seed: int = 0
    sets: list | None = None
    labels: dict | None = None  # by task
    epochs: int = 0
    batch: int = 0
    max_minutes: float = 0.0
    convolutions: tuple | None = None  # the published ones

    @property
    def family(self):
        return self.kind.split("-")[0]

    @property
    def task(self):
        return "app" if self.kind.endswith("-app") else "category"


def problem(ds, options):
    """(task, split) of a training: the paper's captures and labels that the dataset has."""
    sets = options.sets or ([SET] if SET in ds.meta["sets"] else None)
    labels = options.labels or (LABELS if sets == [SET] else None)
    make = {"app": data.app_task, "category": data.category_task}[options.task]
    task = make(ds, labels and labels[options.task])
    if not task.labels:
        raise data.DatasetError(f"{ds.directory}: no capture has a label as {task.name}")
    rows = data.rows_for(ds, "train", sets)
    rows = rows[task.target[rows] >= 0]
    parts = splits.make(options.split, ds, rows, task.target, options.split_seed)
    if options.split == "all":
        train.check(ds, rows, [task], parts)
    return task, parts


def learnt_rows(task, parts, seed):
    """The rows of the training part that are learnt from: at most so many of a class."""
    return _balanced(parts.train, task, splits.TRAIN, seed)


def _balanced(rows, task, share, seed):
    """Draws at most a class's cap from these rows, which are a share of all."""
    rng = np.random.default_rng(seed)
    target, cap = task.target[rows], round(CAPS[task.name] * share)
    kept = [rng.permutation(rows[target == label])[:cap] for label in np.unique(target)]
    return np.sort(np.concatenate(kept))


def build(spec):
    """The module that a spec describes, without weights."""
    [(task, labels)] = spec["labels"].items()
    if spec["kind"].startswith("sae"):
        return sae.PaperSAE(task, len(labels))
    return cnn.PaperCNN(task, len(labels), spec["convolutions"])


def fit(ds, options, directory, task, parts, log=print):
    """Trains on the training part of a split; returns the loop's state."""
    family = options.family
    batch = options.batch or BATCH[family]
    rows = learnt_rows(task, parts, options.seed)
    validation = _balanced(parts.validation, task, splits.VALIDATION, options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    packets, held = (
        torch.from_numpy(np.asarray(ds.packet[r])).to(device) for r in (rows, validation)
    )
    target, held_target = (torch.from_numpy(task.target[r]).to(device) for r in (rows, validation))
    convolutions = options.convolutions or cnn.CONVOLUTIONS[task.name]
    spec = {
        "kind": options.kind,
        "split": options.split,
        "seed": options.seed,
        "split_seed": options.split_seed,
        "sets": options.sets,
        "given_labels": options.labels,
        "labels": {task.name: task.labels},
        "batch": batch,
        "convolutions": [list(layer) for layer in convolutions] if family == "cnn" else None,
        "train_packets": len(parts.train),
        "used_packets": len(rows),
    }
    torch.manual_seed(options.seed)
    model = build(spec).to(device)
    log(f"{options.kind}: {len(rows)} packets to train on, {len(validation)} to validate")
    plan = loop.Plan(
        options.epochs or EPOCHS[family],
        patience=PATIENCE[family],
        max_minutes=options.max_minutes or MINUTES,
        keep=KEEP[family],
    )

    def order(count, epoch):
        """Row numbers in batches; a batch norm has no variance for a single packet."""
        drawn = torch.randperm(count, generator=train.generator(options.seed, epoch))
        return [part for part in drawn.split(batch) if len(part) > 1]

    def batches(epoch):
        for part in order(len(rows), epoch):
            yield packets[part], target[part]

    def step(model, batch):
        return functional.cross_entropy(model(batch[0])[task.name], batch[1])

    def validate(model):
        out = train.logits(model, held)[task.name]
        right = (out.argmax(1) == held_target).float().mean().item()
        return {"loss": functional.cross_entropy(out, held_target).item(), "accuracy": right}

    if family == "sae":
        plan.max_minutes /= 2  # the pre-training has the other half
        _pretrain(model, packets, held, order, plan, directory, spec, log)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    return loop.run(model, optimizer, None, plan, directory, batches, step, validate, spec, log)


def _pretrain(model, packets, held, order, plan, directory, spec, log):
    """Trains each layer as an autoencoder of what the layers before it give, into layerN."""
    inputs, held_inputs = packets.float() / 255, held.float() / 255
    weights = sum(layer[0].weight.numel() for layer in model.layers)
    for number, layer in enumerate(model.layers, 1):
        log(f"layer {number} of {len(model.layers)}, as an autoencoder")
        pair = sae.Autoencoder(layer).to(packets.device)

        def batches(epoch, inputs=inputs):
            for part in order(len(inputs), epoch):
                yield inputs[part]

        def step(pair, batch):
            return functional.mse_loss(pair(batch), batch)

        @torch.no_grad()
        def validate(pair, held_inputs=held_inputs):
            return {"loss": functional.mse_loss(pair(held_inputs), held_inputs).item()}

        where = f"{directory}/layer{number}"
        minutes = plan.max_minutes * layer[0].weight.numel() / weights
        own = loop.Plan(plan.epochs, max_minutes=minutes)
        optimizer = torch.optim.Adam(pair.parameters(), fused=True)
        about = {**spec, "layer": number}
        loop.run(pair, optimizer, None, own, where, batches, step, validate, about, log)
        pair.load_state_dict(loop.load(where)[1])
        with torch.no_grad():
            pair.eval()
            inputs, held_inputs = layer(inputs), layer(held_inputs)


def load(directory):
    """(spec, model, epoch) of a run of one of the paper's networks."""
    spec, weights, epoch = loop.load(directory)
    if spec["kind"] not in KINDS:
        raise Error(f"{directory}: a run of {spec['kind']}; dptrain export takes it")
    model = build(spec)
    model.load_state_dict(weights)
    return spec, model.eval(), epoch


def finished(ds, directory):
    """The train.Run that ``fit`` left in a directory."""
    spec, model, epoch = load(directory)
    names = ("kind", "split", "seed", "split_seed", "sets")
    options = Options(**{n: spec[n] for n in names}, labels=spec["given_labels"])
    task, parts = problem(ds, options)
    learnt = learnt_rows(task, parts, options.seed)
    return train.Run(spec, model, epoch, [task], parts, learnt)
