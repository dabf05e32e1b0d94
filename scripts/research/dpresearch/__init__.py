# SPDX-License-Identifier: Apache-2.0
"""The evaluation of dpclass's network, and the reproduction of the paper it comes from.

This package imports ``dptrain``, never the other way round. ``paper`` has the paper's networks and
splits, ``jobs`` trains and tests models, ``report`` makes numbers, tables and pictures of what the
jobs predicted.
"""
