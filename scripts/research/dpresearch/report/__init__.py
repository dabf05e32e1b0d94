# SPDX-License-Identifier: Apache-2.0
"""Numbers, tables and pictures of what the jobs predicted."""
