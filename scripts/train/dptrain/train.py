# SPDX-License-Identifier: Apache-2.0
"""Trains the default network on a dataset into a run directory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from . import Error, calibration, data, loop, net, split

KIND = "default"
BATCH, EPOCHS = 256, 14
# With fewer packets than this to learn from: smaller batches, and at least STEPS steps.
FEW, STEPS = 10_000, 600
RATE, DECAY = 2e-3, 0.01
AVERAGE = 0.995
SMOOTHING = 0.05
REDRAWN = 0.3  # share of the packets in which an identifying field is replaced, see net.redraw
NEGATIVES = 0.3  # weight of traffic of no class
# A quarter of the shipped packets have an application; the weight makes up for some of that.
WEIGHTS = {"app": 1.5}


@dataclass
class Options:
    """What the user chooses; 0 and None leave the choice to the network or the data."""

    seed: int = 0
    sets: list | None = None
    beside: list | None = None  # sets that every network learns from, and none is judged on
    labels: dict | None = None  # by task
    folds: int = 0  # networks that calibrate it, each trained without a part of the captures
    epochs: int = 0
    batch: int = 0
    max_minutes: float = 0.0
    split: str = "all"  # the name of the split that ``fit`` is given


@dataclass
class Run:
    """A finished training and what it is about."""

    spec: dict
    model: torch.nn.Module
    epoch: int
    tasks: list
    split: split.Split
    learnt: np.ndarray  # rows
    judges: list  # (model, rows that it was not trained on), to calibrate with


def train(ds, options, directory, log=print):
    """Trains a network for use; returns the loop's state.

    Without folds a tenth of the flows is kept out and calibrates it. With them it is trained on all
    flows, and calibrated by networks that were trained without the captures that they judge, in
    ``directory``/fold-1 and so on.
    """
    tasks, parts = problem(ds, options)
    for number, part in enumerate(folds(ds, options, tasks, parts), 1):
        log(f"fold {number} of {options.folds}")
        fit(ds, options, fold_directory(directory, number), tasks, part, log)
    return fit(ds, options, directory, tasks, parts, log)


def fold_directory(directory, number):
    """Where the run of a fold is, from 1."""
    return Path(directory) / f"fold-{number}"


def folds(ds, options, tasks, parts):
    """The split of each fold: its validation part has the captures that are left out."""
    if not options.folds:
        return []
    rows = parts.train
    judged = ~besides(ds, rows, options)
    fold = np.full(len(rows), options.folds)  # no part leaves out a row with this number
    fold[judged] = split.folds(ds, rows[judged], strata(tasks), options.folds)
    none = rows[:0]
    return [split.Split(rows[fold != f], rows[fold == f], none) for f in range(options.folds)]


def problem(ds, options):
    """(tasks, split) of a training, checked; the export computes the same again."""
    tasks, rows = labelled(ds, options.sets, options.labels)
    beside = besides(ds, rows, options)
    parts = split.hold_out(ds, rows[~beside], strata(tasks), 0)
    check(ds, rows, tasks, parts)
    if options.folds:
        return tasks, split.Split(rows, rows[:0], rows[:0])
    return tasks, split.Split(np.union1d(parts.train, rows[beside]), parts.validation, parts.test)


def besides(ds, rows, options):
    """Which rows are of the sets that no network is judged on."""
    data.known_sets(ds, options.beside)
    return np.isin(ds.capture_column("set")[rows], options.beside or [])


def labelled(ds, sets=None, labels=None):
    """(tasks, rows): the tasks that the dataset has labels for, and the rows that one uses."""
    rows = data.rows_for(ds, "train", sets)
    labels = labels or {}
    tasks = [data.category_task(ds, labels.get("category")), data.app_task(ds, labels.get("app"))]
    tasks = [task for task in tasks if task.labels]
    if not tasks:
        raise data.DatasetError(f"{ds.directory}: no capture has a label as category or app")
    return tasks, rows[np.any([task.target[rows] != data.UNUSED for task in tasks], axis=0)]


def strata(tasks):
    """One number for the targets of all tasks, so that a split has every class on each side."""
    return sum(task.target * factor for task, factor in zip(tasks, (1000, 1), strict=False))


def check(ds, rows, tasks, parts):
    """Rejects labels that cannot be learnt, and data of which no flow can be held out."""
    for task in tasks:
        target, flow = task.target[rows], ds.flow[rows]
        flows = [len(np.unique(flow[target == i])) for i in range(len(task.labels))]
        few = [f"{name} ({n})" for name, n in zip(task.labels, flows, strict=True) if n < 2]
        if len(task.labels) < 2 or few:
            raise data.DatasetError(
                f"{ds.directory}: {task.name} has too few labels or flows: "
                f"{', '.join(few or task.labels)}; a model needs two labels, of two flows each"
            )
    if not len(parts.validation):
        raise data.DatasetError(
            f"{ds.directory}: {len(np.unique(ds.flow[rows]))} flows in all; the calibration needs "
            "flows that are held out, and fewer than six are too few for that"
        )


def learnt_rows(ds, parts):
    """The rows of the training part that the network learns from: what the agent samples."""
    return parts.train[ds.index[parts.train] < ds.aggregation.samples]


def steps_for(options, packets):
    """(batch, epochs): smaller batches and more epochs if there are few packets."""
    batch, epochs = options.batch or BATCH, options.epochs or EPOCHS
    if packets >= FEW:
        return batch, epochs
    batch = options.batch or min(BATCH, max(16, packets // 16))
    return batch, options.epochs or max(EPOCHS, -(-STEPS // -(-packets // batch)))


def fit(ds, options, directory, tasks, parts, log=print):
    """Trains on the training part of a split; returns the loop's state."""
    rows = learnt_rows(ds, parts)
    batch, epochs = steps_for(options, len(rows))
    shape = net.Shape(labels={t.name: t.labels for t in tasks})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs = net.read_rows(ds.packet, rows, shape.payload)
    thresholds = net.choose_thresholds(net.fields_of(*inputs).numpy(), shape.bins)
    header, body, length = (x.to(device) for x in inputs)
    targets = {t.name: torch.from_numpy(t.target[rows]).to(device) for t in tasks}
    torch.manual_seed(options.seed)
    model = net.DefaultNet(shape, thresholds).to(device)
    held = parts.validation[ds.index[parts.validation] < ds.aggregation.samples]
    held_input = [x.to(device) for x in net.read_rows(ds.packet, held, shape.payload)]
    weight = torch.from_numpy(net.sample_weights(ds.flow[rows], tasks[0].target[rows]))
    log(
        f"{KIND}: {len(rows)} packets to train on, {len(held)} to validate, "
        f"{len(model.threshold)} thermometer steps, {model.mac() / 1e6:.2f} MMAC"
    )

    def batches(epoch):
        rng = generator(options.seed, epoch)
        order = torch.multinomial(weight, len(rows), replacement=True, generator=rng)
        for part in order.split(batch):
            drawn = net.redraw(header[part], REDRAWN, rng)
            yield (
                (drawn, body[part], length[part]),
                {task: target[part] for task, target in targets.items()},
            )

    def step(model, batch):
        return net.loss(model(*batch[0]), batch[1], SMOOTHING, NEGATIVES, WEIGHTS)

    def validate(model):
        figures = {"loss": 0.0}
        if not len(held):
            return figures
        out = {task: x.cpu() for task, x in logits(model, *held_input).items()}
        for task in tasks:
            truth = task.target[held]
            known = truth >= 0
            if not known.any():
                continue
            p = torch.softmax(out[task.name], 1).numpy()
            labels = torch.from_numpy(truth[known])
            figures["loss"] += functional.cross_entropy(out[task.name][known], labels).item()
            judged = calibration.Judged.known(p, truth, ds.flow[held], ds.index[held])
            by = calibration.by_packet_and_flow(judged, ds.aggregation)
            figures[task.name] = by["flow"]["macro_f1"]
        return figures

    plan = loop.Plan(epochs, max_minutes=options.max_minutes, average=AVERAGE, keep="last")
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    steps = epochs * -(-len(rows) // batch)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1)
    spec = {
        "kind": KIND,
        "split": options.split,
        "seed": options.seed,
        "sets": options.sets,
        "beside": options.beside,
        "given_labels": options.labels,
        "folds": options.folds,
        "labels": shape.labels,
        "batch": batch,
        "epochs": epochs,
        "shape": net.shape_to_dict(shape),
        "thresholds": [t.tolist() for t in thresholds],
        "train_packets": len(parts.train),
        "used_packets": len(rows),
    }
    return loop.run(
        model, optimizer, scheduler, plan, directory, batches, step, validate, spec, log
    )


def load(directory):
    """(spec, model, epoch) of a run of this network."""
    spec, weights, epoch = loop.load(directory)
    if spec["kind"] != KIND:
        raise Error(f"{directory}: a run of {spec['kind']}, not of the network {KIND}")
    thresholds = [np.array(t, dtype=np.float32) for t in spec["thresholds"]]
    model = net.DefaultNet(net.shape_from_dict(spec["shape"]), thresholds)
    model.load_state_dict(weights)
    return spec, model.eval(), epoch


def finished(ds, directory):
    """The Run that ``train`` left in a directory."""
    spec, model, epoch = load(directory)
    if spec["split"] != Options.split:
        raise Error(f"{directory}: trained for a test on the split {spec['split']!r}, not for use")
    names = {k: k for k in ("seed", "sets", "beside", "folds")} | {"labels": "given_labels"}
    options = Options(**{name: spec.get(key) for name, key in names.items()})
    tasks, parts = problem(ds, options)
    judges = [
        (load(fold_directory(directory, number))[1], part.validation)
        for number, part in enumerate(folds(ds, options, tasks, parts), 1)
    ]
    learnt = learnt_rows(ds, parts)
    return Run(spec, model, epoch, tasks, parts, learnt, judges or [(model, parts.validation)])


@torch.no_grad()
def predict(model, packets, chunk=4096):
    """Softmax probabilities by task, as numpy, of uint8 packets [N, 1500]."""
    model.eval()
    device = next(model.parameters()).device
    out = {}
    for at in range(0, len(packets), chunk):
        part = torch.from_numpy(np.array(packets[at : at + chunk])).to(device)
        for begin in range(0, len(part), 256):
            for task, values in model(*model.inputs(part[begin : begin + 256])).items():
                out.setdefault(task, []).append(torch.softmax(values, 1).cpu())
    return {task: torch.cat(v).numpy() for task, v in out.items()}


@torch.no_grad()
def logits(model, *inputs, batch=256):
    """The outputs of a model by task, over many rows of its inputs."""
    model.eval()
    parts = [model(*part) for part in zip(*(i.split(batch) for i in inputs), strict=True)]
    return {task: torch.cat([p[task] for p in parts]) for task in parts[0]}


def generator(seed, epoch):
    """The random numbers of an epoch, whatever was drawn before it."""
    return torch.Generator().manual_seed(seed * 1000 + epoch)
