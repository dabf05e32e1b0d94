# SPDX-License-Identifier: Apache-2.0
"""The CNN of Deep Packet, layer by layer as in the paper's table."""

from torch import nn

from .data import SIZE

# filters, kernel, stride of the two convolutions.
CONVOLUTIONS = {
    "app": ((200, 4, 3), (200, 5, 1)),
    "category": ((200, 5, 3), (200, 4, 3)),
}
POOL = 2
DENSE = (200, 100, 50)
DROPOUT = 0.05


class PaperCNN(nn.Module):
    """conv, conv, max-pool, three dense layers, one output a class; the input is 1500 bytes.

    The convolutions are 1xK in two dimensions, which ONNX Runtime runs faster than Conv1d.
    """

    def __init__(self, task, classes):
        super().__init__()
        self.task = task
        (f1, k1, s1), (f2, k2, s2) = CONVOLUTIONS[task]
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, f1, (1, k1), (1, s1)),
            nn.BatchNorm2d(f1),
            nn.ReLU(),
            nn.Conv2d(f1, f2, (1, k2), (1, s2)),
            nn.BatchNorm2d(f2),
            nn.ReLU(),
            nn.MaxPool2d((1, POOL)),
        )
        width = (((SIZE - k1) // s1 + 1) - k2) // s2 + 1
        layers, last = [], f2 * (width // POOL)
        for size in DENSE:
            layers += [nn.Linear(last, size), nn.ReLU(), nn.Dropout(DROPOUT)]
            last = size
        self.dense = nn.Sequential(*layers, nn.Linear(last, classes))

    def forward(self, packet):
        """Logits of uint8 packets [N, 1500]."""
        x = packet.float().mul(1 / 255).view(-1, 1, 1, SIZE)
        return {self.task: self.dense(self.convolutions(x).flatten(1))}

    def mac(self):
        """Multiplications a packet."""
        total, width, channels = 0, SIZE, 1
        for filters, kernel, stride in CONVOLUTIONS[self.task]:
            width = (width - kernel) // stride + 1
            total += width * filters * channels * kernel
            channels = filters
        return total + sum(m.weight.numel() for m in self.dense if isinstance(m, nn.Linear))

    def describe(self):
        """One line for the manifest."""
        text = ", ".join(f"conv {f}/{k}/{s}" for f, k, s in CONVOLUTIONS[self.task])
        dense = "-".join(str(d) for d in DENSE)
        text = f"Deep Packet CNN: {text}, max-pool {POOL}, dense {dense}"
        return f"{text}, batch norm, dropout {DROPOUT}"
