#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints the path of a go command that is new enough for go.mod: the system's, or the one that scripts/deps.sh put into
# bin/toolchain. Fails if there is none.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

want=$(awk '$1 == "go" {print $2; exit}' "$root/go.mod")

for candidate in "${GO:-go}" "$root/bin/toolchain/bin/go" /usr/local/go/bin/go; do
	path=$(command -v "$candidate" 2>/dev/null) || continue
	got=$(cd / && GOTOOLCHAIN=local "$path" env GOVERSION 2>/dev/null) || continue
	got=${got#go}
	got=${got%%[ -]*}
	if [ "$(printf '%s\n' "$want" "$got" | sort -V | head -n 1)" = "$want" ]; then
		echo "$path"
		exit 0
	fi
done
exit 1
