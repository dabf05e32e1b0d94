# SPDX-License-Identifier: Apache-2.0
"""The stacked autoencoder of Deep Packet."""

from itertools import pairwise

from torch import nn

from dptrain.data import SIZE

WIDTHS = (400, 200, 100, 50)
DROPOUT = 0.05


class PaperSAE(nn.Module):
    """1500-400-200-100-50 with dropout after each layer, one output a class.

    ``layers`` are pre-trained one by one (see nets), then the whole network is fine-tuned.
    """

    def __init__(self, task, classes):
        super().__init__()
        self.task = task
        widths = (SIZE, *WIDTHS)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Dropout(DROPOUT))
            for i, o in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], classes)

    def inputs(self, packets):
        """The arguments of ``forward`` for uint8 packets [N, 1500]."""
        return (packets,)

    def forward(self, packet):
        """Logits of uint8 packets [N, 1500]."""
        x = packet.float() * (1 / 255)
        for layer in self.layers:
            x = layer(x)
        return {self.task: self.head(x)}

    def mac(self):
        """Multiply-accumulates a packet."""
        return sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear))

    def describe(self):
        """The architecture in one line, for the manifest."""
        widths = "-".join(str(w) for w in (SIZE, *WIDTHS))
        return f"Deep Packet SAE: {widths}, ReLU, greedily pre-trained, dropout {DROPOUT}"


class Autoencoder(nn.Module):
    """One layer of the stack, and a linear layer that reconstructs its input."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.decoder = nn.Linear(layer[0].out_features, layer[0].in_features)

    def forward(self, x):
        """The reconstruction of the layer's input, float [N, in]."""
        return self.decoder(self.layer(x))
