# SPDX-License-Identifier: Apache-2.0
"""Seeded splits: by packet (the paper's), by flow, by capture."""

from dataclasses import dataclass

import numpy as np

TRAIN, VALIDATION, TEST = 0.64, 0.16, 0.20


@dataclass
class Split:
    """Row numbers of the dataset, three disjoint parts."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def by_packet(rows, seed):
    """The paper's split: packets of one flow stand on both sides."""
    order = np.random.default_rng(seed).permutation(rows)
    a, b = int(len(order) * TRAIN), int(len(order) * (TRAIN + VALIDATION))
    return Split(np.sort(order[:a]), np.sort(order[a:b]), np.sort(order[b:]))


def by_flow(ds, rows, target, seed, test=TEST):
    """All packets of a flow on one side, each class cut in the same proportion."""
    rng = np.random.default_rng(seed)
    parts = ([], [], [])
    for flows in _flows_by_class(ds, rows, target).values():
        _deal(rng.permutation(flows), parts, test)
    return _gather(ds, rows, parts)


def by_capture(ds, rows, target, seed):
    """Whole captures are tested on where a class has several, else the later flows of its one.

    The validation part is flows out of the captures that are trained on: choosing a model on
    captures of the test side would make the test easier than it says it is.
    """
    rng = np.random.default_rng(seed)
    names = np.array([f"{c['set']}/{c['name']}" for c in ds.captures], dtype=object)[ds.capture]
    first_row = _first_rows(ds, rows)
    parts = ([], [], [])
    for flows in _flows_by_class(ds, rows, target).values():
        at = np.array([first_row[f] for f in flows])
        captures = names[at]
        order = rng.permutation(np.unique(captures))
        if len(order) == 1:
            flows = flows[np.argsort(ds.time[at], kind="stable")]
            cut = int(len(flows) * (1 - TEST))
            tested, rest = flows[cut:], flows[:cut]
        else:
            size = {c: int(np.sum(captures == c)) for c in order}
            chosen, count = [], 0
            for capture in order:
                if count >= TEST * len(flows):
                    break
                # A capture with most of the class stays in training.
                if size[capture] <= 0.5 * len(flows):
                    chosen.append(capture)
                    count += size[capture]
            if not chosen:
                chosen = [min(order, key=lambda c: size[c])]
            tested = flows[np.isin(captures, chosen)]
            rest = flows[~np.isin(captures, chosen)]
        parts[2].append(tested)
        _deal(rng.permutation(rest), parts, 0.0)
    return _gather(ds, rows, parts)


def everything(ds, rows, target, seed, validation=0.1):
    """For a shipped model: all is trained on but a tenth of the flows, for the calibration."""
    rng = np.random.default_rng(seed)
    classes = _flows_by_class(ds, rows, target).values()
    flows = np.concatenate([rng.permutation(of_class) for of_class in classes])
    # Every tenth of the flows in the order of their classes: small classes take turns.
    step = round(1 / validation)
    held = np.arange(len(flows)) % step == step // 2
    parts = ([flows[~held]], [flows[held]], [])
    return _gather(ds, rows, parts)


def make(name, ds, rows, target, seed):
    """A split by its name."""
    if name == "packet":
        return by_packet(rows, seed)
    if name == "flow":
        return by_flow(ds, rows, target, seed)
    if name == "capture":
        return by_capture(ds, rows, target, seed)
    if name == "all":
        return everything(ds, rows, target, seed)
    raise ValueError(f"no split {name!r}; there are packet, flow, capture, all")


def _first_rows(ds, rows):
    flows, first = np.unique(ds.flow[rows], return_index=True)
    return dict(zip(flows.tolist(), rows[first].tolist(), strict=True))


def _flows_by_class(ds, rows, target):
    flows, first = np.unique(ds.flow[rows], return_index=True)
    label = target[rows[first]]
    return {c: flows[label == c] for c in np.unique(label).tolist()}


def _deal(flows, parts, test):
    """A class's flows onto the three sides; validation is a fifth of what is not tested on."""
    a = round(len(flows) * test)
    rest = flows[a:]
    b = round(len(rest) * VALIDATION / (TRAIN + VALIDATION))
    if test:
        parts[2].append(flows[:a])
    parts[1].append(rest[:b])
    parts[0].append(rest[b:])


def _gather(ds, rows, parts):
    sides = []
    for part in parts:
        flows = np.concatenate(part) if part else np.array([], dtype=np.int64)
        sides.append(rows[np.isin(ds.flow[rows], flows)])
    return Split(*sides)
