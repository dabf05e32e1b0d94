#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs a command as root: as it is where the user is root, else by sudo. Where there is neither, the command runs as the
# user (tests that need root then say that they are skipped). It is what go test -exec gets.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

if [ "$(id -u)" = 0 ]; then
	exec "$@"
elif have sudo; then
	exec sudo -E -- env "PATH=$PATH" "$@"
fi
skip "root: the user is not root and there is no sudo"
exec "$@"
