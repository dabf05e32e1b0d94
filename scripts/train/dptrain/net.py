# SPDX-License-Identifier: Apache-2.0
"""The default net: header fields as thermometers, byte tables, a small dense net, two heads.

Everything from the 1500-byte vector on is linear maps, clips and table rows, so that the same
arithmetic is a dozen ONNX operators. The fields stand at fixed offsets of the vector; IPv4
options, IPv6 and TCP options only move them, and two gathers by a computed offset undo that.
"""

from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# What of the transport header is read: ports, data offset, flags, window. (UDP's header is padded
# with zeros.) IP ID, sequence and acknowledgement numbers and TCP's time stamps name a connection
# or a host, and nothing else: they are not read at all.
L4_BYTES = (0, 1, 2, 3, 12, 13, 14, 15)
HEAD = 10  # bytes of the IP header that hold fields
# Rows of the linear map from the first bytes to these fields, IPv4 and IPv6.
IP_FIELDS = ("l4_at", "tos", "l4_length", "flags", "ttl", "proto")
FIELDS = (
    "payload_length",
    "tos",
    "flags",
    "ttl",
    "proto",
    "sport",
    "dport",
    "port_gap",  # relu(dport - sport), from which the lower and the higher port follow
    "data_offset",
    "tcp_flags",
    "window",
    "p01",  # the payload's first bytes as 16-bit numbers
    "p23",
    "p34",
)
PAYLOAD_WORDS = 5
# Thermometers: a name and its combination of the fields.
THERMOMETERS = {
    **{f: {f: 1.0} for f in FIELDS if f != "port_gap"},
    "low_port": {"dport": 1.0, "port_gap": -1.0},
    "high_port": {"sport": 1.0, "port_gap": 1.0},
}


@dataclass
class Shape:
    """What a checkpoint has to know to build the net again."""

    bins: int = 64
    header: int = 128
    table_payload: int = 128
    table: int = 96
    patch_payload: int = 0
    patch: int = 8
    channels: int = 48
    hidden: tuple = (256, 128)
    dropout: float = 0.3
    l4_table: tuple = tuple(range(len(L4_BYTES)))
    leave_out: tuple = ()
    labels: dict = field(default_factory=dict)

    def payload(self):
        """Payload bytes that the net reads."""
        return max(self.table_payload, self.patch_payload)


def ip_matrices():
    """Weights and bias of the IP fields: [HEAD, 2 * 6], IPv4's first, IPv6's behind."""
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
    # The traffic class lies across two nibbles; the flow label's four bits behind it are
    # cut off by the floor that follows.
    put(6, "tos", -16.0 * 96, b0=16.0, b1=1 / 16)
    put(6, "l4_length", b4=256.0, b5=1.0)
    put(6, "flags", 64.0)  # IPv6 never fragments on the way: as with DF
    put(6, "ttl", b7=1.0)
    put(6, "proto", b6=1.0)
    return w, b


def field_matrices():
    """Weights and bias of FIELDS from [IP fields, L4 bytes, payload's start]; a ReLU follows."""
    inputs = [*IP_FIELDS, *(f"l{i}" for i in L4_BYTES), *(f"p{i}" for i in range(PAYLOAD_WORDS))]
    w = np.zeros((len(inputs), len(FIELDS)), dtype=np.float32)
    b = np.zeros(len(FIELDS), dtype=np.float32)

    def put(name, weights, bias=0.0):
        b[FIELDS.index(name)] = bias
        for source, weight in weights.items():
            w[inputs.index(source), FIELDS.index(name)] = weight

    # TCP's header is byte 12 / 4 long; UDP (17) has zeros there, and 8 bytes.
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
    """Where the payload begins in the vector: UDP's header is padded to 20 bytes."""
    l12 = l4[:, L4_BYTES.index(12)]
    proto = ip[:, IP_FIELDS.index("proto")]
    # Half a byte keeps the truncation that follows clear of rounding.
    return ip[:, IP_FIELDS.index("l4_at")] + l12 / 4 + (proto - 6) * (20 / 11) + 0.125


def read(packet, payload):
    """IP fields, L4 bytes and payload bytes of uint8 packets: the same as the ONNX graph does."""
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
    """``read`` of these rows of an array, a slice at a time."""
    parts = [
        read(torch.from_numpy(np.asarray(packets[r])), payload)
        for r in np.array_split(rows, max(1, len(rows) // 4096))
    ]
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


def fields_of(ip, l4, payload):
    """FIELDS as floats."""
    w, b = (torch.from_numpy(m).to(ip.device) for m in field_matrices())
    return torch.relu(torch.cat([ip, l4.float(), payload[:, :PAYLOAD_WORDS].float()], 1) @ w + b)


def thermometer_values(fields):
    """The THERMOMETERS' values, one column each."""
    return fields @ torch.from_numpy(thermometer_matrix()).to(fields.device)


def thermometer_matrix():
    """[FIELDS, THERMOMETERS]."""
    w = np.zeros((len(FIELDS), len(THERMOMETERS)), dtype=np.float32)
    for column, combination in enumerate(THERMOMETERS.values()):
        for name, weight in combination.items():
            w[FIELDS.index(name), column] = weight
    return w


def choose_thresholds(values, shape):
    """For each thermometer up to ``bins`` whole numbers that part the training values evenly."""
    out = []
    for column, name in enumerate(THERMOMETERS):
        if name in shape.leave_out:
            out.append(np.array([], dtype=np.float32))
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
    """Logits of both heads from what ``read`` gives."""

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
        positions = len(shape.l4_table) + shape.table_payload
        self.table = nn.EmbeddingBag(positions * 256, shape.table, mode="sum")
        nn.init.normal_(self.table.weight, std=0.1 * positions**-0.5)
        last = shape.header + shape.table
        if shape.patch_payload:
            self.patch_table = nn.EmbeddingBag(shape.patch * 256, shape.channels, mode="sum")
            nn.init.normal_(self.patch_table.weight, std=0.35)
            self.patch_bias = nn.Parameter(torch.zeros(shape.channels))
            last += 2 * shape.channels
        self.table_bias = nn.Parameter(torch.zeros(shape.table))
        layers = []
        for size in shape.hidden:
            layers += [nn.Linear(last, size), nn.ReLU(), nn.Dropout(shape.dropout)]
            last = size
        self.dense = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({t: nn.Linear(last, len(n)) for t, n in shape.labels.items()})

    def inputs(self, packets):
        """What ``forward`` takes of uint8 packets [N, 1500]."""
        return read(packets, self.shape.payload())

    def forward(self, ip, l4, payload):
        """Logits by task."""
        s = self.shape
        fields = fields_of(ip, l4, payload)
        steps = torch.clamp(fields @ self.expand + self.offset, 0, 1)
        parts = [self.header(steps), self._positions(l4, payload)]
        x = torch.cat(parts, 1).relu()
        if s.patch_payload:
            index = payload[:, : s.patch_payload].long().view(-1, s.patch)
            index = index + torch.arange(s.patch, device=index.device) * 256
            patches = self.patch_table(index) + self.patch_bias
            patches = patches.relu().view(len(l4), -1, s.channels)
            x = torch.cat([x, patches.amax(1), patches.mean(1)], 1)
        x = self.dense(x)
        return {task: head(x) for task, head in self.heads.items()}

    def _positions(self, l4, payload):
        s = self.shape
        taken = torch.cat([l4[:, list(s.l4_table)], payload[:, : s.table_payload]], 1).long()
        return (
            self.table(taken + torch.arange(taken.shape[1], device=taken.device) * 256)
            + self.table_bias
        )

    def mac(self):
        """Multiplications a packet; a table row counts one addition a value."""
        s = self.shape
        dense = [m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear)]
        lookups = (len(s.l4_table) + s.table_payload) * s.table + s.patch_payload * s.channels
        return int(sum(dense) + lookups + self.expand.numel())

    def describe(self):
        """One line for the manifest."""
        s = self.shape
        text = f"{len(self.offset)} thermometer steps of header fields into {s.header}"
        text += f", position x byte table {s.table} wide ({len(s.l4_table)} header and "
        text += f"{s.table_payload} payload bytes)"
        if s.patch_payload:
            text += f", patches of {s.patch} over {s.patch_payload} payload bytes, {s.channels} "
            text += "channels, max and mean"
        return text + ", dense " + "-".join(str(h) for h in s.hidden) + ", two heads"


def augment(ip, l4, payload, probability, rng):
    """Draws anew, per packet, what of the net's input only names a host or a connection.

    That is the ephemeral port, and a TTL that has passed routers: its hops, not where it started.
    ``rng`` is a torch generator of the CPU.
    """
    n, device = len(ip), ip.device
    ip, l4 = ip.clone(), l4.clone()

    def hit():
        return (torch.rand(n, generator=rng) < probability).to(device)

    def below(limit):
        return torch.randint(0, limit, (n,), generator=rng).to(device)

    column = IP_FIELDS.index
    ttl = ip[:, column("ttl")]
    start = torch.where(ttl <= 64, 64.0, torch.where(ttl <= 128, 128.0, 255.0))
    rows = hit() & (ttl < start) & (ttl > 8)  # a TTL of a few is a local group's
    ip[:, column("ttl")] = torch.where(rows, start - 1 - below(24).float(), ttl)
    # The ephemeral port is the higher one, where it is one at all.
    at = L4_BYTES.index
    ports = [l4[:, at(byte)].long() * 256 + l4[:, at(byte + 1)] for byte in (0, 2)]
    for byte, port, other in ((0, *ports), (2, *ports[::-1])):
        drawn = 1024 + below(64512)
        rows = hit() & (port >= 1024) & ((port > other) | ((port == other) & (byte == 0)))
        l4[rows, at(byte)] = (drawn // 256).to(torch.uint8)[rows]
        l4[rows, at(byte + 1)] = (drawn % 256).to(torch.uint8)[rows]
    return ip, l4, payload


def sample_weights(flow, target, balance=0.5):
    """1/sqrt(packets of the flow), then each class to the power of ``1 - balance`` of its sum."""
    _, inverse, counts = np.unique(flow, return_inverse=True, return_counts=True)
    weight = counts[inverse] ** -0.5
    for label in np.unique(target):
        rows = target == label
        weight[rows] *= weight[rows].sum() ** -balance
    return weight


def loss(logits, targets, smoothing, negatives, weights):
    """Cross-entropy of labelled rows; rows of no class are pulled to the uniform distribution."""
    total = 0.0
    for task, out in logits.items():
        target = targets[task]
        known, none = target >= 0, target == -2
        if known.any():
            total = total + weights.get(task, 1.0) * functional.cross_entropy(
                out[known], target[known], label_smoothing=smoothing, reduction="sum"
            ) / len(target)
        if negatives and none.any():
            flat = -functional.log_softmax(out[none], 1).mean(1)
            total = total + negatives * flat.sum() / len(target)
    return total


def shape_to_dict(shape):
    """For a checkpoint."""
    return asdict(shape)


def shape_from_dict(values):
    """From a checkpoint."""
    values = dict(values)
    for key in ("hidden", "l4_table", "leave_out"):
        values[key] = tuple(values[key])
    return Shape(**values)
