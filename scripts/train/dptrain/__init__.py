# SPDX-License-Identifier: Apache-2.0
"""Trains dpclass's network on labelled captures and exports it.

The input is a directory that ``dpclass dataset build`` wrote; nothing here parses a capture. This
package does not import the research package: whoever trains on their own data needs only this one.
"""


class Error(Exception):
    """A problem that the user can solve; the message says what to do."""
