#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the trainer from any directory: dptrain.sh train default --data DIR --run DIR. dptrain.sh --help lists the verbs.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

[ -x "$root/.venv/bin/python" ] || fail "the trainer's Python environment is missing: run make train-deps"
export PYTHONPATH="$root/scripts/train"
exec "$root/.venv/bin/python" -m dptrain "$@"
