#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs a command as root, with sudo if the user is not root. Without sudo, runs the command as the user: tests that need
# root then skip themselves. For "go test -exec" and the Makefile.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

if [ "$(id -u)" = 0 ]; then
	exec "$@"
elif have sudo; then
	exec sudo -E -- env "PATH=$PATH" "$@"
fi
skip "root: you are not root, and sudo is not installed"
exec "$@"
