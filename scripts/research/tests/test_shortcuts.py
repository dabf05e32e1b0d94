# SPDX-License-Identifier: Apache-2.0
"""Each perturbation changes what it says, nothing else, and the packet still parses."""

import numpy as np
import pytest
import torch
from synthetic import packet_of

from dpresearch.jobs import shortcuts
from dptrain import net

TIMESTAMP = bytes([1, 1, 8, 10]) + bytes(range(1, 9))


@pytest.fixture(scope="module")
def packets():
    """400 packets of 100 flows: both versions and protocols, TCP with and without options."""
    rng = np.random.default_rng(3)
    out = []
    for i in range(400):
        v6, tcp = i // 4 % 2, i // 8 % 3 > 0
        vector, (l4, end, *_) = packet_of(rng, 1, v6, tcp, i % 2 == 0)
        if tcp and i % 2:  # the timestamp option, and the payload after it
            vector = np.concatenate(
                [vector[:end], np.frombuffer(TIMESTAMP, np.uint8), vector[end:]]
            )
            vector = vector[:1500]
            vector[l4 + 12] += 3 << 4
            vector[(5 if v6 else 3)] += 12  # lengths below 244: no carry
            end += 12
        out.append((vector, l4, end, i // 4))
    return tuple(np.array(column) for column in zip(*out, strict=True))


def changed(packets, name):
    """The perturbed packets, and which bytes differ."""
    new = shortcuts.perturb(*packets, name, np.random.default_rng(7))
    return new, new != packets[0]


def fields(vectors):
    """What the default network reads of them, by name."""
    values = net.fields_of(*net.read(torch.from_numpy(vectors), 64)).numpy()
    return {name: values[:, i] for i, name in enumerate(net.FIELDS)}


@pytest.mark.parametrize("name", shortcuts.NAMES)
def test_parses_as_before(packets, name):
    before, after = fields(packets[0]), fields(changed(packets, name)[0])
    for field in ("length", "data_offset"):
        np.testing.assert_allclose(after[field], before[field], atol=0.01)


# Places of the bytes that may change, as (from, to) of IPv4, IPv6, TCP, UDP.
IP_ID, HOPS4, HOPS6 = (4, 6), (8, 9), (7, 8)
ALLOWED = {
    "ports": ([], [], [(0, 4)], [(0, 4)]),
    "ip-id": ([IP_ID], [], [], []),
    "ttl": ([HOPS4], [HOPS6], [], []),
    "checksums": ([(10, 12)], [], [(16, 18)], [(6, 8)]),
    "window": ([], [], [(14, 16)], []),
    "seq-ack-timestamp": ([], [], [(4, 12), (24, 32)], []),
    "together": ([IP_ID, HOPS4], [HOPS6], [(0, 12), (24, 32)], [(0, 4)]),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_nothing_else_is_touched(packets, name):
    vectors, l4, _, _ = packets
    _, differs = changed(packets, name)
    assert differs.any()
    v4, v6, tcp, udp = ALLOWED[name]
    for i, row in enumerate(differs):
        is_tcp = vectors[i, l4[i] + 12] != 0
        places = [*(v4 if vectors[i, 0] >> 4 == 4 else v6)]
        places += [(a + l4[i], b + l4[i]) for a, b in (tcp if is_tcp else udp)]
        may = np.zeros(1500, bool)
        for a, b in places:
            may[a:b] = True
        if is_tcp and i % 2 == 0:  # has other options, or none
            may[l4[i] + 20 :] = False
        assert not (row & ~may).any(), i
    # A redrawn number is another one almost everywhere.
    rows = np.arange(len(vectors)) % 2 == 1
    rows &= vectors[np.arange(len(vectors)), l4 + 12] != 0
    if name in ("seq-ack-timestamp", "together"):
        stamp = l4[rows][:, None] + 24 + np.arange(8)
        assert np.take_along_axis(differs[rows], stamp, 1).any(1).all()


def test_header_and_payload_part_the_packet(packets):
    vectors, _, end, _ = packets
    place = np.arange(1500)
    _, header = changed(packets, "header")
    _, payload = changed(packets, "payload")
    after = place >= end[:, None]
    assert not (header & after).any()
    assert not (payload & ~after).any()
    used = 1500 - (vectors[:, ::-1] != 0).argmax(1)
    assert not (payload & (place >= used[:, None])).any()
    assert (header.sum(1) > 4).all()
    assert payload.sum() > 0.98 * (after & (place < used[:, None])).sum()


def test_ports_and_ttl_are_one_draw_a_flow(packets):
    vectors, _, _, flow = packets
    new, _ = changed(packets, "ports")
    after, before = fields(new), fields(vectors)
    for f in np.unique(flow):
        mine = flow == f
        # The four packets of a flow came with ports of their own; the source's is the higher.
        assert len(set(after["sport"][mine])) == len(set(after["dport"][mine])) == 1
    kept = fields(changed(packets, "together")[0])
    assert np.array_equal(kept["dport"], before["dport"])  # the server's
    assert (kept["sport"] >= 1024).all()
    ttl = fields(changed(packets, "ttl")[0])["ttl"]
    assert all(len(set(ttl[flow == f])) == 1 for f in np.unique(flow))
    assert ((ttl >= 64 - 24) & (ttl <= 255)).all()


def test_ipv6_has_the_same_fields(packets):
    vectors, l4, _, _ = packets
    new, _ = changed(packets, "ipv6")
    assert (new[:, 0] >> 4 == 6).all()
    before, after = fields(vectors), fields(new)
    for name in set(net.FIELDS) - {"id", "flags", "length"}:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    for i in range(len(new)):
        moved = 40 - l4[i]
        tail = 1500 - (vectors[i, ::-1] != 0).argmax()
        np.testing.assert_array_equal(new[i, 40 : tail + moved], vectors[i, l4[i] : tail])
