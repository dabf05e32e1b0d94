# SPDX-License-Identifier: Apache-2.0
"""The default network: header fields as thermometers, a byte table, dense layers, two heads.

It computes everything from the 1500-byte vector by linear maps, clips and table rows, which are few
ONNX operators. The header fields are at fixed offsets of the vector; IPv4 options, IPv6 and TCP
options move them, and two gathers at a computed offset undo that.

Every header field is read. Those that identify a host or a connection are replaced by random values
for a share of the packets that the network learns from (``redraw``), so that it does not depend on
them.
"""

from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .data import NO_CLASS

L4_BYTES = 40  # bytes from the transport header's start that are read; UDP's is padded to 20
BASE = 20  # length of a TCP header without options
HEAD = 10  # bytes of the IP header that hold fields
# What a linear map makes of the first bytes, once for IPv4 and once for IPv6.
IP_FIELDS = ("id0", "id1", "ttl", "tos", "flags", "proto", "l4_at", "l4_length")
IP_BYTES = 5  # how many of IP_FIELDS are bytes of the packet that the table has rows for
# The header as `read` returns it: IP_BYTES bytes of the IP header, then the transport header.
HEADER = IP_BYTES + L4_BYTES
# Numbers of the packet; a thermometer each.
FIELDS = (
    "length",  # of the payload on the wire
    "tos",
    "flags",
    "ttl",
    "data_offset",
    "tcp_flags",
    "window",
    "p01",  # the payload's first bytes as 16-bit numbers
    "p23",
    "p34",
    "sport",
    "dport",
    "low_port",
    "upward",  # the destination port is the higher one
    "id",
    "seq",  # the upper halves of the sequence and the acknowledgement number
    "ack",
)
PAYLOAD_WORDS = 5


@dataclass
class Shape:
    """The sizes of the network, as a checkpoint keeps them."""

    bins: int = 64
    header: int = 128
    payload: int = 32  # bytes of the payload that are read
    table: int = 64  # columns of the table, whose rows are summed
    hidden: tuple = (256, 128)
    dropout: float = 0.3
    labels: dict = field(default_factory=dict)

    def positions(self):
        """How many bytes the table has rows for."""
        return HEADER + self.payload


def ip_matrices():
    """Weights [HEAD, 2 * 8] and bias of IP_FIELDS, first of IPv4, then of IPv6."""
    w = np.zeros((HEAD, 2 * len(IP_FIELDS)), dtype=np.float32)
    b = np.zeros(2 * len(IP_FIELDS), dtype=np.float32)

    def put(version, name, bias=0.0, **weights):
        column = IP_FIELDS.index(name) + (len(IP_FIELDS) if version == 6 else 0)
        b[column] = bias
        for byte, weight in weights.items():
            w[int(byte[1:]), column] = weight

    put(4, "id0", b4=1.0)
    put(4, "id1", b5=1.0)
    put(4, "ttl", b8=1.0)
    put(4, "tos", b1=1.0)
    put(4, "flags", b6=1.0)
    put(4, "proto", b9=1.0)
    # 4 * (byte 0 - 0x40) is the length of an IPv4 header.
    put(4, "l4_at", -256.0, b0=4.0)
    put(4, "l4_length", 256.0, b0=-4.0, b2=256.0, b3=1.0)
    # IPv6 has no ID; routers never fragment it, as with DF. The traffic class is in two nibbles;
    # the floor that follows cuts off the four bits of the flow label after it.
    put(6, "ttl", b7=1.0)
    put(6, "tos", -16.0 * 96, b0=16.0, b1=1 / 16)
    put(6, "flags", 64.0)
    put(6, "proto", b6=1.0)
    put(6, "l4_at", 40.0)
    put(6, "l4_length", b4=256.0, b5=1.0)
    return w, b


def read(packet, payload):
    """(header, body, length) of uint8 packets [N, 1500], as in the ONNX graph.

    header uint8 [N, HEADER] is [IP_FIELDS[:IP_BYTES], transport header], zero where a TCP header
    has no options; body uint8 [N, payload] the payload's first bytes; length float [N] that of the
    payload on the wire.
    """
    w, b = (torch.from_numpy(m).to(packet.device) for m in ip_matrices())
    z = torch.floor(packet[:, :HEAD].float() @ w + b)
    n = len(IP_FIELDS)
    ip = torch.where(packet[:, :1] >= 96, z[:, n:], z[:, :n])
    at = ip[:, IP_FIELDS.index("l4_at")].long()
    span = torch.arange(L4_BYTES, device=packet.device)
    l4 = torch.gather(packet, 1, (at[:, None] + span) % packet.shape[1])
    # The length of a TCP header is byte 12 / 4; the low bits of the byte are flags. UDP (17) has 0
    # there and 20 bytes in the vector, 8 on the wire; 20 / 11 * (17 - 6) is 20.
    tcp = (l4[:, 12] >> 4).float() * 4
    udp = (ip[:, IP_FIELDS.index("proto")] - 6) / 11
    span = torch.arange(L4_BYTES, device=packet.device)
    l4 = l4 * ((span < BASE) | (span < tcp[:, None]))
    at = (at + tcp + 20 * udp + 0.125).long()
    span = torch.arange(payload, device=packet.device)
    body = torch.gather(packet, 1, (at[:, None] + span) % packet.shape[1])
    length = torch.relu(ip[:, IP_FIELDS.index("l4_length")] - tcp - 8 * udp)
    return torch.cat([ip[:, :IP_BYTES].to(torch.uint8), l4], 1), body, length


def read_rows(packets, rows, payload):
    """``read`` of these rows of an array, in slices."""
    parts = [
        read(torch.from_numpy(np.asarray(packets[r])), payload)
        for r in np.array_split(rows, max(1, len(rows) // 4096))
    ]
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


def fields_of(header, body, length):
    """FIELDS, float [N, 17]."""
    h, p = header.float(), body[:, :PAYLOAD_WORDS].float()
    l4 = h[:, IP_BYTES:]

    def two(x, i):
        return x[:, i] * 256 + x[:, i + 1]

    sport, dport = two(l4, 0), two(l4, 2)
    return torch.stack(
        [
            length,
            *(h[:, IP_FIELDS.index(name)] for name in ("tos", "flags", "ttl")),
            l4[:, 12],
            l4[:, 13],
            two(l4, 14),
            *(two(p, i) for i in (0, 2, 3)),
            sport,
            dport,
            torch.minimum(sport, dport),
            (dport > sport).float(),
            two(h, IP_FIELDS.index("id0")),
            two(l4, 4),
            two(l4, 8),
        ],
        1,
    )


def table_rows(header, body):
    """Rows of the table: int64 [N, positions]."""
    taken = torch.cat([header, body], 1).long()
    return taken + torch.arange(taken.shape[1], device=taken.device) * 256


def choose_thresholds(values, bins):
    """For each field at most ``bins`` cuts: quantiles, and both edges of frequent values."""
    out = []
    for v in np.round(values).T:
        distinct, counts = np.unique(v, return_counts=True)
        cuts = distinct[1:]
        if len(distinct) > bins + 1:
            frequent = distinct[np.argsort(-counts)[: bins // 4]]
            quantiles = np.ceil(np.quantile(v, np.linspace(0, 1, bins // 2 + 2)[1:-1]))
            cuts = np.unique(np.concatenate([quantiles, frequent, frequent + 1]))
        out.append(cuts[cuts > distinct[0]].astype(np.float32))
    return out


class DefaultNet(nn.Module):
    """Logits of the heads from what ``read`` returns."""

    def __init__(self, shape, thresholds):
        super().__init__()
        self.shape = shape
        columns = np.repeat(np.arange(len(thresholds)), [len(t) for t in thresholds])
        self.register_buffer("column", torch.from_numpy(columns))
        self.register_buffer("threshold", torch.from_numpy(np.concatenate(thresholds)).float())
        self.steps = nn.Linear(len(columns), shape.header)
        positions = shape.positions()
        self.table = nn.EmbeddingBag(positions * 256, shape.table, mode="sum")
        nn.init.normal_(self.table.weight, std=0.3 * positions**-0.5)
        last = shape.header + shape.table
        layers = []
        for size in shape.hidden:
            layers += [nn.Linear(last, size), nn.ReLU(), nn.Dropout(shape.dropout)]
            last = size
        self.dense = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({t: nn.Linear(last, len(n)) for t, n in shape.labels.items()})

    def inputs(self, packets):
        """What ``forward`` takes of uint8 packets [N, 1500]."""
        return read(packets, self.shape.payload)

    def forward(self, header, body, length):
        """Logits by task."""
        fields = fields_of(header, body, length)
        steps = (fields[:, self.column] >= self.threshold).float()
        parts = [self.steps(steps), self.table(table_rows(header, body))]
        x = self.dense(torch.cat(parts, 1).relu())
        return {task: head(x) for task, head in self.heads.items()}

    def mac(self):
        """Multiply-accumulates a packet; adding a table row counts as one for each value."""
        s = self.shape
        dense = [m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear)]
        return int(sum(dense) + s.positions() * s.table)

    def describe(self):
        """The architecture in one line, for the manifest."""
        s = self.shape
        return (
            f"{len(self.threshold)} thermometer steps of header fields into {s.header}, "
            f"position x byte table of {s.table} columns ({HEADER} header and {s.payload} "
            f"payload bytes), dense {'-'.join(str(h) for h in s.hidden)}, {len(self.heads)} heads"
        )


def _at(name):
    """The column of a field of read's header: an IP_FIELDS name or an offset in the L4 header."""
    return IP_FIELDS.index(name) if isinstance(name, str) else IP_BYTES + name


# What identifies a host or a connection, in groups that are replaced together.
GROUPS = {
    "id": [_at("id0"), _at("id1")],
    "ttl": [_at("ttl")],
    "tos": [_at("tos")],
    "flags": [_at("flags")],
    "numbers": [_at(i) for i in range(4, 12)],  # sequence and acknowledgement
    "window": [_at(14), _at(15)],
    "options": [_at(i) for i in range(20, 40)],
}


def redraw(header, probability, rng):
    """Headers in which what identifies a host or a connection is replaced, each group by itself.

    ``probability`` is the share of the packets; ``rng`` is a torch generator on the CPU.
    """
    n, h = len(header), header.clone()

    def draw(*shape, low=0, high=256):
        return torch.randint(low, high, shape, generator=rng)

    for name, group in GROUPS.items():
        new = draw(n, len(group))
        if name == "ttl":  # an initial value of some system, less up to 24 hops
            new = torch.tensor([64, 128, 255])[draw(n, 1, high=3)] - draw(n, 1, high=25)
        elif name == "tos":
            new = torch.zeros(n, 1, dtype=torch.long)
        elif name == "flags":  # "don't fragment"
            new = draw(n, 1, high=2) * 64
        hit = torch.rand(n, 1, generator=rng) < probability
        h[:, group] = torch.where(hit.to(h.device), new.to(h), h[:, group])
    # The higher port is the ephemeral one.
    source, destination = (h[:, _at(i)].int() * 256 + h[:, _at(i + 1)].int() for i in (0, 2))
    new = draw(n, low=32768, high=65536).to(h.device)
    hit = (torch.rand(n, generator=rng) < probability).to(h.device)
    for i, port, other in ((0, source, destination), (2, destination, source)):
        here = hit & (port > other) & (port >= 1024)
        h[:, _at(i)] = torch.where(here, (new >> 8).to(h.dtype), h[:, _at(i)])
        h[:, _at(i + 1)] = torch.where(here, (new & 255).to(h.dtype), h[:, _at(i + 1)])
    return h


def sample_weights(flow, target, balance=0.5):
    """Weights [N] for drawing rows: 1/sqrt(packets of the flow), and large classes count less.

    The sum of a class becomes its power of ``1 - balance``.
    """
    _, inverse, counts = np.unique(flow, return_inverse=True, return_counts=True)
    weight = counts[inverse] ** -0.5
    for label in np.unique(target):
        rows = target == label
        weight[rows] *= weight[rows].sum() ** -balance
    return weight


def loss(logits, targets, smoothing, negatives, weights):
    """Cross-entropy of labelled rows; rows of no class are pulled to the uniform distribution.

    ``smoothing`` is that of the labels, ``negatives`` weighs the rows of no class, ``weights`` the
    tasks.
    """
    total = 0.0
    for task, out in logits.items():
        target = targets[task]
        known, none = target >= 0, target == NO_CLASS
        if known.any():
            total = total + weights.get(task, 1.0) * functional.cross_entropy(
                out[known], target[known], label_smoothing=smoothing, reduction="sum"
            ) / len(target)
        if negatives and none.any():
            flat = -functional.log_softmax(out[none], 1).mean(1)
            total = total + negatives * flat.sum() / len(target)
    return total


def shape_to_dict(shape):
    """A shape for a checkpoint."""
    return asdict(shape)


def shape_from_dict(values):
    """A shape from a checkpoint."""
    return Shape(**{**values, "hidden": tuple(values["hidden"])})
