# SPDX-License-Identifier: Apache-2.0
"""The pictures of the evaluation: PNG, colours of Okabe and Ito, numbers written in heat maps."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from scipy.cluster import hierarchy

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


def _save(figure, path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    # Without the version of matplotlib, so that the same figures are the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def lengths(path, values):
    """Histogram of packet lengths in bytes [n]."""
    figure, axes = plt.subplots(figsize=(6.5, 3))
    axes.hist(values, bins=np.arange(0, 1525, 25))
    axes.set(xlabel="IP packet, bytes (as sent)", ylabel="packets", yscale="log")
    long = int((values >= 1525).sum())
    if long:
        axes.set_title(f"{long} longer ones are not shown", fontsize=9)
    _save(figure, path)


def splits(path, values, title):
    """Points with intervals: values {model: {split: [value, low, high]}}."""
    names = list(dict.fromkeys(split for by in values.values() for split in by))
    figure, axes = plt.subplots(figsize=(8, 3.6))
    width = 0.8 / max(len(values), 1)
    for i, (model, by) in enumerate(values.items()):
        at = np.array([names.index(s) for s in by]) - 0.4 + width * (i + 0.5)
        value, low, high = np.array(list(by.values())).T
        spread = np.maximum([value - low, high - value], 0)
        style = {"color": COLOURS[i % 8], "marker": MARKERS[i % 8], "linestyle": "none"}
        axes.errorbar(at, value, spread, label=model, capsize=2, markersize=5, **style)
    axes.set(ylabel=title, ylim=(0, 1), xticks=range(len(names)), xticklabels=names)
    axes.grid(axis="x", visible=False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    _save(figure, path)


def heat(path, rows, columns, values, title="", colours="cividis", low=0, high=1, form="{:.2f}"):
    """A table [rows, columns] of numbers as colours with the numbers in it; NaN is a dash."""
    values = np.asarray(values, dtype=float)
    size = (2.4 + 0.62 * len(columns), 1.5 + 0.34 * len(rows))
    figure, axes = plt.subplots(figsize=size)
    _heat(axes, rows, columns, values, title, colours, low, high, form)
    _save(figure, path)


def _heat(axes, rows, columns, values, title, colours, low, high, form):
    image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9)
    for i, j in np.ndindex(*values.shape):
        v = values[i, j]
        shade = image.norm(0 if np.isnan(v) else v)
        red, green, blue, _ = image.cmap(shade)
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 and not np.isnan(v)
        colour = "white" if dark else "black"
        text = "-" if np.isnan(v) else form.format(v)
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)


def confusions(path, panels):
    """Row-normalised confusions beside one another: [(title, labels, shares [C, C], n [C])]."""
    size = max(len(labels) for _, labels, _, _ in panels)
    each = 2.2 + 0.38 * size
    figure, all_axes = plt.subplots(1, len(panels), figsize=(each * len(panels), each - 0.6))
    for axes, (title, labels, shares, n) in zip(np.atleast_1d(all_axes), panels, strict=True):
        rows = [f"{label} ({int(k)})" for label, k in zip(labels, n, strict=True)]
        shares = np.where(np.asarray(n)[:, None] > 0, shares, np.nan)
        _heat(axes, rows, labels, shares, title, "cividis", 0, 1, "{:.2f}")
        axes.set(xlabel="verdict", ylabel="truth (n)")
    _save(figure, path)


def dendrograms(path, panels):
    """Ward's clusters of the classes by their rows of the confusion: [(title, labels, shares)]."""
    figure, all_axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.6))
    for axes, (title, labels, shares) in zip(np.atleast_1d(all_axes), panels, strict=True):
        tree = hierarchy.linkage(shares, "ward")
        black = {"color_threshold": 0, "above_threshold_color": COLOURS[0]}
        hierarchy.dendrogram(tree, labels=labels, orientation="left", ax=axes, **black)
        axes.set(xlabel="Ward distance")
        axes.set_title(title, fontsize=9)
        axes.grid(visible=False)
    _save(figure, path)


def lines(path, panels):
    """Panels beside one another: [(title, x label, y label, {name: (x, y)}, limits or None)]."""
    figure, all_axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 4))
    for axes, (title, x, y, curves, limits) in zip(np.atleast_1d(all_axes), panels, strict=True):
        for i, (name, (at, values)) in enumerate(curves.items()):
            marker = MARKERS[i % 8] if len(at) < 15 else None
            style = ("-", "--", ":", "-.")[i % 4]
            axes.plot(at, values, style, color=COLOURS[i % 8], marker=marker, markersize=4)
            axes.lines[-1].set_label(name)
        axes.set(xlabel=x, ylabel=y)
        if limits:
            axes.set(xlim=limits[0], ylim=limits[1])
        axes.set_title(title, fontsize=9)
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    _save(figure, path)


def reliability(path, panels):
    """Share right against confidence: [(title, {name: bins [n, confidence, right]})]."""
    figure, all_axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.4))
    for axes, (title, curves) in zip(np.atleast_1d(all_axes), panels, strict=True):
        axes.plot([0, 1], [0, 1], color="#888888", linewidth=1)
        for i, (name, bins) in enumerate(curves.items()):
            n, confidence, right = np.array(bins).T
            style = ("-", "--")[i % 2]
            axes.plot(confidence, right, style, color=COLOURS[i % 8], linewidth=1, label=name)
            size = 4 + 60 * n / n.sum()
            axes.scatter(confidence, right, size, color=COLOURS[i % 8], marker=MARKERS[i % 8])
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="share right")
        axes.set_title(title, fontsize=9)
        axes.legend(fontsize=7)
    _save(figure, path)


def grid(path, records, score, title, chosen):
    """F1 against parameters of the grid's nets; ``chosen`` (parameters, F1) are the paper's own."""
    figure, axes = plt.subplots(figsize=(6.5, 3.2))
    for i, (task, some) in enumerate(records.items()):
        x, y = zip(*[(r["parameters"], r[score]) for r in some], strict=True)
        style = {"color": COLOURS[i], "marker": MARKERS[i]}
        axes.scatter(x, y, 24, label=task, **style)
    if chosen:
        axes.scatter(*zip(*chosen, strict=True), 90, facecolors="none", edgecolors="black")
    axes.set(xlabel="parameters (ringed: the paper's choice)", ylabel=title, xscale="log")
    axes.legend(fontsize=8)
    _save(figure, path)
