# SPDX-License-Identifier: Apache-2.0
"""Seeded splits for tests: by packet (the paper's), by flow, by capture."""

import numpy as np

from dptrain.split import Split, flows_by_class, hold_out, of_flows

TRAIN, VALIDATION, TEST = 0.64, 0.16, 0.20
NAMES = ("packet", "flow", "capture", "all")


def make(name, ds, rows, target, seed):
    """A split by its name; "all" is the product's, which tests on nothing."""
    if name == "packet":
        return by_packet(rows, seed)
    if name == "flow":
        return by_flow(ds, rows, target, seed)
    if name == "capture":
        return by_capture(ds, rows, target, seed)
    if name == "all":
        return hold_out(ds, rows, target, seed)
    raise ValueError(f"no split {name!r}; there are {', '.join(NAMES)}")


def by_packet(rows, seed):
    """The paper's split: packets of one flow are on both sides."""
    order = np.random.default_rng(seed).permutation(rows)
    a, b = int(len(order) * TRAIN), int(len(order) * (TRAIN + VALIDATION))
    return Split(np.sort(order[:a]), np.sort(order[a:b]), np.sort(order[b:]))


def by_flow(ds, rows, target, seed):
    """All packets of a flow on one side, each class cut in the same proportion."""
    rng = np.random.default_rng(seed)
    parts = ([], [], [])
    for flows in flows_by_class(ds, rows, target).values():
        flows = rng.permutation(flows)
        tested = round(len(flows) * TEST)
        parts[2].append(flows[:tested])
        _deal(flows[tested:], parts)
    return of_flows(ds, rows, *map(np.concatenate, parts))


def by_capture(ds, rows, target, seed):
    """Tests on whole captures of a class, or on the later flows if a class has only one capture.

    The validation part is flows of the captures that are trained on: choosing a model on captures
    of the test side would make the test easier than it claims to be.
    """
    rng = np.random.default_rng(seed)
    names = np.array([f"{c['set']}/{c['name']}" for c in ds.captures], dtype=object)[ds.capture]
    every, first = np.unique(ds.flow[rows], return_index=True)
    parts = ([], [], [])
    for flows in flows_by_class(ds, rows, target).values():
        at = rows[first[np.searchsorted(every, flows)]]
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
        _deal(rng.permutation(rest), parts)
    return of_flows(ds, rows, *map(np.concatenate, parts))


def _deal(flows, parts):
    """A fifth of the flows of a class that are not tested on is for validation."""
    held = round(len(flows) * VALIDATION / (TRAIN + VALIDATION))
    parts[1].append(flows[:held])
    parts[0].append(flows[held:])
