# SPDX-License-Identifier: Apache-2.0
"""The dataset that ``dpclass dataset build`` writes, and what of it a task uses."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FORMAT = 1
VECTOR = 1
SIZE = 1500

# The order of flow.Categories in the Go code, so that listings agree.
CATEGORIES = [
    "chat",
    "email",
    "file-transfer",
    "streaming",
    "torrent",
    "voip",
    "vpn-chat",
    "vpn-email",
    "vpn-file-transfer",
    "vpn-streaming",
    "vpn-torrent",
    "vpn-voip",
    "vpn-tunnel",
]
# The paper's applications that the corpus has outside a VPN: eleven of seventeen.
APPS = [
    "aim",
    "email",
    "facebook",
    "hangouts",
    "icq",
    "netflix",
    "skype",
    "spotify",
    "torrent",
    "vimeo",
    "youtube",
]
# Traffic of no class: a net learns to be unsure of it.
NEGATIVE_CATEGORIES = ["background", "other"]


class DatasetError(Exception):
    """A dataset that cannot be used; the message says which and why."""


class Dataset:
    """Memory-mapped arrays, one row a packet."""

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
            raise DatasetError(f"{meta}: no such file; build it with: dpclass dataset build --out DIR")
        self.meta = json.loads(meta.read_text())
        for key, want in (("format", FORMAT), ("vector", VECTOR)):
            if self.meta.get(key) != want:
                raise DatasetError(
                    f"{meta}: {key} is {self.meta.get(key)!r}, this trainer reads {want}"
                )
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
        """A capture's property, spread over the packets."""
        return np.array([c[key] for c in self.captures], dtype=object)[self.capture]

    def names(self, column, vocabulary):
        """A label column as names; rows without a label are ''."""
        words = np.array([*self.meta[vocabulary], ""], dtype=object)
        return words[getattr(self, column)]


@dataclass
class Task:
    """Which label a row has among a head's labels: -1 is none, -2 is traffic of no class."""

    name: str
    labels: list
    target: np.ndarray


def labels_of(ds, task):
    """A task's labels: the shipped list where the dataset has all of it, else what it has."""
    vocabulary, shipped = {"category": ("categories", CATEGORIES), "app": ("apps", APPS)}[task]
    numbers = np.unique(getattr(ds, task))
    there = [ds.meta[vocabulary][i] for i in numbers[numbers >= 0]]
    if set(shipped) <= set(there):
        return list(shipped)
    return [name for name in there if name not in NEGATIVE_CATEGORIES]


def category_task(ds, labels=None):
    """Category targets; background and other are negatives."""
    labels = list(labels or labels_of(ds, "category"))
    names = ds.names("category", "categories")
    target = _index(names, labels)
    target[np.isin(names, NEGATIVE_CATEGORIES)] = -2
    return Task("category", labels, target)


def app_task(ds, labels=None):
    """Application targets outside a VPN, as in the paper; the rest outside a VPN is negative.

    Paper applications that are not among the labels (one flow of Gmail, say) are neither. With
    applications of one's own, traffic in a VPN counts, and only background and other are negative.
    """
    labels = list(labels or labels_of(ds, "app"))
    names = ds.names("app", "apps")
    target = _index(names, labels)
    if not set(labels) <= set(APPS):
        target[np.isin(names, NEGATIVE_CATEGORIES)] = -2
        return Task("app", labels, target)
    vpn = ds.capture_column("vpn").astype(int) != 0
    paper = ("gmail", "scp", "tor", "ftps", "sftp", "voipbuster", "youtube-web", "facebook-zero")
    target[(target < 0) & ~np.isin(names, paper)] = -2
    target[vpn] = -1
    return Task("app", labels, target)


def _index(names, labels):
    table = {name: i for i, name in enumerate(labels)}
    return np.array([table.get(name, -1) for name in names], dtype=np.int64)


def rows_for(ds, use="train", sets=None):
    """Rows whose capture may be used for this, in the dataset's order."""
    keep = np.ones(len(ds), dtype=bool)
    if use:
        keep &= ds.capture_column("use") == use
    if sets:
        known = set(ds.meta["sets"])
        missing = [s for s in sets if s not in known]
        if missing:
            raise DatasetError(
                f"no set {missing[0]!r} in the dataset; it has {', '.join(sorted(known))}"
            )
        keep &= np.isin(ds.capture_column("set"), sets)
    return np.flatnonzero(keep)


def under_sample(rows, target, cap, seed):
    """At most ``cap`` rows of each class, drawn at random, as the paper balances its classes."""
    rng = np.random.default_rng(seed)
    kept = []
    for label in np.unique(target[rows]):
        of_class = rows[target[rows] == label]
        kept.append(rng.permutation(of_class)[:cap])
    return np.sort(np.concatenate(kept))


def training_sources(ds, rows):
    """What a manifest says of the data: one entry a set."""
    out = []
    used = ds.set[rows]
    for i, name in enumerate(ds.meta["sets"]):
        if not np.any(used == i):
            continue
        out.append({"set": name, "packets": int(np.sum(used == i))})
    return out
