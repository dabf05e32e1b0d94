# SPDX-License-Identifier: Apache-2.0
"""Runs jobs: trains, predicts, stores.

A job leaves its predictions in ``WORK/predictions/NAME.npz``; every figure is made from these. A
job that measures shortcuts also leaves those of the perturbed test part, in
``NAME.shortcuts.npz``. Each scoring of a test part is a line in ``WORK/tested.jsonl``.
"""

import ast
import fnmatch
import functools
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np

import dptrain
from dptrain import data, loop, train

from .. import paper
from ..paper import nets
from . import baselines, plan, shortcuts
from .job import problem


class NotTrained(Exception):
    """The network of a job has no finished run, and this process must not train it."""


def run_all(
    ds, work, planned, checksums=None, only=None, skip=None, threads=1, training=True, log=print
):
    """Runs those of the planned jobs that are not done; returns the names of those that failed.

    checksums is the dataset that was built with them, or None. only and skip are lists of patterns
    of job names.
    """
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    _hold_to_dataset(ds, work)
    if checksums and not (checksums.meta["checksums"] and len(checksums) == len(ds)):
        raise data.DatasetError(f"{checksums.directory}: not {ds.directory} with --checksums")
    chosen = [job for job in planned if _matches(job.name, only, skip)]
    todo = [job for job in chosen if not done(ds, work, job)]
    log(f"{len(chosen)} jobs, {len(chosen) - len(todo)} of them done already")
    failed, spent, expected = [], 0.0, 0.0
    for number, job in enumerate(todo):
        pace = spent / expected if expected else 1.0
        left = pace * sum(plan.SECONDS[j.kind] for j in todo[number:])
        log(f"[{number + 1}/{len(todo)}] {job.name}, about {loop.clock(left)} left")
        began = time.monotonic()
        source = checksums if job.variant == "checksums" else ds
        try:
            meta = run(source, job, work, threads, training, lambda s: log(f"    {s}"))
        except NotTrained as reason:
            log(f"    left out: {reason}")
            continue
        # Whatever happens to one job, the hours of the others must not be lost.
        except Exception as error:
            log(f"    FAILED: {error!r}")
            failed.append(job.name)
            continue
        took = time.monotonic() - began
        if took > meta["seconds"]:  # otherwise most of the training was done before
            spent, expected = spent + took, expected + plan.SECONDS[job.kind]
    return failed


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
        _save(shortcuts_path(work, job.name), _perturbed(ds, job, p.test, predict))
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
        "recipe": recipe(),
        "dataset": {k: ds.meta[k] for k in ("packets", "flows", "vector", "checksums")},
    }
    _save(path_of(work, job.name), {**arrays, "meta": np.array(json.dumps(meta))})
    _log_test(work, job, arrays)
    return meta


def done(ds, work, job):
    """Whether the predictions are there, from the code and the rows as they are now."""
    path = path_of(work, job.name)
    if job.perturbations and not shortcuts_path(work, job.name).is_file():
        return False
    return path.is_file() and is_current(path, problem(ds, job))


def is_current(path, p):
    """Whether a file of predictions was made with today's code and rows."""
    with np.load(path) as stored:
        return (
            json.loads(str(stored["meta"]))["recipe"] == recipe()
            and np.array_equal(stored["test_rows"], p.test)
            and np.array_equal(stored["validation_rows"], p.split.validation)
        )


@functools.cache
def recipe():
    """A hash of all code that a job's result depends on, without comments and docstrings."""
    digest = hashlib.sha256()
    for path in files():
        digest.update(path.name.encode())
        is_code = path.suffix == ".py"
        digest.update(code_of(path.read_text()).encode() if is_code else path.read_bytes())
    return digest.hexdigest()[:16]


def files():
    """The files of the packages that train, split and test."""
    folders = [Path(package.__file__).resolve().parent for package in (dptrain, paper, baselines)]
    return sorted(p for folder in folders for p in folder.iterdir() if p.is_file())


def code_of(text):
    """The syntax tree of Python source without docstrings, as text."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def path_of(work, name):
    """The file of a job's predictions."""
    return Path(work) / "predictions" / f"{name}.npz"


def shortcuts_path(work, name):
    """The file of a job's predictions over perturbed packets."""
    return Path(work) / "predictions" / f"{name}.shortcuts.npz"


def stored(work):
    """The names of the jobs that have predictions."""
    names = [p.name[: -len(".npz")] for p in (Path(work) / "predictions").glob("*.npz")]
    return sorted(name for name in names if not name.endswith(".shortcuts"))


def _perturbed(ds, job, rows, predict):
    """Predictions over ``rows`` with each of the job's perturbations; the same draw for all."""
    out = {}
    for name in job.perturbations:
        for task, values in predict(_perturb(ds, rows, name)).items():
            out[f"{name}_{task}"] = values.astype(np.float16)
    return out


def _perturb(ds, rows, name):
    """The packets of these rows with one shortcut redrawn, each time in the same way."""
    rng = np.random.default_rng([0, list(shortcuts.NAMES).index(name)])
    columns = (c[rows] for c in (ds.packet, ds.l4_offset, ds.payload_offset, ds.flow))
    return shortcuts.perturb(*columns, name, rng)


def _baseline(ds, job, p, work, threads, training, log):
    """Fits one model a task; returns (predict, what the meta data says about it)."""
    models = {}
    began = time.monotonic()
    for task in p.tasks:
        rows = p.learnt[task.target[p.learnt] >= 0]
        # The paper's rows are balanced by under-sampling.
        weight = baselines.weights(ds, rows, task) if job.track == "all" else np.ones(len(rows))
        packets = np.asarray(ds.packet[rows])
        of_labels = task.target[rows], weight, len(task.labels)
        models[task.name] = baselines.fit(job.kind, packets, *of_labels, job.seed, threads)
        log(f"{job.name}: {task.name} of {len(rows)} packets, {time.monotonic() - began:.0f} s")
    about = {"parameters": None, "mac": None, "seconds": round(time.monotonic() - began, 1)}
    return lambda packets: {t: m.predict(packets) for t, m in models.items()}, about


def _network(ds, job, p, work, threads, training, log):
    """Trains the network, or continues its training; returns the same pair."""
    # Other code does not continue a run, and does not remove it.
    directory = work / "runs" / recipe() / job.run
    if not _finished(directory):
        if not training:
            raise NotTrained(f"{directory} is not finished")
        if job.kind == "default":
            options = train.Options(seed=job.seed, split=job.learns)
            train.fit(ds, options, directory, p.tasks, p.split, log)
        else:
            options = nets.Options(job.kind, job.learns, job.seed)
            nets.fit(ds, options, directory, p.tasks[0], p.split, log)
    load = train.load if job.kind == "default" else nets.load
    _, model, _ = load(directory)
    about = {
        "parameters": sum(w.numel() for w in model.parameters()),
        "mac": model.mac(),
        "seconds": round(_seconds(directory), 1),
    }
    return lambda packets: train.predict(model, packets), about


def _finished(directory):
    history = directory / "history.json"
    return history.is_file() and bool(json.loads(history.read_text())["finished"])


def _seconds(directory):
    """Of training, with that of an autoencoder's layers."""
    histories = [json.loads(path.read_text()) for path in directory.rglob("history.json")]
    return sum(h["seconds"] for h in histories)


def _save(path, arrays):
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(temporary, path)


def _log_test(work, job, arrays):
    """Adds a line for a scoring of a test part, unless the last one had the same predictions."""
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


def _matches(name, only, skip):
    def fits(patterns):
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return (not only or fits(only)) and not fits(skip or [])


def _hold_to_dataset(ds, work):
    """Predictions are by row number, so a directory belongs to one dataset."""
    note = work / "dataset.json"
    about = {key: ds.meta[key] for key in ("packets", "flows", "per_flow", "sets")}
    if note.is_file() and json.loads(note.read_text()) != about:
        raise data.DatasetError(f"{work}: made from another dataset; choose another directory")
    note.write_text(json.dumps(about) + "\n")
