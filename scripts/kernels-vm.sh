#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
#
# The first program of the virtual machines of kernels.sh: the loader's tests, then one attach with a policy. It prints
# "DPCLASS <kernel>: <result>" and powers the machine off.

/bin/busybox --install -s /bin
export PATH=/programs:/bin HOME=/tmp NO_COLOR=1
ip() { /programs/ip "$@"; } # busybox would take its own
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

# received WORD: within 30 s the word comes through the connection.
received() {
	for _ in $(seq 30); do
		grep -q "$1" /tmp/received && return 0
		sleep 1
	done
	echo "attach: \"$1\" did not come through"
	return 1
}

# attach goes from nothing to a rule that acts and back to nothing; it says why it failed.
attach() {
	dpclass attach v0 --policy /tmp/policy.yaml >/tmp/attach.log 2>&1 &
	for _ in $(seq 120); do
		dpclass status v0 >/tmp/status.log 2>&1 && break
		kill -0 $! 2>/dev/null || break
		sleep 1
	done
	cat /tmp/attach.log
	if ! dpclass status v0 >/tmp/status.log 2>&1; then
		cat /tmp/status.log
		echo "attach: not ready"
		return 1
	fi

	# One connection that stays open: what is written to the pipe goes through it.
	sleep 1000 | nc -l -p 5000 >/tmp/received &
	mkfifo /tmp/pipe
	ip netns exec peer /bin/nc 10.9.0.1 5000 </tmp/pipe &
	exec 3>/tmp/pipe
	echo before >&3
	received before || return 1
	sleep 1
	dpclass flows v0
	port=$(dpclass flows v0 -o json | sed -n 's/.*"src_port":\([0-9]*\).*/\1/p' | head -n 1)
	dpclass flows set v0 "tcp 10.9.0.2:$port 10.9.0.1:5000" --category voip || return 1
	echo after >&3
	sleep 3
	dpclass policy show v0
	if grep -q after /tmp/received; then
		echo "attach: the rule did not drop"
		return 1
	fi
	if ! dpclass flows v0 -o json | grep -q '"rule":1'; then
		echo "attach: no rule acts on the flow"
		return 1
	fi

	dpclass detach v0 || return 1
	if [ -e /sys/fs/bpf/dpclass ]; then
		find /sys/fs/bpf/dpclass
		echo "attach: pins are left"
		return 1
	fi
	received after # sent again by TCP: nothing is in its way any more
}

major=${kernel%%.*} rest=${kernel#*.}
minor=${rest%%.*}
if [ "$major" -lt 5 ] || { [ "$major" = 5 ] && [ "$minor" -lt 15 ]; }; then
	dpclass attach v0 --no-classify >/tmp/attach.log 2>&1
	rc=$?
	cat /tmp/attach.log
	if [ $rc = 1 ] && grep -q 'use Linux 6.1 or newer' /tmp/attach.log && [ ! -e /sys/fs/bpf/dpclass ]; then
		finish "refused, as it must be"
	fi
	finish "FAILED: attach must refuse this kernel, exit code $rc"
fi

if attach; then end="attach with a policy ok"; else end="attach with a policy FAILED"; fi
loader.test -test.v -test.timeout 60m >/tmp/tests.log 2>&1
rc=$?
grep -E '^ *--- (FAIL|SKIP)|SKIPPED|^(FAIL|panic)|_test.go' /tmp/tests.log
tests="$(grep -c '^--- PASS' /tmp/tests.log) loader tests passed, $(grep -c '^--- SKIP' /tmp/tests.log) skipped, $(grep -c '^--- FAIL' /tmp/tests.log) failed"
[ $rc = 0 ] || tests="$tests (FAILED)"
finish "$tests; $end"
