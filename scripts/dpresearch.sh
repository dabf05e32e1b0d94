#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the evaluation and the paper's reproduction from any directory. dpresearch.sh --help lists the verbs.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

have_research || fail "the research packages are missing: run scripts/train-deps.sh research"
export PYTHONPATH="$root/scripts/train:$root/scripts/research"
exec "$root/.venv/bin/python" -m dpresearch "$@"
