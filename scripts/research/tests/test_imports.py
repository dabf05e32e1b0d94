# SPDX-License-Identifier: Apache-2.0
"""The research package has no circle of imports; its jobs do not depend on its report."""

from pathlib import Path

import imports

ROOT = Path(__file__).parents[1] / "dpresearch"


def test_no_circle():
    assert imports.circle(imports.graph(ROOT)) == []


def test_imports_run_one_way():
    """From report and the command line over jobs to paper, which imports dptrain only."""
    order = ["dpresearch.paper", "dpresearch.jobs", "dpresearch.report"]
    for name, found in imports.graph(ROOT).items():
        for below, above in ((a, b) for i, a in enumerate(order) for b in order[i + 1 :]):
            if name.startswith(below):
                assert not any(other.startswith(above) for other in found), (name, found)
