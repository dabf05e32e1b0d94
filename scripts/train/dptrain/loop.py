# SPDX-License-Identifier: Apache-2.0
"""The training loop all networks share: checkpoints, resume, early stop, time left."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass
class Plan:
    """How long to train and when to stop."""

    epochs: int
    patience: int = 0  # epochs without a better validation loss; 0 never stops early
    max_minutes: float = 0.0
    average: float = 0.0  # decay of the moving average that is validated and kept; 0 is none
    keep: str = "best"  # or "last"


@dataclass
class State:
    """What a checkpoint holds beside the tensors."""

    epoch: int = 0
    best: float = float("inf")
    best_epoch: int = -1
    seconds: float = 0.0
    finished: str = ""
    history: list = field(default_factory=list)


def run(model, optimizer, scheduler, plan, directory, batches, step, validate, spec, log=print):
    """Trains into ``directory`` and returns the state; an interrupted run goes on where it was.

    batches(epoch) yields batches and is a function of the epoch alone, so that a resumed run is
    the run that was interrupted. step(model, batch) gives the loss, validate(model) a dict with
    "loss". ``spec`` is kept beside the weights: it says what the model is and on what it trained.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    last, best = directory / "last.pt", directory / "best.pt"
    averaged = _Average(model, plan.average) if plan.average else None
    state = State()
    if last.is_file():
        saved = torch.load(last, map_location="cpu", weights_only=True)
        if saved["spec"] != spec:
            raise SystemExit(
                f"{last}: a checkpoint of another run; remove {directory} or use another --run"
            )
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        if scheduler:
            scheduler.load_state_dict(saved["scheduler"])
        if averaged:
            averaged.load(saved["average"])
        state = State(**saved["state"])
        log(f"resumed behind epoch {state.epoch} of {plan.epochs}")

    while state.epoch < plan.epochs and not state.finished:
        began = time.monotonic()
        torch.manual_seed(spec["seed"] * 1000 + state.epoch)
        loss = _epoch(
            model, optimizer, scheduler, averaged, batches(state.epoch), step, state.epoch, log
        )
        with _Swapped(model, averaged):
            model.eval()
            figures = validate(model)
            better = plan.keep == "best" and figures["loss"] < state.best
            if better or plan.keep == "last":
                state.best, state.best_epoch = figures["loss"], state.epoch
                _save(best, {"spec": spec, "model": model.state_dict(), "epoch": state.epoch})
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
                "average": averaged.shadow if averaged else None,
                "state": vars(state),
            },
        )
        (directory / "history.json").write_text(json.dumps(vars(state), indent=1) + "\n")
    log(f"finished: {state.finished}; kept epoch {state.best_epoch + 1}, loss {state.best:.4f}")
    return state


def load(directory):
    """The best weights of a run, and its spec."""
    path = Path(directory) / "best.pt"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file; train into {directory} first")
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
            averaged.update(model)
        total += value.item()
        seen += 1
        if time.monotonic() - told > 30:
            told = time.monotonic()
            where = f"  epoch {epoch + 1} batch {number + 1}"
            log(f"{where} loss {total / seen:.4f} [{clock(told - began)}]")
    return total / max(seen, 1)


def _save(path, values):
    temporary = path.with_suffix(".tmp")
    torch.save(values, temporary)
    os.replace(temporary, path)


class _Average:
    """Exponential moving average of the parameters, warmed up."""

    def __init__(self, model, decay):
        self.decay = decay
        self.shadow = {k: v.detach().clone() for k, v in model.named_parameters()}
        self.shadow["steps"] = torch.zeros(1)

    def update(self, model):
        steps = self.shadow["steps"].add_(1).item()
        decay = min(self.decay, (1 + steps) / (10 + steps))
        for name, value in model.named_parameters():
            self.shadow[name].lerp_(value.detach(), 1 - decay)

    def load(self, values):
        for name, value in values.items():
            self.shadow[name].copy_(value)


class _Swapped:
    """The averaged parameters in the model for as long as the block runs."""

    def __init__(self, model, averaged):
        self.model, self.averaged = model, averaged

    def __enter__(self):
        if self.averaged:
            self.kept = {k: v.detach().clone() for k, v in self.model.named_parameters()}
            self._put(self.averaged.shadow)

    def __exit__(self, *_):
        if self.averaged:
            self._put(self.kept)

    @torch.no_grad()
    def _put(self, values):
        for name, parameter in self.model.named_parameters():
            parameter.copy_(values[name])
