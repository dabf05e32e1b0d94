# SPDX-License-Identifier: Apache-2.0
"""What the tests share."""

import json
import shutil

import numpy as np
import pytest
import synthetic
import torch

# As the programs do by default; more threads than cores wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """The directory of the synthetic dataset. Do not change it: copy it."""
    directory = tmp_path_factory.mktemp("dataset")
    synthetic.write(directory)
    return directory


@pytest.fixture(scope="session")
def tested(dataset, tmp_path_factory):
    """The same with captures of another set that are only for evaluation: flows from 200 on.

    A voip flow of these is TLS during a call.
    """
    directory = tmp_path_factory.mktemp("tested") / "dataset"
    shutil.copytree(dataset, directory)
    meta = json.loads((directory / "meta.json").read_text())
    meta["sets"].append("other")
    first = len(meta["captures"])
    more = [{**c, "set": "other", "use": "evaluate"} for c in meta["captures"]]
    meta["captures"] += more
    meta["apps"] = [*meta["apps"], "skype-signalling"]
    (directory / "meta.json").write_text(json.dumps(meta))
    late = np.load(directory / "flow.npy") >= 200
    for name, change in (("capture", first), ("set", 1)):
        column = np.load(directory / f"{name}.npy")
        column[late] += change
        np.save(directory / f"{name}.npy", column)
    app, voip = np.load(directory / "app.npy"), np.load(directory / "flow.npy") == 215
    app[voip] = meta["apps"].index("skype-signalling")
    np.save(directory / "app.npy", app)
    return directory
