# SPDX-License-Identifier: Apache-2.0
"""From the probabilities of packets to the confidence of a flow, as the classifier computes it.

The classifier adds the log-probabilities of a flow's samples, divides them by a temperature times
samples ** growth, and takes the softmax. The numbers come from the dataset (data.Aggregation).
"""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

TEMPERATURES = np.geomspace(0.25, 16, 97)
GROWTHS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
KEPT = 0.95  # share of the known flows that the threshold of "unknown" keeps
# A handful of flows may all be sure; the flows to come need not be as sure as that.
MAX_THRESHOLD = 0.9
FINAL = (0.8, 0.85, 0.9, 0.95, 0.98)  # confidences at which a verdict may be final early
FINAL_COST = 0.002  # share of the flows that an early verdict may cost
POINTS = (0.5, 0.8, 0.95)  # values of --min-confidence that the manifest has figures for


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


@dataclass(frozen=True)
class Judged:
    """Labelled packets that a network was not trained on, and what it said about them."""

    probabilities: np.ndarray  # float [N, C]
    target: np.ndarray
    flow: np.ndarray
    index: np.ndarray

    @classmethod
    def known(cls, *columns):
        """The packets that have a label."""
        keep = columns[1] >= 0
        return cls(*(column[keep] for column in columns))

    def verdicts(self, aggregation, temperature):
        """(right, confidence) of each flow."""
        keys = self.probabilities, self.flow, self.index
        _, evidence, _ = flow_evidence(*keys, aggregation)
        truth = self.target[np.unique(self.flow, return_index=True)[1]]
        confidence = softmax(evidence, temperature)
        return confidence.argmax(1) == truth, confidence.max(1)

    def loss(self, aggregation):
        """``least_loss`` of these packets."""
        return least_loss(self.probabilities, self.target, self.flow, self.index, aggregation)


def choose_growth(tasks, aggregation):
    """The aggregation whose growth gives the lowest log-loss, over ``Judged`` by task."""

    def loss(growth):
        how = replace(aggregation, growth=growth)
        return sum(judged.loss(how)[0] for judged in tasks.values())

    return replace(aggregation, growth=min(GROWTHS, key=loss))


def calibrate(judged, aggregation):
    """(temperature, threshold of "unknown")."""
    _, temperature = judged.loss(aggregation)
    _, confidence = judged.verdicts(aggregation, temperature)
    threshold = float(np.quantile(confidence, 1 - KEPT))
    return temperature, round(min(threshold, MAX_THRESHOLD), 3)


def final_confidence(tasks, temperature, aggregation):
    """The lowest of FINAL whose early verdicts cost no task more than FINAL_COST of the flows."""
    lowest = 0
    for task, judged in tasks.items():
        after = [
            judged.verdicts(replace(aggregation, samples=n), temperature[task])
            for n in range(1, aggregation.samples + 1)
        ]
        right = np.stack([r for r, _ in after])
        sure = np.stack([c for _, c in after])
        for place, final in enumerate(FINAL):
            reached = sure >= final
            at = np.where(reached.any(0), reached.argmax(0), aggregation.samples - 1)
            early = right[at, np.arange(right.shape[1])]
            if early.mean() >= right[-1].mean() - FINAL_COST:
                lowest = max(lowest, place)
                break
        else:
            lowest = len(FINAL) - 1
    return FINAL[lowest]


def operating_points(judged, temperature, aggregation):
    """What --min-confidence buys: [{min_confidence, coverage, right}], shares of the flows."""
    right, confidence = judged.verdicts(aggregation, temperature)
    out = []
    for least in POINTS:
        kept = confidence >= least
        share = float(right[kept].mean()) if kept.any() else 0.0
        values = {"coverage": float(kept.mean()), "right": share}
        out.append({"min_confidence": least, **{k: round(v, 3) for k, v in values.items()}})
    return out


def calibration_error(right, confidence, bins=10):
    """The expected calibration error: |share right - mean confidence| over equal bins."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(which, right - confidence, bins)
    return float(np.abs(gap).sum() / len(right))


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


def confusion(judged, aggregation, labels):
    """Flows by the label that they have and what the network says: {labels, matrix, data}."""
    _, evidence, _ = flow_evidence(judged.probabilities, judged.flow, judged.index, aggregation)
    truth = judged.target[np.unique(judged.flow, return_index=True)[1]]
    matrix = np.zeros((len(labels), len(labels)), int)
    np.add.at(matrix, (truth, evidence.argmax(1)), 1)
    data = (
        f"{len(truth)} flows of the training data, judged by networks that were not trained on them"
    )
    return {"labels": list(labels), "matrix": matrix.tolist(), "data": data}


def by_packet_and_flow(judged, aggregation):
    """``scores`` by packet and by flow; the packets of a flow have one label."""
    keys = judged.probabilities, judged.flow, judged.index
    _, evidence, _ = flow_evidence(*keys, aggregation)
    first = np.unique(judged.flow, return_index=True)[1]
    return {
        "packet": scores(judged.target, judged.probabilities.argmax(1)),
        "flow": scores(judged.target[first], evidence.argmax(1)),
    }
