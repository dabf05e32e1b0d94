# SPDX-License-Identifier: Apache-2.0
"""Trains, exports and scores on a tiny dataset, end to end."""

import hashlib
import json

import numpy as np
import onnxruntime as ort
import pytest
import torch

from dptrain import __main__ as command
from dptrain import data, graph, loop, net, splits, train

FLOWS = 240


def packet_of(rng, label, v6, tcp, options):
    """An IP packet as the vector holds it: header, transport header, payload."""
    payload = bytes([22, 3, 1, label * 9]) + rng.bytes(int(rng.integers(5, 200)))
    sport, dport = int(rng.integers(40000, 60000)), (443, 5222, 25)[label % 3]
    ports = sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    words = int(rng.integers(0, 4)) if options else 0
    if tcp:
        header = ports + rng.bytes(8) + bytes([(5 + words) << 4, 24]) + rng.bytes(2) + bytes(4)
        header += rng.bytes(4 * words)
        length = len(header) + len(payload)
    else:
        length = 8 + len(payload)
        header = ports + length.to_bytes(2, "big") + bytes(14)
    proto = 6 if tcp else 17
    if v6:
        ip = bytes([0x60, 0x12, 1, 2]) + length.to_bytes(2, "big") + bytes([proto, 61])
        ip += bytes(32)
    else:
        more = int(rng.integers(0, 3)) if options else 0
        total = 20 + 4 * more + length
        ip = bytes([0x45 + more, 8]) + total.to_bytes(2, "big") + rng.bytes(2)
        ip += bytes([64, 0, 61, proto]) + bytes(10) + rng.bytes(4 * more)
    vector = (ip + header + payload)[:1500]
    vector += bytes(1500 - len(vector))
    return np.frombuffer(vector, np.uint8), (len(ip), len(ip) + len(header), length, sport, dport)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two hundred flows of every class, labels by payload and port."""
    directory = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(5)
    columns = {name: [] for name in data.Dataset.COLUMNS}
    captures = []
    categories = [*data.CATEGORIES, "background", "other"]
    for c, category in enumerate(categories):
        for part in range(2):
            vpn = category.startswith("vpn-")
            captures.append(
                {
                    "name": f"{category}-{part}",
                    "set": "iscx",
                    "path": f"{category}-{part}.pcap",
                    "category": category,
                    "app": data.APPS[c % len(data.APPS)],
                    "vpn": vpn,
                    "use": "train",
                }
            )
    for flow in range(FLOWS):
        c = flow % len(categories)
        app = flow % len(data.APPS)
        for index in range(3):
            vector, (l4, payload, length, *_) = packet_of(rng, c, flow % 5 == 0, flow % 2, False)
            row = (vector, c, app, flow, c * 2 + flow // 120, 0, index, index + flow, length)
            for name, value in zip(data.Dataset.COLUMNS, (*row, l4, payload), strict=True):
                columns[name].append(value)
    types = {"packet": np.uint8, "time": np.float64, "flow": np.int32, "length": np.int32}
    for name, values in columns.items():
        np.save(directory / f"{name}.npy", np.array(values, types.get(name, np.int16)))
    meta = {
        "format": 1,
        "vector": 1,
        "checksums": False,
        "per_flow": 32,
        "categories": categories,
        "apps": data.APPS,
        "captures": captures,
        "sets": ["iscx"],
        "flows": FLOWS,
        "packets": len(columns["flow"]),
    }
    (directory / "meta.json").write_text(json.dumps(meta))
    return directory


def test_reader_finds_every_field_behind_options_and_ipv6():
    rng = np.random.default_rng(1)
    made = [packet_of(rng, 1, i % 2, i % 3, True) for i in range(200)]
    packets = torch.from_numpy(np.stack([m[0] for m in made]))
    ip, l4, payload = net.read(packets, 64)
    fields = net.fields_of(ip, l4, payload).numpy()
    column = net.FIELDS.index
    for i, (vector, (_, at, length, sport, dport)) in enumerate(made):
        assert bytes(payload[i].numpy()) == vector[at : at + 64].tobytes()
        assert (fields[i, column("sport")], fields[i, column("dport")]) == (sport, dport)
        header = fields[i, column("data_offset")] / 4 if i % 3 else 8
        assert abs(fields[i, column("payload_length")] - (length - header)) < 0.01
        assert abs(fields[i, column("ttl")] - 61) < 1e-6 or i % 2 == 0


def test_default_trains_resumes_exports_and_scores(dataset, tmp_path):
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
    saved["state"]["finished"] = ""
    torch.save(saved, halted / "last.pt")
    command.main(short)
    for name, value in loop.load(halted)[1].items():
        assert torch.equal(value, whole[name]), name

    out = tmp_path / "models"
    arguments = ["--data", str(dataset), "--run", str(run)]
    assert command.main(["export", *arguments, "--name", "small", "-o", str(out)]) == 0
    manifest = json.loads((out / "small.json").read_text())
    blob = (out / "small.onnx").read_bytes()
    assert manifest["sha256"] == hashlib.sha256(blob).hexdigest()
    assert manifest["labels"]["category"] == data.CATEGORIES

    ds = data.Dataset(dataset)
    _, model, _ = train.load(run)
    rows = np.arange(len(ds))
    want = train.probabilities(ds, model, rows)
    session = ort.InferenceSession(blob, providers=["CPUExecutionProvider"])
    for task, got in zip(
        manifest["task"], session.run(manifest["task"], {"packet": ds.packet[rows]}), strict=True
    ):
        assert got.shape == (len(rows), len(manifest["labels"][task]))
        np.testing.assert_allclose(got, want[task], atol=2e-3)
        np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)

    # Whatever bytes come, the graph's gathers stay inside the vector.
    noise = np.random.default_rng(0).integers(0, 256, (3000, 1500)).astype(np.uint8)
    for packets in (noise, np.zeros((1, 1500), np.uint8), np.full((2, 1500), 255, np.uint8)):
        assert np.isfinite(session.run(None, {"packet": packets})[0]).all()


def test_cnn_is_quantised_and_says_the_same(dataset, tmp_path):
    run, out = tmp_path / "run", tmp_path / "models"
    arguments = ["--data", str(dataset), "--run", str(run)]
    command.main(["train", "cnn-traffic", *arguments, "--split", "packet", "--epochs", "1"])
    assert command.main(["export", *arguments, "--name", "cnn", "-o", str(out)]) == 0
    manifest = json.loads((out / "cnn.json").read_text())
    assert manifest["precision"] == "int8"
    assert manifest["figures"]["export"]["category_same_label_as_torch"] > 0.8
    assert abs(manifest["parameters"] / 3.5e6 - 1) < 0.02
    assert abs(manifest["mac"] / 30e6 - 1) < 0.02


def test_splits_keep_flows_and_captures_apart(dataset):
    ds = data.Dataset(dataset)
    task = data.category_task(ds)
    rows = data.rows_for(ds)
    for name in ("packet", "flow", "capture", "all"):
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


def test_a_dataset_of_another_format_is_refused(tmp_path, capsys):
    (tmp_path / "meta.json").write_text('{"format": 2}')
    run = str(tmp_path / "run")
    assert command.main(["train", "default", "--data", str(tmp_path), "--run", run]) == 1
    assert "format is 2" in capsys.readouterr().err


def test_graph_input_is_bytes():
    shape = net.Shape(labels={"category": ["a", "b"]})
    model = net.DefaultNet(shape, [np.array([1.0], np.float32)] * len(net.THERMOMETERS)).eval()
    made = graph.of_default(model, "")
    assert [i.name for i in made.graph.input] == ["packet"]
