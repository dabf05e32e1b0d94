# SPDX-License-Identifier: Apache-2.0
"""Training, export and evaluation of dpclass's networks.

The input is one directory written by ``dpclass dataset build``; nothing here parses a capture.
"""
