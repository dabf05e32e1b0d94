# SPDX-License-Identifier: Apache-2.0
"""The training loop: checkpoints, continuing, early stopping, averaging, time left."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from . import Error


@dataclass
class Plan:
    """How long to train and what to keep."""

    epochs: int
    patience: int = 0  # with keep "best": epochs without a lower validation loss; 0: no early stop
    max_minutes: float = 0.0  # 0: no limit
    average: float = 0.0  # decay of the moving average that is validated and kept; 0: no average
    keep: str = "best"  # the epoch with the lowest validation loss, or "last"


@dataclass
class State:
    """What a checkpoint has besides the tensors."""

    epoch: int = 0  # finished epochs
    best: float = float("inf")  # validation loss of the weights that were kept
    best_epoch: int = -1
    seconds: float = 0.0
    finished: str = ""  # why the training is finished; "" while it is not
    history: list = field(default_factory=list)


def run(model, optimizer, scheduler, plan, directory, batches, step, validate, spec, log=print):
    """Trains into ``directory`` and returns the state; continues a run that is there.

    batches(epoch) yields batches and depends on the epoch alone, so that a continued run equals an
    uninterrupted one. step(model, batch) returns the loss, validate(model) a dict with "loss".
    ``spec`` is saved with the weights: it says what the model is and what it was trained on.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    last, best = directory / "last.pt", directory / "best.pt"
    averaged = _average(model, plan.average) if plan.average else None
    kept = averaged.module if averaged else model
    state = State()
    if last.is_file():
        saved = torch.load(last, map_location="cpu", weights_only=True)
        if saved["spec"] != spec:
            raise Error(
                f"{last}: a checkpoint of another run; remove {directory} or use another --run"
            )
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        if scheduler:
            scheduler.load_state_dict(saved["scheduler"])
        if averaged:
            averaged.load_state_dict(saved["average"])
        state = State(**saved["state"])
        log(f"continuing after epoch {state.epoch} of {plan.epochs}")

    while state.epoch < plan.epochs and not state.finished:
        began = time.monotonic()
        torch.manual_seed(spec["seed"] * 1000 + state.epoch)
        loss = _epoch(
            model, optimizer, scheduler, averaged, batches(state.epoch), step, state.epoch, log
        )
        kept.eval()
        figures = validate(kept)
        better = plan.keep == "best" and figures["loss"] < state.best
        if better or plan.keep == "last":
            state.best, state.best_epoch = figures["loss"], state.epoch
            _save(best, {"spec": spec, "model": kept.state_dict(), "epoch": state.epoch})
        state.epoch += 1
        state.seconds += time.monotonic() - began
        state.history.append({"epoch": state.epoch, "train_loss": loss, **figures})
        left = state.seconds / state.epoch * (plan.epochs - state.epoch)
        shown = " ".join(f"{k} {v:.4f}" for k, v in figures.items())
        log(
            f"epoch {state.epoch}/{plan.epochs} train {loss:.4f} {shown}{' *' if better else ''} "
            f"[{clock(state.seconds)}, at most {clock(left)} left]"
        )
        if plan.patience and state.epoch - 1 - state.best_epoch >= plan.patience:
            state.finished = f"no better loss in {plan.patience} epochs"
        elif plan.max_minutes and state.seconds > plan.max_minutes * 60:
            state.finished = f"{plan.max_minutes:g} minutes are over"
        elif state.epoch == plan.epochs:
            state.finished = "all epochs"
        _save(
            last,
            {
                "spec": spec,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict() if scheduler else None,
                "average": averaged.state_dict() if averaged else None,
                "state": vars(state),
            },
        )
        (directory / "history.json").write_text(json.dumps(vars(state), indent=1) + "\n")
    log(f"finished: {state.finished}; kept epoch {state.best_epoch + 1}, loss {state.best:.4f}")
    return state


def load(directory):
    """(spec, weights, epoch) that a run kept."""
    path = Path(directory) / "best.pt"
    if not path.is_file():
        raise Error(f"{path}: no such file; train into {directory} first")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    return saved["spec"], saved["model"], saved["epoch"]


def clock(seconds):
    """Seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _epoch(model, optimizer, scheduler, averaged, batches, step, epoch, log):
    model.train()
    total, seen, told = 0.0, 0, time.monotonic()
    began = told
    for number, batch in enumerate(batches):
        optimizer.zero_grad(set_to_none=True)
        value = step(model, batch)
        value.backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
        if averaged:
            averaged.update_parameters(model)
        total += value.item()
        seen += 1
        if time.monotonic() - told > 30:
            told = time.monotonic()
            where = f"  epoch {epoch + 1} batch {number + 1}"
            log(f"{where} loss {total / seen:.4f} [{clock(told - began)}]")
    return total / max(seen, 1)


def _average(model, decay):
    """The exponential moving average of the parameters; its decay grows in the first steps."""

    def step(average, parameter, count):
        count = int(count)
        return torch.lerp(average, parameter, 1 - min(decay, (1 + count) / (10 + count)))

    averaged = AveragedModel(model, avg_fn=step)
    averaged.n_averaged.fill_(1)  # the initial weights count as the first ones
    return averaged


def _save(path, values):
    temporary = path.with_suffix(".tmp")
    torch.save(values, temporary)
    os.replace(temporary, path)
