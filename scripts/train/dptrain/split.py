# SPDX-License-Identifier: Apache-2.0
"""Divides the rows of a dataset into parts that share no flow."""

from dataclasses import dataclass

import numpy as np

HELD_OUT = 10  # every tenth flow calibrates the model


@dataclass
class Split:
    """Row numbers of the dataset in three disjoint parts."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def hold_out(ds, rows, target, seed):
    """Trains on all but a tenth of the flows, which calibrate the model; nothing is tested."""
    rng = np.random.default_rng(seed)
    classes = flows_by_class(ds, rows, target).values()
    flows = np.concatenate([rng.permutation(of_class) for of_class in classes])
    # Every tenth of the flows in the order of their classes: small classes take turns.
    held = np.arange(len(flows)) % HELD_OUT == HELD_OUT // 2
    return of_flows(ds, rows, flows[~held], flows[held], [])


def flows_by_class(ds, rows, target):
    """{target: its flows}, by the target of a flow's first row."""
    flows, first = np.unique(ds.flow[rows], return_index=True)
    label = target[rows[first]]
    return {c: flows[label == c] for c in np.unique(label).tolist()}


def of_flows(ds, rows, *parts):
    """The split whose parts have the rows of these flows."""
    return Split(*(rows[np.isin(ds.flow[rows], np.asarray(part, dtype=int))] for part in parts))
