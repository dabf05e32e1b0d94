# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# Words that the other scripts share. Source it, do not run it.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root

# The Go release that is fetched where the system's is older than go.mod asks.
readonly go_fetched=1.26.11
# The C compiler that the committed BPF objects are made with (Debian 12's).
readonly clang_pinned=14.0.6

say() { printf '%s\n' "$*"; }
fail() {
	printf '%s\n' "$*" >&2
	exit 1
}

# skip says loudly that something was left out, and why.
skip() { printf '\n!!! SKIPPED: %s\n\n' "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

# have_research tells whether .venv has the packages of scripts/research besides those of scripts/train.
have_research() {
	"$root/.venv/bin/python" 2>/dev/null - <<-END
		import importlib.util, sys
		sys.exit(not all(map(importlib.util.find_spec, ("jinja2", "lightgbm", "matplotlib", "pandas", "scipy"))))
	END
}

# as_root runs a command as root: as it is where the user is root, else by sudo.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif have sudo; then
		sudo -- "$@"
	else
		fail "\"$1\" needs root, and there is no sudo here: run this as root"
	fi
}

# go_arch names the machine as Go, and npm's packages, do.
go_arch() {
	case "$(uname -m)" in
	x86_64) echo amd64 ;;
	aarch64) echo arm64 ;;
	*) fail "machine $(uname -m): dpclass runs on x86_64 and aarch64" ;;
	esac
}
