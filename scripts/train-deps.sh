#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# train-deps.sh [research]: creates the trainer's Python environment in .venv; "research" adds what the evaluation needs.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root"

case ${1:-train} in
train | research) requirements=scripts/${1:-train}/requirements.txt ;;
*) fail "train-deps.sh: \"$1\": want nothing or research" ;;
esac

python3 -c 'import ensurepip, venv' 2>/dev/null || {
	have apt-get || fail "python3 with venv is missing: install it"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv
}
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/pip install --quiet --upgrade pip
.venv/bin/pip install --quiet --requirement "$requirements"
say ".venv is ready: scripts/dptrain.sh --help"
