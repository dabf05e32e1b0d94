# SPDX-License-Identifier: Apache-2.0
"""The jobs of the paper's reproduction in their order, and about how long they take."""

from ..paper import nets
from . import baselines
from .job import Job

# Seconds of a job on one core of 2025, to estimate the time left before anything was measured.
SECONDS = {
    "default": 60,
    "lightgbm": 130,
    "random-forest": 40,
    "random-forest-4": 15,
    "decision-tree": 5,
    "logistic-regression": 120,
    "naive-bayes": 10,
    **dict.fromkeys(nets.KINDS, 1800),
}


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
