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

    def clip(self, value):
        """Values outside 0 to 1 become 0 and 1."""
        return self.op("Clip", value, np.array(0, np.float32), np.array(1, np.float32))

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

    # The transport header, and the length of TCP's in 32-bit words.
    at = g.cast(g.columns(ip, *_span("l4_at")), i64)
    l4 = g.op("GatherElements", INPUT, g.op("Add", at, _range(net.L4_BYTES)), axis=1)
    l4 = g.cast(l4, f32)
    words = g.op("Mul", g.columns(l4, 12, 13), np.full(1, 1 / 16, np.float32))
    words = g.op("Floor", words)

    # Options that the header does not have become zero.
    span = np.arange(net.L4_BYTES)
    bias = np.where(span < net.BASE, 1, -span).astype(np.float32)
    mask = g.op("Gemm", words, np.full((1, net.L4_BYTES), 4, np.float32), bias)
    l4 = g.op("Mul", l4, g.clip(mask))

    # The bytes of the payload.
    numbers = g.op("Concat", ip, words, axis=1)
    w, b = _payload_at()
    at = g.op("Add", g.cast(g.op("Gemm", numbers, w, b), i64), _range(s.payload))
    body = g.op("GatherElements", INPUT, at, axis=1)

    # Fields, thermometers, and the dense layer over them.
    header = g.op("Concat", g.columns(ip, 0, net.IP_BYTES), l4, axis=1)
    body = g.cast(body, f32)
    w, b = _fields()
    x = g.op("Concat", numbers, l4, g.columns(body, 0, net.PAYLOAD_WORDS), axis=1)
    x = g.op("Relu", g.op("Gemm", x, w, b))
    w, b = _steps(model)
    steps = g.dense(g.clip(g.op("Gemm", x, w, b)), model.steps)

    # The sum of the table rows of all bytes. The table is stored in half precision; the runtime
    # widens it once, when it loads the model.
    index = g.cast(g.op("Concat", header, body, axis=1), i32)
    index = g.op("Add", index, (np.arange(s.positions(), dtype=np.int32) * 256)[None])
    table = g.cast(g.constant(model.table.weight.detach().numpy().astype(np.float16)), f32)
    rows = g.op("ReduceSum", g.op("Gather", table, index), np.array([1], np.int64), keepdims=0)
    x = g.op("Relu", g.op("Concat", steps, rows, axis=1))
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


def _range(n):
    return np.arange(n, dtype=np.int64)[None]


def _span(name):
    """Begin and end of the column of an IP field."""
    at = net.IP_FIELDS.index(name)
    return at, at + 1


NUMBERS = (*net.IP_FIELDS, "words")  # what the offsets and lengths are computed from


def _payload_at():
    """The offset of the payload over NUMBERS; an eighth protects it from rounding errors."""
    w = _weights(NUMBERS, {"l4_at": 1, "words": 4, "proto": 20 / 11})[:, None]
    return w, np.array([0.125 - 6 * 20 / 11], dtype=np.float32)


# net.FIELDS as a ReLU makes them, but for those that follow from the difference of the ports.
LINEAR = (*(f for f in net.FIELDS if f not in ("low_port", "upward")), "port_gap")


def _fields():
    """Weights and bias of LINEAR over NUMBERS, the transport header, the payload's first bytes."""
    names = (*NUMBERS, *(f"l{i}" for i in range(net.L4_BYTES)))
    names = (*names, *(f"p{i}" for i in range(net.PAYLOAD_WORDS)))
    sums = {
        "length": {"l4_length": 1, "words": -4, "proto": -8 / 11},
        **{name: {name: 1} for name in ("tos", "flags", "ttl")},
        "data_offset": {"l12": 1},
        "tcp_flags": {"l13": 1},
        "window": {"l14": 256, "l15": 1},
        **{f"p{i}{i + 1}": {f"p{i}": 256, f"p{i + 1}": 1} for i in (0, 2, 3)},
        "sport": {"l0": 256, "l1": 1},
        "dport": {"l2": 256, "l3": 1},
        "port_gap": {"l2": 256, "l3": 1, "l0": -256, "l1": -1},
        "id": {"id0": 256, "id1": 1},
        "seq": {"l4": 256, "l5": 1},
        "ack": {"l8": 256, "l9": 1},
    }
    b = np.zeros(len(LINEAR), dtype=np.float32)
    b[LINEAR.index("length")] = 6 * 8 / 11
    return np.stack([_weights(names, sums[name]) for name in LINEAR], 1), b


def _steps(model):
    """Weights and bias over LINEAR whose clip to 0..1 are the thermometers.

    clip(v - t + 1, 0, 1) is a step at t for whole numbers.
    """
    gap = {"low_port": {"dport": 1, "port_gap": -1}, "upward": {"port_gap": 1}}
    w = [_weights(LINEAR, gap.get(name, {name: 1})) for name in net.FIELDS]
    return np.stack(w, 1)[:, model.column.numpy()], 1 - model.threshold.numpy()


def _weights(names, values):
    """A column with the values of these names, zero elsewhere."""
    return np.array([values.get(name, 0) for name in names], dtype=np.float32)
