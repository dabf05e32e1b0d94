# SPDX-License-Identifier: Apache-2.0
"""The paper's jobs and page on the synthetic dataset: what is stored, not done again, and shown."""

import json
from pathlib import Path

import numpy as np
import pytest

from dpresearch import __main__ as command
from dpresearch.jobs import job, plan, run, shortcuts
from dpresearch.paper import splits
from dpresearch.report import analysis, pages, store
from dptrain import __main__ as dptrain_command
from dptrain import data, loop, train

NAMES = [
    "default-app.iscx.flow.0",
    "decision-tree-app.iscx.flow.0",
    "lightgbm-traffic.iscx.flow.0",
]


def test_jobs_store_predictions_and_do_nothing_twice(dataset, tmp_path, capsys, monkeypatch):
    work = tmp_path / "work"
    base = ["--data", str(dataset), "--work", str(work)]
    only = [word for name in NAMES for word in ("--only", name)]

    def run_all():
        assert command.main(["paper", *base, *only]) == 0
        return capsys.readouterr().out

    run_all()
    ds = data.Dataset(dataset)
    for name in NAMES:
        p = job.problem(ds, job.parse(name))
        with np.load(run.path_of(work, name)) as stored:
            meta = json.loads(str(stored["meta"]))
            assert np.array_equal(stored["test_rows"], p.test)
            for task, labels in meta["labels"].items():
                for part in ("test", "validation"):
                    values = stored[f"{part}_{task}"]
                    assert values.shape == (len(stored[f"{part}_rows"]), len(labels))
                    np.testing.assert_allclose(values.sum(1), 1, atol=1e-4)
        with np.load(run.shortcuts_path(work, name)) as stored:
            want = {f"{n}_{t}" for n in shortcuts.NAMES if n != "checksums" for t in meta["labels"]}
            assert set(stored) >= want
    assert len((work / "tested.jsonl").read_text().splitlines()) == len(NAMES)
    # Few packets to learn from: the default network gets its steps.
    spec, _, _ = loop.load(work / "runs" / run.recipe() / NAMES[0])
    assert spec["epochs"] * -(-spec["used_packets"] // spec["batch"]) >= train.STEPS

    # A network that was trained for a test is not exported by mistake.
    directory = work / "runs" / run.recipe() / NAMES[0]
    arguments = ["--data", str(dataset), "--run", str(directory), "--name", "x"]
    assert dptrain_command.main(["export", *arguments, "--out", str(tmp_path)]) == 1
    assert "on the split 'flow'" in capsys.readouterr().err

    assert "3 jobs, 3 of them done already" in run_all()
    # The same predictions again are no other test.
    assert command.main(["job", *base, NAMES[1]]) == 0
    assert len((work / "tested.jsonl").read_text().splitlines()) == len(NAMES)
    assert store.Store(ds, work).names == sorted(NAMES)
    # Other code: nothing is done any more, and nothing of it is reported.
    monkeypatch.setattr(run, "recipe", lambda: "other")
    assert store.Store(ds, work, log=lambda line: None).names == []
    assert not run.done(ds, work, job.parse(NAMES[1]))


def test_recipe_is_of_code_without_comments():
    same = run.code_of('"""Doc."""\n\ndef f(x):  # why\n    """Doc."""\n    return x\n')
    assert same == run.code_of("def f(x): return x")
    assert same != run.code_of("def f(x): return x + 1")
    packages = Path(run.__file__).parents[2]
    files = {p.name for p in run.files()}
    assert files >= {"net.py", "train.py", "calibration.py", "splits.py", "paper.json", "run.py"}
    assert not any("report" in p.parts for p in run.files())
    assert (packages / "dpresearch" / "paper" / "cnn.py").resolve() in run.files()


def test_everything_has_a_number_and_a_place_on_its_page(tested, tmp_path):
    """All that the paper's page shows, from the few models that are quick to train."""
    work, docs = tmp_path / "work", tmp_path / "docs"
    ds = data.Dataset(tested)
    names = [f"decision-tree{v}" for v in ("-traffic.iscx.packet.0", "-app.iscx.packet.0")]
    assert not run.run_all(ds, work, [job.parse(n) for n in names], log=lambda line: None)
    paper = analysis.paper(store.Store(ds, work))
    paper["speed"] = {"machine": "m", "networks": [], "ratios": {}, "models": {}}
    assert sum(paper["lengths"]) == (ds.capture_column("use") == "train").sum()
    pages.save(docs, "paper", paper, "a test")
    places = "".join(f"<!-- table: {n} -->\n<!-- end -->\n" for n in pages.tables.PAGES["paper"])
    (docs / "paper.md").write_text(places)
    pages.update(docs, "paper")
    assert "| decision-tree | " in (docs / "paper.md").read_text()
    assert pages.load(docs, "paper")["made"]["command"] == "a test"
    assert list((docs / "paper").glob("*.png"))


def test_job_names():
    planned = plan.paper(checksums=True)
    assert len(set(planned)) == len(planned)
    for one in planned:
        assert job.parse(one.name) == one
    for name in ("lightgbm", "nothing.all.flow.0", "lightgbm.all.week.0", "lightgbm.iscx.flow.0"):
        with pytest.raises(data.DatasetError):
            job.parse(name)


def test_splits_keep_flows_and_captures_apart(dataset):
    ds = data.Dataset(dataset)
    task = data.category_task(ds)
    rows = data.rows_for(ds, "train")
    for name in splits.NAMES:
        split = splits.make(name, ds, rows, task.target, 3)
        again = splits.make(name, ds, rows, task.target, 3)
        sides = (split.train, split.validation, split.test)
        assert np.array_equal(np.sort(np.concatenate(sides)), rows)
        assert np.array_equal(split.train, again.train)
        if name != "packet":
            flows = [set(ds.flow[s].tolist()) for s in sides]
            assert len(set.union(*flows)) == sum(len(f) for f in flows)
        if name == "capture":
            seen = set(ds.capture[split.train].tolist())
            assert not seen & set(ds.capture[split.test].tolist())
