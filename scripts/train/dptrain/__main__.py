# SPDX-License-Identifier: Apache-2.0
"""Trains a network on a dataset of ``dpclass dataset build`` and exports it for ``dpclass``.

An interrupted training continues when the same command is run again.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from . import Error, data, export, train


def main(arguments=None):
    """Runs one verb. Returns the exit status: 0 done, 1 failed (argparse exits with 2)."""
    parser = argparse.ArgumentParser(prog="dptrain", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch (1)")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _train(verbs)
    _export(verbs)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        options.run_verb(options)
    except Error as error:
        print(f"dptrain: {error}", file=sys.stderr)
        return 1
    return 0


def _verb(verbs, name, what, run):
    parser = verbs.add_parser(name, help=what, description=what)
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="the dataset, from dpclass dataset build"
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="checkpoints of the training")
    parser.set_defaults(run_verb=run)
    return parser


def _say(line):
    print(line, flush=True)


def _train(verbs):
    def run(o):
        options = train.Options(
            seed=o.seed,
            sets=o.sets,
            beside=o.beside,
            labels=_read(o.labels)["labels"] if o.labels else None,
            epochs=o.epochs,
            batch=o.batch,
            folds=o.folds,
            max_minutes=o.max_minutes,
        )
        train.train(data.Dataset(o.data), options, o.run, _say)

    parser = _verb(verbs, "train", "train the network, or continue its training", run)
    parser.add_argument("kind", choices=("default",), help="the network")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers (0)")
    parser.add_argument(
        "--epochs", type=int, default=0, help="train at most this many epochs (network's default)"
    )
    parser.add_argument(
        "--batch", type=int, default=0, help="packets per batch (network's default)"
    )
    parser.add_argument(
        "--max-minutes", type=float, default=0, help="stop training after this time (0: no limit)"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="MANIFEST",
        help="learn the labels of this model, such as models/default.json "
        "(default: all labels of the dataset)",
    )
    parser.add_argument(
        "--folds",
        type=_folds,
        default=0,
        metavar="N",
        help="train on all flows, and calibrate with N more networks that are each trained without "
        "a part of the captures (default: calibrate on a tenth of the flows)",
    )
    parser.add_argument(
        "--set", action="append", dest="sets", help="use only this set; may be given more than once"
    )
    parser.add_argument(
        "--beside",
        action="append",
        metavar="SET",
        help="learn from this set, but do not calibrate on it: for traffic that was made for the "
        "training, such as dplab's; may be given more than once",
    )


def _folds(text):
    number = int(text)
    if number == 1 or number < 0:
        raise argparse.ArgumentTypeError("2 or more, or 0 for none")
    return number


def _export(verbs):
    def run(o):
        card = _read(o.card) if o.card else None
        export.export(data.Dataset(o.data), o.run, o.out, o.name, card, _say)

    parser = _verb(verbs, "export", "write NAME.onnx and NAME.json from a training", run)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", default=".", metavar="DIR", help="where to write (.)")
    parser.add_argument(
        "--card",
        type=Path,
        metavar="FILE",
        help="JSON with sources, licence and weaknesses for the model card",
    )


def _read(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Error(f"{path}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
