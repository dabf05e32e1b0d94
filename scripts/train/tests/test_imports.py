# SPDX-License-Identifier: Apache-2.0
"""The trainer imports neither the research package nor anything its requirements do not name."""

from pathlib import Path

import imports

TRAIN = Path(__file__).parents[1]
REQUIRED = {"numpy", "onnx", "onnxruntime", "sklearn", "torch"}


def write(directory, **files):
    package = directory / "p"
    for name, text in {"__init__": "", **files}.items():
        path = package / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


def test_checker_sees_circles_and_foreign_imports(tmp_path):
    found = imports.graph(
        write(tmp_path / "a", a="from . import b", b="import os, p.c", c="from .a import x")
    )
    assert imports.circle(found) == ["p.a", "p.b", "p.c", "p.a"]
    found = imports.graph(
        write(tmp_path / "b", a="from .b import x", b="def f():\n    from q.r import s")
    )
    assert imports.circle(found) == []
    assert imports.outside(found) == {"q"}
    sub = write(
        tmp_path / "c", a="from .s import t", s__in__t="from .. import a", s__in____init__=""
    )
    assert imports.circle(imports.graph(sub)) == ["p.a", "p.s.t", "p.a"]


def test_trainer_has_no_circle_and_needs_only_its_requirements():
    found = imports.graph(TRAIN / "dptrain")
    assert len(found) > 5
    assert imports.circle(found) == []
    assert imports.outside(found) == REQUIRED
    lines = (TRAIN / "requirements.txt").read_text().splitlines()
    named = {line.split("==")[0].replace("scikit-learn", "sklearn") for line in lines}
    assert named >= REQUIRED
