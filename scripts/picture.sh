#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the pictures of the README from a run of the demo in a pseudo-terminal.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root"
: "${GO:=$(scripts/find-go.sh)}"

typescript=$(mktemp)
trap 'rm -f "$typescript"' EXIT
script --quiet --return --command "stty cols 150 rows 40; TERM=xterm-256color scripts/as-root.sh bin/dplab" "$typescript" >/dev/null
"$GO" run ./scripts/picture -from "==> The flows" -to "==> Before the policy" <"$typescript" >docs/flows.svg
"$GO" run ./scripts/picture -from "==> A policy" -to "==> The same verdicts" <"$typescript" >docs/policy.svg
say "docs/flows.svg and docs/policy.svg are up to date"
