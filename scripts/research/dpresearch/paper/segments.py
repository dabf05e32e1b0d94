# SPDX-License-Identifier: Apache-2.0
"""The quantised CNN over only those parts of a packet that are not padding.

cnn.Segments says how packets are cut. The segments of a batch that have a byte other than zero go
through the convolutions as one image, and their outputs replace what a segment of zeros gives. The
results equal those of the original graph bit for bit.
"""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from dptrain import graph
from dptrain.data import SIZE


def of_dense(model, segments):
    """The same model, computed by segments (a cnn.Segments).

    ``model`` is the INT8 graph [Reshape, QLinearConv, QLinearConv, MaxPool, Flatten, QGemm, ...].
    """
    _, first, second, pooling, _, dense = model.graph.node[:6]
    kinds = [n.op_type for n in model.graph.node[:6]]
    if kinds != ["Reshape", "QLinearConv", "QLinearConv", "MaxPool", "Flatten", "QGemm"]:
        raise ValueError(f"not the quantised CNN: {kinds}")
    count, run, window = segments.count, segments.run, segments.window
    outputs = segments.outputs

    g = graph.Builder(model.graph.name)
    g.count = len(model.graph.initializer) + len(model.graph.node)  # names of its own
    wide = _taken_apart(g, count, segments.step, window)
    active = g.op("ReduceMax", wide, _shape(2), keepdims=0)
    active = g.cast(active, TensorProto.BOOL)
    always = np.arange(count)[None] == 0  # a batch of nothing but zeros has segments too
    where = g.op("Transpose", g.op("NonZero", g.op("Or", active, always)), perm=[1, 0])
    x = g.op("Reshape", g.op("GatherND", wide, where), _shape(1, 1, -1, window))
    nodes = [first, second, pooling]
    first.input[0] = x
    zeros = _background(model, nodes, x, window)
    width = zeros.shape[2]
    g.nodes += nodes
    x = g.op("Transpose", pooling.output[0], perm=[0, 2, 3, 1])
    x = g.op("Reshape", x, _shape(-1, width))
    sizes = g.op("Concat", g.op("Shape", graph.INPUT, start=0, end=1), _shape(1, 1), axis=0)
    full = g.op("Expand", np.tile(zeros, (1, count, 1)), sizes)
    x = g.op("ScatterND", full, where, x)
    dense.input[0] = g.op("Reshape", x, _shape(0, count * width))

    values = {i.name: i for i in model.graph.initializer}
    weight = numpy_helper.to_array(values[dense.input[3]])
    by_output = weight.reshape(-1, outputs, weight.shape[1]).transpose(1, 0, 2)
    padded = np.zeros((count * run, *by_output.shape[1:]), weight.dtype)
    padded[:outputs] = by_output
    values[dense.input[3]].CopyFrom(
        numpy_helper.from_array(padded.reshape(-1, weight.shape[1]), dense.input[3])
    )
    rest = list(model.graph.node[5:])
    del model.graph.node[:]
    model.graph.node.extend(g.nodes + rest)
    used = {i for n in model.graph.node for i in n.input}
    kept = [v for v in model.graph.initializer if v.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept + g.values)
    onnx.checker.check_model(model, full_check=True)
    return model


def _taken_apart(g, count, step, window):
    """The segments, uint8 [N, count, window].

    They are the packet cut every ``step`` bytes, next to it the same one step later, and so on: a
    Gather of single bytes takes ten times as long.
    """
    times = -(-window // step)
    end = (count - 1 + times) * step
    padding = np.array([0, 0, 0, max(0, end - SIZE)], dtype=np.int64)
    x = g.op("Pad", graph.INPUT, padding, np.array(0, dtype=np.uint8))
    parts = []
    for i in range(times):
        part = g.op("Reshape", g.columns(x, i * step, (i + count) * step), _shape(0, count, step))
        ends = [_shape(0), _shape(min(step, window - i * step)), _shape(2)]
        parts.append(g.op("Slice", part, *ends))
    return g.op("Concat", *parts, axis=2)


def _background(model, nodes, name, window):
    """What the convolutions and the pooling give of a segment of zeros: uint8 [1, 1, width]."""
    used = {i for n in nodes for i in n.input}
    part = helper.make_graph(
        nodes,
        "segment",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, 1, 1, window])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.UINT8, None)],
        [i for i in model.graph.initializer if i.name in used],
    )
    made = helper.make_model(part, ir_version=graph.IR, opset_imports=model.opset_import)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    [out] = session.run(None, {name: np.zeros((1, 1, 1, window), np.uint8)})
    return out.transpose(0, 2, 3, 1).reshape(1, 1, -1)


def _shape(*sizes):
    return np.array(sizes, dtype=np.int64)
