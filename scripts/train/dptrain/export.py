# SPDX-License-Identifier: Apache-2.0
"""A trained run as NAME.onnx and NAME.json: graph, INT8, calibration, manifest."""

import hashlib
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from onnxruntime import quantization

from . import data, graph, manifest, metrics, segments, train

CALIBRATION_PACKETS = 512
CHECK_PACKETS = 2000
FLOAT_LAYERS = 3
BATCH = 32  # of what is timed
GRAPHS = {"cnn": graph.of_cnn, "sae": graph.of_sae}


def export(ds, run, directory, name, log=print):
    """Writes the model of a run; returns the manifest.

    The paper's nets are quantised to INT8. The default net stays FP32.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    spec, model, epoch = train.load(run)
    tasks, split = train.problem(ds, train.options_of(spec))
    rng = np.random.default_rng(spec["seed"])
    path = directory / f"{name}.onnx"
    paper = spec["kind"] in train.PAPER
    learnt = train.learnt_rows(ds, train.options_of(spec), split)
    if paper:
        exported = GRAPHS[spec["kind"].split("-")[0]](model, model.describe())
    else:
        exported = graph.of_default(model, model.describe())
    rows = np.sort(rng.permutation(split.validation)[:CHECK_PACKETS])
    truth = train.probabilities(ds, model, rows)
    measured, timed = {}, rng.permutation(rows)[: 16 * BATCH]
    if paper:
        calibration = np.sort(rng.permutation(split.train)[:CALIBRATION_PACKETS])
        with tempfile.TemporaryDirectory() as scratch:
            plain = Path(scratch) / "fp32.onnx"
            onnx.save(exported, plain)
            _compare(plain, ds, rows, truth, "FP32 graph against torch", log)
            measured["fp32_us_per_packet"] = microseconds(plain, ds.packet[timed])
        exported = quantised(exported, np.asarray(ds.packet[calibration]))
        if hasattr(model, "segments"):
            exported = segments.of_dense(exported, model.segments)
    onnx.save(exported, path)
    agreement = _compare(path, ds, rows, truth, f"{path.name} against torch", log)
    measured["us_per_packet"] = microseconds(path, ds.packet[timed])
    size = path.stat().st_size / 2**20
    log(f"{path.name}: {size:.1f} MiB, {measured['us_per_packet']} us a packet")

    # Calibration on the flows kept out of the training, through the file that is shipped.
    held = split.validation
    if spec["split"] == "packet":
        log("a packet split has no flows kept out: calibrated on the validation packets by flow")
    probabilities = run_onnx(path, np.asarray(ds.packet[held]))
    temperature, threshold = {}, {}
    for task in tasks:
        p, target = probabilities[task.name], task.target[held]
        if not np.any(target >= 0):
            raise data.DatasetError(
                f"{ds.directory}: no labelled {task.name} flow is left for the calibration; "
                "more flows are needed"
            )
        keys = ds.flow[held], ds.index[held]
        temperature[task.name] = metrics.fit_temperature(p, target, *keys)
        threshold[task.name] = metrics.unknown_threshold(p, target, *keys, temperature[task.name])
    if paper:
        measured["int8"] = _loss(ds, model, tasks[0], held, probabilities)
        log(f"accuracy on the validation part, {measured['int8']}")
    validated = {
        t.name: metrics.by_packet_and_flow(
            probabilities[t.name], t.target[held], ds.flow[held], ds.index[held]
        )
        for t in tasks
    }
    values = manifest.make(
        name=name,
        spec=spec,
        model=model,
        precision="int8" if paper else "fp32",
        temperature=temperature,
        threshold=threshold,
        sources=data.training_sources(ds, learnt),
        packets=spec["used_packets"],
        flows=len(np.unique(ds.flow[learnt])),
        figures={
            "validation": validated,
            "export": {**measured, **agreement, "epoch": epoch + 1},
        },
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    (directory / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n")
    return values


class _Reader(quantization.CalibrationDataReader):
    def __init__(self, packets):
        self.parts = iter(np.array_split(packets, max(1, len(packets) // 16)))

    def get_next(self):
        part = next(self.parts, None)
        return None if part is None else {graph.INPUT: part}


def quantised(model, packets):
    """INT8 by the standard static quantiser, QOperator format.

    The last three dense layers stay in float: they are a thousandth of the work, and most of what
    INT8 costs in accuracy. The convolutions' weights keep to seven bits: on processors without
    VNNI the products of signed eight-bit weights saturate, and the model would say something else
    there. The autoencoder loses too much by that; it has unsigned weights of eight bits, which are
    multiplied exactly, in twice the time.
    """
    signed = any(n.op_type == "Conv" for n in model.graph.node)
    dense = [i for i, n in enumerate(model.graph.node) if n.op_type == "Gemm"]
    for node in model.graph.node:
        node.name = node.output[0]
    with tempfile.TemporaryDirectory() as scratch:
        plain, path = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        onnx.save(model, plain)
        quantization.quantize_static(
            str(plain),
            str(path),
            _Reader(packets),
            quant_format=quantization.QuantFormat.QOperator,
            op_types_to_quantize=["Conv", "Gemm", "MaxPool", "Relu", "Reshape", "Flatten"],
            per_channel=True,
            reduce_range=signed,
            nodes_to_exclude=[n.name for n in model.graph.node[dense[-FLOAT_LAYERS] :]],
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8 if signed else quantization.QuantType.QUInt8,
        )
        model = onnx.load(path)
    bytes_are_the_input(model.graph)
    onnx.checker.check_model(model)
    return model


def bytes_are_the_input(g):
    """Takes Cast, Mul and QuantizeLinear away: a byte is the quantised 1/255-scaled value."""
    by_input = {n.input[0]: n for n in g.node if n.input}
    cast = by_input.get(graph.INPUT)
    chain = [cast]
    while chain[-1] is not None and chain[-1].op_type != "QuantizeLinear":
        chain.append(by_input.get(chain[-1].output[0]))
    kinds = [n.op_type if n is not None else "nothing" for n in chain]
    if kinds[:2] != ["Cast", "Mul"] or kinds[-1] != "QuantizeLinear":
        raise ValueError(f"unexpected operators behind the input: {kinds}")
    quantiser = chain[-1]
    values = {i.name: i for i in g.initializer}
    scale = numpy_helper.to_array(values[quantiser.input[1]])
    zero = numpy_helper.to_array(values[quantiser.input[2]])
    if abs(float(scale) * 255 - 1) > 0.02 or int(zero) != 0:
        raise ValueError(
            f"the input was quantised by {float(scale)} and {int(zero)}, not by 1/255 and 0"
        )
    values[quantiser.input[1]].CopyFrom(
        numpy_helper.from_array(np.array(1 / 255, scale.dtype), quantiser.input[1])
    )
    # What stood between (a reshape) works on bytes just as well.
    between = chain[2:-1]
    last = graph.INPUT
    for node in between:
        node.input[0] = last
        last = node.output[0]
    for node in g.node:
        for i, name in enumerate(node.input):
            if name == quantiser.output[0]:
                node.input[i] = last
    for node in (cast, chain[1], quantiser):
        g.node.remove(node)
    used = {i for n in g.node for i in n.input}
    for value in [v for v in g.initializer if v.name not in used]:
        g.initializer.remove(value)
    del g.value_info[:]


def session(path):
    """One thread, all optimisations, as the agent's workers run it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_onnx(path, packets, batch=64):
    """Probabilities by task."""
    s = session(path)
    names = [o.name for o in s.get_outputs()]
    parts = [
        s.run(names, {graph.INPUT: packets[i : i + batch]}) for i in range(0, len(packets), batch)
    ]
    return {n: np.concatenate(p) for n, p in zip(names, zip(*parts, strict=True), strict=True)}


def microseconds(path, packets, seconds=3):
    """Time a packet of uint8 packets [N, 1500] in batches, one thread: see ``best_times``."""
    s = session(path)
    batches = [packets[i : i + BATCH] for i in range(0, len(packets), BATCH)]
    return best_times(lambda batch: s.run(None, {graph.INPUT: batch}), batches, seconds)


def best_times(run, batches, seconds):
    """Microseconds of CPU time a packet: each batch's best of several rounds, added up.

    The thread's own time and the best of it, so that others' load on the machine counts little;
    all batches, because they take different times.
    """
    best, end, rounds = np.full(len(batches), np.inf), time.perf_counter() + seconds, 0
    while rounds < 3 or time.perf_counter() < end:
        for i, batch in enumerate(batches):
            began = time.thread_time()
            run(batch)
            best[i] = min(best[i], time.thread_time() - began)
        rounds += 1
    return round(best.sum() / sum(map(len, batches)) * 1e6, 2)


def _compare(path, ds, rows, truth, what, log):
    got = run_onnx(path, np.asarray(ds.packet[rows]))
    out = {}
    for task, want in truth.items():
        far = float(np.abs(got[task] - want).max())
        same = float((got[task].argmax(1) == want.argmax(1)).mean())
        log(f"{what}, {task}: largest difference {far:.2g}, same label {same:.4f}")
        out[f"{task}_same_label_as_torch"] = round(same, 4)
    return out


def _loss(ds, model, task, rows, probabilities):
    """Accuracy by packet of torch in FP32 and of the quantised graph, on labelled rows."""
    known = task.target[rows] >= 0
    truth = task.target[rows[known]]
    fp32 = train.probabilities(ds, model, rows[known])[task.name]
    right = {"fp32": fp32, "int8": probabilities[task.name][known]}
    out = {name: round(float((p.argmax(1) == truth).mean()), 4) for name, p in right.items()}
    return {"accuracy_" + name: value for name, value in out.items()} | {
        "accuracy_lost": round(out["fp32"] - out["int8"], 4)
    }
