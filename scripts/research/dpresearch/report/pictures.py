# SPDX-License-Identifier: Apache-2.0
"""The pictures of both pages, drawn from their results: PNG, colours of Okabe and Ito."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from scipy.cluster import hierarchy

from ..paper import cnn
from .tables import number

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vPX*"

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "axes.axisbelow": True,
        "axes.prop_cycle": plt.cycler(color=COLOURS),
        "legend.frameon": False,
    }
)


def evaluation(results, at):
    """Writes the pictures of docs/evaluation.md."""
    _scores(results["scores"], at / "scores.png")
    _recalls(results["recall"], at / "recalls.png")
    panels = {n: c for n, c in results["curves"].items() if n.endswith("category")}
    _confidence(panels, at / "confidence.png")
    _coverage(panels, at / "coverage.png")


def paper(results, at):
    """Writes the pictures of docs/paper.md for which there are results."""
    _lengths(results["lengths"], at / "lengths.png")
    _grid(results["grid"], at / "grid.png")
    found = [
        (f"CNN, {task}", by)
        for name, tasks in results.get("confusions", {}).items()
        if name.startswith("cnn-")
        for task, by in tasks.items()
    ]
    if found:
        _confusions(found, at / "confusion.png")
        _dendrograms(found, at / "dendrogram.png")


PAGES = {"evaluation": evaluation, "paper": paper}


def _save(figure, path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    # Without matplotlib's version, so that equal pictures are equal files.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _panels(count, width, height):
    figure, axes = plt.subplots(1, count, figsize=(width * count, height))
    return figure, np.atleast_1d(axes)


def _scores(scores, path):
    """Bars with intervals: accuracy by flow of each model on each test."""
    models = list(dict.fromkeys(model for by in scores.values() for model in by))
    figure, axes = plt.subplots(figsize=(8.5, 3.6))
    for i, model in enumerate(models):
        at = [x for x, by in enumerate(scores.values()) if model in by]
        values = [by[model]["accuracy"] for by in scores.values() if model in by]
        value, low, high = np.array(values).T
        place = np.array(at) + 0.8 * ((i + 0.5) / len(models) - 0.5)
        style = {"color": COLOURS[i], "label": model, "error_kw": {"linewidth": 0.7}}
        spread = np.maximum([value - low, high - value], 0)
        axes.bar(place, value, 0.8 / len(models), yerr=spread, **style)
    axes.set(ylabel="share of flows right", ylim=(0, 1))
    axes.set_xticks(range(len(scores)), [name.replace(": ", "\n", 1) for name in scores])
    axes.grid(axis="x", visible=False)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    _save(figure, path)


def _recalls(recalls, path):
    """Recall by category of some models, on each test of categories."""
    found = {n: by for n, by in recalls.items() if n.endswith("category")}
    rows = list(dict.fromkeys(label for by in found.values() for r in by.values() for label in r))
    columns = {
        f"{test.split(':')[0]}: {model}": recall
        for test, by in found.items()
        for model, recall in by.items()
        if not model.startswith("lightgbm with") and not model.endswith("protocols")
    }
    values = [[recall.get(row, np.nan) for recall in columns.values()] for row in rows]
    figure, axes = plt.subplots(figsize=(2.4 + 0.7 * len(columns), 2.8 + 0.24 * len(rows)))
    title = "share of the flows of each category that is found"
    _heat_map(axes, rows, list(columns), np.array(values), title, 1, "{:.2f}")
    _save(figure, path)


def _confidence(panels, path):
    """Share right against confidence of the network alone."""
    figure, all_axes = _panels(len(panels), 3.8, 3.4)
    for axes, (name, by) in zip(all_axes, panels.items(), strict=True):
        n, confidence, right = np.array(by["bins"]).T
        axes.plot([0, 1], [0, 1], color="#888888", linewidth=1)
        axes.plot(confidence, right, color=COLOURS[0], linewidth=1)
        axes.scatter(confidence, right, 4 + 80 * n / n.sum(), color=COLOURS[0])
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="share right")
        axes.set_title(
            f"{name.split(':')[0]}: error {number(by['calibration_error'], 3)}", fontsize=9
        )
    _save(figure, path)


def _coverage(panels, path):
    """Share right against the share of flows that reach a minimum confidence."""
    figure, axes = plt.subplots(figsize=(6, 3.4))
    for i, (name, by) in enumerate(panels.items()):
        at, right, confidence = (np.array(by[k]) for k in ("coverage", "right", "confidence"))
        axes.plot(at, right, ("-", "--")[i % 2], color=COLOURS[i], label=name)
        for least in (0.5, 0.8, 0.95):
            if (confidence >= least).any():
                point = np.flatnonzero(confidence >= least)[-1]
                axes.plot(at[point], right[point], MARKERS[i], color=COLOURS[i])
                axes.annotate(f"{least}", (at[point], right[point]), fontsize=7)
    axes.set(xlabel="share of flows with a verdict", ylabel="share of these right", ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="lower left")
    _save(figure, path)


def _heat_map(axes, rows, columns, values, title, high, form):
    """Numbers [rows, columns] as colours with the numbers in them; NaN is a dash."""
    image = axes.imshow(values, cmap="cividis", vmin=0, vmax=high, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9)
    for (i, j), v in np.ndenumerate(values):
        dark = not np.isnan(v) and image.norm(v) < 0.5
        text = "-" if np.isnan(v) else form.format(v)
        colour = "white" if dark else "black"
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)


def _lengths(counts, path):
    """Histogram of the lengths of packets as sent, in bins of 25 bytes; the last bin is longer."""
    figure, axes = plt.subplots(figsize=(6.5, 3))
    axes.bar(np.arange(61) * 25, (counts + [0] * 62)[:61], 25, align="edge")
    axes.set(xlabel="IP packet, bytes as sent", ylabel="packets", yscale="log")
    if counts[61:]:
        axes.set_title(f"{sum(counts[61:])} longer ones are not shown", fontsize=9)
    _save(figure, path)


def _grid(records, path):
    """F1 against parameters of the grid's networks; the paper's choices have a ring."""
    if not records:
        return
    figure, axes = plt.subplots(figsize=(6.5, 3.2))
    for i, task in enumerate(dict.fromkeys(r["task"] for r in records)):
        mine = [r for r in records if r["task"] == task]
        x, y = zip(*[(r["parameters"], r["weighted_f1"]) for r in mine], strict=True)
        axes.scatter(x, y, 24, label=task, color=COLOURS[i], marker=MARKERS[i])
    chosen = [
        (r["parameters"], r["weighted_f1"])
        for r in records
        if (tuple(r["c1"]), tuple(r["c2"])) == cnn.CONVOLUTIONS[r["task"]]
    ]
    axes.scatter(*zip(*chosen, strict=True), 90, facecolors="none", edgecolors="black")
    axes.set(xlabel="parameters (ring: the paper's choice)", xscale="log")
    axes.set(ylabel="weighted F1 by packet (validation)")
    axes.legend(fontsize=8)
    _save(figure, path)


def _confusions(found, path):
    """Confusion matrices with each row normalised."""
    size = 2.2 + 0.38 * max(len(by["labels"]) for _, by in found)
    figure, all_axes = _panels(len(found), size, size - 0.6)
    for axes, (title, by) in zip(all_axes, found, strict=True):
        n = np.array(by["n"])
        rows = [f"{label} ({k})" for label, k in zip(by["labels"], n, strict=True)]
        shares = np.where(n[:, None] > 0, by["shares"], np.nan)
        _heat_map(axes, rows, by["labels"], shares, title, 1, "{:.2f}")
        axes.set(xlabel="verdict", ylabel="truth (n)")
    _save(figure, path)


def _dendrograms(found, path):
    """Ward's clusters of the classes by their rows of the confusion matrix."""
    figure, all_axes = _panels(len(found), 4.6, 3.6)
    for axes, (title, by) in zip(all_axes, found, strict=True):
        tree = hierarchy.linkage(by["shares"], "ward")
        one = {"color_threshold": 0, "above_threshold_color": COLOURS[0]}
        hierarchy.dendrogram(tree, labels=by["labels"], orientation="left", ax=axes, **one)
        axes.set(xlabel="Ward distance")
        axes.set_title(title, fontsize=9)
        axes.grid(visible=False)
    _save(figure, path)
