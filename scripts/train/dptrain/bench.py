# SPDX-License-Identifier: Apache-2.0
"""Speed of the shipped networks and of the paper's in FP32, one thread, in one run."""

import json
import platform
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from . import cnn, data, export, graph, sae, train

PACKETS = 16 * export.BATCH
FULL = 2 * export.BATCH


def run(ds, models, seconds=10, log=print):
    """Times all nets on two inputs; returns the records, and prints them and the ratios.

    Inputs: ``mix`` is training packets at random, with the corpus' lengths; ``full`` is packets of
    1500 bytes without a zero. A record says model, runtime (torch, onnx), precision, packets (mix,
    full), us_per_packet, packets_per_second; after these come the ratios, and the hashes of the
    shipped networks. The paper's nets in FP32 have random weights: speed does not depend on them.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    rows = rng.permutation(data.rows_for(ds, "train"))[:PACKETS]
    inputs = {
        "mix": np.asarray(ds.packet[rows]),
        "full": rng.integers(1, 256, (FULL, data.SIZE)).astype(np.uint8),
    }
    # The first bytes of a header, so that the default net meets packets as it knows them.
    inputs["full"][:, :20] = inputs["mix"][:FULL, :20]
    machine = processor()
    log(
        f"{machine}; one thread, batch {export.BATCH}; ONNX Runtime {ort.__version__}, "
        f"torch {torch.__version__}; CPU microseconds a packet (packets a second)"
    )
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, runtime, precision, call in _networks(Path(models), Path(scratch)):
            for kind, packets in inputs.items():
                batches = np.split(packets, len(packets) // export.BATCH)
                call(batches[0])
                us = export.best_times(call, batches, seconds / 2)
                records.append(
                    {
                        "machine": machine,
                        "model": name,
                        "runtime": runtime,
                        "precision": precision,
                        "packets": kind,
                        "us_per_packet": us,
                        "packets_per_second": round(1e6 / us),
                    }
                )
            mix, full = records[-2:]
            log(
                f"{name:12} {runtime:5} {precision:5} "
                + " ".join(
                    f"{r['packets']} {r['us_per_packet']:9.2f} ({r['packets_per_second']:,})"
                    for r in (mix, full)
                )
            )
    for text, value in ratios(records).items():
        log(f"{text}: {value}")
        records.append({"machine": machine, "ratio": text, "value": value})
    return [*records, {"models": _hashes(models)}]


def is_current(path, models):
    """Whether a file holds the records of the shipped networks as they are now."""
    if not Path(path).is_file():
        return False
    return json.loads(Path(path).read_text())[-1].get("models") == _hashes(models)


def _hashes(models):
    paths = sorted(Path(models).glob("*.json"))
    return {path.stem: json.loads(path.read_text())["sha256"] for path in paths}


def ratios(records):
    """What the speeds say in comparison, by packets."""
    us = {
        (r["model"], r["runtime"], r["precision"], r["packets"]): r["us_per_packet"]
        for r in records
    }
    out = {}
    for kind in ("mix", "full"):
        paper = us["cnn-app", "torch", "fp32", kind]
        runtime = us["cnn-app", "onnx", "fp32", kind]
        fast = us.get(("cnn-app", "onnx", "int8", kind))
        default = us.get(("default", "onnx", "fp32", kind))
        if fast:
            out[f"{kind}: cnn-app INT8 over torch FP32"] = round(paper / fast, 1)
            out[f"{kind}: cnn-app INT8 over ONNX FP32"] = round(runtime / fast, 1)
        if default:
            out[f"{kind}: default over the paper's app CNN, torch FP32"] = round(paper / default, 1)
            out[f"{kind}: default over the paper's app CNN, ONNX FP32"] = round(
                runtime / default, 1
            )
    return out


def _networks(models, scratch):
    """Yields (model, runtime, precision, call with a batch of packets)."""
    for name in train.PAPER:
        model = _random(name)
        yield name, "torch", "fp32", _torch(model)
        path = scratch / f"{name}.onnx"
        onnx.save(export.GRAPHS[name.split("-")[0]](model, ""), path)
        yield name, "onnx", "fp32", _onnx(path)
    for path in sorted(models.glob("*.onnx")):
        manifest = json.loads(path.with_suffix(".json").read_text())
        yield path.stem, "onnx", manifest["precision"], _onnx(path)


def _random(kind):
    """A network of the paper, its convolutions over the whole packet as published."""
    task = "app" if kind.endswith("app") else "category"
    labels = data.APPS if task == "app" else data.CATEGORIES[:12]
    if kind.startswith("sae"):
        return sae.PaperSAE(task, len(labels)).eval()
    model = cnn.PaperCNN(task, len(labels)).eval()
    model.by_segments = False
    return model


def _torch(model):
    @torch.inference_mode()
    def call(packets):
        return model(torch.from_numpy(packets))

    return call


def _onnx(path):
    session = export.session(path)
    return lambda packets: session.run(None, {graph.INPUT: packets})


def processor():
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
