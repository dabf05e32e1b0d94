#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs all checks and tests: "make test" calls it once everything is built. go test comes last, so that its result is at
# the end of the output. GO is the go command to use.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root"
: "${GO:=$(scripts/find-go.sh)}"

step() { printf '\n=== %s\n' "$*"; }

# on_pinned reports whether this machine has the compiler that built the committed BPF objects.
on_pinned() { have clang && have llvm-strip && clang --version | grep "^Debian clang version $clang_pinned" >/dev/null; }
on_debian12() { grep -qs '^ID=debian' /etc/os-release && grep -qs '^VERSION_ID="12"' /etc/os-release; }

step "programs that the tests compare with"
scripts/deps.sh peers
make --no-print-directory bin/dplab
scripts/deps.sh lab-quick

step "lint"
make --no-print-directory lint

step "committed BPF objects match the sources"
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
	skip "regeneration: clang $clang_pinned of Debian 12 is not installed"
fi

step "imports of the Python packages"
if have python3; then
	python3 scripts/train/tests/imports.py scripts/train/dptrain scripts/research/dpresearch
else
	skip "the import rules of the Python packages: python3 is not installed"
fi

step "trainer"
if [ -x .venv/bin/python ]; then
	(cd scripts/train && "$root/.venv/bin/python" -m pytest -q -p no:cacheprovider)
	if have_research; then
		(cd scripts/research && "$root/.venv/bin/python" -m pytest -q -p no:cacheprovider)
	else
		skip "the tests of scripts/research: its packages are missing (scripts/train-deps.sh research installs them)"
	fi
else
	skip "the trainer's tests and TestEndToEnd/Train, which trains a model on five captures and attaches it: .venv is missing (make train-deps creates it, 6 GB)"
fi

step "fuzz targets, 2 seconds each"
scripts/fuzz.sh 2

step "demo"
scripts/as-root.sh bin/dplab demo

step "tests"
[ "$(id -u)" = 0 ] || have sudo || skip "all tests that need root: you are not root, and sudo is not installed"
# Tests that build the binary use this go. With -buildvcs=false, go does not run git, which rejects a directory that does
# not belong to root.
PATH=$(dirname "$GO"):$PATH
export PATH GOFLAGS="${GOFLAGS:-} -buildvcs=false"
"$GO" build -race ./... # build on all cores; the tests run one package at a time, because some measure time
# Only the test binaries run as root, so that root leaves no files in Go's cache.
DPCLASS_NO_FAST_PATH=1 "$GO" test -count=1 -timeout 20m -exec "$root/scripts/as-root.sh" ./loader
"$GO" test -race -count=1 -p 1 -timeout 20m -exec "$root/scripts/as-root.sh" ./...
