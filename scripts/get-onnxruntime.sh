#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Puts ONNX Runtime's shared library into bin/. The npm package onnxruntime-node contains Microsoft's own build for both
# architectures. The package is unpacked, not installed: its install script would fetch CUDA.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

readonly version=1.24.3
case "$(go_arch)" in
amd64)
	node_arch=x64
	pinned=92ba8e44d31b80a34f5e805076a044122c3be1fffe0d88ed790de7267b0b2682
	;;
arm64)
	node_arch=arm64
	pinned=33032cb5b91c12edbf028d7c69fa40a31848d66c0095448758af237d5e0b07db
	;;
esac

library=$root/bin/libonnxruntime.so.1

fits() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$pinned" ]; }

fits "$library" && exit 0
have npm || fail "npm is missing, and ONNX Runtime is fetched with it: run make deps"

say "fetching ONNX Runtime $version"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent --ignore-scripts "onnxruntime-node@$version" >/dev/null) ||
	fail "npm pack onnxruntime-node@$version failed: is the npm registry reachable (npm config get registry)?"
tar -xzf "$work/onnxruntime-node-$version.tgz" -C "$work" "package/bin/napi-v6/linux/$node_arch/libonnxruntime.so.1"
unpacked=$work/package/bin/napi-v6/linux/$node_arch/libonnxruntime.so.1
fits "$unpacked" || fail "$(printf '%s\n' "ONNX Runtime $version for $node_arch does not have the expected hash and is not used." \
	"want $pinned" "got  $(sha256sum "$unpacked" | cut -d ' ' -f 1)")"
mkdir -p "$root/bin"
install -m 755 "$unpacked" "$library"
