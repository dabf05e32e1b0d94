# SPDX-License-Identifier: Apache-2.0
"""Writes a finished training as NAME.onnx and NAME.json: graph, check, calibration, manifest."""

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from . import calibration, data, graph, manifest, train

CHECKED = 2000  # packets on which the file is compared with PyTorch
BATCH = 32  # packets of a batch that is timed
TIMED = 16  # batches


def export(ds, directory, output, name, card=None, log=print):
    """Exports the run in ``directory``; returns the manifest."""
    run = train.finished(ds, directory)
    made = graph.of_default(run.model, run.model.describe())
    return write(ds, run, made, output, name, card=card, log=log)


def write(ds, run, made, directory, name, precision="fp32", measured=None, card=None, log=print):
    """Writes the ONNX model ``made`` of a train.Run and its manifest; returns the manifest.

    ``measured`` goes into the manifest's export figures, ``card`` into its text (see manifest).
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.onnx"
    onnx.save(made, path)
    rows, timed, _ = sample(run)
    truth = train.predict(run.model, Rows(ds.packet, rows))
    agreement = compare(path, ds, rows, truth, f"{path.name} against torch", log)
    speed = microseconds(path, ds.packet[timed])
    log(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB, {speed} us a packet")
    exported = {"us_per_packet": speed, **(measured or {}), **agreement, "epoch": run.epoch + 1}
    tuned, figures = tune(ds, run)
    values = manifest.make(
        ds,
        run,
        name=name,
        precision=precision,
        tuned=tuned,
        figures={**figures, "export": exported},
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        card=card,
    )
    (directory / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n")
    return values


def tune(ds, run):
    """(manifest fields, figures) from flows that the judging networks were not trained on."""
    tasks = judged(ds, run)
    # Few captures of one's own say little about the growth and the end of a flow.
    own = not run.spec["folds"]
    how = ds.aggregation if own else calibration.choose_growth(tasks, ds.aggregation)
    tuned = {"temperature": {}, "growth": how.growth, "floor": how.floor, "unknown_threshold": {}}
    points, scores, confused = {}, {}, {}
    for task, found in tasks.items():
        temperature, threshold = calibration.calibrate(found, how)
        tuned["temperature"][task] = temperature
        tuned["unknown_threshold"][task] = threshold
        points[task] = calibration.operating_points(found, temperature, how)
        error = calibration.calibration_error(*found.verdicts(how, temperature))
        scores[task] = calibration.by_packet_and_flow(found, how)
        scores[task]["calibration_error"] = round(error, 3)
        confused[task] = calibration.confusion(found, how, run.spec["labels"][task])
    tuned["final_confidence"] = manifest.FINAL_CONFIDENCE
    if not own:
        chosen = calibration.final_confidence(tasks, tuned["temperature"], how)
        tuned["final_confidence"] = chosen
    tuned["samples"] = how.samples
    tuned["operating_points"] = points
    tuned["confusion"] = confused
    return tuned, {"validation" if own else "capture split": scores}


def judged(ds, run):
    """calibration.Judged by task, of all rows that some network of the run was not trained on."""
    said = [train.predict(model, Rows(ds.packet, rows)) for model, rows in run.judges]
    rows = np.concatenate([rows for _, rows in run.judges])
    out = {}
    for task in run.tasks:
        target = task.target[rows]
        if not np.any(target >= 0):
            raise data.DatasetError(
                f"{ds.directory}: no labelled {task.name} flow is left for the calibration; "
                "more flows are needed"
            )
        probabilities = np.concatenate([p[task.name] for p in said])
        out[task.name] = calibration.Judged.known(
            probabilities, target, ds.flow[rows], ds.index[rows]
        )
    return out


def sample(run):
    """(rows to compare on, rows to time, the generator that drew them), of what calibrates it."""
    rng = np.random.default_rng(run.spec["seed"])
    rows = np.concatenate([rows for _, rows in run.judges])
    rows = np.sort(rng.permutation(rows)[:CHECKED])
    return rows, rng.permutation(rows)[: TIMED * BATCH], rng


class Rows:
    """Rows of a memory-mapped array, read a slice at a time."""

    def __init__(self, array, rows):
        self.array, self.rows = array, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, part):
        return self.array[self.rows[part]]


def session(path):
    """An ONNX Runtime session with one thread and all optimisations, as dpclass uses it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_onnx(path, packets, batch=64):
    """Probabilities by task of uint8 packets [N, 1500]."""
    s = session(path)
    names = [o.name for o in s.get_outputs()]
    parts = [
        s.run(names, {graph.INPUT: packets[i : i + batch]}) for i in range(0, len(packets), batch)
    ]
    return {n: np.concatenate(p) for n, p in zip(names, zip(*parts, strict=True), strict=True)}


def compare(path, ds, rows, truth, what, log):
    """Compares a file with PyTorch's probabilities; returns the shares with the same label."""
    got = run_onnx(path, np.asarray(ds.packet[rows]))
    out = {}
    for task, want in truth.items():
        far = float(np.abs(got[task] - want).max())
        same = float((got[task].argmax(1) == want.argmax(1)).mean())
        log(f"{what}, {task}: largest difference {far:.2g}, same label {same:.4f}")
        out[f"{task}_same_label_as_torch"] = round(same, 4)
    return out


def microseconds(path, packets, seconds=3):
    """CPU time per packet of uint8 packets [N, 1500], in batches, on one thread."""
    s = session(path)
    batches = [packets[i : i + BATCH] for i in range(0, len(packets), BATCH)]
    return best_times(lambda batch: s.run(None, {graph.INPUT: batch}), batches, seconds)


def best_times(run, batches, seconds):
    """Microseconds of CPU time a packet: the best round of each batch, added up.

    The thread's own time and its best, so that other load on the machine counts little. All
    batches, because their times differ.
    """
    best, end, rounds = np.full(len(batches), np.inf), time.perf_counter() + seconds, 0
    while rounds < 3 or time.perf_counter() < end:
        for i, batch in enumerate(batches):
            began = time.thread_time()
            run(batch)
            best[i] = min(best[i], time.thread_time() - began)
        rounds += 1
    return round(best.sum() / sum(map(len, batches)) * 1e6, 2)
