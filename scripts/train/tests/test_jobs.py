# SPDX-License-Identifier: Apache-2.0
"""The evaluation's jobs on the smoke test's dataset: what is stored, what is not done again."""

import json

import numpy as np
import pytest
from test_smoke import dataset  # noqa: F401

from dptrain import __main__ as command
from dptrain import data, evaluate, jobs, loop, shortcuts, train

NAMES = [
    "default.all.flow.0",
    "default-app.iscx.flow.0",
    "decision-tree.all.flow.0",
    "decision-tree-app.iscx.flow.0",
]


def test_evaluation_stores_predictions_and_does_nothing_twice(dataset, tmp_path, capsys):  # noqa: F811
    work = tmp_path / "work"
    base = ["evaluation", "--data", str(dataset), "--work", str(work)]
    base += [word for name in NAMES for word in ("--only", name)]
    assert command.main(base) == 0
    ds = data.Dataset(dataset)
    for name in NAMES:
        p = jobs.problem(ds, jobs.parse(name))
        with np.load(work / "predictions" / f"{name}.npz") as stored:
            meta = json.loads(str(stored["meta"]))
            assert np.array_equal(stored["test_rows"], p.test)
            for task, labels in meta["labels"].items():
                for part in ("test", "validation"):
                    values = stored[f"{part}_{task}"]
                    assert values.shape == (len(stored[f"{part}_rows"]), len(labels))
                    np.testing.assert_allclose(values.sum(1), 1, atol=1e-4)
        with np.load(work / "predictions" / f"{name}.shortcuts.npz") as stored:
            want = {f"{n}_{t}" for n in shortcuts.NAMES if n != "checksums" for t in meta["labels"]}
            assert set(stored) >= want
    assert len((work / "tested.jsonl").read_text().splitlines()) == len(NAMES)
    # Few packets to learn from: the default net gets its steps in each kind of job.
    for name in NAMES[:2]:
        spec, _, _ = loop.load(work / "runs" / name)
        assert spec["epochs"] * -(-spec["used_packets"] // spec["batch"]) >= train.STEPS

    capsys.readouterr()
    assert command.main(base) == 0
    assert f"{len(NAMES)} jobs, {len(NAMES)} of them done already" in capsys.readouterr().out
    # The same predictions again are no other test.
    assert command.main(["evaluate", *base[1:5], NAMES[2]]) == 0
    assert len((work / "tested.jsonl").read_text().splitlines()) == len(NAMES)
    assert command.main(["samples", *base[1:5]]) == 0


def test_recipe_is_of_how_much_there_is_to_learn_from():
    job = jobs.parse("default.all.flow.0")
    recipes = [jobs.recipe(job, n) for n in (500, 5000, train.FEW, 2 * train.FEW)]
    assert len(set(recipes[:3])) == 3
    assert recipes[2] == recipes[3]


def test_left_out_applications_are_nowhere_in_training(dataset):  # noqa: F811
    ds = data.Dataset(dataset)
    p = jobs.problem(ds, jobs.parse("default-leftout.all.flow.0"))
    names = ds.names("app", "apps")
    assert np.isin(names[p.test], jobs.LEFT_OUT).any()
    assert not np.isin(names[np.concatenate([p.learnt, p.split.validation])], jobs.LEFT_OUT).any()
    app = p.tasks[1]
    assert len(app.labels) == len(data.APPS) - len(jobs.LEFT_OUT)
    known = app.target >= 0
    assert np.array_equal(np.array(app.labels)[app.target[known]], names[known])


def test_job_names():
    for job in evaluate.plan(with_checksums=True):
        assert jobs.parse(job.name) == job
    for name in ("lightgbm", "nothing.all.flow.0", "lightgbm.all.week.0", "lightgbm.iscx.flow.0"):
        with pytest.raises(data.DatasetError):
            jobs.parse(name)
