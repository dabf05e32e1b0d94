# SPDX-License-Identifier: Apache-2.0
"""One job of the evaluation: a model learns on one split's training part and is scored once.

A job leaves its predictions in ``WORK/predictions/NAME.npz``; every figure is made from these. A
job that measures shortcuts (``Job.perturbations``) also leaves those of the perturbed test part, in
``NAME.shortcuts.npz``. Each scoring of a test part is a line in ``WORK/tested.jsonl``.
"""

import ast
import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import baselines, data, net, shortcuts, train, train_default

SPLITS = ("packet", "flow", "capture", "elsewhere")
# Applications that the variant "leftout" never sees, neither as a class nor as a negative.
LEFT_OUT = ("hangouts", "netflix", "torrent")
# Never an accuracy claim: made by a traffic generator.
GENERATED = "ustc"


class NotTrained(Exception):
    """The network of a job has no finished run, and this process is not to train it."""


@dataclass(frozen=True)
class Job:
    """A model, the rows it learns from and the test part.

    kind is one of train.KINDS or baselines.KINDS. track "all" has all sets that may be trained on
    and both tasks, "iscx" the paper's rows of one task. The variants: "app" and "traffic" say
    which task of the paper a model learns that is not the paper's own; "leftout" learns without
    LEFT_OUT; "checksums" learns from the dataset that has them; "anonymous" learns from packets in
    which what names a connection or a host (the shortcut "together") is drawn anew.
    """

    kind: str
    track: str
    split: str
    seed: int = 0
    variant: str = ""

    @property
    def model(self):
        return f"{self.kind}-{self.variant}" if self.variant else self.kind

    @property
    def name(self):
        return f"{self.model}.{self.track}.{self.split}.{self.seed}"

    @property
    def learns(self):
        """The split that is trained on: elsewhere is tested with a model trained on everything."""
        return "all" if self.split == "elsewhere" else self.split

    @property
    def run(self):
        """The network's run directory below WORK/runs."""
        return f"{self.model}.{self.track}.{self.learns}.{self.seed}"

    @property
    def perturbations(self):
        """Names of the shortcuts that are measured."""
        if self.variant == "checksums":
            return ("checksums",)
        if self.variant == "leftout" or self.seed:
            return ()
        if self.split == "flow":
            return tuple(n for n in shortcuts.NAMES if n != "checksums")
        if self.split == "capture" and self.kind in ("default", "lightgbm") and self.track == "all":
            return ("together", "ipv6")
        return ()


@dataclass
class Problem:
    """What a job learns and is tested on: row numbers of the dataset."""

    options: train.Options
    tasks: list
    split: object
    learnt: np.ndarray
    test: np.ndarray


def parse(name):
    """The job that has this name."""
    try:
        model, track, split, seed = name.split(".")
        kinds = [k for k in (*train.KINDS, *baselines.KINDS) if model in (k, *_variants(k))]
        [kind] = kinds
        job = Job(kind, track, split, int(seed), model[len(kind) + 1 :])
    except ValueError:
        raise data.DatasetError(f"no job {name!r}; a job is MODEL.TRACK.SPLIT.SEED") from None
    if track not in ("all", "iscx") or split not in SPLITS:
        raise data.DatasetError(f"{name}: tracks are all, iscx; splits are {', '.join(SPLITS)}")
    if kind not in train.PAPER and (track == "iscx") != (job.variant in ("app", "traffic")):
        raise data.DatasetError(f"{name}: -app and -traffic go with the track iscx, as it does")
    return job


def _variants(kind):
    if kind in train.PAPER:
        return [f"{kind}-checksums"]
    return [f"{kind}-{v}" for v in ("app", "traffic", "leftout", "checksums", "anonymous")]


def problem(ds, job):
    """The rows of a job; the report makes the same again from the name."""
    net_of_paper = job.kind in train.PAPER
    like, sets = "default", None
    if net_of_paper:
        like = job.kind
    elif job.track == "iscx":
        like = f"cnn-{job.variant}"
    if net_of_paper and job.track == "all":
        sets = sorted({c["set"] for c in ds.captures if c["use"] == "train"})
    options = train.Options(kind=like, split=job.learns, seed=job.seed, sets=sets)
    tasks, split = train.problem(ds, options)
    if job.kind == "default" and job.track == "iscx":
        options.kind, options.sets = "default", ["iscx"]
    if job.variant == "leftout":
        tasks, split = _without(ds, tasks, split)
    learnt = train.learnt_rows(ds, options, split)
    test = split.test if job.split != "elsewhere" else elsewhere_rows(ds, tasks[0])
    return Problem(options, tasks, split, learnt, test)


def elsewhere_rows(ds, task):
    """Rows of sets that nothing is trained on: those with a label, and those of no class."""
    rows = data.rows_for(ds, "evaluate")
    return rows[(task.target[rows] != -1) & (ds.capture_column("set")[rows] != GENERATED)]


def _without(ds, tasks, split):
    """The default's problem without the applications LEFT_OUT; they stay in the test part alone."""
    category, app = tasks
    out = np.isin(ds.names("app", "apps"), LEFT_OUT)
    labels = [name for name in app.labels if name not in LEFT_OUT]
    left = data.app_task(ds, labels)
    left.target[out] = -1
    split.train, split.validation = (part[~out[part]] for part in (split.train, split.validation))
    return [category, left], split


def done(ds, work, job):
    """Whether the predictions are there, of the rows and of the recipe as they are now."""
    path = _path(work, job)
    if not path.is_file() or (job.perturbations and not _shortcuts_path(work, job).is_file()):
        return False
    p = problem(ds, job)
    with np.load(path) as stored:
        same = json.loads(str(stored["meta"]))["recipe"] == recipe(job, len(p.learnt))
        return (
            same
            and np.array_equal(stored["test_rows"], p.test)
            and np.array_equal(stored["validation_rows"], p.split.validation)
        )


def recipe(job, packets):
    """A hash of what the default net is and how it is trained; '' for the other models.

    It is of the code without comments and docstrings, and of the options as they are by default
    with so many packets to learn from.
    """
    if job.kind != "default":
        return ""
    options = train.Options("default", "all")
    train.enough_steps(options, packets)
    digest = hashlib.sha256(repr(options).encode())
    for module in (net, train_default):
        tree = ast.parse(Path(module.__file__).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
                node, clean=False
            ):
                node.body = node.body[1:]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:16]


def run(ds, job, work, threads=1, training=True, log=print):
    """Trains what is not trained yet, predicts, stores; returns the meta data."""
    work = Path(work)
    (work / "predictions").mkdir(parents=True, exist_ok=True)
    p = problem(ds, job)
    fit = _baseline if job.kind in baselines.KINDS else _network
    predict, about = fit(ds, job, p, work, threads, training, log)
    began = time.monotonic()
    arrays = {"test_rows": p.test, "validation_rows": p.split.validation}
    for part in ("test", "validation"):
        for task, values in predict(np.asarray(ds.packet[arrays[f"{part}_rows"]])).items():
            arrays[f"{part}_{task}"] = values.astype(np.float32)
    if job.perturbations:
        _save(_shortcuts_path(work, job), _perturbed(ds, job, p.test, predict))
    meta = {
        "model": job.model,
        "track": job.track,
        "split": job.split,
        "seed": job.seed,
        "labels": {t.name: t.labels for t in p.tasks},
        "train_packets": len(p.learnt),
        "train_flows": len(np.unique(ds.flow[p.learnt])),
        **about,
        "scoring_seconds": round(time.monotonic() - began, 1),
        "recipe": recipe(job, len(p.learnt)),
        "dataset": {k: ds.meta[k] for k in ("packets", "flows", "vector", "checksums")},
    }
    _save(_path(work, job), {**arrays, "meta": np.array(json.dumps(meta))})
    _log_test(work, job, arrays)
    return meta


def _perturbed(ds, job, rows, predict):
    """Predictions over ``rows`` with each of the job's perturbations; the same draw for all."""
    out = {}
    for name in job.perturbations:
        for task, values in predict(_perturb(ds, rows, name)).items():
            out[f"{name}_{task}"] = values.astype(np.float16)
    return out


def _perturb(ds, rows, name):
    """The packets of these rows with one shortcut drawn anew, each time in the same way."""
    rng = np.random.default_rng([0, list(shortcuts.NAMES).index(name)])
    columns = (c[rows] for c in (ds.packet, ds.l4_offset, ds.payload_offset, ds.flow))
    return shortcuts.perturb(*columns, name, rng)


def _baseline(ds, job, p, work, threads, training, log):
    """Fits one model a task; (predict, what the meta data says of it)."""
    models = {}
    began = time.monotonic()
    for task in p.tasks:
        rows = p.learnt[task.target[p.learnt] >= 0]
        # The paper's rows are balanced by under-sampling.
        weight = train.row_weights(ds, rows, task) if job.track == "all" else np.ones(len(rows))
        anonymous = job.variant == "anonymous"
        packets = _perturb(ds, rows, "together") if anonymous else np.asarray(ds.packet[rows])
        of_labels = task.target[rows], weight, len(task.labels)
        models[task.name] = baselines.fit(job.kind, packets, *of_labels, job.seed, threads)
        log(f"{job.name}: {task.name} of {len(rows)} packets, {time.monotonic() - began:.0f} s")
    about = {"parameters": None, "mac": None, "seconds": round(time.monotonic() - began, 1)}
    return lambda packets: {t: m.predict(packets) for t, m in models.items()}, about


def _network(ds, job, p, work, threads, training, log):
    """Trains the network, or goes on with it; the same pair."""
    directory = work / "runs" / job.run
    if job.kind == "default":
        _forget_other_recipe(directory, recipe(job, len(p.learnt)))
    if not _finished(directory):
        if not training:
            raise NotTrained(f"{directory} is not finished")
        if job.kind == "default" and job.variant:  # tasks or rows of its own
            train.fit(ds, p.options, directory, p.tasks, p.split, log)
        else:
            train.train(ds, p.options, directory, log)
    _, model, _ = train.load(directory)
    about = {
        "parameters": sum(w.numel() for w in model.parameters()),
        "mac": model.mac(),
        "seconds": round(_seconds(directory), 1),
    }
    return lambda packets: train.predict(model, packets), about


def _forget_other_recipe(directory, now):
    """A run of another recipe is not gone on with."""
    note = directory / "recipe"
    if directory.is_dir() and (not note.is_file() or note.read_text().strip() != now):
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    note.write_text(now + "\n")


def _finished(directory):
    history = directory / "history.json"
    return history.is_file() and bool(json.loads(history.read_text())["finished"])


def _seconds(directory):
    """Of training, that of an autoencoder's layers included."""
    histories = [json.loads(path.read_text()) for path in directory.rglob("history.json")]
    return sum(h["seconds"] for h in histories)


def _path(work, job):
    return Path(work) / "predictions" / f"{job.name}.npz"


def _shortcuts_path(work, job):
    return Path(work) / "predictions" / f"{job.name}.shortcuts.npz"


def _save(path, arrays):
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(temporary, path)


def _log_test(work, job, arrays):
    """One line a scoring of a test part; the same predictions again add none."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        if name.startswith("test_"):
            digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    path, found = work / "tested.jsonl", digest.hexdigest()
    lines = path.read_text().splitlines() if path.is_file() else []
    mine = [r for r in map(json.loads, lines) if r["job"] == job.name]
    if mine and mine[-1]["sha256"] == found:
        return
    record = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "job": job.name}
    with path.open("a") as file:
        file.write(json.dumps({**record, "sha256": found}) + "\n")
