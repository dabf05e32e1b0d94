# SPDX-License-Identifier: Apache-2.0
"""The manifest beside a model: format 1, read by the classifier package."""

from . import data

FINAL_CONFIDENCE = 0.95
SAMPLES = 5
# A handful of flows kept out may all be sure; the next ones need not be as sure as that.
MAX_THRESHOLD = 0.9

# Where the packets of a set come from, and its licence; a set that is not here has its name alone.
SOURCES = {
    "arkime": (
        "arkime/arkime tests/pcap (many from public Wireshark samples)",
        "Apache-2.0",
    ),
    "ernest": ("ErnestThePoet/EncryptedTrafficClassification dataset", "MIT"),
    "foxio": ("FoxIO-LLC/ja4 pcap", "FoxIO License 1.1; JA4 BSD-3-Clause"),
    "iscx": (
        "UNB ISCX VPN-nonVPN 2016 (Draper-Gil et al., ICISSP 2016), first 784 bytes of each flow, "
        "by echowei/DeepTraffic",
        "MPL-2.0 (DeepTraffic)",
    ),
    "ndpi": ("ntop/nDPI tests/cfgs/default/pcap", "LGPL-3.0"),
    "openvpn": ("hqwhuang/OpenVPN-detector-generator", "GPL"),
    "suricata": ("OISF/suricata-verify", "Copyright Open Information Security Foundation"),
}

_PAPER = [
    "Trained and validated with the paper's split by packet: packets of one flow stand on both "
    "sides, so its packet figures say nothing of new flows.",
    "ISCX VPN-nonVPN 2016 alone, first 784 bytes of each flow only; classes under-sampled to "
    "hundreds of packets, where the paper had thousands.",
    "Reads raw header bytes: ports, IP ID, TTL and sequence numbers are shortcuts it may use.",
    "Knows no traffic but its own classes: background and other are new to it, and so is IPv6.",
]

# By network, of what was trained on the sets above.
WEAKNESSES = {
    "default": [
        "File transfer outside a VPN was learnt from Skype and a few nDPI captures: poor recall.",
        "Most applications and VPN categories come from the captures of one or two users of 2016; "
        "other networks and years score far lower (see docs/evaluation.md, capture split).",
        "vpn- categories mean inner packets, as on a tun device; vpn-tunnel means outer packets.",
        "vpn-tunnel, email, vpn-voip and vpn-file-transfer of captures that were not trained on "
        "are hardly found: 3, 0, 4, 4 % of their flows on the capture split (docs/evaluation.md).",
        "Almost no labelled IPv6 in the training data; its header is brought to IPv4's fields.",
        "IPv6 extension headers are not walked: the transport header is then misread.",
        "The application head was trained outside VPNs only.",
    ],
    "cnn": [
        *_PAPER,
        "Weights quantised to seven bits, so that processors without VNNI compute the same.",
    ],
    "sae": [
        *_PAPER,
        "Dense on absolute byte positions: IP or TCP options shift all that stands behind them.",
    ],
}
# Of a model that somebody trained on data of his own.
OWN = [
    "Trained on captures of one's own; the figures of the validation part are of flows of the same "
    "captures. Other networks, hosts and days were not tested: try it on a capture of another day.",
    "Knows the labels it was given alone; traffic of no label is unknown to it only as far as its "
    'confidence is low, or as it was shown some as "other".',
]


def make(
    *,
    name,
    spec,
    model,
    precision,
    temperature,
    threshold,
    sources,
    packets,
    flows,
    figures,
    sha256,
):
    """The manifest's values in their order."""
    sets = ", ".join(s["set"] for s in sources)
    kind = spec["kind"].split("-")[0]
    own = not any(s["set"] in SOURCES for s in sources)
    weaknesses = list(OWN if own else WEAKNESSES[kind])
    if kind != "default" and not own and spec["split"] != "packet":
        weaknesses[0] = f"Trained with the split {spec['split']!r}, which the paper does not have."
    return {
        "format": data.FORMAT,
        "vector": data.VECTOR,
        "name": name,
        "task": list(spec["labels"]),
        "labels": spec["labels"],
        "architecture": model.describe(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "mac": model.mac(),
        "precision": precision,
        "temperature": temperature,
        "unknown_threshold": {t: min(v, MAX_THRESHOLD) for t, v in threshold.items()},
        "final_confidence": FINAL_CONFIDENCE,
        "samples": SAMPLES,
        "training": {
            "data": [_with_source(s) for s in sources],
            "split": spec["split"],
            "seed": spec["seed"],
            "packets": packets,
            "flows": flows,
        },
        "figures": figures,
        "weaknesses": weaknesses,
        "sha256": sha256,
        "licence": f"own data: {sets}" if own else f"Apache-2.0; trained on {sets}",
    }


def _with_source(entry):
    source, licence = SOURCES.get(entry["set"], ("", ""))
    return {"set": entry["set"], "source": source, "licence": licence, "packets": entry["packets"]}
