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

from dptrain import data, export, graph

from .paper import LABELS, cnn, int8, nets, sae

PACKETS = 16 * export.BATCH
FULL = 2 * export.BATCH


def run(ds, models, seconds=10, log=print):
    """Times all networks on two inputs; returns {machine, networks, ratios, models}.

    Inputs: ``mix`` is training packets at random, with the lengths of the corpus; ``full`` is
    packets of 1500 bytes without a zero. A network has model, runtime (torch, onnx), precision,
    packets (mix, full), us_per_packet, packets_per_second; ``models`` has the hashes of the shipped
    ones. The paper's networks in FP32 have random weights: speed does not depend on them.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    rows = rng.permutation(data.rows_for(ds, "train"))[:PACKETS]
    inputs = {
        "mix": np.asarray(ds.packet[rows]),
        "full": rng.integers(1, 256, (FULL, data.SIZE)).astype(np.uint8),
    }
    # The first bytes of a header, so that the default network gets packets as it knows them.
    inputs["full"][:, :20] = inputs["mix"][:FULL, :20]
    log(
        f"{processor()}; one thread, batch {export.BATCH}; ONNX Runtime {ort.__version__}, "
        f"torch {torch.__version__}; CPU microseconds a packet (packets a second)"
    )
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, runtime, precision, call in _networks(Path(models), Path(scratch)):
            shown = f"{name:12} {runtime:5} {precision:5}"
            for kind, packets in inputs.items():
                batches = np.split(packets, len(packets) // export.BATCH)
                call(batches[0])
                us = export.best_times(call, batches, seconds / 2)
                records.append(
                    {
                        "model": name,
                        "runtime": runtime,
                        "precision": precision,
                        "packets": kind,
                        "us_per_packet": us,
                        "packets_per_second": round(1e6 / us),
                    }
                )
                shown += f" {kind} {us:9.2f} ({round(1e6 / us):,})"
            log(shown)
    found = ratios(records)
    for text, value in found.items():
        log(f"{text}: {value}")
    hashes = {m["name"]: m["sha256"] for m in _manifests(models).values()}
    return {"machine": processor(), "networks": records, "ratios": found, "models": hashes}


def ratios(records):
    """How many times faster than the paper's app CNN in FP32, by packets."""
    us = {
        (r["model"], r["runtime"], r["precision"], r["packets"]): r["us_per_packet"]
        for r in records
    }
    out = {}
    for kind in ("mix", "full"):
        for runtime, shown in (("torch", "torch FP32"), ("onnx", "ONNX FP32")):
            slow = us["cnn-app", runtime, "fp32", kind]
            for model, precision, told in (
                ("cnn-app", "int8", "cnn-app INT8 over"),
                ("default", "fp32", "default over the paper's app CNN,"),
            ):
                fast = us.get((model, "onnx", precision, kind))
                if fast:
                    out[f"{kind}: {told} {shown}"] = round(slow / fast, 1)
    return out


def _manifests(models):
    """{ONNX file: manifest} of the models in and below a directory."""
    paths = sorted(Path(models).rglob("*.onnx"))
    return {path: json.loads(path.with_suffix(".json").read_text()) for path in paths}


def _networks(models, scratch):
    """Yields (model, runtime, precision, call with a batch of packets)."""
    for name in nets.KINDS:
        model = _random(name)
        yield name, "torch", "fp32", _torch(model)
        path = scratch / f"{name}.onnx"
        onnx.save(int8.GRAPHS[name.split("-")[0]](model, ""), path)
        yield name, "onnx", "fp32", _onnx(path)
    for path, manifest in _manifests(models).items():
        yield path.stem, "onnx", manifest["precision"], _onnx(path)


def _random(kind):
    """One of the paper's networks, whose convolutions run over the whole packet as published."""
    task = nets.Options(kind).task
    if kind.startswith("sae"):
        return sae.PaperSAE(task, len(LABELS[task])).eval()
    model = cnn.PaperCNN(task, len(LABELS[task])).eval()
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
