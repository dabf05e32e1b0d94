# SPDX-License-Identifier: Apache-2.0
"""The dataset that ``dpclass dataset build`` writes, and its targets for each task."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import Error

FORMAT = 1
VECTOR = 1
SIZE = 1500

# Targets that are not the number of a label.
UNUSED = -1  # the row says nothing about this task
NO_CLASS = -2  # traffic of no class: the network learns to be unsure of it


class DatasetError(Error):
    """A dataset that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Aggregation:
    """How the classifier combines the samples of a flow, from meta.json."""

    samples: int  # sample budget of a flow
    growth: float  # the temperature is multiplied by samples ** growth
    floor: float  # lower probabilities are raised to it


class Dataset:
    """Memory-mapped arrays with one row per packet, and what meta.json says about them."""

    COLUMNS = (
        "packet",
        "category",
        "app",
        "flow",
        "capture",
        "set",
        "index",
        "time",
        "length",
        "l4_offset",
        "payload_offset",
    )

    def __init__(self, directory):
        self.directory = Path(directory)
        meta = self.directory / "meta.json"
        if not meta.is_file():
            raise DatasetError(
                f"{meta}: no such file; build it with: dpclass dataset build --out DIR"
            )
        self.meta = json.loads(meta.read_text())
        for key, want in (("format", FORMAT), ("vector", VECTOR)):
            if self.meta.get(key) != want:
                raise DatasetError(
                    f"{meta}: {key} is {self.meta.get(key)!r}, this trainer reads {want}"
                )
        for key in ("aggregation", "no_class", "known_apps"):
            if key not in self.meta:
                raise DatasetError(
                    f"{meta}: no {key!r}: an older dpclass built this dataset; build it again"
                )
        self.aggregation = Aggregation(**self.meta["aggregation"])
        for name in self.COLUMNS:
            array = np.load(self.directory / f"{name}.npy", mmap_mode="r")
            setattr(self, name, array if name == "packet" else np.asarray(array))
        if self.packet.dtype != np.uint8 or self.packet.shape[1:] != (SIZE,):
            raise DatasetError(f"{self.directory}: packet.npy is not uint8 [N, {SIZE}]")
        rows = {name: len(getattr(self, name)) for name in self.COLUMNS}
        if len(set(rows.values())) != 1:
            raise DatasetError(f"{self.directory}: arrays differ in length: {rows}")
        self.captures = self.meta["captures"]

    def __len__(self):
        return len(self.packet)

    def capture_column(self, key):
        """A property of the capture of each packet, as objects [N]."""
        return np.array([c[key] for c in self.captures], dtype=object)[self.capture]

    def names(self, task):
        """The label column of a task ("category" or "app") as names [N]; '' is no label."""
        words = np.array([*self.vocabulary(task), ""], dtype=object)
        return words[getattr(self, task)]

    def vocabulary(self, task):
        """All names that the label column of a task can have, in the order of their numbers."""
        return self.meta[{"category": "categories", "app": "apps"}[task]]

    def labels(self, task):
        """The labels of a task that rows have, without those of no class."""
        numbers = np.unique(getattr(self, task))
        names = [self.vocabulary(task)[i] for i in numbers[numbers >= 0]]
        return [name for name in names if name not in self.meta["no_class"]]


@dataclass
class Task:
    """A task's labels, and each row's target: a label's number, UNUSED or NO_CLASS."""

    name: str
    labels: list
    target: np.ndarray


def category_task(ds, labels=None):
    """The category task with these labels, or with all that the dataset has.

    "background" is traffic of no class unless ``labels`` has it, as the shipped model's do.
    """
    labels = labels or ds.labels("category")
    target = _targets(ds, "category", labels)
    target[np.isin(ds.names("category"), ds.meta["no_class"]) & (target < 0)] = NO_CLASS
    return Task("category", labels, target)


def app_task(ds, labels=None):
    """The application task with these labels, or with all that the dataset has.

    Without ``labels`` only the names of no class are negative. With them it is the task of the
    shipped models: applications are learnt outside a VPN, where all other traffic is negative. Two
    kinds of traffic are neither: applications that dpclass knows and this model does not, and
    variants of a label ("youtube-web").
    """
    names = ds.names("app")
    if labels is None:
        labels = ds.labels("app")
        target = _targets(ds, "app", labels)
        target[np.isin(names, ds.meta["no_class"])] = NO_CLASS
        return Task("app", labels, target)
    target = _targets(ds, "app", labels)
    neither = [
        name
        for name in ds.vocabulary("app")
        if name in ds.meta["known_apps"] or name.split("-")[0] in labels
    ]
    target[(target < 0) & ~np.isin(names, neither)] = NO_CLASS
    target[ds.capture_column("vpn").astype(int) != 0] = UNUSED
    return Task("app", labels, target)


def _targets(ds, task, labels):
    number = {name: i for i, name in enumerate(labels)}
    return np.array([number.get(name, UNUSED) for name in ds.names(task)], dtype=np.int64)


def rows_for(ds, use, sets=None):
    """Numbers of the rows whose capture has this use ("train", "evaluate"), in order."""
    keep = ds.capture_column("use") == use
    if sets:
        known_sets(ds, sets)
        keep &= np.isin(ds.capture_column("set"), sets)
    return np.flatnonzero(keep)


def known_sets(ds, sets):
    """Rejects a set that the dataset does not have."""
    missing = [s for s in sets or [] if s not in ds.meta["sets"]]
    if missing:
        known = ", ".join(sorted(ds.meta["sets"]))
        raise DatasetError(f"no set {missing[0]!r} in the dataset; it has {known}")
