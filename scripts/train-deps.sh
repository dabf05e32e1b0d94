#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Creates the trainer's Python environment in .venv.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root"

python3 -c 'import ensurepip, venv' 2>/dev/null || {
	have apt-get || fail "python3 with the module venv is missing: install it"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv
}
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/pip install --quiet --upgrade pip
.venv/bin/pip install --quiet --requirement scripts/train/requirements.txt
say ".venv is ready: scripts/dptrain.sh --help"
