# SPDX-License-Identifier: Apache-2.0
"""The networks and splits of Deep Packet (Lotfollahi et al. 2020), and what the paper reports.

``DATA`` is paper.json: the labels that the public captures have, the published scores by class
(recall, precision and F1 of the CNN, then of the SAE; null is not published), how many networks
the paper's grid search tried, and the weaknesses for the model cards.
"""

import json
from pathlib import Path

DATA = json.loads((Path(__file__).parent / "paper.json").read_text())
LABELS = DATA["labels"]
OUTSIDE_VPN = [name for name in LABELS["category"] if not name.startswith("vpn-")]
