# SPDX-License-Identifier: Apache-2.0
"""A small dataset whose labels follow from ports and payload, for the tests of both packages."""

import json
import shutil

import numpy as np

from dptrain import data

CATEGORIES = [
    *("chat", "email", "file-transfer", "streaming", "torrent", "voip"),
    *("vpn-chat", "vpn-email", "vpn-file-transfer", "vpn-streaming", "vpn-torrent", "vpn-voip"),
    "vpn-tunnel",
]
APPS = [
    *("aim", "email", "facebook", "hangouts", "icq", "netflix", "skype", "spotify", "torrent"),
    *("vimeo", "youtube"),
]
NO_CLASS = ["background", "other"]
FLOWS = 240


def packet_of(rng, label, v6, tcp, options):
    """An IP packet as the vector has it, and what it is made of.

    Returns uint8 [1500] and (L4 offset, payload offset, length after the IP header, source port,
    destination port).
    """
    payload = bytes([22, 3, 1, label * 9]) + rng.bytes(int(rng.integers(5, 200)))
    sport, dport = int(rng.integers(40000, 60000)), (443, 5222, 25)[label % 3]
    ports = sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    words = int(rng.integers(0, 4)) if options else 0
    if tcp:
        header = ports + rng.bytes(8) + bytes([(5 + words) << 4, 24]) + rng.bytes(2) + bytes(4)
        header += rng.bytes(4 * words)
        length = len(header) + len(payload)
    else:
        length = 8 + len(payload)
        header = ports + length.to_bytes(2, "big") + bytes(14)
    proto = 6 if tcp else 17
    if v6:
        ip = bytes([0x60, 0x12, 1, 2]) + length.to_bytes(2, "big") + bytes([proto, 61])
        ip += bytes(32)
    else:
        more = int(rng.integers(0, 3)) if options else 0
        total = 20 + 4 * more + length
        ip = bytes([0x45 + more, 8]) + total.to_bytes(2, "big") + rng.bytes(2)
        ip += bytes([64, 0, 61, proto]) + bytes(10) + rng.bytes(4 * more)
    vector = (ip + header + payload)[:1500]
    vector += bytes(1500 - len(vector))
    return np.frombuffer(vector, np.uint8), (len(ip), len(ip) + len(header), length, sport, dport)


def write(directory):
    """Writes FLOWS flows of three packets; each category has two captures and two applications."""
    rng = np.random.default_rng(5)
    columns = {name: [] for name in data.Dataset.COLUMNS}
    captures = []
    categories = [*CATEGORIES, *NO_CLASS]
    for c, category in enumerate(categories):
        for part in range(2):
            captures.append(
                {
                    "name": f"{category}-{part}",
                    "set": "iscx",
                    "path": f"{category}-{part}.pcap",
                    "category": category,
                    "app": APPS[c % len(APPS)],
                    "vpn": category.startswith("vpn-"),
                    "use": "train",
                }
            )
    for flow in range(FLOWS):
        c = flow % len(categories)
        app = (c + 5 * (flow // len(categories) % 2)) % len(APPS)
        for index in range(3):
            vector, (l4, payload, length, *_) = packet_of(rng, c, flow % 5 == 0, flow % 2, False)
            row = (vector, c, app, flow, c * 2 + flow // 120, 0, index, index + flow, length)
            for name, value in zip(data.Dataset.COLUMNS, (*row, l4, payload), strict=True):
                columns[name].append(value)
    types = {"packet": np.uint8, "time": np.float64, "flow": np.int32, "length": np.int32}
    for name, values in columns.items():
        np.save(directory / f"{name}.npy", np.array(values, types.get(name, np.int16)))
    meta = {
        "format": 1,
        "vector": 1,
        "checksums": False,
        "per_flow": 32,
        "aggregation": {"samples": 5, "growth": 0.8, "floor": 1e-12},
        "categories": categories,
        "no_class": NO_CLASS,
        "apps": APPS,
        "known_apps": APPS,
        "captures": captures,
        "sets": ["iscx"],
        "flows": FLOWS,
        "packets": len(columns["flow"]),
    }
    (directory / "meta.json").write_text(json.dumps(meta))


def own(source, directory, labels, task="category"):
    """The first flows of a dataset with other labels: flow i has labels[i]."""
    shutil.copytree(source, directory)
    flow = np.load(directory / "flow.npy")
    keep = flow < len(labels)
    meta = json.loads((directory / "meta.json").read_text())
    names = sorted(set(labels))
    column = np.array([names.index(label) for label in labels])[flow[keep]]
    none = np.full(keep.sum(), -1)
    for name in data.Dataset.COLUMNS:
        array = np.load(directory / f"{name}.npy")[keep]
        if name in ("category", "app"):
            array = (column if name == task else none).astype(np.int16)
        elif name == "capture":
            array = np.zeros_like(array)
        np.save(directory / f"{name}.npy", array)
    vocabulary = {"category": "categories", "app": "apps"}[task]
    meta[vocabulary] = names
    meta["sets"] = ["mine"]
    meta["captures"] = [{**meta["captures"][0], "set": "mine", "name": "one", "vpn": False}]
    (directory / "meta.json").write_text(json.dumps(meta))
    return directory
