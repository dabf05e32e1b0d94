# SPDX-License-Identifier: Apache-2.0
"""Scores by packet and by flow, and what turns log-probabilities into a flow's verdict."""

import numpy as np
from sklearn.metrics import f1_score

SAMPLES = 5
FLOOR = 1e-12


def scores(truth, predicted):
    """Accuracy, macro-F1 and weighted F1, over the labels in truth or prediction."""
    return {
        "n": len(truth),
        "accuracy": round(float(np.mean(truth == predicted)), 4),
        "macro_f1": round(float(f1_score(truth, predicted, average="macro", zero_division=0)), 4),
        "weighted_f1": round(
            float(f1_score(truth, predicted, average="weighted", zero_division=0)), 4
        ),
    }


def flow_sums(probabilities, flow, index, samples=SAMPLES):
    """Sums of log-probabilities over each flow's first ``samples`` rows: (flows, sums, counts)."""
    order = np.lexsort((index, flow))
    flows, start, counts = np.unique(flow[order], return_index=True, return_counts=True)
    logs = np.log(np.maximum(probabilities, FLOOR))
    rank = np.arange(len(order)) - np.repeat(start, counts)
    taken = order[rank < samples]
    where = np.searchsorted(flows, flow[taken])
    sums = np.zeros((len(flows), probabilities.shape[1]))
    np.add.at(sums, where, logs[taken])
    return flows, sums, np.minimum(counts, samples)


def by_packet_and_flow(probabilities, target, flow, index, samples=SAMPLES):
    """Both levels' scores of rows with a label; a flow's label is that of its rows."""
    known = target >= 0
    probabilities, target = probabilities[known], target[known]
    flow, index = flow[known], index[known]
    flows, sums, _ = flow_sums(probabilities, flow, index, samples)
    first = np.unique(flow, return_index=True)
    assert np.array_equal(first[0], flows)
    return {
        "packet": scores(target, probabilities.argmax(1)),
        "flow": scores(target[first[1]], sums.argmax(1)),
    }


def softmax(sums, temperature=1.0):
    """Rows of log-probability sums as probabilities."""
    x = sums / temperature
    x = np.exp(x - x.max(1, keepdims=True))
    return x / x.sum(1, keepdims=True)


def fit_temperature(probabilities, target, flow, index, samples=SAMPLES):
    """The temperature with the least log-loss over flows decided after 1 to ``samples`` packets.

    Verdicts are given from the first sample on, so every count weighs the same.
    """
    known = target >= 0
    label = dict(zip(flow[known].tolist(), target[known].tolist(), strict=True))
    cases = []
    for n in range(1, samples + 1):
        flows, sums, _ = flow_sums(probabilities[known], flow[known], index[known], n)
        cases.append((sums, np.array([label[f] for f in flows.tolist()])))
    best = (np.inf, 1.0)
    for temperature in np.geomspace(0.25, 16, 97):
        total = 0.0
        for sums, truth in cases:
            p = softmax(sums, temperature)[np.arange(len(truth)), truth]
            total -= np.log(np.maximum(p, FLOOR)).mean()
        best = min(best, (total, float(temperature)))
    return round(best[1], 3)


def unknown_threshold(probabilities, target, flow, index, temperature, samples=SAMPLES, keep=0.95):
    """The confidence that ``keep`` of the known flows reach with all their samples."""
    known = target >= 0
    _, sums, _ = flow_sums(probabilities[known], flow[known], index[known], samples)
    confidence = softmax(sums, temperature).max(1)
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
