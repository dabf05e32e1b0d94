#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
#
# The first program of the virtual machines of kernels.sh: the loader's tests, then one attach with a policy. It prints
# "DPCLASS <kernel>: <result>" and powers the machine off.

/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
for module in /modules/*.ko; do insmod "$module" || echo "attach: insmod $module failed"; done
ip link set lo up

kernel=$(uname -r)
finish() {
	echo "DPCLASS $kernel: $*"
	poweroff -f
}

# The two ends of a wire: v0, which dpclass watches, and v1 in the namespace "peer".
ip netns add peer
ip link add v0 type veth peer name v1 netns peer
ip addr add 10.9.0.1/24 dev v0
ip link set v0 up
ip -n peer addr add 10.9.0.2/24 dev v1
ip -n peer link set v1 up

cat >/tmp/policy.yaml <<'END'
version: 1
rules:
  - match: {category: voip}
    action: {drop: true}
END

# send N: the peer sends N datagrams of one flow.
send() {
	for _ in $(seq "$1"); do
		echo hello | ip netns exec peer nc -u -w 1 -p 4000 10.9.0.1 5000 >/dev/null 2>&1
	done
}

# attach goes from nothing to a rule that acts and back to nothing; it says why it failed.
attach() {
	dpclass attach v0 --policy /tmp/policy.yaml >/tmp/attach.log 2>&1 &
	for _ in $(seq 120); do
		dpclass status v0 >/tmp/status.log 2>&1 && break
		kill -0 $! 2>/dev/null || break
		sleep 1
	done
	if ! dpclass status v0 >/tmp/status.log 2>&1; then
		cat /tmp/attach.log /tmp/status.log
		echo "attach: not ready"
		return 1
	fi
	cat /tmp/attach.log
	nc -u -l -p 5000 >/tmp/received 2>/dev/null &
	listener=$!
	send 2
	dpclass flows v0
	if ! dpclass flows set v0 "udp 10.9.0.2:4000 10.9.0.1:5000" --category voip; then
		echo "attach: no flow to decide"
		return 1
	fi
	send 3
	kill $listener
	dpclass policy show v0 -o json | tee /tmp/show
	if [ "$(sed -n 's/.*"dropped":\([0-9]*\).*/\1/p' /tmp/show | head -n 1)" != 3 ]; then
		dpclass flows v0
		echo "attach: the rule did not drop the 3 packets"
		return 1
	fi
	dpclass detach v0 || return 1
	if [ -e /sys/fs/bpf/dpclass ]; then
		find /sys/fs/bpf/dpclass
		echo "attach: pins are left"
		return 1
	fi
}

major=${kernel%%.*} rest=${kernel#*.}
minor=${rest%%.*}
if [ "$major" -lt 5 ] || { [ "$major" = 5 ] && [ "$minor" -lt 15 ]; }; then
	dpclass attach v0 --no-classify >/tmp/attach.log 2>&1
	rc=$?
	cat /tmp/attach.log
	if [ $rc = 1 ] && grep -q 'use Linux 5.15 or newer' /tmp/attach.log && [ ! -e /sys/fs/bpf/dpclass ]; then
		finish "refused, as it must be"
	fi
	finish "FAILED: attach must refuse this kernel, exit code $rc"
fi

if attach; then end="attach with a policy ok"; else end="attach with a policy FAILED"; fi
/bin/loader.test -test.v -test.timeout 60m >/tmp/tests.log 2>&1
rc=$?
grep -E '^ *--- (FAIL|SKIP)|SKIPPED|^(FAIL|panic)|_test.go' /tmp/tests.log
tests="$(grep -c '^--- PASS' /tmp/tests.log) loader tests passed, $(grep -c '^--- SKIP' /tmp/tests.log) skipped, $(grep -c '^--- FAIL' /tmp/tests.log) failed"
[ $rc = 0 ] || tests="$tests (FAILED)"
finish "$tests; $end"
