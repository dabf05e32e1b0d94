# SPDX-License-Identifier: Apache-2.0
"""Command line: python -m dptrain train|export|evaluate|baselines ..."""

import argparse
import json
import sys
from pathlib import Path

import torch

from . import baselines, data, evaluate, export, train


def main(arguments=None):
    """Runs one verb; 0 done, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="dptrain", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="torch threads (1)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    _train_parser(verbs)
    _export_parser(verbs)
    _evaluate_parser(verbs)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        options.run_verb(options)
    except data.DatasetError as error:
        print(f"dptrain: {error}", file=sys.stderr)
        return 1
    return 0


def _train_parser(verbs):
    parser = verbs.add_parser("train", help="train one network on one split")
    parser.add_argument("kind", choices=train.KINDS)
    parser.add_argument("--data", required=True, help="directory of dpclass dataset build")
    parser.add_argument("--run", required=True, help="directory for checkpoints; resumed from")
    parser.add_argument("--split", choices=("packet", "flow", "capture", "all"), default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--max-minutes", type=float, default=0)
    parser.add_argument("--augment", type=float, default=0.3)
    parser.add_argument("--negatives", type=float, default=0.3)
    parser.add_argument("--first", type=int, default=train.FIRST)
    parser.add_argument("--set", action="append", dest="sets")
    parser.add_argument("--shape", type=json.loads, help="default net: JSON of net.Shape's fields")
    parser.set_defaults(run_verb=_train)


def _train(o):
    choices = train.Options(
        kind=o.kind,
        split=o.split,
        seed=o.seed,
        sets=o.sets,
        epochs=o.epochs,
        batch=o.batch,
        max_minutes=o.max_minutes,
        augment=o.augment,
        negatives=o.negatives,
        first=o.first,
        shape=o.shape,
    )
    train.train(data.Dataset(o.data), choices, o.run, log=lambda s: print(s, flush=True))


def _export_parser(verbs):
    parser = verbs.add_parser("export", help="write NAME.onnx and NAME.json of a run")
    parser.add_argument("--data", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("-o", "--output", default=".", help="directory (.)")
    parser.add_argument("--figures", type=Path, help="JSON that goes into the manifest's figures")
    parser.set_defaults(run_verb=_export)


def _export(o):
    figures = json.loads(o.figures.read_text()) if o.figures else None
    export.export(data.Dataset(o.data), o.run, o.output, o.name, figures)


def _evaluate_parser(verbs):
    parser = verbs.add_parser("evaluate", help="score a run on its split's test part")
    parser.add_argument("--data", required=True)
    parser.add_argument("--run", action="append", required=True, dest="runs")
    parser.add_argument("--onnx", help="score this file, exported from the run, in its place")
    parser.add_argument(
        "--elsewhere", action="store_true", help="score on the sets with use=evaluate instead"
    )
    parser.add_argument("--results", required=True, help="JSON lines, appended to")
    parser.set_defaults(run_verb=_evaluate)

    parser = verbs.add_parser("baseline", help="train a tree model on a split and score it")
    parser.add_argument("kind", choices=baselines.KINDS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", choices=("packet", "flow", "capture"), required=True)
    parser.add_argument("--like", choices=train.KINDS, default="default", help="whose rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", required=True)
    parser.set_defaults(run_verb=_baseline)

    parser = verbs.add_parser("samples", help="accuracy against samples, on the validation part")
    parser.add_argument("--data", required=True)
    parser.add_argument("--run", required=True)
    parser.set_defaults(run_verb=_samples)

    parser = verbs.add_parser("table", help="print results as Markdown")
    parser.add_argument("--results", required=True)
    parser.set_defaults(run_verb=lambda o: print(evaluate.table(o.results)))


def _evaluate(o):
    ds = data.Dataset(o.data)
    for run in o.runs:
        scored = evaluate.elsewhere(ds, run) if o.elsewhere else evaluate.of_run(ds, run, o.onnx)
        evaluate.append(o.results, scored)
        print(json.dumps(scored, indent=1))


def _samples(o):
    for record in evaluate.by_samples(data.Dataset(o.data), o.run):
        print(json.dumps(record))


def _baseline(o):
    ds = data.Dataset(o.data)
    record = evaluate.of_baseline(ds, o.kind, o.split, o.seed, o.like, o.threads)
    evaluate.append(o.results, record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    sys.exit(main())
