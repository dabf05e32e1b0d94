#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every fuzz target in turn: fuzz.sh SECONDS|--minutes=M [PACKAGE...], without packages all of them. SECONDS are for each
# target; minutes are divided among them. It begins with the committed
# corpora (testdata/fuzz) and what earlier runs found (Go's cache). An input that fails is written to testdata/fuzz: commit
# it with the fix. With KEEP=N, the N newest inputs of at most 1,500 bytes that each target has found go to testdata/fuzz as well.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root"
: "${GO:=$(scripts/find-go.sh)}"

seconds=${1:?usage: fuzz.sh SECONDS|--minutes=M [PACKAGE...]}
shift
[ $# -gt 0 ] || set -- ./...

found=$(for package in $("$GO" list "$@"); do
	"$GO" test -list '^Fuzz' "$package" 2>/dev/null | grep '^Fuzz' | sed "s|^|$package |" || true
done)
[ -n "$found" ] || fail "no fuzz target in $*"
count=$(wc -l <<<"$found")
case $seconds in
--minutes=*) seconds=$((${seconds#--minutes=} * 60 / count)) ;;
esac
[ "$seconds" -gt 0 ] || fail "$count targets: give at least a second for each"
echo "$count targets, $seconds seconds each"

# only_late: go test says that a target failed when its time was up and a worker was still busy (go.dev/issue/75804).
only_late() { [[ $1 == *"context deadline exceeded"* && $1 != *"Failing input written"* && $1 != *panic:* ]]; }

failed=()
while read -r package target; do
	printf '%-24s %s\n' "$target" "$package"
	as=()
	[ "$target" != FuzzKernel ] || as=(-exec "$root/scripts/as-root.sh") # without root it skips itself
	if ! out=$("$GO" test "${as[@]}" -run '^$' -fuzz "^$target\$" -fuzztime "${seconds}s" "$package" </dev/null 2>&1) && ! only_late "$out"; then
		printf '%s\n' "$out"
		failed+=("$package $target")
		continue
	fi
	grep -oE 'execs: [0-9]+|total: [0-9]+\)' <<<"$out" | tail -n 2 | tr -d ')' | paste -sd ' ' | sed 's/^/    /' || true
	if [ "${KEEP:-0}" -gt 0 ]; then
		corpus=$("$GO" list -f '{{.Dir}}' "$package")/testdata/fuzz/$target
		mkdir -p "$corpus"
		find "$("$GO" env GOCACHE)/fuzz/$package/$target" -type f -size -1500c -printf '%T@ %p\n' 2>/dev/null | sort -rn |
			awk -v n="$KEEP" 'NR <= n {print $2}' | while read -r input; do cp "$input" "$corpus/"; done
	fi
done <<<"$found"
[ ${#failed[@]} = 0 ] || fail "$(printf '%s\n' "these targets failed:" "${failed[@]}")"
