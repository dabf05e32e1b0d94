# SPDX-License-Identifier: Apache-2.0
"""The default network as an ONNX graph, written operator by operator.

An exporter adds operators of its own, and some of them are slow.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from . import net
from .data import SIZE

OPSET = 18
IR = 9
INPUT = "packet"


class Builder:
    """Collects nodes and initializers; the methods return the names of what they add."""

    def __init__(self, name):
        self.name, self.nodes, self.values, self.count = name, [], [], 0

    def constant(self, array, name=None):
        """An initializer."""
        name = name or self._fresh("constant")
        self.values.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, kind, *inputs, outputs=1, name=None, **attributes):
        """A node; inputs are names or arrays."""
        inputs = [self.constant(i) if isinstance(i, np.ndarray) else i for i in inputs]
        if outputs == 1:
            names = [name or self._fresh(kind.lower())]
        else:
            names = [self._fresh(kind.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def cast(self, value, to):
        """Cast to a TensorProto type."""
        return self.op("Cast", value, to=to)

    def columns(self, value, begin, end):
        """Columns begin to end of a matrix."""
        one = [np.array([v], dtype=np.int64) for v in (begin, end, 1)]
        return self.op("Slice", value, one[0], one[1], one[2])

    def dense(self, value, linear, relu=False):
        """A torch Linear."""
        weight = linear.weight.detach().numpy()
        out = self.op("Gemm", value, weight.T.copy(), linear.bias.detach().numpy())
        return self.op("Relu", out) if relu else out

    def model(self, outputs, text):
        """The finished, checked model; outputs are (name, width)."""
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", SIZE])],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", w]) for n, w in outputs],
            self.values,
            doc_string=text,
        )
        made = helper.make_model(
            graph,
            producer_name="dpclass",
            ir_version=IR,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        onnx.checker.check_model(made, full_check=True)
        return made

    def _fresh(self, kind):
        self.count += 1
        return f"{kind}_{self.count}"


def of_default(model, text):
    """The ONNX model of a DefaultNet; net.read says what the first operators do."""
    s, g = model.shape, Builder("default")
    f32, i32, i64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
    n = len(net.IP_FIELDS)

    # IP fields, IPv4 and IPv6 side by side, and byte 0, which says which of them holds.
    w, b = net.ip_matrices()
    w = np.concatenate([w, np.eye(net.HEAD, 1, dtype=np.float32)], 1)
    head = g.cast(g.columns(INPUT, 0, net.HEAD), f32)
    z = g.op("Floor", g.op("Gemm", head, w, np.append(b, np.float32(0))))
    v4, v6, first = g.op("Split", z, np.array([n, n, 1], dtype=np.int64), outputs=3, axis=1)
    ip = g.op("Where", g.op("Less", first, np.full(1, 96, np.float32)), v4, v6)

    # The bytes of the transport header, the offset of the payload, the bytes of the payload.
    at = g.op("Add", g.cast(g.columns(ip, 0, 1), i64), np.array([net.L4_BYTES], dtype=np.int64))
    l4 = g.op("GatherElements", INPUT, at, axis=1)
    headers = g.op("Concat", ip, g.cast(l4, f32), axis=1)
    w, b = _payload_at()
    at = g.cast(g.op("Gemm", headers, w, b), i64)
    at = g.op("Add", at, np.arange(s.payload, dtype=np.int64)[None])
    payload = g.op("GatherElements", INPUT, at, axis=1)

    # Fields, thermometers, and the dense layer over them.
    start = g.cast(g.columns(payload, 0, net.PAYLOAD_WORDS), f32)
    w, b = net.field_matrices()
    x = g.op("Relu", g.op("Gemm", g.op("Concat", headers, start, axis=1), w, b))
    x = g.op("Gemm", x, model.expand.numpy(), model.offset.numpy())
    x = g.op("Clip", x, np.array(0, dtype=np.float32), np.array(1, dtype=np.float32))
    steps = g.dense(x, model.header)

    # The sum of the table rows of all bytes. The table is stored in half precision; the runtime
    # widens it once, when it loads the model.
    taken = g.columns(l4, net.L4_TABLE.start, net.L4_TABLE.stop)
    index = g.cast(g.op("Concat", taken, payload, axis=1), i32)
    index = g.op("Add", index, (np.arange(s.positions(), dtype=np.int32) * 256)[None])
    table = g.cast(g.constant(model.table.weight.detach().numpy().astype(np.float16)), f32)
    rows = g.op("ReduceSum", g.op("Gather", table, index), np.array([1], np.int64), keepdims=0)
    x = g.op("Relu", g.op("Concat", steps, g.dense(rows, model.mix), axis=1))
    for linear in model.dense:
        if hasattr(linear, "weight"):
            x = g.dense(x, linear, relu=True)

    # Both heads are one product.
    heads = list(model.heads.items())
    w = np.concatenate([h.weight.detach().numpy().T for _, h in heads], 1)
    b = np.concatenate([h.bias.detach().numpy() for _, h in heads])
    x = g.op("Gemm", x, w, b)
    widths = [h.out_features for _, h in heads]
    outs = [x]
    if len(heads) > 1:
        outs = g.op("Split", x, np.array(widths, np.int64), outputs=len(heads), axis=1)
    for (task, _), out in zip(heads, outs, strict=True):
        g.op("Softmax", out, axis=1, name=task)
    return g.model([(t, w) for (t, _), w in zip(heads, widths, strict=True)], text)


def _payload_at():
    """net.payload_at as one product over [IP fields, L4 bytes]."""
    inputs = [*net.IP_FIELDS, *(f"l{i}" for i in net.L4_BYTES)]
    w = np.zeros((len(inputs), 1), dtype=np.float32)
    w[inputs.index("l4_at"), 0] = 1
    w[inputs.index("l12"), 0] = 1 / 4
    w[inputs.index("proto"), 0] = 20 / 11
    return w, np.array([0.125 - 6 * 20 / 11], dtype=np.float32)
