# SPDX-License-Identifier: Apache-2.0
"""Data of somebody's own: labels that dpclass does not know, few flows, one task."""

import json
import shutil

import numpy as np
import pytest
from test_smoke import dataset  # noqa: F401

from dptrain import __main__ as command
from dptrain import data, train

NAMES = ("backup", "call", "game")


def own(source, directory, labels, task="category"):
    """The first flows of a dataset with other labels: flow i has labels[i]."""
    shutil.copytree(source, directory)
    flow = np.load(directory / "flow.npy")
    keep = flow < len(labels)
    meta = json.loads((directory / "meta.json").read_text())
    names = sorted(set(labels))
    column = np.array([names.index(label) for label in labels])[flow[keep]]
    none = np.full(keep.sum(), -1)
    for name in data.Dataset.COLUMNS:
        array = np.load(directory / f"{name}.npy")[keep]
        if name in ("category", "app"):
            array = (column if name == task else none).astype(np.int16)
        elif name == "capture":
            array = np.zeros_like(array)
        np.save(directory / f"{name}.npy", array)
    vocabulary = {"category": "categories", "app": "apps"}[task]
    meta[vocabulary] = names
    meta["sets"] = ["mine"]
    meta["captures"] = [{**meta["captures"][0], "set": "mine", "name": "one", "vpn": False}]
    (directory / "meta.json").write_text(json.dumps(meta))
    return directory


@pytest.mark.parametrize("task", ["category", "app"])
def test_own_labels_go_through_the_whole_chain(dataset, tmp_path, task):  # noqa: F811
    labels = [*(NAMES[i % 3] for i in range(30)), "other", "background"]
    made = own(dataset, tmp_path / "own", labels, task)
    run, out = tmp_path / "run", tmp_path / "models"
    arguments = ["--data", str(made), "--run", str(run)]
    assert command.main(["train", "default", *arguments, "--epochs", "2"]) == 0
    assert command.main(["export", *arguments, "--name", "mine", "-o", str(out)]) == 0
    manifest = json.loads((out / "mine.json").read_text())
    assert manifest["task"] == [task]
    assert manifest["labels"] == {task: list(NAMES)}
    assert manifest["training"]["data"][0]["set"] == "mine"
    assert 0 <= manifest["unknown_threshold"][task] < 1
    assert manifest["licence"] == "own data: mine"
    ds = data.Dataset(made)
    [found], _ = train.problem(ds, train.Options("default", "all"))
    assert set(found.target[ds.flow >= 30].tolist()) == {-2}


def test_six_flows_are_enough(dataset, tmp_path):  # noqa: F811
    made = own(dataset, tmp_path / "own", ["call", "game"] * 3)
    arguments = ["--data", str(made), "--run", str(tmp_path / "run")]
    assert command.main(["train", "default", *arguments, "--epochs", "1"]) == 0
    assert command.main(["export", *arguments, "--name", "mine", "-o", str(tmp_path)]) == 0


def test_other_networks_learn_own_labels(dataset, tmp_path):  # noqa: F811
    ds = data.Dataset(own(dataset, tmp_path / "own", [NAMES[i % 3] for i in range(30)]))
    for split in ("packet", "flow", "capture", "all"):
        [task], parts = train.problem(ds, train.Options("cnn-traffic", split))
        assert task.labels == list(NAMES)
        assert set(task.target[parts.train].tolist()) == {0, 1, 2}
    with pytest.raises(data.DatasetError, match="no capture has a label as app"):
        train.problem(ds, train.Options("sae-app", "all"))


def test_a_few_packets_are_learnt_from_often():
    options = train.Options("default", "all")
    train.enough_steps(options, 200)
    assert options.batch == 16
    assert options.epochs * 13 >= train.STEPS
    options = train.Options("default", "all")
    train.enough_steps(options, 20000)
    assert (options.batch, options.epochs) == (0, 0)  # the network's own numbers


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["call"] * 9 + ["game"], "game (1)"),
        (["call"] * 9, "call; a model needs two labels"),
        (["call", "game"] * 2, "4 flows in all"),
        (["other"] * 9, "no capture has a label as category or app"),
    ],
)
def test_too_little_is_refused(dataset, tmp_path, capsys, labels, says):  # noqa: F811
    made = own(dataset, tmp_path / "own", labels)
    run = str(tmp_path / "run")
    assert command.main(["train", "default", "--data", str(made), "--run", run]) == 1
    assert says in capsys.readouterr().err
