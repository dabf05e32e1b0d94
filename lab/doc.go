// SPDX-License-Identifier: Apache-2.0

// Package lab makes network namespaces, the wires between them and the
// programs in them: for the demo, the tests and the benches. Everything in it
// is real: veth devices, real servers and clients over real sockets.
//
// It needs root ([New] returns [ErrNotRoot], [ForTest] skips the test).
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
// A [Host] is a network namespace and nothing else: files, processes and
// mounts are those of the machine. Programs are started with the namespace set
// on the starting thread, not by "ip netns exec", which mounts a sysfs of its
// own and so hides /sys/fs/bpf. The namespace stands under /run/netns by
// [Host.Netns], so that ip and "dpclass --netns" find it.
//
// # Cleaning up
//
// [Lab.Close] ends every process and removes every namespace, and with them
// the wires. Names carry the pid: runs side by side do not meet, and [Clean]
// (also called by New) removes what a killed run left.
// Children die with the process that started them.
package lab
