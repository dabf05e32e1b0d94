# SPDX-License-Identifier: Apache-2.0
"""The manifest NAME.json of a model: format 1, which dpclass reads and checks."""

import numpy as np

from . import data

FINAL_CONFIDENCE = 0.95
# The text of a model that somebody trained on their own data.
WEAKNESSES = [
    "Trained on the user's own captures. The validation figures are of flows from the same "
    "captures; other networks, hosts and days were not tested. Try it on a capture of another day.",
    "It knows only the labels it was given. Other traffic becomes unknown only if the "
    'confidence is low, or if it resembles the captures under "other".',
]


def make(ds, run, *, name, precision, tuned, figures, sha256, card=None):
    """The manifest of a train.Run as a dict, in the order in which it is written.

    ``tuned`` has the fields that say how its outputs become verdicts (see export.tune).
    ``card`` is the hand-written text of a shipped model: {"sources": {set: {"source", "licence"}},
    "licence", "weaknesses": {kind: [...]}}; without it the text is that of the user's own data.
    """
    sets = _sets(ds, run.learnt)
    names = ", ".join(sets)
    sources = card["sources"] if card else {}
    return {
        "format": data.FORMAT,
        "vector": data.VECTOR,
        "name": name,
        "task": list(run.spec["labels"]),
        "labels": run.spec["labels"],
        "architecture": run.model.describe(),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "mac": run.model.mac(),
        "precision": precision,
        **tuned,
        "training": {
            "data": [
                {"set": s, **sources.get(s, {"source": "", "licence": ""}), "packets": n}
                for s, n in sets.items()
            ],
            "split": run.spec["split"],
            "seed": run.spec["seed"],
            "packets": run.spec["used_packets"],
            "flows": len(np.unique(ds.flow[run.learnt])),
        },
        "figures": figures,
        "weaknesses": card["weaknesses"][run.spec["kind"]] if card else WEAKNESSES,
        "sha256": sha256,
        "licence": f"{card['licence']}; trained on {names}" if card else f"own data: {names}",
    }


def _sets(ds, rows):
    """{set: packets} of these rows."""
    packets = np.bincount(ds.set[rows], minlength=len(ds.meta["sets"]))
    return {name: int(n) for name, n in zip(ds.meta["sets"], packets, strict=True) if n}
