# SPDX-License-Identifier: Apache-2.0
"""The user's own data: labels that dpclass does not know, few flows, one task."""

import json

import pytest
from synthetic import own

from dptrain import __main__ as command
from dptrain import data, train

NAMES = ("backup", "call", "game")


@pytest.mark.parametrize("task", ["category", "app"])
def test_own_labels_go_through_the_whole_chain(dataset, tmp_path, task):
    labels = [*(NAMES[i % 3] for i in range(30)), "other", "background"]
    made = own(dataset, tmp_path / "own", labels, task)
    run, out = tmp_path / "run", tmp_path / "models"
    arguments = ["--data", str(made), "--run", str(run)]
    assert command.main(["train", "default", *arguments, "--epochs", "2"]) == 0
    assert command.main(["export", *arguments, "--name", "mine", "--out", str(out)]) == 0
    manifest = json.loads((out / "mine.json").read_text())
    assert manifest["task"] == [task]
    assert manifest["labels"] == {task: list(NAMES)}
    assert manifest["training"]["data"][0]["set"] == "mine"
    assert 0 <= manifest["unknown_threshold"][task] < 1
    assert manifest["licence"] == "own data: mine"
    ds = data.Dataset(made)
    [found], _ = train.problem(ds, train.Options())
    assert set(found.target[ds.flow >= 30].tolist()) == {data.NO_CLASS}


def test_six_flows_are_enough(dataset, tmp_path):
    made = own(dataset, tmp_path / "own", ["call", "game"] * 3)
    arguments = ["--data", str(made), "--run", str(tmp_path / "run")]
    assert command.main(["train", "default", *arguments, "--epochs", "1"]) == 0
    assert command.main(["export", *arguments, "--name", "mine", "--out", str(tmp_path)]) == 0


def test_a_few_packets_are_learnt_from_often():
    batch, epochs = train.steps_for(train.Options(), 200)
    assert batch == 16
    assert epochs * 13 >= train.STEPS
    assert train.steps_for(train.Options(), 20000) == (train.BATCH, train.EPOCHS)
    assert train.steps_for(train.Options(batch=50, epochs=3), 200) == (50, 3)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["call"] * 9 + ["game"], "game (1)"),
        (["call"] * 9, "call; a model needs two labels"),
        (["call", "game"] * 2, "4 flows in all"),
        (["other"] * 9, "no capture has a label as category or app"),
    ],
)
def test_too_little_is_refused(dataset, tmp_path, capsys, labels, says):
    made = own(dataset, tmp_path / "own", labels)
    run = str(tmp_path / "run")
    assert command.main(["train", "default", "--data", str(made), "--run", run]) == 1
    assert says in capsys.readouterr().err
