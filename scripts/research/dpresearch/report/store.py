# SPDX-License-Identifier: Apache-2.0
"""The stored predictions of the jobs, with the targets of their rows."""

import functools
import json
from dataclasses import dataclass, replace

import numpy as np

from dptrain import calibration, data

from ..jobs import run
from ..jobs.job import Job, parse, problem
from ..paper import OUTSIDE_VPN, nets
from . import bootstrap

SIGNALLING = "-signalling"  # the end of the application names of TLS during calls


@dataclass
class Part:
    """Rows that one head was scored on: probabilities [n, C] and the columns of the dataset."""

    probabilities: np.ndarray
    target: np.ndarray  # see data.Task
    flow: np.ndarray
    index: np.ndarray
    rows: np.ndarray
    labels: list
    aggregation: data.Aggregation

    def where(self, keep):
        """The part's rows for which ``keep`` holds."""
        names = ("probabilities", "target", "flow", "index", "rows")
        return replace(self, **{name: getattr(self, name)[keep] for name in names})

    def known(self):
        """The part's labelled rows."""
        return self.where(self.target >= 0)

    def verdicts(self, level):
        """(truth, predicted, flow) by "packet" or by "flow"."""
        if level == "packet":
            return self.target, self.probabilities.argmax(1), self.flow
        keys = self.probabilities, self.flow, self.index
        flows, evidence, _ = calibration.flow_evidence(*keys, self.aggregation)
        first = np.unique(self.flow, return_index=True)[1]
        return self.target[first], evidence.argmax(1), flows


class Store:
    """The predictions below WORK by job name, without those of other code or other rows."""

    def __init__(self, ds, work, log=print):
        self.ds, self.work = ds, work
        self.names = []
        for name in run.stored(work):
            if run.is_current(run.path_of(work, name), self.problem(name)):
                self.names.append(name)
            else:
                log(f"{name}: predicted with other code or on other rows, left out")

    def problem(self, name):
        """Of a job; seeds and models with the same rows share it."""
        job = parse(name)
        kind = job.kind if job.kind in nets.KINDS else "lightgbm"
        return self._problem(Job(kind, job.track, job.split, 0, job.variant))

    @functools.cache  # noqa: B019 a store lives as long as the process
    def _problem(self, job):
        return problem(self.ds, job)

    @functools.cache  # noqa: B019
    def arrays(self, name):
        """The arrays of a job's file."""
        with np.load(run.path_of(self.work, name)) as stored:
            return dict(stored)

    def meta(self, name):
        """What the job says about itself."""
        return json.loads(str(self.arrays(name)["meta"]))

    def tasks(self, name):
        """Names of the tasks that a job is scored on."""
        names = [t.name for t in self.problem(name).tasks]
        return [n for n in names if n == "category"] if parse(name).split == "elsewhere" else names

    def seeds(self, model, track, split):
        """Names of the jobs that differ only by the seed."""
        return [n for n in self.names if n.rsplit(".", 1)[0] == f"{model}.{track}.{split}"]

    def part(self, name, task, side="test", shortcut=None):
        """The predictions of one head on "test" or "validation"; None: shortcut not measured."""
        arrays = self.arrays(name)
        rows, values = arrays[f"{side}_rows"], arrays[f"{side}_{task}"]
        if shortcut:
            path = run.shortcuts_path(self.work, name)
            if not path.is_file():
                return None
            with np.load(path) as stored:
                if f"{shortcut}_{task}" not in stored:
                    return None
                values = stored[f"{shortcut}_{task}"]
        [of_task] = [t for t in self.problem(name).tasks if t.name == task]
        return Part(
            values.astype(np.float64),
            of_task.target[rows],
            self.ds.flow[rows],
            self.ds.index[rows],
            rows,
            of_task.labels,
            self.ds.aggregation,
        )

    def scored(self, name, task, which="all", shortcut=None):
        """The labelled test rows: all, or on the capture split those of "seen" or "new" captures.

        Elsewhere the categories outside a VPN are scored, without TLS during calls; "signalling"
        is that TLS. None: the shortcut was not measured.
        """
        part = self.part(name, task, shortcut=shortcut)
        if part is None:
            return None
        part = part.known()
        if parse(name).split == "elsewhere":
            outside = [part.labels.index(c) for c in OUTSIDE_VPN if c in part.labels]
            in_call = self.signalling(part.rows) == (which == "signalling")
            return part.where(np.isin(part.target, outside) & in_call)
        if which != "all":
            seen = np.unique(self.ds.capture[self.problem(name).split.train])
            part = part.where(np.isin(self.ds.capture[part.rows], seen) == (which == "seen"))
        return part

    def signalling(self, rows):
        """Whether rows are TLS that a client holds during a call: the label is the capture's."""
        names = self.ds.names("app")[rows]
        return np.array([name.endswith(SIGNALLING) for name in names], dtype=bool)

    @functools.cache  # noqa: B019
    def figures(self, name, task, level="flow", which="all", shortcut=None):
        """bootstrap.figures of a job, with "n"; None as in ``scored``."""
        part = self.scored(name, task, which, shortcut)
        if part is None:
            return None
        truth, predicted, flow = part.verdicts(level)
        counts = bootstrap.confusions(truth, predicted, len(part.labels), flow)
        return {"n": len(truth), **bootstrap.figures(counts)}
