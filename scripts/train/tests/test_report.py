# SPDX-License-Identifier: Apache-2.0
"""The figures of the evaluation on cases that can be counted by hand."""

import json

import numpy as np
import pytest

from dptrain import data, elsewhere, metrics, report


def test_figures_of_a_small_confusion():
    # Class 0: 8 of 10 right; class 1: 1 of 2; class 2 has no truth, but 1 verdict.
    got = metrics.figures(np.array([[8, 1, 1], [1, 1, 0], [0, 0, 0]]))
    first, second = 16 / 19, 2 / 4
    assert got["accuracy"] == pytest.approx(9 / 12)
    assert got["macro_f1"] == pytest.approx((first + second) / 2)
    assert got["weighted_f1"] == pytest.approx((10 * first + 2 * second) / 12)
    assert got["balanced_accuracy"] == pytest.approx((0.8 + 0.5) / 2)
    # Rows .8 .1 .1 and .5 .5: precision .8/1.3 and .5/.6.
    f1 = [1.6 / 2.3, 1 / 1.6]
    assert got["balanced_macro_f1"] == pytest.approx(np.mean(f1))


def test_balanced_is_natural_where_classes_are_equal():
    got = metrics.figures(np.array([[3, 1], [2, 2]]))
    assert got["balanced_accuracy"] == got["accuracy"]
    assert got["balanced_macro_f1"] == got["macro_f1"]


def test_bootstrap_draws_flows_not_packets():
    # 100 flows of 50 packets, all packets of a flow alike: the spread is that of 100 draws.
    flow = np.repeat(np.arange(100), 50)
    predicted = np.repeat(np.arange(100) % 2, 50)
    counts = metrics.confusions(np.zeros(5000, np.int64), predicted, 2, flow)
    assert counts.shape == (1 + metrics.RESAMPLES, 2, 2)
    value, low, high = metrics.interval(metrics.figures(counts)["accuracy"])
    assert value == 0.5
    assert high - low == pytest.approx(2 * 1.96 * 0.05, rel=0.15)


def test_paired_models_get_the_same_draws():
    truth, flow = np.zeros(40, np.int64), np.arange(40)
    predicted = np.arange(40) % 3 == 0
    one, two = (metrics.confusions(truth, predicted, 2, flow) for _ in range(2))
    assert np.array_equal(one, two)


def test_calibration_error():
    # Ten at .75 of which 6 are right, ten at .95 of which all are.
    confidence = np.repeat([0.75, 0.95], 10)
    right = np.arange(20) >= 4
    assert metrics.calibration_error(confidence, right) == pytest.approx((0.15 + 0.05) / 2)


def test_auroc_counts_ties_half():
    assert metrics.auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == pytest.approx(3.5 / 4)
    assert metrics.auroc(np.array([2.0, 3.0]), np.array([1.0])) == 1


def test_samples_that_agree_are_not_independent():
    # One packet of flow 0, two of flow 1 with the same odds of 4: 4 ** 2 ** .2, and not 16.
    p = np.full((3, 2), [0.8, 0.2])
    _, evidence, counts = metrics.flow_evidence(p, np.array([0, 1, 1]), np.array([0, 0, 1]))
    assert counts.tolist() == [1, 2]
    odds = metrics.softmax(evidence)
    np.testing.assert_allclose(odds[:, 0] / odds[:, 1], [4, 4 ** (2**0.2)])


def test_early_stop_uses_no_more_than_it_needs():
    # Flow 0 is sure at once; flow 1 never is, and is decided with all that it has.
    p = np.array([[0.99, 0.01], [0.01, 0.99], [0.6, 0.4], [0.2, 0.8]])
    flows, label, used = metrics.early(p, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), 1.0, 0.95)
    assert flows.tolist() == [0, 1]
    assert label.tolist() == [0, 1]
    assert used.tolist() == [1, 2]


def test_only_generated_places_are_replaced():
    text = "by hand\n<!-- generated: a -->\nold\n<!-- end -->\nby hand too"
    want = "by hand\n<!-- generated: a -->\nnew\n<!-- end -->\nby hand too"
    assert report.fill(text, {"a": "new\n"}) == want
    with pytest.raises(data.DatasetError, match="'a'"):
        report.fill(text, {})


def test_protocols_of_ndpi():
    # The application decides, unless the flow carries media.
    said = [elsewhere.category(p) for p in ("TLS.Teams", "STUN.Teams", "TLS.Azure", "IMAPS")]
    assert said == ["chat", "voip", "", "email"]


def test_cards_keep_what_the_export_measured(tmp_path):
    level = {"n": 9, "accuracy": [0.5, 0.4, 0.6], "macro_f1": [0.3, 0.2, 0.4], "seeds": [0.3]}
    level["weighted_f1"] = [0.4, 0.3, 0.5]
    scores = {"default.all.flow": {"app": {"flow": level, "packet": level}}, "other.all.flow": {}}
    (tmp_path / "results.json").write_text(json.dumps({"scores": scores}))
    models = tmp_path / "models"
    models.mkdir()
    path, old = models / "default.json", {"export": {"epoch": 3}, "elsewhere": {"app": {}}}
    path.write_text(json.dumps({"name": "default", "figures": old}))
    report.fill_cards(tmp_path, models)
    figures = json.loads(path.read_text())["figures"]
    assert set(figures) == {"export", "flow split"}
    assert figures["export"] == {"epoch": 3}
    assert figures["flow split"]["app"]["flow"]["accuracy"] == [0.5, 0.4, 0.6]
