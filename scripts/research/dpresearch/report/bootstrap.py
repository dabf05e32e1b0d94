# SPDX-License-Identifier: Apache-2.0
"""Scores with intervals: flows are drawn with replacement, all packets of a flow together.

scikit-learn has the scores, but not of a thousand draws at once; these are computed from the
confusion counts of all draws. A test holds them against scikit-learn.
"""

import functools

import numpy as np
from scipy import sparse

RESAMPLES = 1000


def confusions(truth, predicted, classes, flow):
    """Confusion counts, rows truth: [1 + RESAMPLES, classes, classes], first without resampling.

    The draws depend only on the number of flows, so that models that are scored on the same rows
    can be compared in pairs.
    """
    cell = truth.astype(np.int64) * classes + predicted
    flows, which = np.unique(flow, return_inverse=True)
    shape = (classes**2, len(flows))
    counts = sparse.csr_matrix((np.ones(len(cell), np.float32), (cell, which)), shape=shape)
    return (counts @ _draws(len(flows))).T.reshape(-1, classes, classes)


@functools.lru_cache(maxsize=4)
def _draws(flows):
    """How often each flow is drawn: float32 [flows, 1 + RESAMPLES], the first column all ones."""
    rng = np.random.default_rng(0)
    out = np.ones((flows, 1 + RESAMPLES), dtype=np.float32)
    for i in range(1, RESAMPLES + 1):
        out[:, i] = np.bincount(rng.integers(0, flows, flows), minlength=flows)
    return out


def figures(confusion):
    """Scores of counts [..., C, C] by name, each [...]; macro values are over classes with truth.

    balanced_accuracy is the mean recall: each class counts the same.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    support, said = confusion.sum(-1), confusion.sum(-2)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + said, 1)
    total, number = np.maximum(support.sum(-1), 1), np.maximum((support > 0).sum(-1), 1)
    return {
        "accuracy": right.sum(-1) / total,
        "macro_f1": (f1 * (support > 0)).sum(-1) / number,
        "weighted_f1": (f1 * support).sum(-1) / total,
        "balanced_accuracy": recall.sum(-1) / number,
    }


def interval(values):
    """[value, low, high]: the first of [1 + RESAMPLES] values and the 95 % interval of the rest."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return [round(float(v), 4) for v in (values[0], low, high)]
