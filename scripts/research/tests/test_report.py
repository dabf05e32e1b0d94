# SPDX-License-Identifier: Apache-2.0
"""The numbers of the report on cases that can be counted by hand, and against scikit-learn."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from dpresearch.report import bootstrap, judges, pages, tables
from dptrain import Error


def test_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    predicted = np.where(rng.random(300) < 0.6, truth, rng.integers(0, 5, 300))  # 4 has no truth
    counts = bootstrap.confusions(truth, predicted, 5, np.arange(300))
    got = {name: values[0] for name, values in bootstrap.figures(counts).items()}
    kinds = {"labels": range(4), "zero_division": 0}
    assert got == pytest.approx(
        {
            "accuracy": accuracy_score(truth, predicted),
            "macro_f1": f1_score(truth, predicted, average="macro", **kinds),
            "weighted_f1": f1_score(truth, predicted, average="weighted", **kinds),
            "balanced_accuracy": recall_score(truth, predicted, average="macro", **kinds),
        }
    )


def test_bootstrap_draws_flows_not_packets():
    # 100 flows of 50 packets, all packets of a flow alike: the spread is that of 100 draws.
    flow = np.repeat(np.arange(100), 50)
    predicted = np.repeat(np.arange(100) % 2, 50)
    counts = bootstrap.confusions(np.zeros(5000, np.int64), predicted, 2, flow)
    assert counts.shape == (1 + bootstrap.RESAMPLES, 2, 2)
    value, low, high = bootstrap.interval(bootstrap.figures(counts)["accuracy"])
    assert value == 0.5
    assert high - low == pytest.approx(2 * 1.96 * 0.05, rel=0.15)


def test_paired_models_get_the_same_draws():
    truth, flow = np.zeros(40, np.int64), np.arange(40)
    predicted = np.arange(40) % 3 == 0
    one, two = (bootstrap.confusions(truth, predicted, 2, flow) for _ in range(2))
    assert np.array_equal(one, two)


def test_protocols_of_ndpi():
    # The application decides, unless the flow carries media.
    protocols = ("TLS.Teams", "STUN.Teams", "TLS.Azure", "TLS.Nobody", "IMAPS", "Unknown")
    said = [judges.category(p) for p in protocols]
    assert said == ["chat", "voip", "web", "web", "email", ""]


def test_tables_are_markdown_with_dashes_for_what_is_missing():
    rows = [{"model": "a", "n": "1,000"}, {"model": "b", "recall": tables.number(0.5)}]
    want = "| model | n | recall |\n|---|---:|---:|\n| a | 1,000 | - |\n| b | - | .50 |"
    assert tables.markdown(rows) == want
    assert tables.with_interval([-0.0123, -0.5, 1.0]) == "-.012 (-.500 to 1.000)"


def test_only_tables_are_replaced():
    text = "by hand\n<!-- table: a -->\nold\n<!-- end -->\nby hand too"
    want = "by hand\n<!-- table: a -->\n7\n<!-- end -->\nby hand too"
    assert pages.fill(text, {"a": lambda results: f"{results}\n"}, 7) == want
    with pytest.raises(Error, match="'a'"):
        pages.fill(text, {}, 7)


def test_cards_keep_what_the_export_measured(tmp_path):
    level = {"n": 9, "accuracy": [0.5, 0.4, 0.6], "macro_f1": [0.3, 0.2, 0.4], "seeds": [0.3]}
    level["weighted_f1"] = [0.4, 0.3, 0.5]
    scores = {"cnn-app.iscx.flow": {"app": {"flow": level, "packet": level}}}
    pages.save(tmp_path, "paper", {"scores": scores}, "a test")
    old = {"export": {"epoch": 3}, "elsewhere": {"app": {}}}
    models = tmp_path / "models"
    models.mkdir()
    for name in ("cnn-app", "default"):
        path = models / f"{name}.json"
        path.write_text(json.dumps({"name": name, "figures": old}))
    pages.fill_cards(tmp_path, models)
    figures = json.loads((models / "cnn-app.json").read_text())["figures"]
    assert set(figures) == {"export", "flow split"}
    assert figures["export"] == {"epoch": 3}
    assert figures["flow split"]["app"]["flow"]["accuracy"] == [0.5, 0.4, 0.6]
    # Another model is left as it is.
    assert json.loads((models / "default.json").read_text())["figures"] == old
