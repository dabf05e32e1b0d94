#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# deps.sh [build] [demo] [generate]: installs what is missing, and nothing else. Debian 12/13, Ubuntu 22.04/24.04.
#
#   build      Go, a C compiler (cgo, for ONNX Runtime's binding), npm (fetches ONNX Runtime)
#   demo       the programs that the demo and the namespace tests run
#   generate   clang and libbpf's headers, to compile bpf/ anew

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

updated=
missing=()

candidate() { apt-cache policy "$1" 2>/dev/null | grep 'Candidate: [^(]' >/dev/null; } # not -q: apt-cache would fail on the closed pipe

# need asks for the first package of the list that the distribution has, where the command is missing.
need() {
	local command=$1 package
	shift
	have "$command" && return 0
	update
	for package in "$@"; do
		if candidate "$package"; then
			missing+=("$package")
			return
		fi
	done
	skip "no package for \"$command\" here (looked for: $*)"
}

update() {
	[ -z "$updated" ] || return 0
	have apt-get || fail "$(printf '%s\n' "something is missing here, and there is no apt-get to install it with:" \
		"make deps knows Debian and Ubuntu. Elsewhere install Go, gcc, npm and the programs listed in scripts/deps.sh.")"
	# One unreachable list is no reason to stop: an install that needs it will say so.
	as_root apt-get update -qq || true
	updated=yes
}

# install installs the missing packages. A server that comes with one is neither started nor enabled: the demo
# runs its own, in namespaces.
install() {
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing: ${missing[*]}"
	local policy=/usr/sbin/policy-rc.d made=
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
		as_root chmod 755 $policy
		made=yes
	fi
	local rc=0
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
		>/tmp/dpclass-apt.$$ 2>&1 || rc=$?
	[ -z "$made" ] || as_root rm -f $policy
	if [ $rc != 0 ]; then
		tail -n 20 /tmp/dpclass-apt.$$ >&2
		rm -f /tmp/dpclass-apt.$$
		fail "apt-get could not install: ${missing[*]}"
	fi
	rm -f /tmp/dpclass-apt.$$
	local package
	for package in "${missing[@]}"; do
		case $package in
		nginx) service=nginx ;;
		openssh-server) service=ssh ;;
		*) continue ;;
		esac
		if [ -d /run/systemd/system ]; then
			as_root systemctl disable -q "$service" 2>/dev/null || true
			say "the service \"$service\" that came with $package is left off (systemctl enable --now $service to have it)"
		fi
	done
	missing=()
}

# fetch_go puts a Go toolchain from the module proxy into bin/toolchain. Any Go can fetch it, a distribution's old one
# too; go checks it against the checksum database as it does every module.
fetch_go() {
	need go golang-go
	install
	local arch module dir
	arch=$(go_arch)
	module=golang.org/toolchain@v0.0.1-go$go_fetched.linux-$arch
	have go || fail "no Go here, and no package golang-go: install Go from https://go.dev/dl"
	say "fetching Go $go_fetched (the one here is older than go.mod asks)"
	dir=$(cd / && GO111MODULE=on GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod download -json "$module" |
		sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p') || true
	[ -n "$dir" ] || fail "go mod download $module failed: is the module proxy reachable (go env GOPROXY)?"
	rm -rf "$root/bin/toolchain"
	mkdir -p "$root/bin"
	cp -r "$dir" "$root/bin/toolchain"
	chmod -R u+w "$root/bin/toolchain"
	# A module's files carry no execute bit.
	find "$root/bin/toolchain/bin" "$root/bin/toolchain/pkg/tool" -type f -exec chmod +x {} +
	"$root/scripts/find-go.sh" >/dev/null || fail "Go $go_fetched in bin/toolchain does not run"
}

for group in "${@:-build}"; do
	case $group in
	build)
		need gcc gcc
		[ -e /usr/include/stdlib.h ] || { update && missing+=(libc6-dev); }
		need git git
		need make make
		# npm fetches ONNX Runtime: not needed where that is there already.
		[ -e "$root/bin/libonnxruntime.so.1" ] || need npm npm
		;;
	demo)
		need ip iproute2
		need curl curl
		need openssl openssl
		need nginx nginx
		need sshd openssh-server
		need sftp openssh-client
		need iperf3 iperf3
		need tcpdump tcpdump
		need tcpreplay tcpreplay
		need openvpn openvpn
		need ethtool ethtool
		need jq jq
		if ! have bpftool; then
			update
			# Ubuntu's comes with the kernel's tools.
			if candidate bpftool; then
				missing+=(bpftool)
			elif candidate "linux-tools-$(uname -r)"; then
				missing+=(linux-tools-common "linux-tools-$(uname -r)")
			else
				need bpftool linux-tools-generic
			fi
		fi
		;;
	generate)
		need clang clang
		need clang-format clang-format
		need llvm-strip llvm
		[ -e /usr/include/bpf/bpf_helpers.h ] || { update && missing+=(libbpf-dev); }
		;;
	*) fail "deps.sh: \"$group\": want build, demo or generate" ;;
	esac
done
install

"$root/scripts/find-go.sh" >/dev/null || fetch_go
