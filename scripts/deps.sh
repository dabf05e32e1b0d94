#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# deps.sh [build] [demo] [lab] [lab-quick] [peers] [generate]: installs packages that are missing. For Debian 12/13 and Ubuntu 22.04/24.04.
#
#   build      Go, a C compiler (cgo needs it for ONNX Runtime), npm (to fetch ONNX Runtime)
#   demo       the programs that the demo and the tests in namespaces run
#   lab        the programs that dplab traffic runs and that are missing; bin/dplab, which knows them, must be built
#   lab-quick  as lab, but only what a quick run needs: the tests make one
#   peers      browsers, nDPI, and tshark, whose reading of their packets the tests compare with ours
#   generate   clang and libbpf's headers, to compile bpf/
#   kernels    QEMU and what builds file systems for it, for kernels.sh

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

updated=
missing=()
optional=()

candidate() { apt-cache policy "$1" 2>/dev/null | grep 'Candidate: [^(]' >/dev/null; } # not grep -q: it closes the pipe early, and apt-cache would fail

# need COMMAND PACKAGE...: if the command is missing, marks the first package that the distribution has for installation.
need() { mark missing "$@"; }

# want is like need for a program that the demo can do without.
want() { mark optional "$@"; }

mark() {
	local -n list=$1
	local command=$2 package
	shift 2
	have "$command" && return 0
	update
	for package in "$@"; do
		if candidate "$package"; then
			list+=("$package")
			return
		fi
	done
	skip "the distribution has no package for \"$command\" (tried: $*)"
}

update() {
	[ -z "$updated" ] || return 0
	have apt-get || fail "$(printf '%s\n' "apt-get is missing: make deps supports Debian and Ubuntu only." \
		"On other systems install Go, gcc, npm and the programs listed in scripts/deps.sh yourself.")"
	# Go on if a package list is unreachable: an installation that needs it fails with its own message.
	as_root apt-get update -qq || true
	updated=yes
}

# install installs the marked packages.
install() {
	if [ ${#missing[@]} -gt 0 ]; then
		say "installing: ${missing[*]}"
		apt_install "${missing[@]}" || fail "apt-get could not install: ${missing[*]}"
		missing=()
	fi
	if [ ${#optional[@]} -gt 0 ]; then
		say "installing: ${optional[*]}"
		apt_install "${optional[@]}" ||
			skip "apt-get could not install: ${optional[*]}: the demo and the tests leave out what needs them. To try again: make deps"
		optional=()
	fi
}

# apt_install neither starts nor enables the servers among the packages: the demo starts its own servers in namespaces.
apt_install() {
	local policy=/usr/sbin/policy-rc.d made=
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
		as_root chmod 755 $policy
		made=yes
	fi
	local rc=0
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/tmp/dpclass-apt.$$ 2>&1 || rc=$?
	[ -z "$made" ] || as_root rm -f $policy
	[ $rc = 0 ] || tail -n 20 /tmp/dpclass-apt.$$ >&2
	rm -f /tmp/dpclass-apt.$$
	[ $rc = 0 ] || return $rc
	local package service
	for package in "$@"; do
		case $package in
		-*) continue ;; # an option
		nginx) service=nginx ;;
		openssh-server) service=ssh ;;
		snmpd) service=snmpd ;;
		dovecot-*) service=dovecot ;;
		avahi-daemon) service="avahi-daemon.socket avahi-daemon" ;;
		minissdpd | minidlna | mumble-server | coturn | minetest-server) service=$package ;;
		rsyslog) service="syslog.socket rsyslog" ;;
		samba) service="smbd nmbd samba-ad-dc" ;;
		shadowsocks-libev) service=$package ;;
		xrdp) service="xrdp xrdp-sesman" ;;
		charon-systemd) service=strongswan ;;
		chrony | inetutils-inetd | mosquitto | ngircd | ocserv | postfix | prosody | stunnel4 | teeworlds-server | tor | unbound | vsftpd) service=$package ;;
		*) continue ;;
		esac
		if [ -d /run/systemd/system ]; then
			# shellcheck disable=SC2086 # several services
			as_root systemctl disable -q $service 2>/dev/null || true
			say "$package is installed, but its service is disabled (to start it: systemctl enable --now $service)"
		fi
	done
}

# fetch_go puts a Go toolchain from the module proxy into bin/toolchain. An old Go of the distribution is enough to fetch
# it. Go checks it against the checksum database, like every module.
fetch_go() {
	need go golang-go
	install
	local arch module dir
	arch=$(go_arch)
	module=golang.org/toolchain@v0.0.1-go$go_fetched.linux-$arch
	have go || fail "Go is missing, and the distribution has no package golang-go: install Go from https://go.dev/dl"
	say "fetching Go $go_fetched (the installed one is older than go.mod requires)"
	dir=$(cd / && GO111MODULE=on GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod download -json "$module" |
		sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p') || true
	[ -n "$dir" ] || fail "go mod download $module failed: is the module proxy reachable (go env GOPROXY)?"
	rm -rf "$root/bin/toolchain"
	mkdir -p "$root/bin"
	cp -r "$dir" "$root/bin/toolchain"
	chmod -R u+w "$root/bin/toolchain"
	# Files of a module are not executable.
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
		# npm is only needed to fetch ONNX Runtime.
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
		want aria2c aria2
		want aiosmtpd python3-aiosmtpd
		want snmpd snmpd
		want snmpbulkwalk snmp
		need jq jq
		if ! have bpftool; then
			update
			# On Ubuntu bpftool is part of the kernel's tools.
			if candidate bpftool; then
				missing+=(bpftool)
			elif candidate "linux-tools-$(uname -r)"; then
				missing+=(linux-tools-common "linux-tools-$(uname -r)")
			else
				need bpftool linux-tools-generic
			fi
		fi
		;;
	lab | lab-quick)
		[ -x "$root/bin/dplab" ] || fail "bin/dplab is missing: run make lab-deps"
		options=()
		[ "$group" = lab ] || options=(--quick)
		packages=()
		for package in $("$root/bin/dplab" traffic --missing-packages "${options[@]}"); do
			update
			if candidate "$package"; then
				packages+=("$package")
			else
				skip "the distribution has no package \"$package\": the lab leaves out what needs it"
			fi
		done
		[ ${#packages[@]} -gt 0 ] || continue
		say "installing for the traffic lab: ${packages[*]}"
		apt_install --no-remove "${packages[@]}" && continue
		# One by one, so that one that cannot be installed keeps no other away. At once first, because rsyslog is one of several
		# loggers that inetutils-inetd may bring. Some would replace the machine's own mail server, clock or logger: those are
		# left out.
		for package in "${packages[@]}"; do
			apt_install --no-remove "$package" ||
				skip "apt-get could not install $package without removing others: the lab leaves out what needs it"
		done
		;;
	peers)
		# On Ubuntu the browsers are snaps, which do not run in a network namespace: the tests leave them out.
		want tshark tshark
		want ndpiReader libndpi-bin
		want chromium chromium
		want firefox-esr firefox-esr
		;;
	generate)
		need clang clang
		need clang-format clang-format
		need llvm-strip llvm
		[ -e /usr/include/bpf/bpf_helpers.h ] || { update && missing+=(libbpf-dev); }
		;;
	kernels)
		need qemu-system-x86_64 qemu-system-x86
		need busybox busybox-static
		need cpio cpio
		need xz xz-utils
		need zstd zstd
		need ip iproute2
		;;
	*) fail "deps.sh: unknown group \"$group\", want build, demo, lab, lab-quick, peers, generate or kernels" ;;
	esac
done
install

"$root/scripts/find-go.sh" >/dev/null || fetch_go
