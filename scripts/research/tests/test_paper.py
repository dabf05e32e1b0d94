# SPDX-License-Identifier: Apache-2.0
"""The paper's networks and baselines: the same with and without the padding, trained, exported."""

import json

import numpy as np
import onnxruntime as ort
import pytest
import torch
from synthetic import own
from torch.nn import functional

from dpresearch import __main__ as command
from dpresearch import bench
from dpresearch.jobs import baselines, grid
from dpresearch.paper import cnn, graphs, int8, nets, segments
from dptrain import data, loop

# Small nets: outputs that fill their last segment, that do not, and a segment of one output.
SHAPES = (
    ((6, 4, 3), (5, 5, 1)),
    ((6, 5, 3), (5, 4, 3)),
    ((4, 10, 7), (3, 9, 6)),
)


@pytest.fixture(scope="module")
def packets():
    """Packets of all lengths, two of them all zeros, two without a zero, some with a gap."""
    rng = np.random.default_rng(2)
    out = rng.integers(1, 256, (60, data.SIZE)).astype(np.uint8)
    for i, length in enumerate(rng.integers(20, 1500, 56)):
        out[i, length:] = 0
    out[:20, 100:190] = 0
    out[56:58] = 0
    return out


@pytest.mark.parametrize("shape", SHAPES)
def test_cnn_learns_the_same_without_the_padding(packets, shape):
    x, target = torch.from_numpy(packets), torch.arange(len(packets)) % 3
    losses, models = [], []
    for by_segments in (True, False):
        torch.manual_seed(0)
        model = cnn.PaperCNN("app", 3, shape)
        model.by_segments = by_segments
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        for _ in range(3):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x)["app"], target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        models.append(model.eval())
    # A last place that the pooling drops counts in the dense net's statistics alone.
    np.testing.assert_allclose(losses[:3], losses[3:], rtol=2e-3)
    with torch.no_grad():
        kept = models[0](x)["app"]
        models[0].by_segments = False
        torch.testing.assert_close(models[0](x)["app"], kept)


@pytest.mark.parametrize("shape", SHAPES)
def test_quantised_cnn_says_the_same_without_the_padding(packets, shape):
    torch.manual_seed(1)
    model = cnn.PaperCNN("category", 4, shape).eval()
    whole = int8.quantised(graphs.of_cnn(model, ""), packets)
    one = ort.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    made = segments.of_dense(whole, model.segments).SerializeToString()
    other = ort.InferenceSession(made, providers=["CPUExecutionProvider"])
    for batch in (packets, packets[:1], packets[57:58], packets[58:]):
        [want], [got] = (s.run(None, {"packet": batch}) for s in (one, other))
        assert np.array_equal(want, got)


def test_sae_is_pre_trained_resumes_and_is_quantised(dataset, tmp_path):
    run, halted, out = tmp_path / "run", tmp_path / "halted", tmp_path / "models"
    base = ["train", "sae-traffic", "--data", str(dataset), "--split", "packet", "--epochs", "2"]
    assert command.main([*base, "--run", str(run)]) == 0
    for number in range(1, 5):
        history = json.loads((run / f"layer{number}" / "history.json").read_text())["history"]
        assert history[1]["loss"] < history[0]["loss"]

    # Cut off in the second layer's pre-training.
    stopped = loop.run

    def cut(*arguments):
        if arguments[4].endswith("layer2"):
            arguments[3].max_minutes = 1e-6
            stopped(*arguments)
            raise KeyboardInterrupt
        return stopped(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "run", cut)
        with pytest.raises(KeyboardInterrupt):
            command.main([*base, "--run", str(halted)])
    saved = torch.load(halted / "layer2" / "last.pt", weights_only=True)
    assert saved["state"]["epoch"] == 1
    saved["state"]["finished"] = ""
    torch.save(saved, halted / "layer2" / "last.pt")
    assert command.main([*base, "--run", str(halted)]) == 0
    whole = loop.load(run)[1]
    for name, value in loop.load(halted)[1].items():
        assert torch.equal(value, whole[name]), name

    arguments = ["--data", str(dataset), "--run", str(run), "--name", "sae", "--out", str(out)]
    assert command.main(["export", *arguments]) == 0
    manifest = json.loads((out / "sae.json").read_text())
    assert manifest["precision"] == "int8"
    assert manifest["parameters"] == 706_362  # 1500-400-200-100-50-12
    assert manifest["figures"]["export"]["category_same_label_as_torch"] > 0.8
    assert set(manifest["figures"]["export"]["int8"]) >= {"accuracy_fp32", "accuracy_lost"}


def test_cnn_is_quantised_and_says_the_same(dataset, tmp_path):
    run, out = tmp_path / "run", tmp_path / "models"
    arguments = ["--data", str(dataset), "--run", str(run)]
    train = ["train", "cnn-traffic", *arguments, "--split", "packet", "--epochs", "1"]
    assert command.main(train) == 0
    assert command.main(["export", *arguments, "--name", "cnn", "--out", str(out)]) == 0
    manifest = json.loads((out / "cnn.json").read_text())
    assert manifest["precision"] == "int8"
    assert manifest["figures"]["export"]["category_same_label_as_torch"] > 0.8
    assert abs(manifest["parameters"] / 3.5e6 - 1) < 0.02
    assert abs(manifest["mac"] / 30e6 - 1) < 0.02
    assert "seven bits" in manifest["weaknesses"][-1]
    assert manifest["licence"] == "Apache-2.0; trained on iscx"


def test_paper_networks_learn_own_labels(dataset, tmp_path):
    names = ("backup", "call", "game")
    ds = data.Dataset(own(dataset, tmp_path / "own", [names[i % 3] for i in range(30)]))
    for split in ("packet", "flow", "capture", "all"):
        task, parts = nets.problem(ds, nets.Options("cnn-traffic", split))
        assert task.labels == list(names)
        assert set(task.target[parts.train].tolist()) == {0, 1, 2}
    with pytest.raises(data.DatasetError, match="no capture has a label as app"):
        nets.problem(ds, nets.Options("sae-app"))


@pytest.mark.parametrize("kind", baselines.KINDS)
def test_baselines_give_probabilities(dataset, kind):
    ds = data.Dataset(dataset)
    task = data.category_task(ds)
    rows = np.flatnonzero((task.target >= 0) & (task.target != 4))
    weight = np.ones(len(rows))
    model = baselines.fit(kind, ds.packet[rows], task.target[rows], weight, 13, 0, 1)
    p = model.predict(ds.packet)
    assert p.shape == (len(ds), 13)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert not p[:, 4].any()
    assert np.mean(p[rows].argmax(1) == task.target[rows]) > 0.15


def test_grid_trains_each_net_once(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "NETS", SHAPES[:1])
    monkeypatch.setitem(cnn.CONVOLUTIONS, "category", SHAPES[1])
    monkeypatch.setitem(cnn.CONVOLUTIONS, "app", SHAPES[2])
    monkeypatch.setattr(grid, "EPOCHS", 1)
    ds, told = data.Dataset(dataset), []
    records = grid.run(ds, tmp_path, log=told.append)
    assert [r["task"] for r in records] == ["category"] * 2 + ["app"] * 2
    chosen = [SHAPES[0], SHAPES[1], SHAPES[0], SHAPES[2]]
    assert [(tuple(r["c1"]), tuple(r["c2"])) for r in records] == chosen
    assert all(0 <= r["weighted_f1"] <= 1 and r["parameters"] > 1000 for r in records)
    told.clear()
    assert grid.run(ds, tmp_path, log=told.append) == records
    assert not told


def test_bench_compares_in_one_run(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "PACKETS", 64)
    monkeypatch.setattr(nets, "KINDS", ("cnn-app", "sae-app"))
    found = bench.run(data.Dataset(dataset), tmp_path, 0, log=lambda _: None)
    assert {(r["model"], r["runtime"], r["packets"]) for r in found["networks"]} == {
        (m, r, p)
        for m in ("cnn-app", "sae-app")
        for r in ("torch", "onnx")
        for p in ("mix", "full")
    }
