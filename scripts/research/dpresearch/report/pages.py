# SPDX-License-Identifier: Apache-2.0
"""Puts the results into docs: results.json, tables, pictures, and the figures of model cards.

The text of a page is written by hand. Only what is between ``<!-- table: NAME -->`` and
``<!-- end -->`` is replaced.
"""

import json
import re
import subprocess
from pathlib import Path

from dptrain import Error

from . import pictures, tables


def save(docs, page, results, command):
    """Writes DOCS/PAGE/results.json, with the command and the commit that made the results."""
    asked = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
    ]
    commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    results = {"made": {"command": command, "commit": commit}, **results}
    path = Path(docs) / page / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_json(results) + "\n")


def load(docs, page):
    """The results of a page."""
    path = Path(docs) / page / "results.json"
    if not path.is_file():
        raise Error(f"{path}: no such file; make evaluation and make paper write it")
    return json.loads(path.read_text())


def update(docs, page):
    """Fills the tables of DOCS/PAGE.md and draws its pictures from the stored results."""
    results, text = load(docs, page), Path(docs) / f"{page}.md"
    text.write_text(fill(text.read_text(), tables.PAGES[page], results))
    pictures.PAGES[page](results, Path(docs) / page)


def fill(text, makers, results):
    """The text with its tables made from the results; a table with an unknown name is an error."""

    def replace(match):
        name = match.group(1)
        if name not in makers:
            raise Error(f"nothing makes the table {name!r}")
        return f"<!-- table: {name} -->\n{makers[name](results).strip()}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w-]+) -->.*?<!-- end -->", replace, text, flags=re.DOTALL)


def fill_cards(docs, models):
    """Writes the paper's scores into the manifests of its networks below a directory."""
    scores = load(docs, "paper")["scores"]
    for path in sorted(Path(models).rglob("*.json")):
        manifest = json.loads(path.read_text())
        found = card(scores, manifest["name"])
        if found:
            kept = {k: v for k, v in manifest["figures"].items() if k in ("validation", "export")}
            manifest["figures"] = kept | found
            path.write_text(json.dumps(manifest, indent=1) + "\n")


def card(scores, model):
    """The figures of a network of the paper by split and task, each [value, low, high]."""
    keys = ("n", "accuracy", "macro_f1", "weighted_f1")
    return {
        title: {
            task: {level: {k: by[level][k] for k in keys} for level in ("flow", "packet")}
            for task, by in scores[f"{model}.iscx.{split}"].items()
        }
        for split, title in tables.SPLITS.items()
        if scores.get(f"{model}.iscx.{split}")
    }


def _json(results):
    """JSON with a line for each value of the second level."""
    parts = []
    for key, value in results.items():
        if isinstance(value, dict):
            inner = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            parts.append(f"{json.dumps(key)}: {{\n  {inner}\n }}")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n " + ",\n ".join(parts) + "\n}"
