#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the README's pictures from a run of the demo in a pseudo-terminal.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root"

typescript=$(mktemp)
trap 'rm -f "$typescript"' EXIT
script --quiet --return --command "stty cols 150 rows 40; TERM=xterm-256color scripts/as-root.sh bin/dplab demo" "$typescript" >/dev/null
bin/dplab picture --from "==> The flows" --to "==> Before the policy" <"$typescript" >docs/flows.svg
bin/dplab picture --from "==> A policy" --to "==> The same verdicts" <"$typescript" >docs/policy.svg
say "docs/flows.svg and docs/policy.svg are up to date"
