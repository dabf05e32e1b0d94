#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the README's pictures from a run of the demo in a pseudo-terminal.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root"

typescript=$(mktemp)
trap 'rm -f "$typescript"' EXIT
# The tables fit 100 columns. The bars need a UTF-8 locale.
script --quiet --return --command "stty cols 100 rows 40; TERM=xterm-256color LC_ALL=C.UTF-8 NO_COLOR= scripts/as-root.sh bin/dplab demo" \
	"$typescript" >/dev/null || { tail -n 30 "$typescript" >&2; fail "the demo failed: the pictures are as before"; }
bin/dplab picture --from "==> The flows" --to "==> Why" <"$typescript" >docs/flows.svg.new
bin/dplab picture --from "==> A policy" --to "==> The call's verdict" <"$typescript" >docs/policy.svg.new
mv docs/flows.svg.new docs/flows.svg
mv docs/policy.svg.new docs/policy.svg
say "docs/flows.svg and docs/policy.svg are up to date"
