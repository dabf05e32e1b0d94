#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kernels.sh [NAME...]: boots kernels of Debian in QEMU and runs, in each, the loader's tests and one end-to-end attach with a
# policy (scripts/kernels-vm.sh). Names, all of them by default:
#
#   5.10   of bullseye, which dpclass must refuse
#   6.1    of bookworm
#   6.12   of trixie
#   sid    the newest
#
# GO is the go command to use. MINUTES (40) is the limit of a virtual machine. The kernels come from the Debian mirror that apt
# uses here; they are unpacked in bin/kernels, not installed. Their consoles are kept there as NAME.log.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root"
: "${GO:=$(scripts/find-go.sh)}"
: "${MINUTES:=40}"
cache=$root/bin/kernels

suite_of() {
	case $1 in
	5.10) echo bullseye ;;
	6.1) echo bookworm ;;
	6.12) echo trixie ;;
	sid) echo sid ;;
	*) fail "kernels.sh: \"$1\": want 5.10, 6.1, 6.12 or sid" ;;
	esac
}

# mirror prints the Debian mirror that apt uses.
mirror() {
	# shellcheck disable=SC2016 # apt's own variable
	apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sort -u | grep '/debian/*$' | head -n 1
}

# apt NAME COMMAND... runs apt's COMMAND with the suite of a kernel alone, in lists of its own.
apt() {
	local at=$cache/$1/apt command=$2
	shift 2
	"$command" -qq -o Dir::Etc::SourceList="$at/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$at/lists" \
		-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}

# depends NAME PACKAGE prints the kernel's packages that a package depends on.
depends() {
	apt "$1" apt-cache depends "$2" | sed -n 's/^ *Depends: \(linux-\(image\|modules\|binary\)-.*\)$/\1/p'
}

# fetch NAME unpacks the newest kernel of its suite in bin/kernels/NAME/root. It fails where the suite cannot be read.
fetch() {
	local name=$1 at=$cache/$1 site package more
	[ ! -e "$at/fetched" ] || return 0
	site=$(mirror)
	[ -n "$site" ] || fail "kernels.sh: apt has no Debian mirror here: the kernels are Debian's packages"
	rm -rf "$at"
	mkdir -p "$at/apt/lists/partial" "$at/packages" "$at/root"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $(suite_of "$name") main" >"$at/apt/sources.list"
	apt "$name" apt-get update || return 1
	package=$(depends "$name" "linux-image-$(dpkg --print-architecture)" | head -n 1)
	[ -n "$package" ] || return 1
	more=$(depends "$name" "$package")
	say "$name: fetching $package"
	# shellcheck disable=SC2086 # a list of packages
	(cd "$at/packages" && apt "$name" apt-get download "$package" $more) || return 1
	for package in "$at"/packages/*.deb; do
		dpkg-deb -x "$package" "$at/root" || return 1
	done
	touch "$at/fetched"
}

# copy_program PROGRAM copies a program of this machine and its shared libraries into the file system of the machine.
copy_program() {
	local program=$1 library
	install -D -m 755 "$program" "$disk/programs/$(basename "$program")"
	ldd "$program" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
		install -D -m 755 "$library" "$disk$library"
	done
}

# build NAME writes the first file system (initramfs) of the virtual machine.
build() {
	local at=$cache/$1 module
	disk=$at/disk
	rm -rf "$disk"
	mkdir -p "$disk"/{bin,dev,proc,run,sys,tmp,modules}
	cp "$(command -v busybox)" "$disk/bin/busybox"
	copy_program "$(command -v ip)"
	copy_program bin/dpclass
	copy_program bin/libonnxruntime.so.1
	cp "$cache/loader.test" "$disk/programs/"
	for module in veth tun sch_ingress cls_bpf; do
		find "$at/root" -path '*/lib/modules/*' -name "$module.ko*" -exec cp {} "$disk/modules/" \;
	done
	find "$disk/modules" -name '*.xz' -exec xz -d {} +
	find "$disk/modules" -name '*.zst' -exec zstd -q -d --rm {} +
	install -m 755 scripts/kernels-vm.sh "$disk/init"
	(cd "$disk" && find . | cpio --quiet -o -H newc | gzip -1) >"$at/initramfs"
}

# boot NAME runs the virtual machine. KVM hangs where this project is developed, so QEMU emulates. Its cmpxchg16b (7.2)
# corrupts flags and panics Linux 6.12: -cx16.
boot() {
	local at=$cache/$1
	timeout --foreground "$((MINUTES * 60))" qemu-system-x86_64 -machine accel=tcg -cpu max,-cx16 -m 2048 -smp 2 -nographic \
		-no-reboot -nic none -kernel "$(find "$at/root" -name 'vmlinuz*' | head -n 1)" -initrd "$at/initramfs" \
		-append "console=ttyS0 panic=-1 quiet" </dev/null >"$at.log" 2>&1 || true
}

# report NAME prints what the machine said of itself, a line. It fails where something failed.
report() {
	local log=$cache/$1.log result
	result=$(tr -d '\r' <"$log" | sed -n 's/^DPCLASS //p' | tail -n 1)
	if [ -z "$result" ]; then
		say "$1: no result in $MINUTES minutes; the last lines of $log:"
		tail -n 5 "$log"
		return 1
	fi
	say "$1: $result"
	case $result in *FAILED*)
		tr -d '\r' <"$log" | grep -E '^ *--- FAIL|^FAIL|^attach: ' | head -n 40
		return 1
		;;
	esac
}

[ "$(uname -m)" = x86_64 ] || fail "kernels.sh: the virtual machines are x86_64, this machine is not"
scripts/deps.sh kernels
mkdir -p "$cache"
CGO_ENABLED=0 "$GO" test -c -o "$cache/loader.test" ./loader
[ $# -gt 0 ] || set -- 5.10 6.1 6.12 sid
rc=0
for name in "$@"; do
	if ! fetch "$name"; then
		skip "$name: apt could not fetch the kernel of $(suite_of "$name")"
		# An archived release may leave the mirrors; the kernels that dpclass supports must run.
		[ "$name" = 5.10 ] || rc=1
		continue
	fi
	build "$name"
	boot "$name"
	report "$name" || rc=1
done
exit $rc
