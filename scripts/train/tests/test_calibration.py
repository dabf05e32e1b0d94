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


def test_calibration_finds_the_temperature_and_the_threshold():
    """400 flows of one packet at .9, of which 7 in 10 are right: the confidence becomes .7."""
    n = 400
    p = np.full((n, 2), [0.9, 0.1])
    target = (np.arange(n) % 10 >= 7).astype(int)
    keys = p, target, np.arange(n), np.zeros(n, int), AGGREGATION
    temperature, threshold = calibration.calibrate(*keys)
    assert 1 / (1 + 9 ** (-1 / temperature)) == pytest.approx(0.7, abs=0.01)
    assert threshold == pytest.approx(0.7, abs=0.01)


def test_the_threshold_is_never_close_to_one():
    p = np.full((40, 2), [1.0, 0.0])
    keys = p, np.zeros(40, int), np.arange(40), np.zeros(40, int), AGGREGATION
    assert calibration.calibrate(*keys)[1] == calibration.MAX_THRESHOLD


def test_scores_are_over_the_labels_in_the_truth():
    # Label 0: 2 of 3 right; label 1: 1 of 1; label 2 is only ever predicted.
    got = calibration.scores(np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1]))
    assert got == {"n": 4, "accuracy": 0.75, "macro_f1": 0.9, "weighted_f1": 0.85}
