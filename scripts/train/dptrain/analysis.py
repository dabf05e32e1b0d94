# SPDX-License-Identifier: Apache-2.0
"""The figures of the evaluation, out of the stored predictions; the report makes text of them."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import data, elsewhere, jobs, metrics, train

SIX = data.CATEGORIES[:6]
SIGNALLING = "-signalling"  # how the applications of such captures end
COUNTS = (1, 2, 3, 5, 8)
POWERS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the number of samples, see growth
FINAL = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.01)
RIGHT = 0.9  # of the verdicts at the second operating point
LEAST = 20  # verdicts that a threshold is chosen on, at least


@dataclass
class Part:
    """Rows that one head was scored on: probabilities [n, C], targets (-1 none, -2 no class)."""

    probabilities: np.ndarray
    target: np.ndarray
    flow: np.ndarray
    index: np.ndarray
    rows: np.ndarray
    labels: list

    def where(self, keep):
        columns = (self.probabilities, self.target, self.flow, self.index, self.rows)
        return Part(*(c[keep] for c in columns), self.labels)

    def known(self):
        return self.where(self.target >= 0)

    def flows(self, samples=metrics.SAMPLES):
        """(flow numbers, evidence, targets), one a flow."""
        keys = self.probabilities, self.flow, self.index, samples
        flows, evidence, _ = metrics.flow_evidence(*keys)
        first = np.unique(self.flow, return_index=True)[1]
        return flows, evidence, self.target[first]


class Store:
    """The predictions below WORK, by job name; what is not there or is of other rows is None."""

    def __init__(self, ds, work, log=print):
        self.ds, self.work = ds, Path(work)
        self.names = []
        for path in sorted((self.work / "predictions").glob("*.npz")):
            if path.name.endswith(".shortcuts.npz"):
                continue
            name = path.name[: -len(".npz")]
            with np.load(path) as stored:
                if np.array_equal(stored["test_rows"], self.problem(name).test):
                    self.names.append(name)
                else:
                    log(f"{path.name} is of other rows than this dataset's: left out")

    def problem(self, name):
        """Of a job; seeds and models with the same rows share it."""
        job = jobs.parse(name)
        kind = job.kind if job.kind in train.PAPER else "lightgbm"
        return self._problem(jobs.Job(kind, job.track, job.split, 0, job.variant))

    @functools.cache  # noqa: B019 a store lives as long as the process
    def _problem(self, job):
        return jobs.problem(self.ds, job)

    @functools.cache  # noqa: B019
    def arrays(self, name):
        with np.load(self.work / "predictions" / f"{name}.npz") as stored:
            return dict(stored)

    def meta(self, name):
        return json.loads(str(self.arrays(name)["meta"]))

    def tasks(self, name):
        return [t.name for t in self.problem(name).tasks]

    def seeds(self, model, track, split):
        """Names of the jobs that are there."""
        every = [f"{model}.{track}.{split}.{seed}" for seed in range(10)]
        return [name for name in every if name in self.names]

    def part(self, name, task, side="test", shortcut=None):
        """A side's predictions of one head, or None."""
        arrays = self.arrays(name)
        rows = arrays[f"{side}_rows"]
        [of_task] = [t for t in self.problem(name).tasks if t.name == task]
        values = arrays[f"{side}_{task}"]
        if shortcut:
            path = self.work / "predictions" / f"{name}.shortcuts.npz"
            if not path.is_file():
                return None
            with np.load(path) as stored:
                key = f"{shortcut}_{task}"
                if key not in stored or len(stored[key]) != len(rows):
                    return None
                values = stored[key]
        flow, index = self.ds.flow[rows], self.ds.index[rows]
        values = values.astype(np.float64)
        return Part(values, of_task.target[rows], flow, index, rows, of_task.labels)

    def scored(self, name, task, which="all", shortcut=None):
        """The labelled test rows: all, or on the capture split of seen or of new captures.

        Elsewhere the six categories are scored that are not in a VPN, without TLS during calls;
        that is "signalling". None where the shortcut was not measured.
        """
        part = self.part(name, task, shortcut=shortcut)
        if part is None:
            return None
        part = part.known()
        if jobs.parse(name).split == "elsewhere":
            in_call = self.signalling(part.rows) == (which == "signalling")
            return part.where((part.target < len(SIX)) & in_call)
        if which != "all":
            seen = np.unique(self.ds.capture[self.problem(name).split.train])
            part = part.where(np.isin(self.ds.capture[part.rows], seen) == (which == "seen"))
        return part

    def signalling(self, rows):
        """Whether rows are the TLS control traffic of a call: no category's own packets."""
        names = self.ds.names("app", "apps")[rows]
        return np.array([name.endswith(SIGNALLING) for name in names], dtype=bool)

    @functools.cache  # noqa: B019
    def counts(self, name, task, level="flow", which="all", shortcut=None):
        """Confusions [1 + resamples, C, C] of a job, see metrics.confusions; None as scored."""
        part = self.scored(name, task, which, shortcut)
        return part and counts(part, level)

    @functools.cache  # noqa: B019
    def figures(self, name, task, level="flow", which="all", shortcut=None):
        found = self.counts(name, task, level, which, shortcut)
        return None if found is None else metrics.figures(found)

    @functools.cache  # noqa: B019
    def temperature(self, name, task):
        part = self.part(name, task, "validation")
        return metrics.fit_temperature(part.probabilities, part.target, part.flow, part.index)


def counts(part, level="flow"):
    """Confusions of labelled rows by packet or by flow, resampled over flows."""
    classes = len(part.labels)
    if level == "packet":
        predicted = part.probabilities.argmax(1)
        return metrics.confusions(part.target, predicted, classes, part.flow)
    flows, evidence, truth = part.flows()
    return metrics.confusions(truth, evidence.argmax(1), classes, flows)


def scores(store, names, task, level="flow", which="all"):
    """Figures of the seeds' jobs together: n, of each score mean and interval, and the spread.

    The interval is that of the seeds' mean over the same draws of flows; "seeds" has the macro-F1
    of each.
    """
    each = [store.figures(name, task, level, which) for name in names]
    n = int(store.counts(names[0], task, level, which)[0].sum())
    out = {"n": n}
    for key in each[0]:
        out[key] = metrics.interval(np.mean([e[key] for e in each], axis=0))
    out["seeds"] = [round(float(e["macro_f1"][0]), 4) for e in each]
    return out


def difference(store, task, split, which="all", other="lightgbm"):
    """The default minus ``other`` by flow, means over the seeds of both, in pairs of draws.

    "together" has the macro-F1 where both read packets in which what names a connection or a host
    is drawn anew: of the first seed, where it was measured.
    """
    pairs = [
        (a, a.replace("default", other, 1))
        for a in store.seeds("default", "all", split)
        if a.replace("default", other, 1) in store.names
    ]
    if not pairs:
        return None
    out = {"seeds": len(pairs), "n": int(store.counts(pairs[0][0], task, "flow", which)[0].sum())}
    for key in ("macro_f1", "accuracy", "balanced_accuracy"):
        sides = zip(*pairs, strict=True)
        means = [
            np.mean([store.figures(n, task, "flow", which)[key] for n in side], axis=0)
            for side in sides
        ]
        out[key] = metrics.interval(means[0] - means[1])
    redrawn = [store.figures(n, task, "flow", which, "together") for n in pairs[0]]
    if all(redrawn):
        out["together"] = metrics.interval(redrawn[0]["macro_f1"] - redrawn[1]["macro_f1"])
    return out


def per_class(store, name, task, level="packet"):
    """Precision, recall, F1 and n of each class, and the weighted means."""
    confusion = store.counts(name, task, level)[0]
    precision, recall, f1 = metrics.by_class(confusion)
    n = confusion.sum(1)
    labels = store.part(name, task).labels
    out = {
        label: {
            "n": int(n[i]),
            "precision": round(float(precision[i]), 4),
            "recall": round(float(recall[i]), 4),
            "f1": round(float(f1[i]), 4),
        }
        for i, label in enumerate(labels)
    }
    weights = n / max(n.sum(), 1)
    means = ((precision, "precision"), (recall, "recall"), (f1, "f1"))
    weighted = {key: round(float(weights @ v), 4) for v, key in means}
    return {"classes": out, "weighted": {"n": int(n.sum()), **weighted}}


def confusion(store, name, task, level="flow", which="all"):
    """(labels, shares [C, C] of each class's rows), classes with truth only as rows."""
    values = store.counts(name, task, level, which)[0].astype(np.float64)
    labels = store.part(name, task).labels
    return labels, values / np.maximum(values.sum(1, keepdims=True), 1), values.sum(1)


def calibration(store, name, task, which="all"):
    """Expected calibration error by flow with and without the temperature, and the bins of both."""
    part = store.scored(name, task, which)
    if not len(part.rows):
        return None
    _, evidence, truth = part.flows()
    right = evidence.argmax(1) == truth
    temperature = store.temperature(name, task)
    out = {"n": len(truth), "temperature": temperature}
    for key, t in (("before", 1.0), ("after", temperature)):
        confidence = metrics.softmax(evidence, t).max(1)
        out[f"ece_{key}"] = metrics.calibration_error(confidence, right)
        out[f"bins_{key}"] = _bins(confidence, right)
    return out


def growth(store):
    """Log-loss and calibration error by power of the number of samples (metrics.GROWTH).

    Means over heads and seeds of the default on validation parts of the three splits, each with
    the temperature fitted for that power.
    """
    out = {}
    for power in POWERS:
        losses, errors = [], []
        for split in ("packet", "flow", "capture"):
            for name in store.seeds("default", "all", split):
                for task in store.tasks(name):
                    part = store.part(name, task, "validation").known()
                    keys = part.probabilities, part.flow, part.index
                    loss, temperature = metrics.least_loss(
                        keys[0], part.target, *keys[1:], growth=power
                    )
                    _, evidence, _ = metrics.flow_evidence(*keys, growth=power)
                    confidence = metrics.softmax(evidence, temperature).max(1)
                    right = evidence.argmax(1) == part.flows()[2]
                    losses.append(loss)
                    errors.append(metrics.calibration_error(confidence, right))
        if losses:
            means = [round(float(np.mean(v)), 4) for v in (losses, errors)]
            out[str(power)] = dict(zip(("log_loss", "ece"), means, strict=True))
    return out


def _bins(confidence, right, bins=10):
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    used = [b for b in range(bins) if (place == b).any()]
    rows = [place == b for b in used]
    return [
        [int(r.sum()), round(float(confidence[r].mean()), 4), round(float(right[r].mean()), 4)]
        for r in rows
    ]


def samples(store, name, task, side):
    """Accuracy by flow against samples: of all flows, and of those with as many as the longest."""
    part = store.part(name, task, side).known()
    flows, packets = np.unique(part.flow, return_counts=True)
    long = np.isin(part.flow, flows[packets >= max(COUNTS)])
    out = {}
    for which, some in (("all", part), ("long", part.where(long))):
        rights = []
        for n in COUNTS:
            _, evidence, truth = some.flows(n)
            right = evidence.argmax(1) == truth
            rights.append(round(float(right.mean()), 4) if len(truth) else None)
        out[which] = {"n": len(np.unique(some.flow)), "accuracy": rights}
    return out


def early_stop(store, name, task, side):
    """[threshold, mean samples used, accuracy] for each final confidence; above 1 is never."""
    part = store.part(name, task, side).known()
    _, _, truth = part.flows()
    out = []
    for final in FINAL:
        keys = part.probabilities, part.flow, part.index, store.temperature(name, task), final
        _, label, used = metrics.early(*keys)
        right = float((label == truth).mean())
        out.append([final, round(float(used.mean()), 3), round(right, 4)])
    return out


def unknown(store, name, left_out=None):
    """What confidence tells of traffic of no class; {kind: figures} and {kind: ROC curve}.

    Known are flows of the validation part, which were not learnt from: one half of them gives the
    threshold that 95 % reach, the other is what the unknown are held against. With ``left_out``,
    names of applications, known and unknown are the application head's on the test part.
    """
    task = "app" if left_out else "category"
    test = store.part(name, task)
    temperature = store.temperature(name, task)
    held = store.part(name, task, "validation").known()
    _, evidence, _ = held.flows()
    values = metrics.softmax(evidence, temperature).max(1)
    half = np.random.default_rng(0).permutation(len(values)) % 2 == 0
    threshold, known = float(np.quantile(values[half], 0.05)), values[~half]
    if left_out:
        known = _confidence(test.known(), temperature)
        names = store.ds.names("app", "apps")[test.rows]
        kinds = {"left out": np.isin(names, left_out)}
        kinds |= {app: names == app for app in left_out}
    else:
        names = store.ds.names("category", "categories")[test.rows]
        kinds = {kind: names == kind for kind in data.NEGATIVE_CATEGORIES}
        kinds["known, elsewhere"] = np.isin(names, SIX) & ~store.signalling(test.rows)
    out, curves = {}, {}
    for kind, rows in kinds.items():
        if not rows.any():
            continue
        strange = _confidence(test.where(rows), temperature)
        out[kind] = {
            "n": len(strange),
            "known": len(known),
            "auroc": round(metrics.auroc(known, strange), 4),
            "threshold": round(threshold, 4),
            "known_kept": round(float((known >= threshold).mean()), 4),
            "rejected": round(float((strange < threshold).mean()), 4),
        }
        curves[kind] = roc(known, strange)
    return out, curves


def roc(known, strange):
    """(share of known kept, share of unknown kept) over all thresholds, at most 200 points."""
    cuts = np.quantile(np.concatenate([known, strange]), np.linspace(0, 1, 200))
    return [[float((v >= c).mean()) for c in cuts] for v in (known, strange)]


def _confidence(part, temperature):
    _, evidence, _ = part.flows()
    return metrics.softmax(evidence, temperature).max(1)


def operating_point(store, name):
    """The --min-confidence with verdicts elsewhere >= 90 % right, and what it covers.

    Chosen on half of the captures and tested on the other half, then the other way round; "all" is
    chosen and tested on the same flows, and is what the curve shows. "six" are flows with one of
    the six categories, "signalling" also TLS during calls, which is labelled voip, and "any" the
    six and traffic of no class, where any verdict is wrong.
    """
    part = store.part(name, "category")
    part = part.where((part.target == -2) | np.isin(part.target, np.arange(len(SIX))))
    _, evidence, truth = part.flows()
    call = store.signalling(part.rows[np.unique(part.flow, return_index=True)[1]])
    confidence = metrics.softmax(evidence, store.temperature(name, "category")).max(1)
    right = evidence.argmax(1) == truth
    capture = store.ds.capture[part.rows[np.unique(part.flow, return_index=True)[1]]]
    order = np.random.default_rng(0).permutation(np.unique(capture))
    first = np.isin(capture, order[::2])
    out = {}
    kinds = {"six": (truth >= 0) & ~call, "signalling": truth >= 0, "any": ~call}
    for which, some in kinds.items():
        cuts, shares, coverage = _curve(confidence[some], right[some])
        point = {"all": _at(confidence, right, some, _least(cuts, shares, coverage, some.sum()))}
        for key, side in (("first", first), ("second", ~first)):
            chosen = _curve(confidence[some & side], right[some & side])
            threshold = _least(*chosen, (some & side).sum())
            point[f"chosen on {key} half"] = _at(confidence, right, some & ~side, threshold)
        step = max(1, len(cuts) // 150)
        point["curve"] = [
            [round(float(v), 4) for v in row]
            for row in zip(cuts[::step], coverage[::step], shares[::step], strict=True)
        ]
        out[which] = point
    return out


def _curve(confidence, right):
    """Thresholds from the highest down, the share right and the coverage at each."""
    order = np.argsort(-confidence)
    number = np.arange(1, len(order) + 1)
    return confidence[order], np.cumsum(right[order]) / number, number / max(len(order), 1)


def _least(cuts, shares, coverage, n):
    """The lowest threshold with enough right; None if there is none on LEAST verdicts or more."""
    good = (shares >= RIGHT) & (coverage * n >= LEAST)
    return float(cuts[np.flatnonzero(good)[-1]]) if good.any() else None


def _at(confidence, right, some, threshold):
    if threshold is None:
        return None
    given = some & (confidence >= threshold)
    share = round(float(right[given].mean()), 4) if given.any() else None
    return {
        "min_confidence": round(threshold, 4),
        "n": int(some.sum()),
        "verdicts": int(given.sum()),
        "covered": round(float(given.sum() / some.sum()), 4),
        "right": share,
    }


def shortcuts(store, name, task, perturbations):
    """Macro-F1 by flow lost to each perturbation, with intervals of paired draws."""
    base = store.figures(name, task)
    out = {}
    for key in perturbations:
        got = store.figures(name, task, shortcut=key)
        if got:
            out[key] = {m: metrics.interval(base[m] - got[m]) for m in ("macro_f1", "accuracy")}
    return out


def real_ipv6(store, name, task="category"):
    """The scores of test flows that came over IPv6, beside their number."""
    part = store.scored(name, task)
    part = part.where(np.asarray(store.ds.packet[part.rows, 0]) >> 4 == 6)
    if not len(part.rows):
        return None
    values = metrics.figures(counts(part))
    out = {"n": len(np.unique(part.flow))}
    return out | {key: metrics.interval(values[key]) for key in ("accuracy", "macro_f1")}


def rules(store, like):
    """Category verdicts without a model on the flows of a job elsewhere: {judge: figures}.

    Judges are the two lines and nDPI, if WORK/elsewhere/ndpi.json is there; a flow without a
    verdict is wrong. "signalling" is the share right of the TLS during calls.
    """
    out = {}
    for which in ("all", "signalling"):
        part = store.scored(like, "category", which)
        first = np.unique(part.flow, return_index=True)[1]
        flows, truth = part.flow[first], part.target[first]
        for judge, said in _verdicts(store, flows, part.rows[first]).items():
            predicted = np.array([SIX.index(s) if s else len(SIX) for s in said], dtype=np.int64)
            if which == "signalling":
                out[judge]["signalling"] = round(float((predicted == truth).mean()), 4)
                continue
            values = metrics.confusions(truth, predicted, len(SIX) + 1, flows)
            recall = metrics.by_class(values[0])[1]
            out[judge] = {
                "n": len(flows),
                "without_verdict": int((predicted == len(SIX)).sum()),
                **{key: metrics.interval(v) for key, v in metrics.figures(values).items()},
                "recall": {c: round(float(recall[i]), 4) for i, c in enumerate(SIX)},
            }
    return out


def _verdicts(store, flows, first_rows):
    """{judge: the category or '' of each flow}."""
    out = {"two lines": elsewhere.two_lines(store.ds, first_rows).tolist()}
    path = store.work / "elsewhere" / "ndpi.json"
    if path.is_file():
        stored = json.loads(path.read_text())
        seen = [stored["protocol"].get(str(f), "") for f in flows.tolist()]
        out[f"nDPI {stored['version']}"] = [elsewhere.category(s) for s in seen]
    return out


def recalls(store, names):
    """Recall of the six categories elsewhere, means over seeds, and the flows of each."""
    values = [store.counts(name, "category")[0] for name in names]
    recall = np.mean([metrics.by_class(v)[1] for v in values], axis=0)
    return {c: round(float(recall[i]), 4) for i, c in enumerate(SIX)}


def signalling(store, names):
    """(flows, share that gets its capture's category) of the TLS during calls elsewhere."""
    values = [store.counts(name, "category", "flow", "signalling")[0] for name in names]
    shares = [metrics.figures(v)["accuracy"] for v in values]
    return int(values[0].sum()), round(float(np.mean(shares)), 4)
