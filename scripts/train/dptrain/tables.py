# SPDX-License-Identifier: Apache-2.0
"""The generated places of docs/evaluation.md, by name: Markdown out of the report's results."""

import collections

import numpy as np

from . import analysis, baselines, data, grid, shortcuts

SPLITS = {
    "packet": "packet split",
    "flow": "flow split",
    "capture": "capture split",
    "elsewhere": "elsewhere",
}
MODELS = ("default", *baselines.KINDS)
ANONYMOUS = "lightgbm-anonymous"  # learnt without what names a connection or a host
# On all sets, both tasks.
OF_ALL = ("default", "lightgbm", ANONYMOUS, *baselines.KINDS[1:])
PAPER_ELSEWHERE = ("cnn-traffic", "sae-traffic")  # trained on all sets
TASKS = {"category": "traffic", "app": "app"}  # and how the paper's models are named after them
DASH = "-"
GROWTH_ROWS = {"log_loss": "log-loss, nats a flow", "ece": "ECE"}
# Of flows that a second operating point is for.
KINDS = {
    "six": "of the six categories",
    "signalling": "and calls' TLS",
    "any": "the six and those of no class",
}

# The paper's recall, precision and F1 by class, CNN then SAE (Lotfollahi et al. 2020).
PAPER_APP = {
    "aim": (0.76, 0.87, 0.81, 0.64, 0.76, 0.70),
    "email": (0.82, 0.97, 0.89, 0.99, 0.94, 0.97),
    "facebook": (0.95, 0.96, 0.96, 0.95, 0.94, 0.95),
    "ftps": (1, 1, 1, 0.77, 0.97, 0.86),
    "gmail": (0.95, 0.97, 0.96, 0.94, 0.93, 0.94),
    "hangouts": (0.98, 0.96, 0.97, 0.99, 0.94, 0.97),
    "icq": (0.80, 0.72, 0.76, 0.69, 0.69, 0.69),
    "netflix": (1, 1, 1, 1, 0.98, 0.99),
    "scp": (0.99, 0.97, 0.98, 1, 1, 1),
    "sftp": (1, 1, 1, 0.96, 0.70, 0.81),
    "skype": (0.99, 0.94, 0.97, 0.93, 0.95, 0.94),
    "spotify": (0.98, 0.98, 0.98, 0.98, 0.98, 0.98),
    "torrent": (1, 1, 1, 0.99, 0.99, 0.99),
    "tor": (1, 1, 1, 1, 1, 1),
    "voipbuster": (1, 0.99, 0.99, 0.99, 0.99, 0.99),
    "vimeo": (0.99, 0.99, 0.99, 0.98, 0.99, 0.98),
    "youtube": (0.99, 0.99, 0.99, 0.98, 0.99, 0.99),
}
PAPER_WEIGHTED = {
    "app": (0.98, 0.98, 0.98, 0.96, 0.95, 0.95),
    "category": (0.94, None, 0.93, None, None, 0.92),
}


def flows_elsewhere(results, category):
    """Flows of a category elsewhere."""
    name = next(n for n in results["classes"] if ".elsewhere." in n)
    return results["classes"][name]["category"]["flow"]["classes"][category]["n"]


def ordered(judges):
    """Our models in their usual order, then the others."""
    return [m for m in OF_ALL if m in judges] + [j for j in judges if j not in OF_ALL]


def shortcut_table(results, task):
    """{model: {perturbation: lost}} on the flow split; checksums from the model that had them."""
    out = {}
    kinds = [f"{m}.all" for m in OF_ALL] + [f"{n}-{TASKS[task]}.iscx" for n in ("cnn", "sae")]
    for kind in kinds:
        model, track = kind.split(".")
        found = results["shortcuts"].get(f"{model}.{track}.flow.0.{task}")
        if found:
            with_them = results["shortcuts"].get(f"{model}-checksums.{track}.flow.0.{task}", {})
            more = {"checksums": with_them["checksums"]} if "checksums" in with_them else {}
            out[model] = {**found, **more}
    return out


def number(value, digits=3):
    """0.8123 as .812; None is a dash."""
    if value is None:
        return DASH
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def _ci(values):
    """[value, low, high] as .812 (.790 to .830)."""
    return f"{number(values[0])} ({number(values[1])} to {number(values[2])})" if values else DASH


def _percent(value):
    return DASH if value is None else f"{100 * value:.0f} %"


def _table(head, rows, left=1):
    marks = ["---"] * left + ["---:"] * (len(head) - left)
    lines = [head, marks, *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


def _score_table(results, task, level, kinds, splits=tuple(SPLITS)):
    """kinds: {name to show: MODEL.TRACK}."""
    head = ["split", "model", "n", "accuracy", "macro-F1", "weighted F1"]
    head += ["balanced accuracy", "balanced macro-F1", "seeds' macro-F1"]
    rows = []
    for split in splits:
        for shown, kind in kinds.items():
            by = results["scores"].get(f"{kind}.{split}", {}).get(task)
            if not by:
                rows.append([SPLITS[split], shown, *[DASH] * 7])
                continue
            s = by[level]
            names = ("accuracy", "macro_f1", "weighted_f1")
            cells = [_ci(s[k]) for k in (*names, "balanced_accuracy", "balanced_macro_f1")]
            seeds = s["seeds"]
            spread = (
                f"{number(min(seeds))} to {number(max(seeds))}" if len(seeds) > 1 else "one seed"
            )
            rows.append([SPLITS[split], shown, f"{s['n']:,}", *cells, spread])
    return _table(head, rows, 2)


def _scores_block(task, level):
    kinds = {model: f"{model}.all" for model in OF_ALL}
    splits = [s for s in SPLITS if task == "category" or s != "elsewhere"]

    def make(results):
        table = _score_table(results, task, level, kinds, splits)
        if task == "category":
            more = {model: f"{model}.all" for model in PAPER_ELSEWHERE}
            lines = _score_table(results, task, level, more, ["elsewhere"]).splitlines()
            table = "\n".join([table, *lines[2:]])
        return table

    return make


def _paper_models_block(task, level):
    short = TASKS[task]
    kinds = {n: f"{n}-{short}.iscx" for n in ("cnn", "sae", *MODELS)}

    def make(results):
        splits = ("packet", "flow", "capture")
        return _score_table(results, task, level, kinds, splits)

    return make


def _classes_block(task):
    """Ours beside the paper's, on the packet split, by packet."""
    short = TASKS[task]
    ours = [f"{n}-{short}.iscx.packet.0" for n in ("cnn", "sae", "random-forest", "lightgbm")]
    labels = data.APPS if task == "app" else data.CATEGORIES[:12]

    def make(results):
        classes = [results["classes"].get(n, {}).get(task, {}).get("packet") for n in ours]
        head = ["class", "n", "CNN: recall", "precision", "F1", "SAE: recall", "precision", "F1"]
        head += ["random forest: F1", "LightGBM: F1"]
        head += ["paper's CNN: recall", "precision", "F1", "paper's SAE: recall", "precision", "F1"]
        rows = []
        for label in [*labels, "weighted"]:
            found = [
                c and (c["weighted"] if label == "weighted" else c["classes"][label])
                for c in classes
            ]
            n = next((c["n"] for c in found if c), None)
            row = [label, f"{n:,}" if n is not None else DASH]
            for c in found[:2]:
                row += [number(c[k], 2) if c else DASH for k in ("recall", "precision", "f1")]
            row += [number(c["f1"], 2) if c else DASH for c in found[2:]]
            paper = PAPER_APP.get(label, (None,) * 6) if task == "app" else (None,) * 6
            if label == "weighted":
                paper = PAPER_WEIGHTED[task]
            rows.append(row + [number(v, 2) for v in paper])
        return _table(head, rows)

    return make


def _recalls_block(task):
    """By class and flow: the default's recall, precision and F1, and gradient boosting's recall."""
    splits = ("flow", "capture")
    labels = data.APPS if task == "app" else data.CATEGORIES

    def make(results):
        head = ["class"]
        columns = []
        for split in splits:
            head += [f"{SPLITS[split]}: n", "recall", "precision", "F1"]
            for model in OF_ALL[:3]:
                by = results["classes"].get(f"{model}.all.{split}.0", {}).get(task)
                keys = ("n", "recall", "precision", "f1") if model == "default" else ("recall",)
                columns.append((by and by["flow"]["classes"], keys))
            head += [f"{model}: recall" for model in OF_ALL[1:3]]
        rows = []
        for label in labels:
            row = [label]
            for classes, keys in columns:
                c = classes and classes.get(label)
                tested = c and c["n"]
                row += [
                    f"{c[k]:,}" if k == "n" and c else number(c[k] if tested else None, 2)
                    for k in keys
                ]
            rows.append(row)
        return _table(head, rows)

    return make


def _seen_new(results):
    head = ["task", "model", "seen: n", "accuracy", "macro-F1", "new: n", "accuracy", "macro-F1"]
    rows = []
    for task in TASKS:
        for model in OF_ALL:
            by = results["scores"].get(f"{model}.all.capture", {}).get(task)
            row = [task, model]
            for which in ("seen", "new"):
                s = by and by[which]
                row += [f"{s['n']:,}", _ci(s["accuracy"]), _ci(s["macro_f1"])] if s else [DASH] * 3
            rows.append(row)
    return _table(head, rows, 2)


def _differences(results):
    head = ["minus", "task", "test", "n", "seeds", "macro-F1", "accuracy", "balanced accuracy"]
    head.append("macro-F1, redrawn")
    rows = []
    for key, d in results["differences"].items():
        other, task, split, which = key.split(".")
        test = SPLITS[split] + ("" if which == "all" else f", {which} captures")
        if d:
            kinds = ("macro_f1", "accuracy", "balanced_accuracy", "together")
            cells = [_ci(d[k]) if k in d else DASH for k in kinds]
            rows.append([other, task, test, f"{d['n']:,}", d["seeds"], *cells])
    return _table(head, rows, 3)


def _data(results):
    head = ["rows", "split", "learnt from: packets", "flows", "tested on: packets", "flows"]
    rows = []
    tracks = (
        ("all sets, both tasks", "lightgbm.all"),
        ("the paper's, category", "lightgbm-traffic.iscx"),
        ("the paper's, application", "lightgbm-app.iscx"),
    )
    for shown, kind in tracks:
        for split, title in SPLITS.items():
            meta = results["jobs"].get(f"{kind}.{split}.0")
            by = results["scores"].get(f"{kind}.{split}")
            if meta and by:
                task = next(iter(by.values()))
                learnt = [f"{meta[k]:,}" for k in ("train_packets", "train_flows")]
                n = [f"{task[k]['n']:,}" for k in ("packet", "flow")]
                rows.append([shown, title, *learnt, *n])
    return _table(head, rows, 2)


def _calibration_block(results):
    head = ["model", "task", "test", "n", "temperature", "ECE without", "ECE with it"]
    rows = []
    for key, c in results["calibration"].items():
        model, task, split, which = key.split(".")
        if c:
            test = SPLITS[split] + ("" if which == "all" else f", {which} captures")
            cells = [f"{c['n']:,}", f"{c['temperature']:.2f}"]
            eces = [number(c["ece_before"]), number(c["ece_after"])]
            rows.append([model, task, test, *cells, *eces])
    return _table(head, rows, 3)


def _growth_block(results):
    by = results["growth"]
    if not by:
        return DASH
    rows = [[told, *(number(v[k]) for v in by.values())] for k, told in GROWTH_ROWS.items()]
    return _table(["power of the number of samples", *by], rows)


def _samples_block(results):
    head = ["task", "split", "part", "flows", "n", *(str(c) for c in analysis.COUNTS)]
    rows = []
    for key, s in results["samples"].items():
        task, split, side = key.split(".")
        for which in ("all", "long"):
            right = [number(v) for v in s[which]["accuracy"]]
            rows.append([task, SPLITS[split], side, which, f"{s[which]['n']:,}", *right])
    out = _table(head, rows, 4)
    shown = [number(v, 2) if v <= 1 else "never" for v in analysis.FINAL]
    head = ["task", "split", "part", "", *shown]
    rows = []
    for key, s in results["samples"].items():
        task, split, side = key.split(".")
        where = [task, SPLITS[split], side]
        rows.append([*where, "packets used", *(f"{u:.2f}" for _, u, _ in s["early_stop"])])
        rows.append([*where, "accuracy", *(number(r) for _, _, r in s["early_stop"])])
    out += "\n\nEarly stop at a confidence of:\n\n" + _table(head, rows, 4)
    return out + "\n\n" + _samples_told(results)


def _samples_told(results):
    """What the validation part of the flow split says of five samples and of stopping at .95."""
    told = []
    for task in TASKS:
        s = results["samples"].get(f"{task}.flow.validation")
        if not s:
            continue
        at = s["counts"].index(5)
        lost = [max(s[w]["accuracy"]) - s[w]["accuracy"][at] for w in ("all", "long")]
        stops = {final: (used, right) for final, used, right in s["early_stop"]}
        (used, right), (most, best) = stops[0.95], stops[max(stops)]
        told.append(
            f"{task}: five samples are {number(lost[0])} below the best count on all flows and "
            f"{number(lost[1])} on long ones; with a stop at .95 a flow needs {used:.2f} packets "
            f"in place of {most:.2f}, for {number(best - right)} of accuracy"
        )
    return "On the validation part of the flow split, " + "; ".join(told) + "." if told else ""


def _unknown_block(results):
    head = ["model", "unknown", "n", "AUROC (by seed)", "known kept", "rejected"]
    rows = []
    for key in dict.fromkeys(name.rsplit(".", 1)[0] for name in results["unknown"]):
        seeds = [by for name, by in results["unknown"].items() if name.startswith(key + ".")]
        for kind in seeds[0]:
            some = [by[kind] for by in seeds]
            areas = ", ".join(number(s["auroc"]) for s in some)
            means = [_percent(np.mean([s[k] for s in some])) for k in ("known_kept", "rejected")]
            rows.append([key.split(".")[0], kind, f"{some[0]['n']:,}", areas, *means])
    return _table(head, rows, 2)


def _points_block(results):
    head = ["model", "flows", "threshold", "--min-confidence", "n", "verdicts", "covered", "right"]
    rows = []
    for model, by in results["operating_points"].items():
        for which, shown in KINDS.items():
            for how in ("chosen on first half", "chosen on second half", "all"):
                p = by[which][how]
                told = "chosen and tested on all" if how == "all" else f"{how}, tested on the other"
                if not p:
                    rows.append([model, shown, told, "none", *[DASH] * 4])
                    continue
                cells = [number(p["min_confidence"]), f"{p['n']:,}", f"{p['verdicts']:,}"]
                rows.append(
                    [model, shown, told, *cells, _percent(p["covered"]), _percent(p["right"])]
                )
    return _table(head, rows, 3)


def _shortcuts_block(results):
    parts = []
    for task in TASKS:
        table = shortcut_table(results, task)
        columns = list(shortcuts.NAMES)
        rows = [
            [m, f"{by['n']:,}", number(by["macro_f1"][0])]
            + [number(by[c]["macro_f1"][0]) if c in by else DASH for c in columns]
            for m, by in table.items()
        ]
        parts.append(_table([f"{task}: model", "n", "macro-F1", *columns], rows))
    return "\n\n".join(parts)


def _identity_block(results):
    head = ["model", "split", "task", "n", "macro-F1", "lost: together", "lost: IPv6 header"]
    rows = []
    for key, by in results["shortcuts"].items():
        model, track, split, _, task = key.split(".")
        if track == "all" and "together" in by and model in OF_ALL[:4]:
            lost = [_ci(by[c]["macro_f1"]) if c in by else DASH for c in ("together", "ipv6")]
            n, base = f"{by['n']:,}", number(by["macro_f1"][0])
            rows.append([model, SPLITS[split], task, n, base, *lost])
    return _table(head, rows, 3)


def _ipv6_block(results):
    head = ["model", "test", "real IPv6 flows: n", "accuracy", "macro-F1"]
    rows = []
    for name, v in results["ipv6"].items():
        model, _, split, _ = name.split(".")
        cells = [v["n"], _ci(v["accuracy"]), _ci(v["macro_f1"])] if v else [0, DASH, DASH]
        rows.append([model, SPLITS[split], *cells])
    return _table(head, rows, 2)


def _elsewhere_block(results):
    found = results["elsewhere"]
    if not found:
        return DASH
    six = [c for c in analysis.SIX if flows_elsewhere(results, c)]
    head = ["judge", "accuracy", "mean recall", "macro-F1"]
    head += [f"{c} (n {flows_elsewhere(results, c)})" for c in six]
    signalling = next(s["signalling_n"] for s in found.values() if "signalling_n" in s)
    head += [f"calls' TLS (n {signalling})", "accuracy with it"]
    rows = []
    for judge in ordered(found):
        s = found[judge]
        cells = [_ci(s[k]) for k in ("accuracy", "balanced_accuracy", "macro_f1")]
        recalls = [s["recall"][c] for c in six] + [s["signalling"]]
        recalls.append(_with_calls(s, signalling))
        rows.append([judge, *cells, *(number(r) for r in recalls)])
    return _table(head, rows)


def _with_calls(scores, n):
    """Accuracy over the flows elsewhere and the n of TLS during calls."""
    right = scores["accuracy"][0] * scores["n"] + scores["signalling"] * n
    return right / (scores["n"] + n)


def _grid_block(results):
    records = results["grid"]
    if not records:
        return f"Run: {DASH} of the paper's {grid.PAPER_NETS} nets."
    by = collections.Counter(r["task"] for r in records)
    run_ = ", ".join(f"{n} for {task}" for task, n in by.items())
    head = ["task", "C1", "C2", "parameters", "MAC", "epochs", "weighted F1", "macro-F1"]
    rows = [
        [
            r["task"],
            "/".join(map(str, r["c1"])),
            "/".join(map(str, r["c2"])),
            f"{r['parameters']:,}",
            f"{r['mac'] / 1e6:.1f} M",
            r["epochs"],
            number(r["weighted_f1"]),
            number(r["macro_f1"]),
        ]
        for r in sorted(records, key=lambda r: (r["task"], r["parameters"]))
    ]
    return f"Run: {run_}, of the paper's {grid.PAPER_NETS} nets.\n\n" + _table(head, rows)


def _tested_block(results):
    counts = results["tested"]
    again = [f"{job} ({n} times)" for job, n in sorted(counts.items()) if n > 1]
    text = f"{len(counts)} jobs have scored a test part, {sum(n == 1 for n in counts.values())} "
    text += "of them once."
    if again:
        text += " More than once, as the code that made the job changed in between: "
        text += ", ".join(again) + "."
    return text


def _summary(results):
    """Sentences with the figures in them; what is not there yet is left out."""
    scores, lines = results["scores"], []

    def flow(model, split, task="category", which="flow"):
        return scores.get(f"{model}.all.{split}", {}).get(task, {}).get(which)

    def paper(task, split):
        return scores.get(f"cnn-{TASKS[task]}.iscx.{split}", {}).get(task, {}).get("packet")

    for task in TASKS:
        values = [(SPLITS[s], paper(task, s)) for s in ("packet", "flow", "capture")]
        shown = ", ".join(f"{number(v['weighted_f1'][0])} ({s})" for s, v in values if v)
        if shown:
            lines.append(
                f"**The paper's CNN, {task}**, weighted F1 by packet: {shown}. "
                f"The paper has {number(PAPER_WEIGHTED[task][2], 2)} on its packet split."
            )
    for task in TASKS:
        values = [(SPLITS[s], flow("default", s, task)) for s in SPLITS]
        shown = ", ".join(f"{_ci(v['macro_f1'])} ({s})" for s, v in values if v)
        if shown:
            lines.append(f"**The default, {task}**, macro-F1 by flow: {shown}.")
    for key, other, told in (
        ("lightgbm.category.capture.all", "LightGBM", "category, capture split"),
        ("lightgbm.category.capture.new", "LightGBM", "category, new captures"),
        ("lightgbm.app.capture.all", "LightGBM", "application, capture split"),
        *(
            (f"{ANONYMOUS}.{of}", "LightGBM learnt without what names a connection or a host", told)
            for of, told in (
                ("category.capture.all", "category, capture split"),
                ("app.capture.all", "application, capture split"),
            )
        ),
    ):
        d = results["differences"].get(key)
        if d:
            _, low, high = d["macro_f1"]
            word = "above" if low > 0 else "below" if high < 0 else "not to be told apart from"
            seeds = f"{d['seeds']} seed{'s' if d['seeds'] > 1 else ''}"
            lines.append(
                f"**Gradient boosting, {told}**: the default is {word} {other}, a difference in "
                f"macro-F1 of {_ci(d['macro_f1'])} and in accuracy of {_ci(d['accuracy'])}, {seeds}"
                + (f"; macro-F1 {_ci(d['together'])} redrawn, seed 0" if "together" in d else "")
                + "."
            )
    new = flow("default", "capture", "category", "new")
    known = flow("default", "flow", "category")
    if new and known:
        lines.append(
            f"**Your own network** is what new captures and elsewhere stand for. A flow of a kind "
            f"and place it knows gets the right category in {_percent(known['accuracy'][0])} of "
            f"the cases, one of a capture it has never seen in {_percent(new['accuracy'][0])}."
        )
    there = results["elsewhere"]
    if "default" in there:
        beside = [
            j for j in ordered(there) if j == "lightgbm" or j not in (*OF_ALL, *PAPER_ELSEWHERE)
        ]
        shown = ", ".join(f"{j} {_percent(there[j]['accuracy'][0])}" for j in beside)
        ours = there["default"]
        lines.append(
            f"**Elsewhere** {_percent(ours['accuracy'][0])} of the flows get the right category "
            f"({shown}); mean recall {number(ours['balanced_accuracy'][0])}. With the TLS that "
            f"clients hold during calls, which is left out there, it is "
            f"{_percent(_with_calls(ours, ours['signalling_n']))}."
        )
    point = results["operating_points"].get("default")
    for which, shown in (("six", "elsewhere"), ("signalling", "there, calls' TLS included,")):
        if point:
            lines.append(_point_told(point[which], shown))
    c = results["calibration"].get("default.category.flow.all")
    far = results["calibration"].get("default.category.capture.new")
    if c and far:
        can = [
            f"{'can' if e <= 0.05 else 'can roughly' if e <= 0.1 else 'cannot'} be read as a "
            f"probability {where} (ECE {number(e)})"
            for e, where in (
                (c["ece_after"], "on flows of known captures"),
                (far["ece_after"], "on new captures"),
            )
        ]
        lines.append(f"**Confidence** {can[0]}, and {can[1]}.")
    found = [by for name, by in results["unknown"].items() if name.startswith("default.all.else")]
    if found:
        told = ", ".join(
            f"{_percent(np.mean([by[k]['rejected'] for by in found]))} of {k} "
            f"(AUROC {number(np.mean([by[k]['auroc'] for by in found]))}, mean of the seeds)"
            for k in data.NEGATIVE_CATEGORIES
            if k in found[0]
        )
        known = np.mean([by["known, elsewhere"]["rejected"] for by in found])
        told += f", and {_percent(known)} of the flows of known categories elsewhere"
        left = results["unknown"].get("default-leftout.all.flow.0", {}).get("left out")
        if left:
            told += (
                f". Of applications left out of the training it rejects "
                f"{_percent(left['rejected'])} (AUROC {number(left['auroc'])})"
            )
        lines.append(f"**Unknown**: the threshold that keeps 95 % of known flows rejects {told}.")
    names = {"default": "the default", "lightgbm": "LightGBM"}
    found = {m: results["shortcuts"].get(f"{m}.all.flow.0.category", {}) for m in names}
    if all("together" in by for by in found.values()):
        told = " and ".join(
            f"{names[m]} has a macro-F1 of {number(base - lost)} in place of {number(base)}"
            for m, by in found.items()
            for base, lost in [(by["macro_f1"][0], by["together"]["macro_f1"][0])]
        )
        lines.append(
            f"**Shortcuts**: with all that names a connection or a host drawn anew, {told} "
            "(category, flow split, seed 0)."
        )
    return "\n".join(f"- {line}" for line in lines) or DASH


def _point_told(point, shown):
    """A sentence of a second operating point."""
    p = point["all"]
    if not p:
        return f"**No `--min-confidence`** makes nine of ten verdicts {shown} right."
    halves = [point[f"chosen on {half} half"] for half in ("first", "second")]
    held = " and ".join(
        f"{_percent(h['right'])} right on {_percent(h['covered'])}" if h else "no such threshold"
        for h in halves
    )
    return (
        f"**With `--min-confidence {p['min_confidence']:.3f}`** {_percent(p['right'])} of the "
        f"verdicts {shown} are right, on {_percent(p['covered'])} of the flows, chosen and tested "
        f"on the same; chosen on half of the captures and tested on the other: {held}."
    )


def _speed_block(results):
    rows = [
        [r[k] for k in ("model", "runtime", "precision", "packets")]
        + [f"{r['us_per_packet']:.2f}", f"{r['packets_per_second']:,}"]
        for r in results["speed"]
        if "us_per_packet" in r
    ]
    if not rows:
        return DASH
    head = ["model", "runtime", "precision", "packets", "µs a packet", "packets/s"]
    ratios = [f"- {r['ratio']}: {r['value']}" for r in results["speed"] if "ratio" in r]
    return (
        f"{results['speed'][0]['machine']}, one thread.\n\n"
        + _table(head, rows, 4)
        + "\n\n"
        + "\n".join(ratios)
    )


BLOCKS = {
    "summary": _summary,
    "data": _data,
    **{f"classes-{task}": _classes_block(task) for task in TASKS},
    **{f"paper-{t}-{v}": _paper_models_block(t, v) for t in TASKS for v in ("flow", "packet")},
    **{f"scores-{t}-{v}": _scores_block(t, v) for t in TASKS for v in ("flow", "packet")},
    **{f"recalls-{task}": _recalls_block(task) for task in TASKS},
    "seen-new": _seen_new,
    "differences": _differences,
    "elsewhere": _elsewhere_block,
    "shortcuts": _shortcuts_block,
    "identity": _identity_block,
    "ipv6": _ipv6_block,
    "calibration": _calibration_block,
    "growth": _growth_block,
    "samples": _samples_block,
    "unknown": _unknown_block,
    "operating-points": _points_block,
    "grid": _grid_block,
    "speed": _speed_block,
    "tested": _tested_block,
}
