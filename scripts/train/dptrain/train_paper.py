# SPDX-License-Identifier: Apache-2.0
"""How the paper's networks are trained."""

import numpy as np
import torch
from torch.nn import functional

from . import cnn, data, loop, sae, splits, train

EPOCHS = {"cnn": 300, "sae": 200}
BATCH = {"cnn": 64, "sae": 128}
PATIENCE = {"cnn": 5, "sae": 0}
# The autoencoder is fine-tuned for a number of epochs, as published: its accuracy still grows when
# the validation loss no longer does.
KEEP = {"cnn": "best", "sae": "last"}
MINUTES = 30  # a run at most


def build(spec):
    """The module that a spec describes, without weights."""
    [(task, labels)] = spec["labels"].items()
    if spec["kind"].startswith("sae"):
        return sae.PaperSAE(task, len(labels))
    return cnn.PaperCNN(task, len(labels), spec["convolutions"])


def run(ds, options, directory, task, split, log):
    """Trains the net that ``options`` say; returns the loop's state."""
    family = options.kind.split("-")[0]
    options.batch = options.batch or BATCH[family]
    cap = train.CAPS[options.kind]
    rows = train.learnt_rows(ds, options, split)
    validation = data.under_sample(
        split.validation, task.target, round(cap * splits.VALIDATION), options.seed
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    packets = torch.from_numpy(np.asarray(ds.packet[rows])).to(device)
    target = torch.from_numpy(task.target[rows]).to(device)
    held = torch.from_numpy(np.asarray(ds.packet[validation])).to(device)
    held_target = torch.from_numpy(task.target[validation]).to(device)
    more = {"used_packets": len(rows)}
    if family == "cnn":
        shape = (options.shape or {}).get("convolutions", cnn.CONVOLUTIONS[task.name])
        more["convolutions"] = [list(layer) for layer in shape]
    spec = train.spec_of(options, [task], split, **more)
    torch.manual_seed(options.seed)
    model = build(spec).to(device)
    log(f"{options.kind}: {len(rows)} packets to train on, {len(validation)} to validate")
    plan = loop.Plan(
        options.epochs or EPOCHS[family],
        patience=PATIENCE[family],
        max_minutes=options.max_minutes or MINUTES,
        keep=KEEP[family],
    )

    def batches(epoch):
        for part in _order(len(rows), options, epoch):
            yield packets[part], target[part]

    def step(model, batch):
        return functional.cross_entropy(model(batch[0])[task.name], batch[1])

    def validate(model):
        out = train.logits(model, held)[task.name]
        right = (out.argmax(1) == held_target).float().mean().item()
        return {"loss": functional.cross_entropy(out, held_target).item(), "accuracy": right}

    if family == "sae":
        plan.max_minutes /= 2  # the other half is the pre-training's
        _pretrain(model, packets, held, options, plan, directory, spec, log)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    return loop.run(model, optimizer, None, plan, directory, batches, step, validate, spec, log)


def _pretrain(model, packets, held, options, plan, directory, spec, log):
    """Each layer as an autoencoder of what the layers before it give, checkpoints in layerN."""
    inputs, held_inputs = packets.float() / 255, held.float() / 255
    weights = sum(layer[0].weight.numel() for layer in model.layers)
    for number, layer in enumerate(model.layers, 1):
        log(f"layer {number} of {len(model.layers)}, as an autoencoder")
        pair = sae.Autoencoder(layer).to(packets.device)

        def batches(epoch, inputs=inputs):
            for part in _order(len(inputs), options, epoch):
                yield inputs[part]

        def step(pair, batch):
            return functional.mse_loss(pair(batch), batch)

        @torch.no_grad()
        def validate(pair, held_inputs=held_inputs):
            return {"loss": functional.mse_loss(pair(held_inputs), held_inputs).item()}

        where = f"{directory}/layer{number}"
        minutes = plan.max_minutes * layer[0].weight.numel() / weights
        own = loop.Plan(plan.epochs, max_minutes=minutes)
        optimizer = torch.optim.Adam(pair.parameters(), fused=True)
        about = {**spec, "layer": number}
        loop.run(pair, optimizer, None, own, where, batches, step, validate, about, log)
        pair.load_state_dict(loop.load(where)[1])
        with torch.no_grad():
            pair.eval()
            inputs, held_inputs = layer(inputs), layer(held_inputs)


def _order(count, options, epoch):
    """Row numbers in batches; a last one of a single packet has no variance for a batch norm."""
    order = torch.randperm(count, generator=train.generator(options.seed, epoch))
    return [part for part in order.split(options.batch) if len(part) > 1]
