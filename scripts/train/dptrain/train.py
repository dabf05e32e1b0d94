# SPDX-License-Identifier: Apache-2.0
"""Trains one network on one split into a run directory."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from . import cnn, data, loop, metrics, net, splits

KINDS = ("default", "cnn-app", "cnn-traffic")
# The paper's nets learn from the paper's data set; the default from everything that may be used.
SETS = {"default": None, "cnn-app": ["iscx"], "cnn-traffic": ["iscx"]}
# Packets of a class at most, so that the CNNs' classes are roughly balanced.
CAPS = {"cnn-app": 600, "cnn-traffic": 1000}
FIRST = 5  # packets of a flow that the default net learns from


@dataclass
class Options:
    """The command line's choices."""

    kind: str
    split: str
    seed: int = 0
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
    sets = options.sets or SETS[options.kind]
    rows = data.rows_for(ds, "train", sets)
    if options.kind == "default":
        tasks = [data.category_task(ds), data.app_task(ds)]
        wanted = np.any([t.target[rows] != -1 for t in tasks], axis=0)
        rows = rows[wanted]
        # Split by the category and the application together: both heads meet every class.
        target = tasks[0].target * 1000 + tasks[1].target
    elif options.kind == "cnn-app":
        tasks = [data.app_task(ds)]
    else:
        tasks = [data.category_task(ds, data.CATEGORIES[:12])]
    if options.kind != "default":
        target = tasks[0].target
        rows = rows[target[rows] >= 0]
    for task in tasks:
        missing = set(range(len(task.labels))) - set(task.target[rows].tolist())
        if missing and options.split == "all":
            names = ", ".join(task.labels[i] for i in sorted(missing))
            raise data.DatasetError(
                f"{ds.directory}: no packet of {names}; the model cannot have that class"
            )
    return tasks, splits.make(options.split, ds, rows, target, options.seed)


def train(ds, options, directory, log=print):
    """Trains what ``options`` say; returns the state of the loop."""
    tasks, split = problem(ds, options)
    if options.kind == "default":
        return _train_default(ds, options, directory, tasks, split, log)
    return _train_cnn(ds, options, directory, tasks[0], split, log)


def spec_of(options, tasks, split, **more):
    """What a checkpoint says of itself; a resumed run must say the same."""
    return {
        "kind": options.kind,
        "split": options.split,
        "seed": options.seed,
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


def _train_cnn(ds, options, directory, task, split, log):
    options.batch = options.batch or 64
    cap = CAPS[options.kind]
    rows = learnt_rows(ds, options, split)
    validation = data.under_sample(
        split.validation, task.target, round(cap * splits.VALIDATION), options.seed
    )
    packets = torch.from_numpy(np.asarray(ds.packet[rows]))
    target = torch.from_numpy(task.target[rows])
    held = torch.from_numpy(np.asarray(ds.packet[validation]))
    held_target = torch.from_numpy(task.target[validation])
    torch.manual_seed(options.seed)
    model = cnn.PaperCNN(task.name, len(task.labels))
    log(f"{options.kind}: {len(rows)} packets to train on, {len(validation)} to validate")

    def batches(epoch):
        order = torch.randperm(len(rows), generator=_generator(options.seed, epoch))
        # A last batch of one packet has no variance for the batch norm.
        for part in order.split(options.batch):
            if len(part) > 1:
                yield packets[part], target[part]

    def step(model, batch):
        return functional.cross_entropy(model(batch[0])[task.name], batch[1])

    def validate(model):
        out = logits(model, held)[task.name]
        right = (out.argmax(1) == held_target).float().mean().item()
        return {"loss": functional.cross_entropy(out, held_target).item(), "accuracy": right}

    plan = loop.Plan(options.epochs or 300, patience=5, max_minutes=options.max_minutes)
    spec = spec_of(options, [task], split, used_packets=len(rows))
    optimizer = torch.optim.Adam(model.parameters())
    return loop.run(model, optimizer, None, plan, directory, batches, step, validate, spec, log)


def _train_default(ds, options, directory, tasks, split, log):
    options.batch = options.batch or 256
    epochs = options.epochs or 14
    rows = learnt_rows(ds, options, split)
    shape = net.Shape(labels={t.name: t.labels for t in tasks}, **(options.shape or {}))
    ip, l4, payload = read_rows(ds, rows, shape.payload())
    targets = {t.name: torch.from_numpy(t.target[rows]) for t in tasks}
    values = net.thermometer_values(net.fields_of(ip, l4, payload)).numpy()
    thresholds = net.choose_thresholds(values, shape)
    torch.manual_seed(options.seed)
    model = net.DefaultNet(shape, thresholds)
    held = split.validation[ds.index[split.validation] < metrics.SAMPLES]
    held_input = read_rows(ds, held, shape.payload())
    weight = torch.from_numpy(net.sample_weights(ds.flow[rows], tasks[0].target[rows]))
    log(
        f"default: {len(rows)} packets to train on, {len(held)} to validate, "
        f"{len(model.offset)} thermometer steps, {model.mac() / 1e6:.2f} MMAC"
    )

    def batches(epoch):
        rng = _generator(options.seed, epoch)
        order = torch.multinomial(weight, len(rows), replacement=True, generator=rng)
        for part in order.split(options.batch):
            inputs = ip[part], l4[part], payload[part]
            if options.augment:
                inputs = net.augment(*inputs, options.augment, rng)
            yield inputs, {task: target[part] for task, target in targets.items()}

    def step(model, batch):
        return net.loss(model(*batch[0]), batch[1], 0.05, options.negatives)

    def validate(model):
        figures = {"loss": 0.0}
        out = logits(model, *held_input)
        for task in tasks:
            truth = task.target[held]
            known = truth >= 0
            if not known.any():
                continue
            p = torch.softmax(out[task.name], 1).numpy()
            labelled = torch.from_numpy(truth[known])
            figures["loss"] += functional.cross_entropy(out[task.name][known], labelled).item()
            by = metrics.by_packet_and_flow(p, truth, ds.flow[held], ds.index[held])
            figures[task.name] = by["flow"]["macro_f1"]
        return figures

    plan = loop.Plan(epochs, max_minutes=options.max_minutes, average=0.995, keep="last")
    steps = epochs * -(-len(rows) // options.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
    spec = spec_of(
        options,
        tasks,
        split,
        epochs=epochs,
        shape=net.shape_to_dict(shape),
        thresholds=[t.tolist() for t in thresholds],
        used_packets=len(rows),
    )
    return loop.run(
        model, optimizer, scheduler, plan, directory, batches, step, validate, spec, log
    )


def build(spec):
    """The module that a spec describes, without weights."""
    if spec["kind"] == "default":
        thresholds = [np.array(t, dtype=np.float32) for t in spec["thresholds"]]
        return net.DefaultNet(net.shape_from_dict(spec["shape"]), thresholds)
    [(task, labels)] = spec["labels"].items()
    return cnn.PaperCNN(task, len(labels))


def load(directory):
    """A run's spec and its best model, ready to be used."""
    spec, weights, epoch = loop.load(directory)
    model = build(spec)
    model.load_state_dict(weights)
    return spec, model.eval(), epoch


def options_of(spec):
    """The options that ``problem`` needs, out of a spec."""
    names = ("kind", "split", "seed", "sets", "first")
    return Options(**{name: spec[name] for name in names})


def read_rows(ds, rows, payload):
    """What the default net reads of these rows."""
    parts = [
        net.read(torch.from_numpy(np.asarray(ds.packet[r])), payload)
        for r in np.array_split(rows, max(1, len(rows) // 4096))
    ]
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


@torch.no_grad()
def logits(model, *inputs, batch=256):
    """A model's outputs over many rows."""
    model.eval()
    parts = [model(*part) for part in zip(*(i.split(batch) for i in inputs), strict=True)]
    return {task: torch.cat([p[task] for p in parts]) for task in parts[0]}


def probabilities(ds, model, spec, rows):
    """Softmax probabilities by task, as numpy."""
    if spec["kind"] == "default":
        out = {}
        for part in np.array_split(rows, max(1, len(rows) // 8192)):
            inputs = read_rows(ds, part, model.shape.payload())
            for task, values in logits(model, *inputs).items():
                out.setdefault(task, []).append(values)
    else:
        out = {}
        for part in np.array_split(rows, max(1, len(rows) // 2048)):
            packets = torch.from_numpy(np.asarray(ds.packet[part]))
            for task, values in logits(model, packets).items():
                out.setdefault(task, []).append(values)
    return {t: torch.softmax(torch.cat(v), 1).numpy() for t, v in out.items()}


def _generator(seed, epoch):
    return torch.Generator().manual_seed(seed * 1000 + epoch)
