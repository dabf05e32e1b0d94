# SPDX-License-Identifier: Apache-2.0
"""Evaluates dpclass's network and reproduces the paper it comes from.

No work is repeated: trainings continue where they were interrupted, and finished jobs are kept as
long as the code that made them stays the same.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import torch

from dptrain import Error, data

from . import bench, evaluation
from .jobs import grid, job, plan
from .jobs import run as jobs
from .paper import int8, nets, splits
from .report import analysis, pages, store

PAGES = ("evaluation", "paper")


def main(arguments=None):
    """Runs one verb. Returns the exit status: 0 done, 1 failed (argparse exits with 2)."""
    parser = argparse.ArgumentParser(prog="dpresearch", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (_evaluation, _paper, _job, _train, _export, _bench, _report):
        add(verbs)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        return options.run_verb(options) or 0
    except Error as error:
        print(f"dpresearch: {error}", file=sys.stderr)
        return 1


def _verb(verbs, name, what, run, *directories):
    """Adds a verb with those of --data, --work, --run, --docs that it needs."""
    parser = verbs.add_parser(name, help=what, description=what)
    helps = {
        "data": "the dataset, from dpclass dataset build",
        "work": "checkpoints, predictions and the log of tests",
        "run": "checkpoints of the training",
        "docs": "the pages and their results",
    }
    for directory in directories:
        parser.add_argument(
            f"--{directory}", required=True, metavar="DIR", type=Path, help=helps[directory]
        )
    parser.set_defaults(run_verb=run)
    return parser


def _say(line):
    print(line, flush=True)


def _run_jobs(o, planned):
    """Runs the paper's jobs; returns (dataset, names of the jobs that failed)."""
    ds = data.Dataset(o.data)
    checksums = data.Dataset(o.checksums) if o.checksums else None
    failed = jobs.run_all(
        ds,
        o.work,
        planned(checksums is not None),
        checksums,
        o.only,
        o.skip,
        o.threads,
        not o.no_training,
        _say,
    )
    if failed:
        print(f"dpresearch: failed: {', '.join(failed)}", file=sys.stderr)
    return ds, failed


def _publish(o, page, results):
    pages.save(o.docs, page, results, f"dpresearch {shlex.join(sys.argv[1:])}")
    pages.update(o.docs, page)


def _with_jobs(verbs, name, what, run):
    parser = _verb(verbs, name, what, run, "data", "work")
    parser.add_argument(
        "--docs",
        type=Path,
        metavar="DIR",
        help="update the page there; without it, only run the jobs",
    )
    parser.add_argument("--checksums", metavar="DIR", help="the dataset built with --checksums")
    for how in ("only", "skip"):
        parser.add_argument(
            f"--{how}", action="append", metavar="PATTERN", help=f"{how} jobs whose names match"
        )
    parser.add_argument(
        "--no-training", action="store_true", help="only test networks whose training is finished"
    )
    return parser


def _evaluation(verbs):
    def run(o):
        o.work.mkdir(parents=True, exist_ok=True)
        ds = data.Dataset(o.data)
        results = evaluation.run(ds, o.work, o.captures, o.threads, _say)
        if o.docs:
            _publish(o, "evaluation", results)

    what = "test the default network, trees and nDPI; update docs/evaluation.md"
    parser = _verb(verbs, "evaluation", what, run, "data", "work")
    parser.add_argument(
        "--docs", type=Path, metavar="DIR", help="update the page there; without it, only run"
    )
    parser.add_argument(
        "--captures",
        type=Path,
        metavar="DIR",
        help="the captures, to read names and protocols from and to run nDPI on",
    )


def _paper(verbs):
    def run(o):
        ds, failed = _run_jobs(o, plan.paper)
        if o.docs:
            grid.run(ds, o.work, log=_say)
            results = analysis.paper(store.Store(ds, o.work, _say))
            results["speed"] = bench.run(ds, o.models, log=_say)
            _publish(o, "paper", results)
        return int(bool(failed))

    what = "reproduce the paper, which takes many hours; update docs/paper.md"
    parser = _with_jobs(verbs, "paper", what, run)
    parser.add_argument("--models", default="models", metavar="DIR", help="models to time (models)")


def _job(verbs):
    def run(o):
        ds = data.Dataset(o.data)
        for name in o.jobs:
            print(json.dumps(jobs.run(ds, job.parse(name), o.work, o.threads, log=_say)))

    parser = _verb(verbs, "job", "run single jobs again", run, "data", "work")
    parser.add_argument(
        "jobs", nargs="+", metavar="MODEL.TRACK.SPLIT.SEED", help="such as lightgbm.all.capture.0"
    )


def _train(verbs):
    def run(o):
        names = ("kind", "split", "seed", "split_seed", "sets", "epochs", "batch", "max_minutes")
        options = nets.Options(**{name: getattr(o, name) for name in names})
        ds = data.Dataset(o.data)
        nets.fit(ds, options, o.run, *nets.problem(ds, options), _say)

    what = "train one of the paper's networks, or continue its training"
    parser = _verb(verbs, "train", what, run, "data", "run")
    parser.add_argument("kind", choices=nets.KINDS)
    parser.add_argument("--split", choices=splits.NAMES, default="all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the model (0)")
    parser.add_argument("--split-seed", type=int, default=0, help="seed of the split (0)")
    parser.add_argument(
        "--epochs", type=int, default=0, help="train at most this many epochs (network's default)"
    )
    parser.add_argument(
        "--batch", type=int, default=0, help="packets per batch (network's default)"
    )
    parser.add_argument(
        "--max-minutes", type=float, default=0, help="stop training after this time (30)"
    )
    parser.add_argument(
        "--set", action="append", dest="sets", help="use only this set; may be given more than once"
    )


def _export(verbs):
    def run(o):
        int8.export_run(data.Dataset(o.data), o.run, o.out, o.name, _say)

    what = "write NAME.onnx in INT8 and NAME.json from a training"
    parser = _verb(verbs, "export", what, run, "data", "run")
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", default=".", metavar="DIR", help="where to write (.)")


def _bench(verbs):
    def run(o):
        bench.run(data.Dataset(o.data), o.models, log=_say)

    parser = _verb(verbs, "bench", "time the shipped networks and the paper's in FP32", run, "data")
    parser.add_argument(
        "--models", default="models", metavar="DIR", help="directory with NAME.onnx (models)"
    )


def _report(verbs):
    def run(o):
        for page in PAGES:
            pages.update(o.docs, page)
        if o.cards:
            pages.fill_cards(o.docs, o.cards)

    what = "make tables and pictures again from the stored results"
    parser = _verb(verbs, "report", what, run, "docs")
    parser.add_argument(
        "--cards", metavar="DIR", help="directory of the models whose manifests get the figures"
    )


if __name__ == "__main__":
    sys.exit(main())
