# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# Functions and settings that the other scripts share. Source this file, do not run it.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root

# The Go release to fetch if the installed one is older than go.mod requires.
readonly go_fetched=1.26.11
# The C compiler (of Debian 12) that built the committed BPF objects.
readonly clang_pinned=14.0.6

say() { printf '%s\n' "$*"; }
fail() {
	printf '%s\n' "$*" >&2
	exit 1
}

# skip reports, visibly, that a step is left out, and why.
skip() { printf '\n!!! SKIPPED: %s\n\n' "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

# have_research reports whether .venv has the packages of scripts/research besides those of scripts/train.
have_research() {
	"$root/.venv/bin/python" 2>/dev/null - <<-END
		import importlib.util, sys
		sys.exit(not all(map(importlib.util.find_spec, ("jinja2", "lightgbm", "matplotlib", "pandas", "scipy"))))
	END
}

# as_root runs a command as root, with sudo if the user is not root.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif have sudo; then
		sudo -- "$@"
	else
		fail "\"$1\" needs root, and sudo is not installed: run this as root"
	fi
}

# go_arch prints the name of the architecture as Go uses it.
go_arch() {
	case "$(uname -m)" in
	x86_64) echo amd64 ;;
	aarch64) echo arm64 ;;
	*) fail "architecture $(uname -m) is not supported: dpclass runs on x86_64 and aarch64" ;;
	esac
}
