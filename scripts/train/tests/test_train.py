# SPDX-License-Identifier: Apache-2.0
"""Trains, resumes and exports on the synthetic dataset, end to end."""

import hashlib
import json

import numpy as np
import onnxruntime as ort
import pytest
import torch
from synthetic import APPS, CATEGORIES, packet_of

from dptrain import __main__ as command
from dptrain import data, graph, loop, net, split, train


def test_reader_finds_every_field_with_options_and_ipv6():
    rng = np.random.default_rng(1)
    made = [packet_of(rng, 1, i % 2, i % 3, True) for i in range(200)]
    packets = torch.from_numpy(np.stack([m[0] for m in made]))
    header, body, lengths = net.read(packets, 64)
    fields = net.fields_of(header, body, lengths).numpy()
    column = net.FIELDS.index
    for i, (vector, (l4, at, length, sport, dport)) in enumerate(made):
        assert bytes(body[i].numpy()) == vector[at : at + 64].tobytes()
        assert (fields[i, column("sport")], fields[i, column("dport")]) == (sport, dport)
        assert fields[i, column("low_port")] == dport
        assert abs(lengths[i] - (length - (at - l4 if i % 3 else 8))) < 0.01
        assert fields[i, column("ttl")] == vector[7 if i % 2 else 8]
        assert fields[i, column("id")] == (0 if i % 2 else int.from_bytes(vector[4:6], "big"))
        # The transport header, without what follows it.
        l4_bytes = vector[l4:at].tobytes().ljust(net.L4_BYTES, b"\0")
        assert bytes(header[i, net.IP_BYTES :].numpy()) == l4_bytes


def test_redrawn_is_what_identifies_and_nothing_else(dataset):
    ds = data.Dataset(dataset)
    header, _, _ = net.read_rows(ds.packet, np.arange(len(ds)), 64)
    rng = torch.Generator().manual_seed(0)
    assert torch.equal(net.redraw(header, 0.0, rng), header)
    redrawn = net.redraw(header, 0.5, rng)
    changed = (redrawn != header).float().mean(0)
    ports = [net.IP_BYTES + i for i in range(4)]
    may = sorted({*(i for group in net.GROUPS.values() for i in group), *ports})
    assert not changed[[i for i in range(net.HEADER) if i not in may]].any()
    # Half of the packets get a new source port, which is the higher one; 25 and 443 stay.
    assert 0.4 < changed[ports[0]] < 0.6
    high = header[:, ports[2]] < 128
    assert torch.equal(redrawn[high][:, ports[2:]], header[high][:, ports[2:]])
    assert 0.4 < changed[net.GROUPS["numbers"][0]] < 0.6


def test_default_trains_resumes_and_exports(dataset, tmp_path):
    run = tmp_path / "run"
    base = ["train", "default", "--data", str(dataset), "--run", str(run), "--epochs", "3"]
    assert command.main(base) == 0
    history = json.loads((run / "history.json").read_text())
    assert history["finished"] == "all epochs"

    # A run that is cut off after its first epoch ends with the same weights.
    halted, whole = tmp_path / "halted", loop.load(run)[1]
    short = [*base[:5], str(halted), *base[6:]]
    command.main([*short, "--max-minutes", "0.000001"])
    saved = torch.load(halted / "last.pt", weights_only=True)
    assert saved["state"]["epoch"] == 1
    saved["state"]["finished"] = ""
    torch.save(saved, halted / "last.pt")
    command.main(short)
    for name, value in loop.load(halted)[1].items():
        assert torch.equal(value, whole[name]), name

    out = tmp_path / "models"
    arguments = ["--data", str(dataset), "--run", str(run)]
    assert command.main(["export", *arguments, "--name", "small", "--out", str(out)]) == 0
    manifest = json.loads((out / "small.json").read_text())
    blob = (out / "small.onnx").read_bytes()
    assert manifest["sha256"] == hashlib.sha256(blob).hexdigest()
    assert manifest["labels"] == {"category": CATEGORIES, "app": APPS}
    told = {name: manifest[name] for name in ("samples", "growth", "floor")}
    assert told == json.loads((dataset / "meta.json").read_text())["aggregation"]

    ds = data.Dataset(dataset)
    _, model, _ = train.load(run)
    want = train.predict(model, ds.packet)
    session = ort.InferenceSession(blob, providers=["CPUExecutionProvider"])
    for task, got in zip(
        manifest["task"], session.run(manifest["task"], {"packet": ds.packet}), strict=True
    ):
        assert got.shape == (len(ds), len(manifest["labels"][task]))
        np.testing.assert_allclose(got, want[task], atol=2e-3)
        np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)

    # Whatever bytes come, the graph's gathers stay inside the vector.
    noise = np.random.default_rng(0).integers(0, 256, (3000, 1500)).astype(np.uint8)
    for packets in (noise, np.zeros((1, 1500), np.uint8), np.full((2, 1500), 255, np.uint8)):
        assert np.isfinite(session.run(None, {"packet": packets})[0]).all()


def test_a_run_directory_of_other_options_is_refused(dataset, tmp_path, capsys):
    base = ["train", "default", "--data", str(dataset), "--run", str(tmp_path), "--epochs", "1"]
    assert command.main(base) == 0
    assert command.main([*base, "--seed", "1"]) == 1
    assert "a checkpoint of another run" in capsys.readouterr().err


def test_average_is_of_all_steps_with_a_growing_decay(tmp_path):
    """One weight that grows by one each step, against the average computed by hand."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    plan = loop.Plan(2, average=0.5, keep="last")
    state = loop.run(
        *(model, optimizer, None, plan, tmp_path),
        batches=lambda epoch: range(3),
        step=lambda model, batch: -model.weight.sum(),
        validate=lambda model: {"loss": model.weight.item()},
        spec={"seed": 0},
        log=lambda line: None,
    )
    want = 0.0
    for n in range(1, 7):
        decay = min(0.5, (1 + n) / (10 + n))
        want = decay * want + (1 - decay) * n
    assert state.best == pytest.approx(want)
    assert loop.load(tmp_path)[1]["weight"].item() == pytest.approx(want)


def test_best_epoch_is_kept_and_patience_ends_the_training(tmp_path):
    model = torch.nn.Linear(1, 1)
    losses = iter([3.0, 1.0, 2.0, 2.0, 0.0])
    state = loop.run(
        *(
            model,
            torch.optim.SGD(model.parameters(), 0.0),
            None,
            loop.Plan(5, patience=2),
            tmp_path,
        ),
        batches=lambda epoch: [torch.ones(1, 1)],
        step=lambda model, batch: model(batch).sum(),
        validate=lambda model: {"loss": next(losses)},
        spec={"seed": 0},
        log=lambda line: None,
    )
    assert (state.epoch, state.best_epoch, state.best) == (4, 1, 1.0)
    assert state.finished == "no better loss in 2 epochs"
    assert loop.load(tmp_path)[2] == 1


def test_labels_of_a_manifest_are_learnt(dataset, tmp_path):
    """Applications are learnt outside a VPN; the rest there is negative, with two exceptions."""
    manifest = tmp_path / "other.json"
    manifest.write_text(
        json.dumps({"labels": {"category": CATEGORIES[:6], "app": ["email", "skype", "youtube"]}})
    )
    base = ["train", "default", "--data", str(dataset), "--run", str(tmp_path / "run")]
    assert command.main([*base, "--epochs", "1", "--labels", str(manifest)]) == 0
    spec, _, _ = loop.load(tmp_path / "run")
    assert spec["labels"] == json.loads(manifest.read_text())["labels"]

    ds = data.Dataset(dataset)
    names, vpn = ds.names("app"), ds.capture_column("vpn").astype(bool)
    ds.meta["known_apps"] = ["aim"]
    task = data.app_task(ds, ["email", "skype", "youtube"])
    assert set(task.target[vpn]) == {data.UNUSED}
    assert set(task.target[(names == "skype") & ~vpn]) == {1}
    assert set(task.target[(names == "aim") & ~vpn]) == {data.UNUSED}
    assert set(task.target[(names == "icq") & ~vpn]) == {data.NO_CLASS}
    ds.meta["apps"] = ["skype-lite" if name == "icq" else name for name in ds.meta["apps"]]
    task = data.app_task(ds, ["email", "skype", "youtube"])
    assert set(task.target[(names == "icq") & ~vpn]) == {data.UNUSED}


def test_folds_leave_out_captures_and_networks(dataset):
    ds = data.Dataset(dataset)
    target, rows = data.category_task(ds).target, data.rows_for(ds, "train")
    # Of one set, by capture: each class has two.
    fold = split.folds(ds, rows, target, 2)
    assert {len(set(fold[ds.capture == c].tolist())) for c in np.unique(ds.capture)} == {1}
    for label in np.unique(target[target >= 0]):
        assert set(fold[target == label].tolist()) == {0, 1}
    # A class with a single capture is divided by time.
    ds.capture = np.where(target == 3, 0, ds.capture)
    fold, time = split.folds(ds, rows, target, 2), ds.time
    first, second = ((target == 3) & (fold == f) for f in (0, 1))
    assert time[first].max() < time[second].min() + 3  # the packets of one flow
    # Five small sets: each is in one fold.
    ds.set = ds.flow % 5
    fold = split.folds(ds, rows, target, 2)
    assert {len(set(fold[ds.set == s].tolist())) for s in range(5)} == {1}
    assert 0.3 < fold.mean() < 0.7


def test_folds_calibrate_a_network_of_all_flows(dataset, tmp_path):
    run, out = tmp_path / "run", tmp_path / "models"
    arguments = ["--data", str(dataset), "--run", str(run)]
    assert command.main(["train", "default", *arguments, "--epochs", "2", "--folds", "2"]) == 0
    assert (run / "fold-2" / "best.pt").is_file()
    assert command.main(["export", *arguments, "--name", "small", "--out", str(out)]) == 0
    manifest = json.loads((out / "small.json").read_text())
    ds = data.Dataset(dataset)
    assert manifest["training"]["flows"] == len(np.unique(ds.flow))
    assert manifest["figures"]["capture split"]["category"]["flow"]["n"] == np.sum(
        data.category_task(ds).target[np.unique(ds.flow, return_index=True)[1]] >= 0
    )
    assert [p["min_confidence"] for p in manifest["operating_points"]["app"]] == [0.5, 0.8, 0.95]


@pytest.mark.parametrize("folds", [0, 2])
def test_a_set_beside_is_learnt_by_all_and_judged_by_none(dataset, folds):
    ds = data.Dataset(dataset)
    ds.meta["sets"] = ["iscx", "lab"]
    for i, capture in enumerate(ds.captures):
        capture["set"] = ds.meta["sets"][i % 2]
    lab = set(np.flatnonzero(ds.capture_column("set") == "lab").tolist())
    options = train.Options(beside=["lab"], folds=folds)
    tasks, parts = train.problem(ds, options)
    every = [parts, *train.folds(ds, options, tasks, parts)]
    assert len(every) == 1 + folds
    for part in every:
        assert lab <= set(part.train.tolist())
        assert not lab & set(part.validation.tolist())
    judged = np.concatenate([part.validation for part in every])
    assert len(judged) == (len(ds) - len(lab) if folds else 36)
    with pytest.raises(data.DatasetError, match="no set 'labs'"):
        train.problem(ds, train.Options(beside=["labs"]))


def test_held_out_flows_are_a_tenth_of_each_class(dataset):
    ds = data.Dataset(dataset)
    task = data.category_task(ds)
    rows = data.rows_for(ds, "train")
    parts = split.hold_out(ds, rows, task.target, 3)
    again = split.hold_out(ds, rows, task.target, 3)
    assert np.array_equal(parts.train, again.train)
    assert np.array_equal(np.sort(np.concatenate([parts.train, parts.validation])), rows)
    held, learnt = (set(ds.flow[p].tolist()) for p in (parts.validation, parts.train))
    assert not held & learnt
    assert len(held) == 24
    assert len(set(task.target[parts.validation])) > 10


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ('{"format": 2}', "format is 2"),
        ('{"format": 1, "vector": 1}', "an older dpclass built this dataset"),
    ],
)
def test_a_dataset_that_cannot_be_read_is_refused(tmp_path, capsys, meta, says):
    (tmp_path / "meta.json").write_text(meta)
    run = str(tmp_path / "run")
    assert command.main(["train", "default", "--data", str(tmp_path), "--run", run]) == 1
    assert says in capsys.readouterr().err


def test_graph_input_is_bytes():
    shape = net.Shape(labels={"category": ["a", "b"]})
    model = net.DefaultNet(shape, [np.array([1.0], np.float32)] * len(net.FIELDS)).eval()
    made = graph.of_default(model, "")
    assert [i.name for i in made.graph.input] == ["packet"]
