# SPDX-License-Identifier: Apache-2.0
"""The CNN of Deep Packet with the layers of the paper's table."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dptrain.data import SIZE

# Filters, kernel, stride of the two convolutions, as published for each task.
CONVOLUTIONS = {
    "app": ((200, 4, 3), (200, 5, 1)),
    "category": ((200, 5, 3), (200, 4, 3)),
}
POOL = 2
DENSE = (200, 100, 50)
DROPOUT = 0.05
SEGMENT = 78  # bytes from one segment to the next, about


class PaperCNN(nn.Module):
    """conv, conv, max-pool, three dense layers, one output a class; the input is 1500 bytes.

    The convolutions are 1xK in two dimensions: ONNX Runtime runs these faster than Conv1d. They
    skip the padding of packets (see Segments) unless ``by_segments`` is False.
    """

    def __init__(self, task, classes, convolutions=None):
        super().__init__()
        self.task, self.shape = task, convolutions or CONVOLUTIONS[task]
        (f1, k1, s1), (f2, k2, s2) = self.shape
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, f1, (1, k1), (1, s1)),
            nn.BatchNorm2d(f1),
            nn.ReLU(),
            nn.Conv2d(f1, f2, (1, k2), (1, s2)),
            nn.BatchNorm2d(f2),
            nn.ReLU(),
            nn.MaxPool2d((1, POOL)),
        )
        self.segments, self.by_segments = Segments.of(self.shape), True
        layers, last = [], f2 * self.segments.outputs
        for size in DENSE:
            layers += [nn.Linear(last, size), nn.ReLU(), nn.Dropout(DROPOUT)]
            last = size
        self.dense = nn.Sequential(*layers, nn.Linear(last, classes))

    def inputs(self, packets):
        """The arguments of ``forward`` for uint8 packets [N, 1500]."""
        return (packets,)

    def forward(self, packet):
        """Logits of uint8 packets [N, 1500]."""
        if self.by_segments:
            x = self._convolve_segments(packet)
        else:
            x = self.convolutions(packet.float().mul(1 / 255).view(-1, 1, 1, SIZE))
        return {self.task: self.dense(x.flatten(1))}

    def _convolve_segments(self, packet):
        """``convolutions`` of uint8 packets [N, 1500]: float [N, filters, outputs]."""
        s = self.segments
        wide = packet[:, s.bytes.to(packet.device)]
        active = wide.amax(2) > 0
        # The last segment is all zeros and is used for every segment that is not active.
        x = torch.cat([wide[active], wide.new_zeros(1, s.window)])
        x = x.float().mul(1 / 255).view(1, 1, -1, s.window)
        conv1, norm1, relu, conv2, norm2, _, pool = self.convolutions
        x = relu(self._norm(norm1, conv1(x), active, s.owned[0]))
        x = pool(relu(self._norm(norm2, conv2(x), active, s.owned[1])))
        x = x[0].permute(1, 0, 2)
        full = x[-1].expand(*active.shape, *x.shape[1:]).clone()
        full[active] = x[:-1]
        return full.transpose(1, 2).flatten(2)[:, :, : s.outputs]

    def _norm(self, norm, x, active, owned):
        """The batch norm of x [1, C, M + 1, W]; its statistics count the skipped padding."""
        if not self.training:
            return norm(x)
        owned = owned.to(x.device)
        idle = ((~active).sum(0).float()[:, None] * owned).sum(0)
        weight = torch.cat([owned.expand(*active.shape, -1)[active], idle[None]])
        total = weight.sum()
        mean = (x * weight).sum((0, 2, 3), keepdim=True) / total
        centred = x - mean
        variance = (centred.square() * weight).sum((0, 2, 3), keepdim=True) / total
        with torch.no_grad():
            norm.running_mean.lerp_(mean.flatten(), norm.momentum)
            norm.running_var.lerp_(variance.flatten() * total / (total - 1), norm.momentum)
            norm.num_batches_tracked += 1
        scale = norm.weight.view(1, -1, 1, 1) * (variance + norm.eps).rsqrt()
        return centred * scale + norm.bias.view(1, -1, 1, 1)

    def mac(self):
        """Multiply-accumulates a packet, padding included."""
        total, width, channels = 0, SIZE, 1
        for filters, kernel, stride in self.shape:
            width = (width - kernel) // stride + 1
            total += width * filters * channels * kernel
            channels = filters
        return total + sum(m.weight.numel() for m in self.dense if isinstance(m, nn.Linear))

    def describe(self):
        """The architecture in one line, for the manifest."""
        text = ", ".join(f"conv {f}/{k}/{s}" for f, k, s in self.shape)
        dense = "-".join(str(d) for d in DENSE)
        text = f"Deep Packet CNN: {text}, max-pool {POOL}, dense {dense}"
        return f"{text}, batch norm, dropout {DROPOUT}"


@dataclass
class Segments:
    """How packets are cut so that padding does not go through the convolutions.

    Most packets are far shorter than 1500 bytes, and the convolutions give the same values wherever
    the bytes are zero. A segment has the bytes that a run of pooled outputs reads. Places after the
    end of the vector repeat its last byte; no output that is kept depends on them.
    """

    outputs: int  # pooled outputs of a packet
    run: int  # pooled outputs of a segment
    count: int  # segments of a packet
    step: int  # bytes from one segment to the next
    window: int  # bytes of a segment
    bytes: torch.Tensor  # their offsets in the packet, int64 [count, window]
    owned: tuple  # float [count, width] by convolution: 1 for outputs that this segment counts

    @staticmethod
    def of(shape):
        """The segments for a network with such convolutions."""
        (_, k1, s1), (_, k2, s2) = shape
        first = (SIZE - k1) // s1 + 1
        second = (first - k2) // s2 + 1
        outputs = second // POOL
        step = s1 * s2 * POOL  # bytes from one pooled output to the next
        run = max(1, SEGMENT // step)
        count = -(-outputs // run)
        width = (run * POOL - 1) * s2 + k2, run * POOL
        window = (width[0] - 1) * s1 + k1
        places = np.arange(count)[:, None] * run * step + np.arange(window)
        owned = []
        for own, between, last in (
            (width[0], run * POOL * s2, first),
            (width[1], run * POOL, second),
        ):
            mine = np.arange(own) < np.where(np.arange(count) < count - 1, between, own)[:, None]
            mine &= np.arange(count)[:, None] * between + np.arange(own) < last
            owned.append(torch.from_numpy(mine.astype(np.float32)))
        return Segments(
            outputs,
            run,
            count,
            run * step,
            window,
            torch.from_numpy(np.minimum(places, SIZE - 1)),
            tuple(owned),
        )
