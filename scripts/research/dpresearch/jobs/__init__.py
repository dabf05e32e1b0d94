# SPDX-License-Identifier: Apache-2.0
"""The jobs of the evaluation: a model learns on one split and is tested once."""
