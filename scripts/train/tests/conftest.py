# SPDX-License-Identifier: Apache-2.0
"""What the tests share."""

import pytest
import synthetic


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """The directory of the synthetic dataset. Do not change it: copy it."""
    directory = tmp_path_factory.mktemp("dataset")
    synthetic.write(directory)
    return directory
