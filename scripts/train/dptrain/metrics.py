# SPDX-License-Identifier: Apache-2.0
"""Scores by packet and by flow, and what turns log-probabilities into a flow's verdict."""

import functools

import numpy as np
from scipy import sparse

SAMPLES = 5
FLOOR = 1e-12
# A flow's packets say much the same: what n of them say together is scaled as if the temperature
# grew with n to this power. The log-loss on validation parts is least with it (evaluation.md,
# Calibration), and the classifier has the same constant.
GROWTH = 0.8
RESAMPLES = 1000


def scores(truth, predicted):
    """Accuracy, macro-F1 and weighted F1, over the labels in the truth."""
    classes = int(max(truth.max(initial=0), predicted.max(initial=0))) + 1
    values = figures(confusions(truth, predicted, classes))
    names = ("accuracy", "macro_f1", "weighted_f1")
    return {"n": len(truth), **{k: round(float(values[k]), 4) for k in names}}


def confusions(truth, predicted, classes, flow=None):
    """Confusion counts, rows truth: [classes, classes].

    With ``flow`` [n] [1 + RESAMPLES, classes, classes]: the counts themselves, then those of the
    same flows drawn with replacement. Rows of one flow stay together. The draws depend on the
    number of flows alone, so that models scored on the same rows can be compared in pairs.
    """
    cell = truth.astype(np.int64) * classes + predicted
    if flow is None:
        return np.bincount(cell, minlength=classes**2).reshape(classes, classes)
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

    The balanced ones give each class the same weight, as if all had the same number of flows.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    support = confusion.sum(-1)
    here = support > 0
    number = np.maximum(here.sum(-1), 1)
    _, recall, f1 = by_class(confusion)
    total = np.maximum(support.sum(-1), 1)
    rows = confusion / np.maximum(support, 1)[..., None]
    balanced_f1 = by_class(rows)[2]
    return {
        "accuracy": np.trace(confusion, axis1=-2, axis2=-1) / total,
        "macro_f1": (f1 * here).sum(-1) / number,
        "weighted_f1": (f1 * support).sum(-1) / total,
        "balanced_accuracy": (recall * here).sum(-1) / number,
        "balanced_macro_f1": (balanced_f1 * here).sum(-1) / number,
    }


def by_class(confusion):
    """Precision, recall and F1 of counts [..., C, C], each [..., C]; 0 where there is nothing."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    truth, said = confusion.sum(-1), confusion.sum(-2)
    tiny = 1e-9
    return (
        right / np.maximum(said, tiny),
        right / np.maximum(truth, tiny),
        2 * right / np.maximum(truth + said, tiny),
    )


def interval(values):
    """The value and its 95 % interval: [1 + RESAMPLES] as [value, low, high]."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return [round(float(v), 4) for v in (values[0], low, high)]


def flow_evidence(probabilities, flow, index, samples=SAMPLES, growth=GROWTH):
    """What each flow's first ``samples`` rows say: (flows, evidence, counts).

    Sums of log-probabilities over counts ** growth.
    """
    order = np.lexsort((index, flow))
    flows, start, counts = np.unique(flow[order], return_index=True, return_counts=True)
    logs = np.log(np.maximum(probabilities, FLOOR))
    rank = np.arange(len(order)) - np.repeat(start, counts)
    taken = order[rank < samples]
    where = np.searchsorted(flows, flow[taken])
    sums = np.zeros((len(flows), probabilities.shape[1]))
    np.add.at(sums, where, logs[taken])
    counts = np.minimum(counts, samples)
    return flows, sums / counts[:, None] ** growth, counts


def by_packet_and_flow(probabilities, target, flow, index, samples=SAMPLES):
    """Both levels' scores of rows with a label; a flow's label is that of its rows."""
    known = target >= 0
    probabilities, target = probabilities[known], target[known]
    flow, index = flow[known], index[known]
    flows, evidence, _ = flow_evidence(probabilities, flow, index, samples)
    first = np.unique(flow, return_index=True)
    assert np.array_equal(first[0], flows)
    return {
        "packet": scores(target, probabilities.argmax(1)),
        "flow": scores(target[first[1]], evidence.argmax(1)),
    }


def softmax(evidence, temperature=1.0):
    """Rows of flow_evidence as probabilities."""
    x = evidence / temperature
    x = np.exp(x - x.max(1, keepdims=True))
    return x / x.sum(1, keepdims=True)


def fit_temperature(probabilities, target, flow, index, samples=SAMPLES):
    """The temperature with the least log-loss, see least_loss."""
    return least_loss(probabilities, target, flow, index, samples)[1]


def least_loss(probabilities, target, flow, index, samples=SAMPLES, growth=GROWTH):
    """(log-loss, temperature) of the temperature with the least of it, in nats a flow.

    Over flows decided after 1 to ``samples`` packets: verdicts are given from the first sample on,
    so every count weighs the same.
    """
    known = target >= 0
    label = dict(zip(flow[known].tolist(), target[known].tolist(), strict=True))
    keys = probabilities[known], flow[known], index[known]
    cases = []
    for n in range(1, samples + 1):
        flows, evidence, _ = flow_evidence(*keys, n, growth)
        cases.append((evidence, np.array([label[f] for f in flows.tolist()])))
    best = (np.inf, 1.0)
    for temperature in np.geomspace(0.25, 16, 97):
        total = 0.0
        for evidence, truth in cases:
            p = softmax(evidence, temperature)[np.arange(len(truth)), truth]
            total -= np.log(np.maximum(p, FLOOR)).mean()
        best = min(best, (total / samples, float(temperature)))
    return round(best[0], 4), round(best[1], 3)


def unknown_threshold(probabilities, target, flow, index, temperature, samples=SAMPLES, keep=0.95):
    """The confidence that ``keep`` of the known flows reach with all their samples."""
    known = target >= 0
    _, evidence, _ = flow_evidence(probabilities[known], flow[known], index[known], samples)
    confidence = softmax(evidence, temperature).max(1)
    return round(float(np.quantile(confidence, 1 - keep)), 3)


def calibration_error(confidence, right, bins=15):
    """Expected calibration error."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    total = 0.0
    for b in range(bins):
        rows = place == b
        if rows.any():
            total += rows.mean() * abs(confidence[rows].mean() - right[rows].mean())
    return round(float(total), 4)


def auroc(known, unknown):
    """The chance that a known flow's confidence is above an unknown one's."""
    values = np.concatenate([known, unknown])
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]  # ties share their mean rank
    n, m = len(known), len(unknown)
    return float((rank[:n].sum() - n * (n + 1) / 2) / (n * m))


def early(probabilities, flow, index, temperature, final, samples=SAMPLES):
    """Flows decided at the first sample with a confidence of ``final``: (flows, label, used).

    A flow whose rows end before that is decided with what it has.
    """
    flows, _, _ = flow_evidence(probabilities, flow, index, 1)
    label, used = np.zeros(len(flows), np.int64), np.zeros(len(flows), np.int64)
    open_ = np.ones(len(flows), dtype=bool)
    for n in range(1, samples + 1):
        _, evidence, counts = flow_evidence(probabilities, flow, index, n)
        p = softmax(evidence, temperature)
        label[open_], used[open_] = p[open_].argmax(1), counts[open_]
        open_ &= p.max(1) < final
    return flows, label, used
