# SPDX-License-Identifier: Apache-2.0
"""Redraws fields of 1500-byte vectors at random, to see what a model's verdict depends on.

Addresses are zero in every vector and stay zero; so do checksums if the dataset has none.
"""

import numpy as np

from dptrain.data import SIZE

# What is redrawn, by name. The ports are drawn once a flow, the TTL once a flow and direction,
# everything else once a packet.
NAMES = {
    "ports": "both ports",
    "ip-id": "the IP ID",
    "ttl": "the TTL: 64, 128 or 255 less 0 to 24 hops",
    "checksums": "the IPv4, TCP and UDP checksums",
    "seq-ack-timestamp": "TCP sequence, acknowledgement and timestamp option",
    "window": "the TCP window",
    "header": "all of the IP and transport header but version, lengths, offsets and protocol",
    "payload": "every payload byte",
    "together": "what identifies a connection or a host: IP ID, sequence, acknowledgement, "
    "timestamp, ephemeral port, hops of the TTL",
    "ipv6": "nothing; the IPv4 header is rewritten to IPv6",
}
HOPS = 25  # a redrawn TTL has passed 0 to 24 routers
TIMESTAMP = 8  # kind of the TCP timestamp option (RFC 7323)


def perturb(packets, l4_offset, payload_offset, flow, name, rng):
    """A copy of uint8 packets [N, 1500] in which what ``name`` (of NAMES) says is redrawn.

    l4_offset, payload_offset (in the vector: UDP's header counts 20 bytes) and flow are int [N].
    """
    p = Packets(packets, l4_offset, payload_offset, flow, rng)
    {
        "ports": p.ports,
        "ip-id": p.ip_id,
        "ttl": p.ttl,
        "checksums": p.checksums,
        "seq-ack-timestamp": p.seq_ack_timestamp,
        "window": p.window,
        "header": p.header,
        "payload": p.payload,
        "together": p.together,
        "ipv6": p.ipv6,
    }[name]()
    return p.bytes


class Packets:
    """Vectors that are changed in place; ``bytes`` is the result."""

    def __init__(self, packets, l4_offset, payload_offset, flow, rng):
        self.bytes = np.array(packets)
        self.l4 = np.asarray(l4_offset).astype(np.int64)
        self.end = np.asarray(payload_offset).astype(np.int64)
        self.flow = np.asarray(flow)
        self.rng = rng
        self.all = np.arange(len(self.bytes))
        self.v4 = self.all[self.bytes[:, 0] >> 4 == 4]
        self.v6 = self.all[self.bytes[:, 0] >> 4 == 6]
        # The padding of UDP's header is zero; TCP's data offset is 5 or more.
        tcp = self._byte(self.all, self.l4 + 12) >> 4 >= 5
        self.tcp, self.udp = self.all[tcp], self.all[~tcp]

    def ports(self):
        """Both ports of a flow, each from all numbers."""
        low, high = self._port_places()
        self._put16(low, self._per_flow(1, 65536))
        self._put16(high, self._per_flow(1, 65536))

    def ephemeral_port(self):
        """A flow's higher port, if it is 1024 or more and differs from the other."""
        low, high = self._port_places()
        drawn = self._per_flow(1024, 65536)
        value = self._get16(high)
        rows = self.all[(value >= 1024) & (value != self._get16(low))]
        self._put16(high[rows], drawn[rows], rows)

    def ip_id(self):
        """IPv4's identification; IPv6 has none."""
        self._noise(self.v4, 4, 6)

    def ttl(self):
        """TTL or hop limit of a direction, as another host would have it."""
        start = np.array([64, 128, 255])[self._per_direction(0, 3)]
        self._put_ttl(start - self._per_direction(0, HOPS))

    def hops(self):
        """The hops of a direction; the initial TTL (32, 64, 128 or 255) is kept."""
        starts = np.array([32, 64, 128, 255])
        start = starts[np.searchsorted(starts, self._get_ttl())]
        self._put_ttl(start - self._per_direction(0, HOPS))

    def checksums(self):
        """All three checksums; only for a dataset that was built with them."""
        self._noise(self.v4, 10, 12)
        self._noise(self.tcp, self.l4 + 16, self.l4 + 18)
        self._noise(self.udp, self.l4 + 6, self.l4 + 8)

    def seq_ack_timestamp(self):
        """TCP's numbers and both values of its timestamp option."""
        self._noise(self.tcp, self.l4 + 4, self.l4 + 12)
        rows, at = self.tcp, self.l4[self.tcp] + 20
        while len(rows):
            inside = at + 1 < np.minimum(self.end[rows], SIZE)
            rows, at = rows[inside], at[inside]
            kind, length = self._byte(rows, at), self._byte(rows, at + 1)
            here = (kind == TIMESTAMP) & (length == 10) & (at + 10 <= self.end[rows])
            places = np.zeros(len(self.all), dtype=np.int64)
            places[rows] = at
            self._noise(rows[here], places + 2, places + 10)
            # Kind 0 ends the options, kind 1 is one byte, the others carry their length.
            at = at + np.where(kind == 1, 1, np.maximum(length, 2))
            rows, at = rows[kind != 0], at[kind != 0]

    def window(self):
        """TCP's window."""
        self._noise(self.tcp, self.l4 + 14, self.l4 + 16)

    def header(self):
        """Everything before the payload that can change without changing how the packet parses."""
        self._noise(self.v4, 1, 2)
        self._noise(self.v4, 4, 6)
        df = self.rng.integers(0, 2, len(self.v4)).astype(np.uint8) << 6
        self.bytes[self.v4, 6] = self.bytes[self.v4, 6] & 0xBF | df
        self._noise(self.v4, 8, 9)
        self._noise(self.v4, 20, self.l4)
        first = self.bytes[self.v6, 0] & 0xF0
        self._noise(self.v6, 0, 4)
        self.bytes[self.v6, 0] = first | self.bytes[self.v6, 0] & 0x0F
        self._noise(self.v6, 7, 8)
        self._noise(self.all, self.l4, self.l4 + 4)
        self._noise(self.tcp, self.l4 + 4, self.l4 + 12)
        self._noise(self.tcp, self.l4 + 13, self.l4 + 16)
        self._noise(self.tcp, self.l4 + 18, self.end)

    def payload(self):
        """Up to the last byte that is not zero."""
        used = SIZE - (self.bytes[:, ::-1] != 0).argmax(1)
        self._noise(self.all, self.end, used)

    def together(self):
        """What identifies a connection or a host, and nothing that tells what it does."""
        self.ip_id()
        self.seq_ack_timestamp()
        self.ephemeral_port()
        self.hops()

    def ipv6(self):
        """IPv4 packets with an IPv6 header: addresses and flow label zero, cut to 1500 bytes."""
        old = self.bytes[self.v4]
        l4 = self.l4[self.v4]
        new = np.zeros_like(old)
        tos, ttl, proto = old[:, 1], old[:, 8], old[:, 9]
        total = old[:, 2].astype(np.int64) * 256 + old[:, 3]
        # A total length of 0 (a super-packet) stays 0.
        length = np.maximum(total - l4, 0)
        new[:, 0] = 0x60 | tos >> 4
        new[:, 1] = (tos & 15) << 4
        new[:, 4], new[:, 5] = length >> 8, length & 255
        new[:, 6], new[:, 7] = proto, ttl
        source = l4[:, None] + np.arange(SIZE - 40)
        body = np.take_along_axis(old, np.minimum(source, SIZE - 1), 1)
        new[:, 40:] = np.where(source < SIZE, body, 0)
        self.bytes[self.v4] = new

    def _port_places(self):
        """Offsets of the lower and the higher port of each packet."""
        source_is_high = self._get16(self.l4) >= self._get16(self.l4 + 2)
        return self.l4 + 2 * source_is_high, self.l4 + 2 * ~source_is_high

    def _per_flow(self, low, high):
        """Whole numbers, the same for all packets of a flow."""
        flows, place = np.unique(self.flow, return_inverse=True)
        return self.rng.integers(low, high, len(flows))[place]

    def _per_direction(self, low, high):
        """Whole numbers, the same for all packets of a flow in one direction."""
        flows, place = np.unique(self.flow, return_inverse=True)
        way = (self._get16(self.l4) >= self._get16(self.l4 + 2)).astype(int)
        return self.rng.integers(low, high, (len(flows), 2))[place, way]

    def _ttl_column(self):
        return np.where(self.bytes[:, 0] >> 4 == 4, 8, 7)

    def _get_ttl(self):
        return self._byte(self.all, self._ttl_column())

    def _put_ttl(self, values):
        self.bytes[self.all, self._ttl_column()] = values

    def _byte(self, rows, at):
        """The bytes of these rows at these offsets; zero after the end of the vector."""
        inside = at < SIZE
        return np.where(inside, self.bytes[rows, np.minimum(at, SIZE - 1)], 0).astype(np.int64)

    def _get16(self, at):
        return self._byte(self.all, at) * 256 + self._byte(self.all, at + 1)

    def _put16(self, at, values, rows=None):
        rows = self.all if rows is None else rows
        for place, value in ((at, values >> 8), (at + 1, values & 255)):
            inside = place < SIZE
            self.bytes[rows[inside], place[inside]] = value[inside]

    def _noise(self, rows, begin, end):
        """Random bytes from ``begin`` to before ``end``: numbers, or int [N] over all packets."""
        begin, end = (np.broadcast_to(v, len(self.all))[rows] for v in (begin, end))
        if not len(rows):
            return
        width = int(np.clip((np.minimum(end, SIZE) - begin).max(), 0, SIZE))
        places = begin[:, None] + np.arange(width)
        drawn = self.rng.integers(0, 256, places.shape, dtype=np.uint8)
        inside = places < np.minimum(end, SIZE)[:, None]
        row = np.broadcast_to(rows[:, None], places.shape)
        self.bytes[row[inside], places[inside]] = drawn[inside]
