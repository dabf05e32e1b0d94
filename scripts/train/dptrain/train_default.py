# SPDX-License-Identifier: Apache-2.0
"""How the default net is trained: rows, weights, augmentation, schedule."""

import torch
from torch.nn import functional

from . import loop, metrics, net, train

SMOOTHING = 0.05
# A quarter of the packets have an application; the weight makes up for that.
WEIGHTS = {"app": 3.0}


def run(ds, options, directory, tasks, split, log):
    """Trains the net that ``options`` say; returns the loop's state."""
    options.batch = options.batch or 256
    epochs = options.epochs or 14
    rows = train.learnt_rows(ds, options, split)
    shape = net.Shape(labels={t.name: t.labels for t in tasks}, **(options.shape or {}))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ip, l4, payload = net.read_rows(ds.packet, rows, shape.payload)
    values = net.thermometer_values(net.fields_of(ip, l4, payload)).numpy()
    ip, l4, payload = ip.to(device), l4.to(device), payload.to(device)
    targets = {t.name: torch.from_numpy(t.target[rows]).to(device) for t in tasks}
    thresholds = net.choose_thresholds(values, shape)
    torch.manual_seed(options.seed)
    model = net.DefaultNet(shape, thresholds).to(device)
    held = split.validation[ds.index[split.validation] < metrics.SAMPLES]
    held_input = [x.to(device) for x in net.read_rows(ds.packet, held, shape.payload)]
    weight = torch.from_numpy(net.sample_weights(ds.flow[rows], tasks[0].target[rows]))
    log(
        f"default: {len(rows)} packets to train on, {len(held)} to validate, "
        f"{len(model.offset)} thermometer steps, {model.mac() / 1e6:.2f} MMAC"
    )

    def batches(epoch):
        rng = train.generator(options.seed, epoch)
        order = torch.multinomial(weight, len(rows), replacement=True, generator=rng)
        for part in order.split(options.batch):
            drawn = net.augment(ip[part], options.augment, rng)
            yield (
                (drawn, l4[part], payload[part]),
                {task: target[part] for task, target in targets.items()},
            )

    def step(model, batch):
        return net.loss(model(*batch[0]), batch[1], SMOOTHING, options.negatives, WEIGHTS)

    def validate(model):
        figures = {"loss": 0.0}
        out = {task: x.cpu() for task, x in train.logits(model, *held_input).items()}
        for task in tasks:
            truth = task.target[held]
            known = truth >= 0
            if not known.any():
                continue
            p = torch.softmax(out[task.name], 1).numpy()
            labelled = torch.from_numpy(truth[known])
            figures["loss"] += functional.cross_entropy(out[task.name][known], labelled).item()
            by = metrics.by_packet_and_flow(p, truth, ds.flow[held], ds.index[held])
            figures[task.name] = by["flow"]["macro_f1"]
        return figures

    plan = loop.Plan(epochs, max_minutes=options.max_minutes, average=0.995, keep="last")
    steps = epochs * -(-len(rows) // options.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
    spec = train.spec_of(
        options,
        tasks,
        split,
        epochs=epochs,
        shape=net.shape_to_dict(shape),
        thresholds=[t.tolist() for t in thresholds],
        used_packets=len(rows),
    )
    return loop.run(
        model, optimizer, scheduler, plan, directory, batches, step, validate, spec, log
    )
