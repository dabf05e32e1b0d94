// SPDX-License-Identifier: Apache-2.0

// Package lab creates network namespaces, connects them with wires and runs programs
// in them. The demo, the tests and the benchmarks use it. Nothing is simulated: the wires
// are veth devices, and real servers and clients talk over real sockets.
//
// It needs root. Without root [New] returns [ErrNotRoot] and [ForTest] skips the test.
//
//	l := lab.ForTest(t)            // or l, err := lab.New("demo"); defer l.Close()
//	r := l.Router(lab.Topology{})  // client -- eth0 router eth1 -- server, IPv4 and IPv6
//	web, err := r.Server.NGINX(ctx, lab.Web{Port: 443, TLS: true, Files: map[string]int64{"big": 10 << 20}})
//	out, err := r.Client.Run(ctx, "curl", "-sko", "/dev/null", web.URL(r.ServerAddr4, "big"))
//	p, err := r.Router.Start(ctx, "bin/dpclass", "attach", "eth0")
//	err = r.Router.Do(func() error { ...; return nil }) // Go code in the namespace
//
// # Namespaces
//
// A [Host] is only a network namespace: it shares files, processes and mounts with the
// machine. A thread that has entered the namespace starts the programs. "ip netns exec"
// would mount a new sysfs and so hide /sys/fs/bpf. The namespace is listed in /run/netns
// under the name [Host.Netns], so "ip netns" and "dpclass --netns" find it.
//
// # Cleaning up
//
// [Lab.Close] ends every process and removes every namespace; the wires go with them.
// Names contain the pid, so several runs at the same time do not collide. [Clean],
// which New calls, removes what a killed run left behind. The programs die with the
// process that started them.
package lab
