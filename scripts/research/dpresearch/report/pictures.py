# SPDX-License-Identifier: Apache-2.0
"""The pictures of both pages, drawn from their results: PNG, colours of Okabe and Ito."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from scipy.cluster import hierarchy

from ..jobs import shortcuts
from ..paper import cnn
from .analysis import TREES
from .tables import number

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vPX*"
MODELS = ("default", *TREES)

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
    """Writes the pictures of docs/evaluation.md for which there are results."""
    _scores(results["scores"], at / "scores.png")
    _recalls(results, at / "recalls.png")
    _shortcuts(results["shortcuts"], at / "shortcuts.png")
    _calibration(results["calibration"], at / "confidence.png")
    _operating_points(results["operating_points"], at / "coverage.png")
    _unknown(results, at / "unknown.png")
    _samples(results["samples"], at / "samples.png")


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
    """Points with intervals: macro-F1 by flow of each model on each test."""
    tests = {
        "packet split": ("packet", "flow"),
        "flow split": ("flow", "flow"),
        "capture split": ("capture", "flow"),
        "new captures": ("capture", "new"),
        "elsewhere": ("elsewhere", "flow"),
    }
    figure, axes = plt.subplots(figsize=(8, 3.6))
    for i, model in enumerate(MODELS):
        found = [
            (x, scores[f"{model}.all.{split}"]["category"][which]["macro_f1"])
            for x, (split, which) in enumerate(tests.values())
            if f"{model}.all.{split}" in scores
        ]
        if not found:
            continue
        at, values = zip(*found, strict=True)
        value, low, high = np.array(values).T
        spread = np.maximum([value - low, high - value], 0)
        style = {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": "none"}
        place = np.array(at) + 0.16 * (i - 1.5)
        axes.errorbar(place, value, spread, label=model, capsize=2, markersize=5, **style)
    axes.set(ylabel="macro-F1 by flow, category", ylim=(0, 1))
    axes.set_xticks(range(len(tests)), tests)
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper right", fontsize=8)
    _save(figure, path)


def _recalls(results, path):
    """Recall by category of the default and LightGBM on three tests."""
    columns = {}
    for split in ("flow", "capture"):
        for model in MODELS[:2]:
            by = results["classes"].get(f"{model}.all.{split}.0", {}).get("category", {})
            columns[f"{split} split: {model}"] = {
                c: s["recall"] for c, s in by.items() if s["n"] and c != "weighted"
            }
    for model in MODELS[:2]:
        by = results["elsewhere"].get(model, {"recall": {}})
        columns[f"elsewhere: {model}"] = {c: r for c, r in by["recall"].items() if by["flows"][c]}
    rows = list(dict.fromkeys(c for by in columns.values() for c in by))
    values = [[by.get(row, np.nan) for by in columns.values()] for row in rows]
    _heat(path, rows, list(columns), values, "recall by flow", high=1, form="{:.2f}")


def _shortcuts(found, path):
    """What each perturbation costs on the flow split; checksums from the model that had them."""
    rows = {}
    for model in MODELS:
        by = found.get(f"{model}.all.flow.0.category")
        if by:
            with_them = found.get(f"{model}-checksums.all.flow.0.category", {"lost": {}})
            rows[model] = {k: v[0] for k, v in (by["lost"] | with_them["lost"]).items()}
    columns = [name for name in shortcuts.NAMES if any(name in by for by in rows.values())]
    values = [[by.get(c, np.nan) for c in columns] for by in rows.values()]
    title = "category: macro-F1 by flow that is lost, flow split"
    _heat(path, list(rows), columns, values, title, high=0.6, form="{:.3f}")


def _heat(path, rows, columns, values, title, high, form):
    figure, axes = plt.subplots(figsize=(2.4 + 0.62 * len(columns), 1.9 + 0.34 * len(rows)))
    _heat_map(axes, rows, columns, np.asarray(values, dtype=float), title, high, form)
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


def _calibration(found, path):
    """Share right against confidence of the default, with and without the temperature."""
    panels = [
        (f"category, {split} split, {shown}", found[f"default.all.{split}.0"][f"category.{which}"])
        for split, which, shown in (
            ("flow", "all", "known captures"),
            ("capture", "new", "new captures"),
        )
        if f"category.{which}" in found.get(f"default.all.{split}.0", {})
    ]
    if not panels:
        return
    figure, all_axes = _panels(len(panels), 3.8, 3.6)
    for axes, (title, by) in zip(all_axes, panels, strict=True):
        axes.plot([0, 1], [0, 1], color="#888888", linewidth=1)
        for i, (key, shown) in enumerate((("before", "without temperature"), ("after", "with it"))):
            n, confidence, right = np.array(by[f"bins_{key}"]).T
            label = f"{shown}: ECE {number(by[f'ece_{key}'], 3)}"
            style = ("-", "--")[i]
            axes.plot(confidence, right, style, color=COLOURS[i], linewidth=1, label=label)
            size = 4 + 60 * n / n.sum()
            axes.scatter(confidence, right, size, color=COLOURS[i], marker=MARKERS[i])
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="share right")
        axes.set_title(f"{title} (n {by['n']:,})", fontsize=9)
        axes.legend(fontsize=7)
    _save(figure, path)


def _operating_points(found, path):
    """Share right against the share of flows that get a verdict, by the minimum confidence."""
    kinds = {
        "six": "the six categories",
        "signalling": "and TLS during calls",
        "any": "the six and traffic of no class",
    }
    curves = {
        f"{model}: {shown}": np.array(by[which]["curve"]).T[1:]
        for model, by in found.items()
        for which, shown in kinds.items()
    }
    if curves:
        axes_labels = "share of flows with a verdict", "share right"
        _lines(path, [("elsewhere", *axes_labels, curves)])


def _unknown(results, path):
    """ROC curves of known against unknown traffic."""
    panels = []
    for name, by in results["roc"].items():
        curves = {
            f"{kind}: AUROC {number(results['unknown'][name][kind]['auroc'], 3)}": (strange, known)
            for kind, (known, strange) in by.items()
        }
        panels.append((name.split(".")[0], "unknown flows kept", "known flows kept", curves))
    if panels:
        _lines(path, panels)


def _samples(found, path):
    """Accuracy against samples, and against the mean number of samples of an early stop."""
    counts, stops = {}, {}
    for key, by in found.items():
        task, split, side = key.split(".")
        if split == "flow" and side == "test":
            counts[f"{task}, all flows"] = (by["counts"], by["all"]["accuracy"])
            shown = f"{task}, flows of {max(by['counts'])} and more (n {by['long']['n']})"
            counts[shown] = (by["counts"], by["long"]["accuracy"])
            _, used, right = zip(*by["early_stop"], strict=True)
            stops[task] = (used, right)
    if counts:
        panels = [
            ("budget, flow split", "samples at most", "accuracy by flow", counts),
            ("early stop, flow split", "mean samples used", "accuracy by flow", stops),
        ]
        _lines(path, panels)


def _lines(path, panels):
    """Panels next to one another: [(title, x label, y label, {name: (x, y)})]."""
    figure, all_axes = _panels(len(panels), 4.2, 4)
    for axes, (title, x, y, curves) in zip(all_axes, panels, strict=True):
        for i, (name, (at, values)) in enumerate(curves.items()):
            marker = MARKERS[i % 8] if len(at) < 15 else None
            style = ("-", "--", ":", "-.")[i % 4]
            axes.plot(
                at, values, style, color=COLOURS[i % 8], marker=marker, markersize=4, label=name
            )
        axes.set(xlabel=x, ylabel=y)
        axes.set_title(title, fontsize=9)
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    _save(figure, path)


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
