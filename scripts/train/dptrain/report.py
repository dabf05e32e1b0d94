# SPDX-License-Identifier: Apache-2.0
"""Makes docs/evaluation.md's tables, its pictures and results.json from the stored predictions.

The text of evaluation.md is written by hand. What stands in it between ``<!-- generated: NAME -->``
and ``<!-- end -->`` is replaced; a job that has not run yet is a dash there.
"""

import collections
import json
import re
from pathlib import Path

import numpy as np

from . import analysis, cnn, data, figures, jobs, shortcuts, tables


def run(ds, work, docs, log=print):
    """Writes WORK/results.json, DOCS/evaluation/ and the generated places of DOCS/evaluation.md."""
    work, docs = Path(work), Path(docs)
    text = docs / "evaluation.md"
    if not text.is_file():
        raise data.DatasetError(f"{text}: no such file; its tables are put into it")
    store = analysis.Store(ds, work, log)
    log(f"report: {len(store.names)} jobs")
    results = collect(store)
    pictures = docs / "evaluation"
    pictures.mkdir(exist_ok=True)
    for path in (work / "results.json", pictures / "results.json"):
        path.write_text(_json(results) + "\n")
    log("report: pictures")
    draw(store, results, pictures)
    blocks = {name: make(results) for name, make in tables.BLOCKS.items()}
    text.write_text(fill(text.read_text(), blocks))
    log(f"report: {text}")


def fill(text, blocks):
    """The text with its generated places filled; a place with an unknown name is an error."""

    def replace(match):
        name = match.group(1)
        if name not in blocks:
            raise data.DatasetError(f"evaluation.md: nothing generates {name!r}")
        return f"<!-- generated: {name} -->\n{blocks[name].strip()}\n<!-- end -->"

    return re.sub(r"<!-- generated: ([\w-]+) -->.*?<!-- end -->", replace, text, flags=re.DOTALL)


def fill_cards(work, models):
    """Writes the figures of WORK/results.json into the manifests of a directory of models."""
    for path in sorted(Path(models).glob("*.json")):
        manifest = json.loads(path.read_text())
        kept = {k: v for k, v in manifest["figures"].items() if k in ("validation", "export")}
        manifest["figures"] = kept | card(work, manifest["name"])
        path.write_text(json.dumps(manifest, indent=1) + "\n")


def card(work, model):
    """Figures of a shipped model for its manifest, by split and task, out of WORK/results.json.

    {split: {task: {"flow" or "packet": {n, accuracy, macro_f1, weighted_f1}}}}; each score is
    [mean over the seeds, low, high] with the 95 % interval over flows.
    """
    path = Path(work) / "results.json"
    if not path.is_file():
        raise data.DatasetError(f"{path}: no such file; dptrain report writes it")
    scores = json.loads(path.read_text())["scores"]
    track = "all" if model == "default" else "iscx"
    keys = ("n", "accuracy", "macro_f1", "weighted_f1")
    out = {}
    for split, title in tables.SPLITS.items():
        by_task = scores.get(f"{model}.{track}.{split}")
        if by_task:
            out[title] = {
                task: {level: {k: by[level][k] for k in keys} for level in ("flow", "packet")}
                for task, by in by_task.items()
            }
    return out


# What there is to say, as numbers


def collect(store):
    """Everything that results.json holds."""
    out = {
        "dataset": {k: store.ds.meta[k] for k in ("packets", "flows", "per_flow", "checksums")},
        "resamples": analysis.metrics.RESAMPLES,
        "jobs": {name: _about(store.meta(name)) for name in store.names},
        "scores": {},
        "classes": {},
        "differences": {},
    }
    for key, names in _groups(store).items():
        split = key.split(".")[2]
        by_task = out["scores"][key] = {}
        for task in _scored_tasks(store, names[0]):
            by = by_task[task] = {
                level: analysis.scores(store, names, task, level) for level in ("flow", "packet")
            }
            if split == "capture":
                for which in ("seen", "new"):
                    by[which] = analysis.scores(store, names, task, "flow", which)
            out["classes"].setdefault(names[0], {})[task] = {
                level: analysis.per_class(store, names[0], task, level)
                for level in ("flow", "packet")
            }
    for task in tables.TASKS:
        for split in tables.SPLITS:
            if task == "app" and split == "elsewhere":
                continue
            for which in ("all", "seen", "new") if split == "capture" else ("all",):
                for other in ("lightgbm", tables.ANONYMOUS):
                    d = analysis.difference(store, task, split, which, other)
                    if d:
                        out["differences"][f"{other}.{task}.{split}.{which}"] = d
    out["calibration"] = _calibration(store)
    out["growth"] = analysis.growth(store)
    out["samples"] = _samples(store)
    out["unknown"], out["roc"] = _unknown(store)
    out["operating_points"] = {
        model: analysis.operating_point(store, f"{model}.all.elsewhere.0")
        for model in ("default", "lightgbm")
        if f"{model}.all.elsewhere.0" in store.names
    }
    out["shortcuts"] = _shortcuts(store)
    out["ipv6"] = _ipv6(store)
    out["elsewhere"] = _elsewhere(store)
    out["grid"] = _lines(store.work / "grid.jsonl")
    out["tested"] = collections.Counter(r["job"] for r in _lines(store.work / "tested.jsonl"))
    bench = store.work / "bench.json"
    out["speed"] = json.loads(bench.read_text()) if bench.is_file() else []
    return out


def _about(meta):
    return {key: value for key, value in meta.items() if key not in ("labels", "dataset")}


def _groups(store):
    """Names of the jobs that differ by the seed alone, by MODEL.TRACK.SPLIT."""
    out = {}
    for name in store.names:
        if jobs.parse(name).variant not in ("leftout", "checksums"):
            out.setdefault(name.rsplit(".", 1)[0], []).append(name)
    return out


def _scored_tasks(store, name):
    tasks = store.tasks(name)
    return [t for t in tasks if t == "category"] if ".elsewhere." in name else tasks


def _calibration(store):
    out = {}
    for name in store.names:
        model, track, split, seed = name.split(".")
        if model not in ("default", "lightgbm") or seed != "0" or track != "all":
            continue
        for task in _scored_tasks(store, name):
            for which in ("all", "seen", "new") if split == "capture" else ("all",):
                key = f"{model}.{task}.{split}.{which}"
                out[key] = analysis.calibration(store, name, task, which)
    return out


def _samples(store):
    """Of the default: chosen on the validation part, shown on both."""
    out = {}
    for split in ("flow", "capture"):
        name = f"default.all.{split}.0"
        if name not in store.names:
            continue
        for task in tables.TASKS:
            for side in ("validation", "test"):
                out[f"{task}.{split}.{side}"] = {
                    "counts": analysis.COUNTS,
                    **analysis.samples(store, name, task, side),
                    "early_stop": analysis.early_stop(store, name, task, side),
                }
    return out


def _unknown(store):
    out, curves = {}, {}
    for model in ("default", "lightgbm"):
        for name in store.seeds(model, "all", "elsewhere"):
            out[name], curves[name] = analysis.unknown(store, name)
    for name in store.seeds("default-leftout", "all", "flow"):
        out[name], curves[name] = analysis.unknown(store, name, jobs.LEFT_OUT)
    curves = {
        name: {k: np.round(v, 3).tolist() for k, v in by.items()}
        for name, by in curves.items()
        if name.endswith(".0")
    }
    return out, curves


def _shortcuts(store):
    out = {}
    for name in store.names:
        job = jobs.parse(name)
        for task in store.tasks(name):
            found = analysis.shortcuts(store, name, task, job.perturbations)
            if found:
                base = analysis.scores(store, [name], task)
                out[f"{name}.{task}"] = {"n": base["n"], "macro_f1": base["macro_f1"], **found}
    return out


def _ipv6(store):
    out = {}
    for model in ("default", "lightgbm"):
        for split in tables.SPLITS:
            name = f"{model}.all.{split}.0"
            if name in store.names:
                out[name] = analysis.real_ipv6(store, name)
    return out


def _elsewhere(store):
    """{judge: figures and recall} of networks, trees, the two lines and nDPI."""
    out = {}
    for key, names in _groups(store).items():
        model, _, split = key.split(".")
        if split == "elsewhere":
            scores = analysis.scores(store, names, "category")
            n, share = analysis.signalling(store, names)
            more = {"recall": analysis.recalls(store, names), "signalling": share}
            out[model] = {**scores, "signalling_n": n, **more}
            like = names[0]
    if out:
        out |= analysis.rules(store, like)
    return out


def _lines(path):
    return [json.loads(s) for s in path.read_text().splitlines()] if path.is_file() else []


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


# Pictures


def draw(store, results, at):
    """Every picture whose jobs are there."""
    scores = results["scores"]
    rows = data.rows_for(store.ds, "train", ["iscx"])
    figures.lengths(at / "lengths.png", store.ds.length[rows])
    for task in tables.TASKS:
        values = {}
        for model in tables.MODELS:
            for split, title in tables.SPLITS.items():
                by = scores.get(f"{model}.all.{split}", {}).get(task)
                if by:
                    values.setdefault(model, {})[title] = by["flow"]["macro_f1"]
        if values:
            figures.splits(at / f"splits-{task}.png", values, f"macro-F1 by flow, {task}")
    _draw_confusions(store, at)
    _draw_confidence(results, at)
    _draw_shortcuts(results, at)
    records = {}
    for record in results["grid"]:
        records.setdefault(record["task"], []).append(record)
    if records:
        chosen = [
            (r["parameters"], r["weighted_f1"])
            for r in results["grid"]
            if (tuple(r["c1"]), tuple(r["c2"])) == cnn.CONVOLUTIONS[r["task"]]
        ]
        title = "weighted F1 by packet (validation)"
        figures.grid(at / "grid.png", records, "weighted_f1", title, chosen)
    if results["elsewhere"]:
        judges = tables.ordered(results["elsewhere"])
        six = [c for c in analysis.SIX if tables.flows_elsewhere(results, c)]
        values = [[results["elsewhere"][j]["recall"][c] for c in six] for j in judges]
        columns = [f"{c} ({tables.flows_elsewhere(results, c)})" for c in six]
        figures.heat(at / "elsewhere.png", judges, columns, values, "recall by flow, elsewhere")


def _draw_confusions(store, at):
    panels, trees = [], []
    for task, short in tables.TASKS.items():
        name = f"cnn-{short}.iscx.packet.0"
        if name not in store.names:
            continue
        labels, shares, n = analysis.confusion(store, name, task, "packet")
        panels.append((f"CNN, {task}, packet split, by packet", labels, shares, n))
        trees.append((f"CNN, {task}, packet split", labels, shares))
    if panels:
        figures.confusions(at / "confusion-cnn.png", panels)
        figures.dendrograms(at / "dendrogram.png", trees)
    panels = []
    for task in tables.TASKS:
        name = "default.all.capture.0"
        if name in store.names:
            labels, shares, n = analysis.confusion(store, name, task)
            panels.append((f"default, {task}, capture split, by flow", labels, shares, n))
    if panels:
        figures.confusions(at / "confusion-default.png", panels)


def _draw_confidence(results, at):
    panels = []
    keys = ("category.flow.all", "app.flow.all", "category.capture.all", "category.elsewhere.all")
    for key in keys:
        c = results["calibration"].get(f"default.{key}")
        if c:
            task, split, _ = key.split(".")
            curves = {
                f"as it is, ECE {tables.number(c['ece_before'])}": c["bins_before"],
                f"temperature {c['temperature']:.2f}, ECE {tables.number(c['ece_after'])}": c[
                    "bins_after"
                ],
            }
            panels.append((f"{task}, {tables.SPLITS[split]}, n {c['n']:,}", curves))
    if panels:
        figures.reliability(at / "reliability.png", panels)
    counts, stops = {}, {}
    for key, s in results["samples"].items():
        task, split, side = key.split(".")
        if split == "flow":
            for which in ("all", "long"):
                title = f"{task}, {side}, {which} (n {s[which]['n']})"
                if side == "validation":
                    counts[title] = (s["counts"], s[which]["accuracy"])
            _, used, right = zip(*s["early_stop"], strict=True)
            stops[f"{task}, {side}"] = (used, right)
    if counts:
        panels = [
            ("flow split", "payload packets at most", "accuracy by flow", counts, None),
            ("early stop, flow split", "mean packets used", "accuracy by flow", stops, None),
        ]
        figures.lines(at / "samples.png", panels)
    panels = []
    for name, by in results["roc"].items():
        curves = {
            f"{kind}, AUROC {tables.number(results['unknown'][name][kind]['auroc'])}": (
                strange,
                known,
            )
            for kind, (known, strange) in by.items()
        }
        box = ((0, 1), (0, 1.01))
        title = f"{name.split('.')[0]}, {tables.SPLITS[name.split('.')[2]]}"
        panels.append((title, "unknown kept", "known kept", curves, box))
    if panels:
        figures.lines(at / "unknown.png", panels)
    curves = {}
    for model, by in results["operating_points"].items():
        for which, title in tables.KINDS.items():
            _, covered, right = zip(*by[which]["curve"], strict=True)
            curves[f"{model}, {title}"] = (covered, right)
    if curves:
        panel = ("elsewhere", "share of flows with a verdict", "share right", curves, None)
        figures.lines(at / "coverage.png", [panel])


def _draw_shortcuts(results, at):
    for task in tables.TASKS:
        table = tables.shortcut_table(results, task)
        if table:
            columns = [n for n in shortcuts.NAMES if any(n in by for by in table.values())]
            values = [
                [by[c]["macro_f1"][0] if c in by else np.nan for c in columns]
                for by in table.values()
            ]
            form = {"colours": "cividis", "low": 0, "high": 0.6, "form": "{:.3f}"}
            title = f"{task}: macro-F1 by flow lost, flow split"
            figures.heat(at / f"shortcuts-{task}.png", list(table), columns, values, title, **form)
