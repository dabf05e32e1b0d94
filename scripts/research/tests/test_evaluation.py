# SPDX-License-Identifier: Apache-2.0
"""The evaluation on the synthetic dataset, and its parts on cases that can be counted by hand."""

import json

import numpy as np
import pytest

from dpresearch import evaluation
from dpresearch.report import pages
from dptrain import data


def test_everything_is_scored_and_shown(tested, tmp_path, monkeypatch):
    """Without captures: the network and the trees; then with what dpclass says about the flows."""
    ds, work = data.Dataset(tested), tmp_path / "work"
    work.mkdir()
    labels = {task: ds.labels(task) for task in ("category", "app")}
    labels["app"].remove("skype-signalling")
    (tmp_path / "default.json").write_text(json.dumps({"labels": labels}))
    monkeypatch.setattr(evaluation, "SHIPPED", tmp_path / "default.json")
    results = evaluation.run(ds, work, log=lambda line: None)
    tests = {"new captures: category", "new networks: category", "new captures: application"}
    assert set(results["scores"]) == set(results["curves"]) == tests
    for by in results["scores"].values():
        assert set(by) == {"network alone", "lightgbm alone"}
    # The flow of a call's TLS is not scored.
    late = np.isin(ds.names("category"), labels["category"]) & (ds.flow >= 200)
    n = results["scores"]["new networks: category"]["network alone"]["n"]
    assert n == len(np.unique(ds.flow[late])) - 1

    names = {int(f): c for f, c in zip(ds.flow, ds.names("category"), strict=True)}
    # Every second flow has a name, the others a protocol.
    told = {
        f: {
            "category": {"all": c} if f % 2 else {"all": c, "protocol": c},
            "app": {},
            "name": "example.com" if f % 2 else "",
        }
        for f, c in names.items()
    }
    (work / "evidence.json").write_text(json.dumps(told))
    monkeypatch.setattr(evaluation.judges.shutil, "which", lambda name: None)
    results = evaluation.run(ds, work, tmp_path, log=lambda line: None)
    by = results["scores"]["new networks: category"]
    alone, some, every = (
        by[f"network{how}"]["accuracy"][0]
        for how in (" alone", " with protocols", " with protocols and names")
    )
    assert alone <= some <= every == 1.0
    assert "new networks: flows without a name" in results["scores"]

    pages.save(tmp_path / "docs", "evaluation", results, "a test")
    page = tmp_path / "docs" / "evaluation.md"
    page.write_text("<!-- table: scores -->\n<!-- end -->\n")
    pages.update(tmp_path / "docs", "evaluation")
    assert "| lightgbm with protocols and names | " in page.read_text()
    assert len(list((tmp_path / "docs" / "evaluation").glob("*.png"))) == 4


def test_captures_of_the_lab_are_a_test_of_their_own(tested, tmp_path, monkeypatch):
    ds = data.Dataset(tested)
    ds.meta["sets"].append("lab")
    for number, capture in enumerate(ds.captures):
        if capture["use"] == "evaluate" and number // 2 % 2:
            capture["set"] = "lab"
    labels = {task: ds.labels(task) for task in ("category", "app")}
    labels["app"].remove("skype-signalling")
    (tmp_path / "default.json").write_text(json.dumps({"labels": labels}))
    monkeypatch.setattr(evaluation, "SHIPPED", tmp_path / "default.json")
    results = evaluation.run(ds, tmp_path, log=lambda line: None)
    n = {test: by["network alone"]["n"] for test, by in results["scores"].items()}
    late, lab = ds.flow >= 200, ds.capture_column("set") == "lab"
    known = late & np.isin(ds.names("category"), labels["category"])
    assert n["new lab captures: category"] == len(np.unique(ds.flow[known & lab]))
    assert n["new networks: category"] == len(np.unique(ds.flow[known & ~lab])) - 1


def test_network_says_what_is_inside_a_vpn():
    task = data.Task("category", ["chat", "web", "vpn-chat", "vpn-voip"], None)
    test = evaluation.Test(task, np.arange(5), np.zeros(5, int), {})
    told = {
        0: {"category": {"all": "chat"}},
        1: {"category": {"all": "vpn-chat", "protocol": "web"}},
        2: {"category": {"all": "chat", "protocol": "chat"}},
        3: {"category": {"all": "game"}},
    }
    alone = np.array([1, 1, 3, 1, 1])
    got = evaluation.system(test, alone, told, "all")
    assert got.tolist() == [0, 2, 2, len(task.labels), 1]
    assert evaluation.system(test, alone, told, "protocol").tolist() == [1, 1, 2, 1, 1]


def test_curves_go_from_the_surest_flow_to_all():
    said = np.log([[0.9, 0.1]] * 60 + [[0.6, 0.4]] * 40)
    found = evaluation.curves(said, np.repeat([0, 1], [60, 40]), 1.0)
    assert found["right"][0] == 1.0
    assert (found["coverage"][-1], found["right"][-1]) == (1.0, 0.6)
    assert found["calibration_error"] == pytest.approx(0.6 * 0.1 + 0.4 * 0.6)
