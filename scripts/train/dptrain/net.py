# SPDX-License-Identifier: Apache-2.0
"""The default network: header fields as thermometers, a byte table, dense layers, two heads.

It computes everything from the 1500-byte vector by linear maps, clips and table rows, which are a
dozen ONNX operators. The header fields are at fixed offsets of the vector; IPv4 options, IPv6 and
TCP options move them, and two gathers at a computed offset undo that.
"""

from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .data import NO_CLASS

# The bytes of the transport header that are read: ports, data offset, flags, window (UDP's header
# is padded with zeros). What only identifies a connection or a host is not read: IP ID, sequence
# and acknowledgement numbers, TCP timestamps, the higher port, the hops in a TTL.
L4_BYTES = (0, 1, 2, 3, 12, 13, 14, 15)
L4_TABLE = slice(4, 8)  # those of L4_BYTES that the position table has: all but the ports
HEAD = 10  # bytes of the IP header that hold fields
# What a linear map makes of the first bytes, once for IPv4 and once for IPv6.
IP_FIELDS = ("l4_at", "tos", "l4_length", "flags", "ttl", "proto")
FIELDS = (
    "payload_length",
    "tos",
    "flags",
    "ttl",
    "proto",
    "sport",
    "dport",
    "port_gap",  # relu(dport - sport), from which the lower port follows
    "data_offset",
    "tcp_flags",
    "window",
    "p01",  # the payload's first bytes as 16-bit numbers
    "p23",
    "p34",
)
PAYLOAD_WORDS = 5
# A thermometer is a row of steps over a linear combination of fields.
THERMOMETERS = {
    **{f: {f: 1.0} for f in FIELDS if f not in ("sport", "dport")},
    "low_port": {"dport": 1.0, "port_gap": -1.0},
}
# Steps that are not chosen from the data: which port is the lower one, and the initial TTL (32, 64,
# 128 or 255; below 5 it is local multicast).
STEPS = {"port_gap": (1,), "ttl": (5, 33, 65, 129)}


@dataclass
class Shape:
    """The sizes of the network, as a checkpoint keeps them."""

    bins: int = 64
    header: int = 128
    payload: int = 128  # bytes of the payload that are read
    rank: int = 40  # columns of the position table, whose rows are summed
    table: int = 96  # what a dense layer makes of the sum
    hidden: tuple = (256, 128)
    dropout: float = 0.3
    labels: dict = field(default_factory=dict)

    def positions(self):
        """How many bytes the position table has rows for."""
        return len(L4_BYTES[L4_TABLE]) + self.payload


def ip_matrices():
    """Weights [HEAD, 2 * 6] and bias of the IP fields, first of IPv4, then of IPv6."""
    w = np.zeros((HEAD, 2 * len(IP_FIELDS)), dtype=np.float32)
    b = np.zeros(2 * len(IP_FIELDS), dtype=np.float32)

    def put(version, name, bias=0.0, **weights):
        column = IP_FIELDS.index(name) + (len(IP_FIELDS) if version == 6 else 0)
        b[column] = bias
        for byte, weight in weights.items():
            w[int(byte[1:]), column] = weight

    # 4 * (byte 0 - 0x40) is the length of an IPv4 header.
    put(4, "l4_at", -256.0, b0=4.0)
    put(4, "tos", b1=1.0)
    put(4, "l4_length", 256.0, b0=-4.0, b2=256.0, b3=1.0)
    put(4, "flags", b6=1.0)
    put(4, "ttl", b8=1.0)
    put(4, "proto", b9=1.0)
    put(6, "l4_at", 40.0)
    # The traffic class is in two nibbles; the floor that follows cuts off the four bits of the flow
    # label after it.
    put(6, "tos", -16.0 * 96, b0=16.0, b1=1 / 16)
    put(6, "l4_length", b4=256.0, b5=1.0)
    put(6, "flags", 64.0)  # routers never fragment IPv6: as with DF
    put(6, "ttl", b7=1.0)
    put(6, "proto", b6=1.0)
    return w, b


def field_matrices():
    """Weights and bias of FIELDS over [IP fields, L4 bytes, payload bytes]; a ReLU follows."""
    inputs = [*IP_FIELDS, *(f"l{i}" for i in L4_BYTES), *(f"p{i}" for i in range(PAYLOAD_WORDS))]
    w = np.zeros((len(inputs), len(FIELDS)), dtype=np.float32)
    b = np.zeros(len(FIELDS), dtype=np.float32)

    def put(name, weights, bias=0.0):
        b[FIELDS.index(name)] = bias
        for source, weight in weights.items():
            w[inputs.index(source), FIELDS.index(name)] = weight

    # A TCP header has byte 12 / 4 bytes; UDP (protocol 17) has a zero there, and 8 bytes.
    put("payload_length", {"l4_length": 1.0, "l12": -0.25, "proto": -8 / 11}, 6 * 8 / 11)
    for name in ("tos", "flags", "ttl", "proto"):
        put(name, {name: 1.0})
    put("sport", {"l0": 256.0, "l1": 1.0})
    put("dport", {"l2": 256.0, "l3": 1.0})
    put("port_gap", {"l2": 256.0, "l3": 1.0, "l0": -256.0, "l1": -1.0})
    put("data_offset", {"l12": 1.0})
    put("tcp_flags", {"l13": 1.0})
    put("window", {"l14": 256.0, "l15": 1.0})
    put("p01", {"p0": 256.0, "p1": 1.0})
    put("p23", {"p2": 256.0, "p3": 1.0})
    put("p34", {"p3": 256.0, "p4": 1.0})
    return w, b


def payload_at(ip, l4):
    """Offset of the payload in the vector [N], as floats: UDP's header is padded to 20 bytes."""
    l12 = l4[:, L4_BYTES.index(12)]
    proto = ip[:, IP_FIELDS.index("proto")]
    # An eighth of a byte protects the truncation that follows from rounding errors.
    return ip[:, IP_FIELDS.index("l4_at")] + l12 / 4 + (proto - 6) * (20 / 11) + 0.125


def read(packet, payload):
    """(IP fields, L4 bytes, payload bytes) of uint8 packets [N, 1500], as in the ONNX graph."""
    w, b = (torch.from_numpy(m).to(packet.device) for m in ip_matrices())
    z = torch.floor(packet[:, :HEAD].float() @ w + b)
    n = len(IP_FIELDS)
    ip = torch.where(packet[:, :1] >= 96, z[:, n:], z[:, :n])
    l4_at = ip[:, :1].long()
    l4 = torch.gather(
        packet, 1, (l4_at + torch.tensor(L4_BYTES, device=packet.device)) % packet.shape[1]
    )
    at = payload_at(ip, l4.float()).long()
    body = torch.gather(
        packet, 1, (at[:, None] + torch.arange(payload, device=packet.device)) % packet.shape[1]
    )
    return ip, l4, body


def read_rows(packets, rows, payload):
    """``read`` of these rows of an array, in slices."""
    parts = [
        read(torch.from_numpy(np.asarray(packets[r])), payload)
        for r in np.array_split(rows, max(1, len(rows) // 4096))
    ]
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


def fields_of(ip, l4, payload):
    """FIELDS, float [N, 14]."""
    w, b = (torch.from_numpy(m).to(ip.device) for m in field_matrices())
    return torch.relu(torch.cat([ip, l4.float(), payload[:, :PAYLOAD_WORDS].float()], 1) @ w + b)


def table_rows(l4, payload):
    """Rows of the position table: int64 [N, positions]."""
    taken = torch.cat([l4[:, L4_TABLE], payload], 1).long()
    return taken + torch.arange(taken.shape[1], device=taken.device) * 256


def thermometer_values(fields):
    """The values of THERMOMETERS, float [N, 13]."""
    return fields @ torch.from_numpy(thermometer_matrix()).to(fields.device)


def thermometer_matrix():
    """The combinations of THERMOMETERS, float [fields, thermometers]."""
    w = np.zeros((len(FIELDS), len(THERMOMETERS)), dtype=np.float32)
    for column, combination in enumerate(THERMOMETERS.values()):
        for name, weight in combination.items():
            w[FIELDS.index(name), column] = weight
    return w


def choose_thresholds(values, shape):
    """For each thermometer up to ``bins`` whole numbers that divide the training values evenly."""
    out = []
    for column, name in enumerate(THERMOMETERS):
        if name in STEPS:
            out.append(np.array(STEPS[name], dtype=np.float32))
            continue
        v = np.round(values[:, column])
        distinct, counts = np.unique(v, return_counts=True)
        if len(distinct) <= shape.bins + 1:
            out.append(distinct[1:].astype(np.float32))
            continue
        # Quantiles, and both edges of each of the most frequent values (443, a window of 65535).
        cuts = np.quantile(v, np.linspace(0, 1, shape.bins // 2 + 2)[1:-1])
        frequent = distinct[np.argsort(-counts)[: shape.bins // 4]]
        cuts = np.unique(np.concatenate([np.ceil(cuts), frequent, frequent + 1]))
        out.append(cuts[cuts > distinct[0]].astype(np.float32))
    return out


class DefaultNet(nn.Module):
    """Logits of the heads from what ``read`` returns."""

    def __init__(self, shape, thresholds):
        super().__init__()
        self.shape = shape
        columns = np.concatenate([np.full(len(t), i) for i, t in enumerate(thresholds)]).astype(int)
        expand = thermometer_matrix()[:, columns]
        # clip(v - t + 1, 0, 1) is a step at t for whole numbers.
        self.register_buffer("expand", torch.from_numpy(expand))
        offset = 1 - np.concatenate(thresholds)
        self.register_buffer("offset", torch.from_numpy(offset.astype(np.float32)))
        self.header = nn.Linear(len(columns), shape.header)
        positions = shape.positions()
        self.table = nn.EmbeddingBag(positions * 256, shape.rank, mode="sum")
        nn.init.normal_(self.table.weight, std=0.3 * positions**-0.5)
        self.mix = nn.Linear(shape.rank, shape.table)
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

    def forward(self, ip, l4, payload):
        """Logits by task."""
        fields = fields_of(ip, l4, payload)
        steps = torch.clamp(fields @ self.expand + self.offset, 0, 1)
        parts = [self.header(steps), self.mix(self.table(table_rows(l4, payload)))]
        x = self.dense(torch.cat(parts, 1).relu())
        return {task: head(x) for task, head in self.heads.items()}

    def mac(self):
        """Multiply-accumulates a packet; adding a table row counts as one for each value."""
        s = self.shape
        dense = [m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear)]
        return int(sum(dense) + s.positions() * s.rank + self.expand.numel())

    def describe(self):
        """The architecture in one line, for the manifest."""
        s = self.shape
        return (
            f"{len(self.offset)} thermometer steps of header fields into {s.header}, position x "
            f"byte table of rank {s.rank} into {s.table} ({s.positions() - s.payload} header and "
            f"{s.payload} payload bytes), dense {'-'.join(str(h) for h in s.hidden)}, two heads"
        )


def augment(ip, probability, rng):
    """IP fields in which the initial TTL of some packets is replaced by 64, 128 or 255.

    The initial TTL tells the sender's operating system, not what the sender does. A TTL of 8 or
    less is local multicast and is kept. ``rng`` is a torch generator on the CPU.
    """
    ip, ttl = ip.clone(), IP_FIELDS.index("ttl")
    starts = torch.tensor([64.0, 128.0, 255.0])
    drawn = starts[torch.randint(0, len(starts), (len(ip),), generator=rng)].to(ip.device)
    hit = (torch.rand(len(ip), generator=rng) < probability).to(ip.device)
    ip[:, ttl] = torch.where(hit & (ip[:, ttl] > 8), drawn, ip[:, ttl])
    return ip


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
