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


def folds(ds, rows, strata, count):
    """The fold of each row, 0 to ``count`` - 1: captures and networks that are left out together.

    A set with less than a quarter of the flows is a network of its own and goes into one fold. The
    others are divided by capture; where a class has one capture in a set, by time in the capture.
    """
    flows, first = np.unique(ds.flow[rows], return_index=True)
    first = rows[first]
    of_set, of_capture, of_class = ds.set[first], ds.capture[first], strata[first]
    began, fold = ds.time[first], np.zeros(len(flows), dtype=int)
    size, turn = np.zeros(count, dtype=int), 0
    sizes = np.bincount(of_set)
    for number in np.argsort(-sizes, kind="stable"):
        here = of_set == number
        if sizes[number] < len(flows) / 4:
            smallest = size.argmin()
            fold[here] = smallest
            size[smallest] += sizes[number]
            continue
        for label in np.unique(of_class[here]):
            members = here & (of_class == label)
            captures = np.unique(of_capture[members])
            if len(captures) == 1:
                order = np.flatnonzero(members)[np.argsort(began[members], kind="stable")]
                for part, some in enumerate(np.array_split(order, count)):
                    fold[some] = part
                continue
            for capture in captures:
                fold[members & (of_capture == capture)] = turn % count
                turn += 1
    return fold[np.searchsorted(flows, ds.flow[rows])]


def flows_by_class(ds, rows, target):
    """{target: its flows}, by the target of a flow's first row."""
    flows, first = np.unique(ds.flow[rows], return_index=True)
    label = target[rows[first]]
    return {c: flows[label == c] for c in np.unique(label).tolist()}


def of_flows(ds, rows, *parts):
    """The split whose parts have the rows of these flows."""
    return Split(*(rows[np.isin(ds.flow[rows], np.asarray(part, dtype=int))] for part in parts))
