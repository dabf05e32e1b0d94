# SPDX-License-Identifier: Apache-2.0
"""The whole evaluation, job by job: what there is to do, in which order, and how long it takes."""

import fnmatch
import json
import time
from pathlib import Path

from . import baselines, data, jobs, loop, train

SEEDS = (0, 1, 2)
# Seconds of a job on one core of 2025, for the time left before anything was measured.
SECONDS = {
    "default": 120,
    "lightgbm": 130,
    "random-forest": 40,
    "random-forest-4": 15,
    "decision-tree": 5,
    "logistic-regression": 120,
    "naive-bayes": 10,
    **dict.fromkeys(train.PAPER, 1800),
}
SHALLOW = [kind for kind in baselines.KINDS if kind not in ("lightgbm", "random-forest")]


def plan(with_checksums=False):
    """Every job, the cheap and the important ones first."""
    order = ("capture", "flow", "elsewhere", "packet")
    out = [
        jobs.Job(kind, "all", split, seed)
        for seed in SEEDS
        for split in order
        for kind in ("default", "lightgbm")
    ]
    out += [jobs.Job("default", "all", "flow", 0, "leftout")]
    out += [jobs.Job("lightgbm", "all", "capture", seed, "anonymous") for seed in SEEDS]
    once = ("packet", "flow", "elsewhere")
    out += [jobs.Job("lightgbm", "all", split, 0, "anonymous") for split in once]
    out += [jobs.Job(k, "all", s) for k in ("random-forest", *SHALLOW) for s in order]
    ours = ("default", "lightgbm", "random-forest", *SHALLOW)
    own_split = ("flow", "capture", "packet")
    out += [
        jobs.Job(kind, "iscx", split, 0, task)
        for kind in ours
        for split in own_split
        for task in ("traffic", "app")
    ]
    nets = ("cnn-traffic", "cnn-app", "sae-traffic", "sae-app")
    out += [jobs.Job(kind, "iscx", split) for kind in nets for split in own_split]
    out += [jobs.Job(kind, "all", "elsewhere") for kind in ("cnn-traffic", "sae-traffic")]
    if with_checksums:
        out += [
            jobs.Job("lightgbm", "all", "flow", 0, "checksums"),
            jobs.Job("random-forest", "all", "flow", 0, "checksums"),
            jobs.Job("cnn-traffic", "iscx", "flow", 0, "checksums"),
        ]
    return out


def run(ds, work, checksums=None, only=None, skip=None, threads=1, training=True, log=print):
    """Runs what of the plan is not done; returns the names of the jobs that failed.

    checksums is the dataset that was built with them, or None. only and skip are lists of
    patterns of job names.
    """
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    _hold_to_dataset(ds, work)
    if checksums and not (checksums.meta["checksums"] and len(checksums) == len(ds)):
        raise data.DatasetError(f"{checksums.directory}: not {ds.directory} with --checksums")
    chosen = [job for job in plan(checksums is not None) if _matches(job.name, only, skip)]
    todo = [job for job in chosen if not jobs.done(ds, work, job)]
    log(f"{len(chosen)} jobs, {len(chosen) - len(todo)} of them done already")
    failed, spent, expected = [], 0.0, 0.0
    for number, job in enumerate(todo):
        pace = spent / expected if expected else 1.0
        left = pace * sum(SECONDS[j.kind] for j in todo[number:])
        log(f"[{number + 1}/{len(todo)}] {job.name}, about {loop.clock(left)} left")
        began = time.monotonic()
        source = checksums if job.variant == "checksums" else ds
        try:
            meta = jobs.run(source, job, work, threads, training, lambda s: log(f"    {s}"))
        except jobs.NotTrained as reason:
            log(f"    left out: {reason}")
            continue
        # Whatever happens to one job, the others' hours are not lost.
        except (Exception, SystemExit) as error:
            log(f"    FAILED: {error!r}")
            failed.append(job.name)
            continue
        took = time.monotonic() - began
        if took > meta["seconds"]:  # else most of the training was done before
            spent, expected = spent + took, expected + SECONDS[job.kind]
    return failed


def _matches(name, only, skip):
    def fits(patterns):
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return (not only or fits(only)) and not fits(skip or [])


def _hold_to_dataset(ds, work):
    """Predictions are by row number: a directory is of one dataset."""
    note = work / "dataset.json"
    about = {key: ds.meta[key] for key in ("packets", "flows", "per_flow", "sets")}
    if note.is_file() and json.loads(note.read_text()) != about:
        raise data.DatasetError(f"{work}: made from another dataset; choose another directory")
    note.write_text(json.dumps(about) + "\n")
