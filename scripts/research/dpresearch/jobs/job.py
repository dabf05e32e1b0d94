# SPDX-License-Identifier: Apache-2.0
"""What a job is: a model, the rows it learns from, and the rows it is tested on."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dptrain import data, train

from ..paper import nets, splits
from . import baselines, shortcuts

SPLITS = ("packet", "flow", "capture", "elsewhere")
VARIANTS = ("app", "traffic", "checksums")
# The model under test; its labels are those that every model of its rows learns.
SHIPPED = Path(__file__).resolve().parents[4] / "models" / "default.json"
# A traffic generator made this set: it is never an accuracy claim.
GENERATED = "ustc"


@dataclass(frozen=True)
class Job:
    """A job; its name is MODEL.TRACK.SPLIT.SEED.

    kind is "default" or one of nets.KINDS or baselines.KINDS. The track "all" has all sets that may
    be trained on and both tasks, "iscx" the paper's rows of one task. The variants: "app" and
    "traffic" say which task of the paper a model learns that is not the paper's; "checksums" learns
    from the dataset that has them.
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
        """The split that is trained on: elsewhere tests a model that is trained on everything."""
        return "all" if self.split == "elsewhere" else self.split

    @property
    def run(self):
        """The name of a network's run directory."""
        return f"{self.model}.{self.track}.{self.learns}.{self.seed}"

    @property
    def like(self):
        """The paper's network whose rows it has; None: the default's."""
        if self.kind in nets.KINDS:
            return self.kind
        return f"cnn-{self.variant}" if self.track == "iscx" else None

    @property
    def perturbations(self):
        """Names of the shortcuts that are measured."""
        if self.variant == "checksums":
            return ("checksums",)
        if self.seed or self.split != "flow":
            return ()
        return tuple(n for n in shortcuts.NAMES if n != "checksums")


@dataclass
class Problem:
    """What a job learns and is tested on: row numbers of the dataset."""

    tasks: list
    split: object
    learnt: np.ndarray
    test: np.ndarray


def parse(name):
    """The job that has this name."""
    try:
        model, track, split, seed = name.split(".")
        every = ("default", *nets.KINDS, *baselines.KINDS)
        [kind] = [k for k in every if model == k or model in [f"{k}-{v}" for v in VARIANTS]]
        job = Job(kind, track, split, int(seed), model[len(kind) + 1 :])
    except ValueError:
        raise data.DatasetError(f"no job {name!r}; a job is MODEL.TRACK.SPLIT.SEED") from None
    if track not in ("all", "iscx") or split not in SPLITS:
        raise data.DatasetError(f"{name}: tracks are all, iscx; splits are {', '.join(SPLITS)}")
    if kind not in nets.KINDS and (track == "iscx") != (job.variant in ("app", "traffic")):
        raise data.DatasetError(f"{name}: -app and -traffic go with the track iscx, as it does")
    return job


def problem(ds, job):
    """The rows of a job; the report computes the same again from the name."""
    if job.like:
        sets, labels = [nets.SET], None  # the paper's labels
        if job.track == "all":
            sets = sorted({c["set"] for c in ds.captures if c["use"] == "train"})
            labels = shipped(ds)
        options = nets.Options(job.like, job.learns, sets=sets, labels=labels)
        task, parts = nets.problem(ds, options)
        tasks = [task]
    else:
        tasks, rows = train.labelled(ds, labels=shipped(ds))
        parts = splits.make(job.learns, ds, rows, train.strata(tasks), 0)
    if job.like and job.kind != "default":
        learnt = nets.learnt_rows(tasks[0], parts, job.seed)
    else:
        learnt = train.learnt_rows(ds, parts)
    test = parts.test if job.split != "elsewhere" else _elsewhere(ds, tasks[0])
    return Problem(tasks, parts, learnt, test)


def shipped(ds):
    """The labels of the shipped model by task; None if the dataset lacks one of them."""
    labels = _manifest_labels()
    has_all = all(set(names) <= set(ds.labels(task)) for task, names in labels.items())
    return labels if has_all else None


@functools.cache
def _manifest_labels():
    return json.loads(SHIPPED.read_text())["labels"]


def _elsewhere(ds, task):
    """Rows of sets that nothing is trained on: those with a label, and those of no class."""
    rows = data.rows_for(ds, "evaluate")
    used = task.target[rows] != data.UNUSED
    return rows[used & (ds.capture_column("set")[rows] != GENERATED)]
