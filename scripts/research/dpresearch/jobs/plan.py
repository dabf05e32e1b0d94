# SPDX-License-Identifier: Apache-2.0
"""Which jobs there are, in the order in which they run, and about how long they take."""

from ..paper import nets
from . import baselines
from .job import Job

SEEDS = (0, 1, 2)
# Seconds of a job on one core of 2025, to estimate the time left before anything was measured.
SECONDS = {
    "default": 120,
    "lightgbm": 130,
    "random-forest": 40,
    "random-forest-4": 15,
    "decision-tree": 5,
    "logistic-regression": 120,
    "naive-bayes": 10,
    **dict.fromkeys(nets.KINDS, 1800),
}
ORDER = ("capture", "flow", "elsewhere", "packet")  # the most important first


def evaluation(checksums=False):
    """The jobs that test the default network, and the trees it is compared with."""
    out = [
        Job(kind, "all", split, seed)
        for seed in SEEDS
        for split in ORDER
        for kind in ("default", "lightgbm")
    ]
    out += [Job("default", "all", "flow", 0, "leftout")]
    out += [Job("lightgbm", "all", "capture", seed, "anonymous") for seed in SEEDS]
    out += [Job("lightgbm", "all", split, 0, "anonymous") for split in ORDER if split != "capture"]
    out += [Job("random-forest", "all", split) for split in ORDER]
    if checksums:
        out += [Job(k, "all", "flow", 0, "checksums") for k in ("lightgbm", "random-forest")]
    return out


def paper(checksums=False):
    """The jobs of the paper's reproduction: its networks and baselines on its rows."""
    splits = ("flow", "capture", "packet")
    out = [
        Job(kind, "iscx", split, 0, task)
        for kind in ("default", *baselines.KINDS)
        for split in splits
        for task in ("traffic", "app")
    ]
    out += [Job(kind, "iscx", split) for kind in nets.KINDS for split in splits]
    out += [Job(kind, "all", "elsewhere") for kind in nets.KINDS if kind.endswith("-traffic")]
    if checksums:
        out += [Job("cnn-traffic", "iscx", "flow", 0, "checksums")]
    return out
