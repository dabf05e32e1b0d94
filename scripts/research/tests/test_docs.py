# SPDX-License-Identifier: Apache-2.0
"""The published pages show the stored results, all of them, and nothing else."""

import json
import re
import shutil
from pathlib import Path

import pytest

from dpresearch.report import pages, tables

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("page", tables.PAGES)
def test_tables_are_those_of_the_results(page):
    text, results = (DOCS / f"{page}.md").read_text(), pages.load(DOCS, page)
    assert pages.fill(text, tables.PAGES[page], results) == text
    assert set(re.findall(r"<!-- table: ([\w-]+) -->", text)) == set(tables.PAGES[page])
    assert results["made"]["command"]
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", results["made"]["commit"])


@pytest.mark.parametrize("page", tables.PAGES)
def test_pictures_can_be_drawn_and_are_shown(page, tmp_path):
    shown = set(re.findall(rf"\({page}/([\w-]+\.png)\)", (DOCS / f"{page}.md").read_text()))
    assert shown == {path.name for path in (DOCS / page).glob("*.png")}
    (tmp_path / page).mkdir()
    for name in (f"{page}.md", f"{page}/results.json"):
        shutil.copy(DOCS / name, tmp_path / name)
    pages.update(tmp_path, page)
    drawn = {path.name for path in (tmp_path / page).glob("*.png")}
    # The stored results of the paper have no confusion matrices, see "made".
    assert shown - drawn <= {"confusion.png", "dendrogram.png"}
    assert drawn <= shown


def test_evaluation_is_one_page():
    assert len((DOCS / "evaluation.md").read_text().splitlines()) <= 110


def test_cards_of_the_papers_networks_have_the_published_scores():
    scores = pages.load(DOCS, "paper")["scores"]
    folder = DOCS.parent / "models" / "paper"
    manifests = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert {m["name"] for m in manifests} >= {"cnn-app", "sae-traffic"}
    for manifest in manifests:
        want = pages.card(scores, manifest["name"])
        assert want
        assert {k: manifest["figures"][k] for k in want} == want, manifest["name"]
