# SPDX-License-Identifier: Apache-2.0
"""Trains dpclass's networks on a dataset of ``dpclass dataset build``, exports and evaluates them.

Training goes on where it was interrupted, and an evaluation does only what is not done yet.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from . import data, elsewhere, evaluate, export, jobs, train


def main(arguments=None):
    """Runs one verb; 0 done, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="dptrain", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and the trees (1)")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (_train, _export, _evaluate, _evaluation, _grid, _bench, _samples, _ndpi, _report):
        add(verbs)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        return options.run_verb(options) or 0
    except data.DatasetError as error:
        print(f"dptrain: {error}", file=sys.stderr)
        return 1


def _verb(verbs, name, what, run, work=False):
    parser = verbs.add_parser(name, help=what, description=what)
    parser.add_argument("--data", required=True, metavar="DIR", help="of dpclass dataset build")
    if work:
        parser.add_argument(
            "--work", required=True, metavar="DIR", help="runs, predictions and the tests' log"
        )
    parser.set_defaults(run_verb=run)
    return parser


def _say(line):
    print(line, flush=True)


def _train(verbs):
    def run(o):
        names = ("kind", "split", "seed", "split_seed", "sets", "epochs", "batch", "max_minutes")
        names += ("augment", "negatives", "first", "shape")
        choices = train.Options(**{name: getattr(o, name) for name in names})
        train.train(data.Dataset(o.data), choices, o.run, log=_say)

    parser = _verb(verbs, "train", "train one network on one split", run)
    parser.add_argument("kind", choices=train.KINDS)
    parser.add_argument("--run", required=True, metavar="DIR", help="checkpoints; resumed from")
    parser.add_argument("--split", choices=("packet", "flow", "capture", "all"), default="all")
    parser.add_argument("--seed", type=int, default=0, help="of the model (0)")
    parser.add_argument("--split-seed", type=int, default=0, help="of the split (0)")
    parser.add_argument("--epochs", type=int, default=0, help="at most (the network's own number)")
    parser.add_argument("--batch", type=int, default=0, help="packets (the network's own number)")
    parser.add_argument("--max-minutes", type=float, default=0, help="of training (0: no limit)")
    parser.add_argument(
        "--augment", type=float, default=0.3, help="default: chance that a TTL's start is redrawn"
    )
    parser.add_argument(
        "--negatives", type=float, default=0.3, help="default: weight of traffic of no class"
    )
    parser.add_argument(
        "--first", type=int, default=train.FIRST, help="default: packets of a flow learnt from"
    )
    parser.add_argument(
        "--set", action="append", dest="sets", help="only this set; may be given again"
    )
    parser.add_argument("--shape", type=json.loads, help="default: JSON of net.Shape's fields")


def _export(verbs):
    def run(o):
        export.export(data.Dataset(o.data), o.run, o.output, o.name)

    parser = _verb(verbs, "export", "write NAME.onnx and NAME.json of a run", run)
    parser.add_argument("--run", required=True, metavar="DIR")
    parser.add_argument("--name", required=True)
    parser.add_argument("-o", "--output", default=".", metavar="DIR", help="where to (.)")


def _evaluate(verbs):
    def run(o):
        ds = data.Dataset(o.data)
        for name in o.jobs:
            print(json.dumps(jobs.run(ds, jobs.parse(name), o.work, o.threads, log=_say)))

    what = "run jobs of the evaluation anew: train where it is needed, store the predictions"
    parser = _verb(verbs, "evaluate", what, run, work=True)
    parser.add_argument(
        "jobs", nargs="+", metavar="MODEL.TRACK.SPLIT.SEED", help="as lightgbm.all.capture.0"
    )


def _evaluation(verbs):
    def run(o):
        ds = data.Dataset(o.data)
        if o.captures:
            elsewhere.ndpi(ds, o.captures, o.work, log=_say)
        checksums = data.Dataset(o.checksums) if o.checksums else None
        failed = evaluate.run(
            ds, o.work, checksums, o.only, o.skip, o.threads, not o.no_training, _say
        )
        if o.docs:
            from . import bench, grid, report

            grid.run(ds, o.work, log=_say)
            speed = Path(o.work) / "bench.json"
            if not bench.is_current(speed, o.models):
                speed.write_text(json.dumps(bench.run(ds, o.models, log=_say), indent=1) + "\n")
            report.run(ds, o.work, o.docs)
        if failed:
            print(f"dptrain: failed: {', '.join(failed)}", file=sys.stderr)
        return int(bool(failed))

    what = "run what is not done yet of the evaluation's jobs, grid and bench, then the report"
    parser = _verb(verbs, "evaluation", what, run, work=True)
    parser.add_argument("--docs", metavar="DIR", help="of the report; without it only the jobs")
    parser.add_argument("--models", default="models", metavar="DIR", help="to be timed (models)")
    parser.add_argument("--checksums", metavar="DIR", help="the dataset built with --checksums")
    parser.add_argument("--captures", metavar="DIR", help="of the manifest's paths, for nDPI")
    for name in ("only", "skip"):
        parser.add_argument(
            f"--{name}", action="append", metavar="PATTERN", help=f"{name} jobs named like this"
        )
    parser.add_argument(
        "--no-training", action="store_true", help="score networks whose run is finished, no others"
    )


def _grid(verbs):
    def run(o):
        from . import grid

        grid.run(data.Dataset(o.data), o.work, log=_say)

    _verb(verbs, "grid", "train the paper's grid of convolutional networks", run, work=True)


def _bench(verbs):
    def run(o):
        from . import bench

        records = bench.run(data.Dataset(o.data), o.models, log=_say)
        if o.output:
            o.output.write_text(json.dumps(records, indent=1) + "\n")

    parser = _verb(verbs, "bench", "time the shipped networks and the paper's in FP32", run)
    parser.add_argument("--models", default="models", metavar="DIR", help="with NAME.onnx (models)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="JSON of the figures")


def _samples(verbs):
    def run(o):
        from . import analysis

        store = analysis.Store(data.Dataset(o.data), o.work)
        for task in store.tasks(o.job):
            print(json.dumps({task: analysis.samples(store, o.job, task, "validation")}))

    what = "accuracy by flow against samples, on a job's validation part"
    parser = _verb(verbs, "samples", what, run, work=True)
    parser.add_argument("job", nargs="?", default="default.all.flow.0", metavar="JOB")


def _ndpi(verbs):
    def run(o):
        elsewhere.ndpi(data.Dataset(o.data), o.captures, o.work, log=_say)

    what = "run nDPI (ndpiReader) over the captures, to stand beside the models in the report"
    parser = _verb(verbs, "ndpi", what, run, work=True)
    parser.add_argument("--captures", required=True, metavar="DIR", help="of the manifest's paths")


def _report(verbs):
    def run(o):
        from . import report

        report.run(data.Dataset(o.data), o.work, o.docs)
        if o.cards:
            report.fill_cards(o.work, o.cards)

    what = "make figures, JSON and evaluation.md from the stored predictions"
    parser = _verb(verbs, "report", what, run, work=True)
    parser.add_argument("--docs", required=True, metavar="DIR", help="where to: evaluation.md")
    parser.add_argument("--cards", metavar="DIR", help="models whose manifests get the figures")


if __name__ == "__main__":
    sys.exit(main())
