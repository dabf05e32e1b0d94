# SPDX-License-Identifier: Apache-2.0
"""From packets to the confidence of a flow, on cases that can be counted by hand."""

import numpy as np
import pytest

from dptrain import calibration
from dptrain.data import Aggregation

AGGREGATION = Aggregation(samples=5, growth=0.8, floor=1e-12)


def test_samples_that_agree_are_not_independent():
    # One packet of flow 0, two of flow 1 with the same odds of 4: 4 ** 2 ** .2, and not 16.
    p = np.full((3, 2), [0.8, 0.2])
    flow, index = np.array([0, 1, 1]), np.array([0, 0, 1])
    _, evidence, counts = calibration.flow_evidence(p, flow, index, AGGREGATION)
    assert counts.tolist() == [1, 2]
    odds = calibration.softmax(evidence)
    np.testing.assert_allclose(odds[:, 0] / odds[:, 1], [4, 4 ** (2**0.2)])


def test_only_the_first_samples_count_and_no_less_than_the_floor():
    # In the order of the index: two rows for label 1, then one that is outside the budget.
    p = np.array([[1.0, 0.0], [0.2, 0.8], [0.0, 1.0]])
    flow, index = np.zeros(3, int), np.array([2, 0, 1])
    how = Aggregation(samples=2, growth=0.0, floor=0.01)
    _, [evidence], counts = calibration.flow_evidence(p, flow, index, how)
    assert counts.tolist() == [2]
    np.testing.assert_allclose(evidence, np.log([0.2 * 0.01, 0.8]))


def judged(p, target, flow=None):
    n = len(p)
    flow = np.arange(n) if flow is None else flow
    return calibration.Judged(np.array(p), np.array(target), flow, np.zeros(n, int))


def seven_in_ten(n=400):
    """Flows of one packet at .9, of which 7 in 10 are right."""
    return judged(np.full((n, 2), [0.9, 0.1]), (np.arange(n) % 10 >= 7).astype(int))


def test_calibration_finds_the_temperature_and_the_threshold():
    temperature, threshold = calibration.calibrate(seven_in_ten(), AGGREGATION)
    assert 1 / (1 + 9 ** (-1 / temperature)) == pytest.approx(0.7, abs=0.01)
    assert threshold == pytest.approx(0.7, abs=0.01)


def test_the_threshold_is_never_close_to_one():
    sure = judged(np.full((40, 2), [1.0, 0.0]), np.zeros(40, int))
    assert calibration.calibrate(sure, AGGREGATION)[1] == calibration.MAX_THRESHOLD


def test_growth_is_high_where_packets_repeat_each_other():
    """Half of the flows have five packets; they are right no more often than those of one."""
    rng = np.random.default_rng(0)
    flow = np.concatenate([np.arange(500), np.repeat(np.arange(500, 1000), 5)])
    wrong = rng.random(1000) < 0.3
    index = np.concatenate([np.zeros(500, int), np.tile(np.arange(5), 500)])
    p = np.full((len(flow), 2), [0.7, 0.3])
    alike = calibration.Judged(p, wrong[flow].astype(int), flow, index)
    assert calibration.choose_growth({"category": alike}, AGGREGATION).growth == 1.0
    # Packets that are wrong independently of each other: the more agree, the surer.
    packet_wrong = rng.random(len(flow)) < 0.3
    p = np.where(packet_wrong[:, None], [[0.3, 0.7]], [[0.7, 0.3]])
    apart = calibration.Judged(p, np.zeros(len(flow), int), flow, index)
    how = calibration.choose_growth({"category": apart}, AGGREGATION)
    assert how.growth == min(calibration.GROWTHS)


def test_an_early_verdict_may_cost_next_to_nothing():
    # The first packet of each flow says .92 for label 0; the second one is sure of the truth.
    n = 1000
    flow, index = np.repeat(np.arange(n), 2), np.tile([0, 1], n)
    truth = (np.arange(n) % 10 == 0).astype(int)
    p = np.tile([0.92, 0.08], (2 * n, 1))
    p[1::2] = np.where(truth[:, None], [[1e-6, 1]], [[1, 1e-6]])
    how = Aggregation(samples=2, growth=0.0, floor=1e-12)
    task = {"category": calibration.Judged(p, truth[flow], flow, index)}
    # A verdict from the first packet would be wrong for one flow in ten.
    assert calibration.final_confidence(task, {"category": 1.0}, how) == 0.95
    assert calibration.final_confidence(task, {"category": 2.0}, how) == 0.8


def test_confusion_counts_flows_by_truth_and_verdict():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    got = calibration.confusion(judged(p, [0, 0, 1]), AGGREGATION, ["chat", "voip"])
    assert got["labels"] == ["chat", "voip"]
    assert got["matrix"] == [[1, 1], [0, 1]]
    assert got["data"].startswith("3 flows ")


def test_operating_points_count_flows():
    p = [[0.99, 0.01]] * 50 + [[0.7, 0.3]] * 50
    points = calibration.operating_points(judged(p, [0] * 75 + [1] * 25), 1.0, AGGREGATION)
    assert points == [
        {"min_confidence": 0.5, "coverage": 1.0, "right": 0.75},
        {"min_confidence": 0.8, "coverage": 0.5, "right": 1.0},
        {"min_confidence": 0.95, "coverage": 0.5, "right": 1.0},
    ]


def test_calibration_error():
    # Ten at .75 of which 6 are right, ten at .95 of which all are.
    right = np.arange(20) >= 4
    error = calibration.calibration_error(right, np.repeat([0.75, 0.95], 10))
    assert error == pytest.approx((0.15 + 0.05) / 2)


def test_scores_are_over_the_labels_in_the_truth():
    # Label 0: 2 of 3 right; label 1: 1 of 1; label 2 is only ever predicted.
    got = calibration.scores(np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1]))
    assert got == {"n": 4, "accuracy": 0.75, "macro_f1": 0.9, "weighted_f1": 0.85}
