#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Every check and test, what make test runs once everything is built. GO is the go command to use. The closing lines
# are those of go test.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root"
: "${GO:=$(scripts/find-go.sh)}"

step() { printf '\n=== %s\n' "$*"; }

# on_pinned tells whether this machine has the compiler that the committed objects are made with.
on_pinned() { have clang && have llvm-strip && clang --version | grep "^Debian clang version $clang_pinned" >/dev/null; }
on_debian12() { grep -qs '^ID=debian' /etc/os-release && grep -qs '^VERSION_ID="12"' /etc/os-release; }

step "lint"
make --no-print-directory lint

step "the committed BPF objects are what the sources give"
if on_debian12; then
	scripts/deps.sh generate
fi
if on_pinned; then
	before=$(find bpf flow loader -type f -exec sha256sum {} + | sort)
	make --no-print-directory generate
	after=$(find bpf flow loader -type f -exec sha256sum {} + | sort)
	[ "$before" = "$after" ] || fail "$(printf '%s\n' "make generate changes committed files: run it, and commit them" \
		"$(diff <(echo "$before") <(echo "$after") | awk '/^>/ {print $3}')")"
else
	skip "regeneration: the pinned compiler, clang $clang_pinned of Debian 12, is not here"
fi

step "the trainer"
if [ -x .venv/bin/python ]; then
	(cd scripts/train && "$root/.venv/bin/python" -m pytest -q -p no:cacheprovider)
else
	skip "the trainer's tests, and TestEndToEnd/Train, which makes a model of five captures and attaches it: there is no .venv (make train-deps makes it, 6 GB)"
fi

step "the demo"
make --no-print-directory bin/dplab
scripts/as-root.sh bin/dplab

step "tests"
[ "$(id -u)" = 0 ] || have sudo || skip "every test that needs root: the user is not root and there is no sudo"
# Tests that build the binary find this go, and root asks git nothing of a folder that is not its own.
PATH=$(dirname "$GO"):$PATH
export PATH GOFLAGS="${GOFLAGS:-} -buildvcs=false"
"$GO" build -race ./... # with all cores; the tests themselves run one package at a time, for they measure
# The built test binaries run as root, so that sudo leaves nothing of root's in Go's cache.
"$GO" test -race -count=1 -p 1 -timeout 20m -exec "$root/scripts/as-root.sh" ./...
