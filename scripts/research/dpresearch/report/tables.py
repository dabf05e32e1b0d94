# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/evaluation.md and docs/paper.md, by name: Markdown from the results."""

import jinja2
import pandas as pd

from ..jobs import baselines
from ..paper import DATA, LABELS

DASH = "-"
TASKS = {"category": "traffic", "app": "app"}  # and how the paper's models are named after them
SPLITS = {
    "packet": "packet split",
    "flow": "flow split",
    "capture": "capture split",
    "elsewhere": "elsewhere",
}
TABLE = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(
    """\
| {{ frame.columns | join(" | ") }} |
|{% for name in frame.columns %}{{ "---|" if loop.index <= left else "---:|" }}{% endfor %}
{%- for row in frame.itertuples(index=False, name=None) %}
| {{ row | join(" | ") }} |
{%- endfor %}
"""
)


def markdown(rows, left=1):
    """A Markdown table of dicts; the first ``left`` columns are text, missing cells are dashes."""
    return TABLE.render(frame=pd.DataFrame(rows).fillna(DASH), left=left)


def number(value, digits=2):
    """0.8123 as .81; None is a dash."""
    if value is None:
        return DASH
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def with_interval(values):
    """[value, low, high] as ".812 (.790 to .830)"."""
    value, low, high = (number(v, 3) for v in values)
    return f"{value} ({low} to {high})"


def _pair(scores):
    return f"{number(scores['accuracy'][0])} / {number(scores['macro_f1'][0])}"


def evaluation(results):
    """Accuracy / macro-F1 by flow of each model on each test; the first row is n."""
    tests = results["scores"]
    counts = {name: next(iter(by.values()))["n"] for name, by in tests.items()}
    rows = [{"": "flows", **{name: f"{n:,}" for name, n in counts.items()}}]
    for model in dict.fromkeys(model for by in tests.values() for model in by):
        found = {name: by[model] for name, by in tests.items() if model in by}
        rows.append({"": model, **{name: _pair(s) for name, s in found.items()}})
    return markdown(rows)


def summary(results):
    """Weighted F1 by packet: what the paper reports, and ours on three splits."""
    rows = []
    for task, short in TASKS.items():
        published = DATA["published_weighted"][task]
        for model, reported in (("cnn", published[2]), ("sae", published[5])):
            row = {"task": task, "model": model, "the paper, packet split": number(reported)}
            for split in ("packet", "flow", "capture"):
                by = results["scores"].get(f"{model}-{short}.iscx.{split}")
                row[f"here, {SPLITS[split]}"] = (
                    with_interval(by[task]["packet"]["weighted_f1"]) if by else None
                )
            rows.append(row)
    return markdown(rows, 2)


def classes(task):
    """F1 by class and packet on the packet split, ours and the paper's (columns 2 and 5)."""
    models = {"cnn": 2, "sae": 5, "random-forest": None, "lightgbm": None}
    published = {**DATA["published"][task], "weighted": DATA["published_weighted"][task]}

    def make(results):
        found = {m: results["classes"].get(f"{m}-{TASKS[task]}.iscx.packet.0", {}) for m in models}
        rows = []
        for label in [*LABELS[task], "weighted"]:
            scores = {m: by[task][label] for m, by in found.items() if by}
            row = {"class": label, "packets": next((f"{s['n']:,}" for s in scores.values()), None)}
            for model, column in models.items():
                row[model] = number(scores[model]["f1"]) if model in scores else None
                if column:
                    values = published.get(label)
                    row[f"{model} in the paper"] = number(values[column]) if values else None
            rows.append(row)
        return markdown(rows)

    return make


def models(task):
    """Accuracy / macro-F1 by flow of all models on the paper's rows."""

    def make(results):
        rows = []
        for model in ("cnn", "sae", "default", *baselines.KINDS):
            row = {"model": model}
            for split in ("packet", "flow", "capture"):
                by = results["scores"].get(f"{model}-{TASKS[task]}.iscx.{split}")
                scores = by and by[task]["flow"]
                row[SPLITS[split]] = scores and (
                    f"{number(scores['accuracy'][0], 3)} / {with_interval(scores['macro_f1'])}"
                )
            rows.append(row)
        return markdown(rows)

    return make


def elsewhere(results):
    """The paper's networks on other networks, trained on all sets."""
    rows = []
    for model, scores in results["elsewhere"].items():
        recalls = {c: number(r) for c, r in scores["recall"].items() if scores["flows"][c]}
        values = {
            "accuracy": "accuracy",
            "macro-F1": "macro_f1",
            "mean recall": "balanced_accuracy",
        }
        row = {"model": model, **{k: with_interval(scores[v]) for k, v in values.items()}}
        rows.append(row | {f"recall: {c}": r for c, r in recalls.items()})
    return markdown(rows)


def shortcuts(results):
    """Macro-F1 by flow that the paper's networks lose to each shortcut on the flow split."""
    rows = []
    for kind in ("cnn", "sae"):
        for task, short in TASKS.items():
            model = f"{kind}-{short}"
            by = results["shortcuts"].get(f"{model}.iscx.flow.0.{task}")
            if by:
                lost = {k: number(v[0], 3) for k, v in by["lost"].items()}
                rows.append({"model": model, "macro-F1": number(by["macro_f1"][0], 3), **lost})
    return markdown(rows)


def speed(results):
    """Microseconds and packets a second of each network."""
    rows = {}
    for r in results["speed"]["networks"]:
        key = r["model"], r["runtime"], r["precision"]
        row = rows.setdefault(key, dict(zip(("model", "runtime", "precision"), key, strict=True)))
        row[f"{r['packets']}: µs a packet"] = f"{r['us_per_packet']:.2f}"
        row[f"{r['packets']}: packets/s"] = f"{r['packets_per_second']:,}"
    return markdown(rows.values(), 3)


# The generated places of each page.
PAGES = {
    "evaluation": {"scores": evaluation},
    "paper": {
        "summary": summary,
        **{f"classes-{task}": classes(task) for task in TASKS},
        **{f"models-{task}": models(task) for task in TASKS},
        "elsewhere": elsewhere,
        "shortcuts": shortcuts,
        "speed": speed,
    },
}
