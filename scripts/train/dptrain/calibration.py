# SPDX-License-Identifier: Apache-2.0
"""From the probabilities of packets to the confidence of a flow, as the classifier computes it.

The classifier adds the log-probabilities of a flow's samples, divides them by a temperature times
samples ** growth, and takes the softmax. The numbers come from the dataset (data.Aggregation).
"""

from dataclasses import replace

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

TEMPERATURES = np.geomspace(0.25, 16, 97)
KEPT = 0.95  # share of the known flows that the threshold of "unknown" keeps
# A handful of flows may all be sure; the flows to come need not be as sure as that.
MAX_THRESHOLD = 0.9


def flow_evidence(probabilities, flow, index, aggregation):
    """(flows, evidence [F, C], counts): sums of log-probabilities over counts ** growth.

    The samples of a flow are its first rows by ``index``, as many as the budget allows.
    """
    order = np.lexsort((index, flow))
    flows, start, counts = np.unique(flow[order], return_index=True, return_counts=True)
    logs = np.log(np.maximum(probabilities, aggregation.floor))
    rank = np.arange(len(order)) - np.repeat(start, counts)
    taken = order[rank < aggregation.samples]
    where = np.searchsorted(flows, flow[taken])
    sums = np.zeros((len(flows), probabilities.shape[1]))
    np.add.at(sums, where, logs[taken])
    counts = np.minimum(counts, aggregation.samples)
    return flows, sums / counts[:, None] ** aggregation.growth, counts


def softmax(evidence, temperature=1.0):
    """Rows of ``flow_evidence`` as probabilities."""
    x = evidence / temperature
    x = np.exp(x - x.max(1, keepdims=True))
    return x / x.sum(1, keepdims=True)


def calibrate(probabilities, target, flow, index, aggregation):
    """(temperature, threshold of "unknown") from labelled rows that were not trained on."""
    known = target >= 0
    keys = probabilities[known], flow[known], index[known]
    _, temperature = least_loss(keys[0], target[known], *keys[1:], aggregation)
    _, evidence, _ = flow_evidence(*keys, aggregation)
    confidence = softmax(evidence, temperature).max(1)
    threshold = float(np.quantile(confidence, 1 - KEPT))
    return temperature, round(min(threshold, MAX_THRESHOLD), 3)


def least_loss(probabilities, target, flow, index, aggregation):
    """(log-loss in nats a flow, temperature) of the temperature with the lowest log-loss.

    The loss is the mean over verdicts after 1, 2, … samples, because the classifier gives a
    verdict from the first sample on. All rows have a label.
    """
    label = dict(zip(flow.tolist(), target.tolist(), strict=True))
    cases = []
    for n in range(1, aggregation.samples + 1):
        some = replace(aggregation, samples=n)
        flows, evidence, _ = flow_evidence(probabilities, flow, index, some)
        cases.append((evidence, np.array([label[f] for f in flows.tolist()])))
    best = (np.inf, 1.0)
    for temperature in TEMPERATURES:
        total = 0.0
        for evidence, truth in cases:
            p = softmax(evidence, temperature)[np.arange(len(truth)), truth]
            total -= np.log(np.maximum(p, aggregation.floor)).mean()
        best = min(best, (total / aggregation.samples, float(temperature)))
    return round(best[0], 4), round(best[1], 3)


def scores(truth, predicted):
    """{n, accuracy, macro_f1, weighted_f1}; the F1 scores are over the labels in the truth."""
    labels = np.unique(truth)
    values = {"accuracy": accuracy_score(truth, predicted)}
    for average in ("macro", "weighted"):
        values[f"{average}_f1"] = f1_score(truth, predicted, labels=labels, average=average)
    return {"n": len(truth), **{k: round(float(v), 4) for k, v in values.items()}}


def by_packet_and_flow(probabilities, target, flow, index, aggregation):
    """``scores`` of labelled rows by packet and by flow; the rows of a flow have one label."""
    known = target >= 0
    probabilities, target = probabilities[known], target[known]
    flow, index = flow[known], index[known]
    _, evidence, _ = flow_evidence(probabilities, flow, index, aggregation)
    first = np.unique(flow, return_index=True)[1]
    return {
        "packet": scores(target, probabilities.argmax(1)),
        "flow": scores(target[first], evidence.argmax(1)),
    }
