# SPDX-License-Identifier: Apache-2.0
"""The paper's networks as ONNX graphs in FP32."""

import numpy as np
from onnx import TensorProto

from dptrain.data import SIZE
from dptrain.graph import INPUT, Builder


def of_cnn(model, text):
    """The ONNX model of a PaperCNN; batch normalisation is folded into the convolutions."""
    g = Builder("cnn")
    x = g.op("Reshape", _scaled(g), np.array([-1, 1, 1, SIZE], dtype=np.int64))
    layers = list(model.convolutions)
    for conv, norm in ((layers[0], layers[1]), (layers[3], layers[4])):
        weight, bias = _fold(conv, norm)
        x = g.op("Conv", x, weight, bias, kernel_shape=conv.kernel_size, strides=conv.stride)
        x = g.op("Relu", x)
    pool = layers[6].kernel_size
    x = g.op("MaxPool", x, kernel_shape=pool, strides=pool)
    x = g.op("Flatten", x, axis=1)
    return _classifier(g, x, [m for m in model.dense if hasattr(m, "weight")], model.task, text)


def of_sae(model, text):
    """The ONNX model of a PaperSAE, without its decoders."""
    g = Builder("sae")
    linears = [*(layer[0] for layer in model.layers), model.head]
    return _classifier(g, _scaled(g), linears, model.task, text)


def _scaled(g):
    return g.op("Mul", g.cast(INPUT, TensorProto.FLOAT), np.float32(1 / 255).reshape(1))


def _classifier(g, x, linears, task, text):
    for linear in linears[:-1]:
        x = g.dense(x, linear, relu=True)
    x = g.dense(x, linears[-1])
    g.op("Softmax", x, axis=1, name=task)
    return g.model([(task, linears[-1].out_features)], text)


def _fold(conv, norm):
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    weight = conv.weight.detach() * scale.view(-1, 1, 1, 1)
    bias = (conv.bias.detach() - norm.running_mean) * scale + norm.bias.detach()
    return weight.numpy(), bias.numpy()
