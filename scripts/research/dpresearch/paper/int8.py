# SPDX-License-Identifier: Apache-2.0
"""Exports the paper's networks in INT8."""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime import quantization

from dptrain import export, graph, train

from . import DATA, graphs, nets, segments

PACKETS = 512  # that the quantiser calibrates on
FLOAT_LAYERS = 3
GRAPHS = {"cnn": graphs.of_cnn, "sae": graphs.of_sae}
# Sources and licence of the shipped models' data.
CARD = Path(export.__file__).parents[1] / "card.json"


def export_run(ds, directory, output, name, log=print):
    """Writes NAME.onnx and NAME.json of a run; returns the manifest."""
    run = nets.finished(ds, directory)
    family = run.spec["kind"].split("-")[0]
    made = GRAPHS[family](run.model, run.model.describe())
    rows, timed, rng = export.sample(run)
    calibration = np.sort(rng.permutation(run.split.train)[:PACKETS])
    held = run.split.validation
    with tempfile.TemporaryDirectory() as scratch:
        plain, small = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        onnx.save(made, plain)
        truth = train.predict(run.model, export.Rows(ds.packet, rows))
        export.compare(plain, ds, rows, truth, "FP32 graph against torch", log)
        measured = {"fp32_us_per_packet": export.microseconds(plain, ds.packet[timed])}
        made = quantised(made, np.asarray(ds.packet[calibration]))
        if hasattr(run.model, "segments"):
            made = segments.of_dense(made, run.model.segments)
        onnx.save(made, small)
        measured["int8"] = _accuracy(ds, run, small, held)
        log(f"accuracy on the validation part, {measured['int8']}")
    if run.spec["split"] == "packet":
        log("a packet split holds out no flows: calibrated on the validation packets by flow")
    return export.write(
        ds,
        run,
        made,
        output,
        name,
        precision="int8",
        measured=measured,
        card=_card(run.spec) if nets.SET in ds.meta["sets"] else None,
        log=log,
    )


def _card(spec):
    weaknesses = list(DATA["weaknesses"][spec["kind"].split("-")[0]])
    if spec["split"] != "packet":
        weaknesses[0] = f"Trained with the split {spec['split']!r}, which the paper does not have."
    return {**json.loads(CARD.read_text()), "weaknesses": {spec["kind"]: weaknesses}}


def _accuracy(ds, run, path, rows):
    """Accuracy by packet of PyTorch in FP32 and of the quantised file, on labelled rows."""
    [task] = run.tasks
    rows = rows[task.target[rows] >= 0]
    packets, truth = np.asarray(ds.packet[rows]), task.target[rows]
    both = {"fp32": train.predict(run.model, packets), "int8": export.run_onnx(path, packets)}
    out = {
        name: round(float((p[task.name].argmax(1) == truth).mean()), 4) for name, p in both.items()
    }
    lost = round(out["fp32"] - out["int8"], 4)
    return {f"accuracy_{name}": value for name, value in out.items()} | {"accuracy_lost": lost}


class _Reader(quantization.CalibrationDataReader):
    def __init__(self, packets):
        self.parts = iter(np.array_split(packets, max(1, len(packets) // 16)))

    def get_next(self):
        part = next(self.parts, None)
        return None if part is None else {graph.INPUT: part}


def quantised(model, packets):
    """INT8 by ONNX Runtime's static quantiser, in the QOperator format.

    The last three dense layers stay in float: they are a thousandth of the work and cause most of
    the loss in accuracy. The convolutions have seven-bit weights: processors without VNNI saturate
    on products of signed eight-bit weights, and the model would give other verdicts there. The
    autoencoder loses too much with seven bits. It has unsigned eight-bit weights, which are exact
    and take twice the time.
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
    _bytes_are_the_input(model.graph)
    onnx.checker.check_model(model)
    return model


def _bytes_are_the_input(g):
    """Removes Cast, Mul and QuantizeLinear: a byte is already the quantised, scaled value."""
    by_input = {n.input[0]: n for n in g.node if n.input}
    cast = by_input.get(graph.INPUT)
    chain = [cast]
    while chain[-1] is not None and chain[-1].op_type != "QuantizeLinear":
        chain.append(by_input.get(chain[-1].output[0]))
    kinds = [n.op_type if n is not None else "nothing" for n in chain]
    if kinds[:2] != ["Cast", "Mul"] or kinds[-1] != "QuantizeLinear":
        raise ValueError(f"unexpected operators after the input: {kinds}")
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
    # What is between them (a reshape) works on bytes too.
    last = graph.INPUT
    for node in chain[2:-1]:
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
