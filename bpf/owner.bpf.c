//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/* Which process opened a socket. These programs hang on the root of the cgroup v2 tree, not on an interface: they run when a
 * socket is made, connected, set to listen or closed, and never for a packet. An object of its own: the maps of dpclass.bpf.c
 * do not know it. */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define AF_INET 2
#define AF_INET6 10
#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */
#define TASK_NAME 16 /* TASK_COMM_LEN */
#define TCP_LISTEN 10 /* net/tcp_states.h */

/* What is read of the kernel's own structs; the loader puts in the offsets of the running kernel. */
struct kernfs_node {
	__u64 id;
} __attribute__((preserve_access_index));
struct cgroup {
	struct kernfs_node *kn;
} __attribute__((preserve_access_index));
struct css_set {
	struct cgroup *dfl_cgrp;
} __attribute__((preserve_access_index));
struct task_struct {
	unsigned int flags;
	int tgid;
	struct task_struct *group_leader;
	struct css_set *cgroups;
	char comm[TASK_NAME];
} __attribute__((preserve_access_index));
struct in6_addr {
	__u32 word[4];
};
struct sock_common {
	__u32 skc_rcv_saddr;
	__u16 skc_num;
	__u16 skc_family;
	__u8 skc_state;
	struct in6_addr skc_v6_rcv_saddr;
} __attribute__((preserve_access_index));
struct sock {
	struct sock_common __sk_common;
} __attribute__((preserve_access_index));

/* The network namespace whose sockets count (SO_NETNS_COOKIE). */
volatile const __u64 netns_cookie;

struct owner {
	__u64 since; /* CLOCK_MONOTONIC in ns when it got the socket; 0: before the programs ran */
	__u64 until; /* when it closed the socket; 0: it has not */
	__u64 cgroup; /* id of its cgroup v2 */
	__u64 cookie; /* of the socket, if it listens */
	__u32 pid;
	char name[TASK_NAME]; /* of the process, not of the thread; cut by the kernel */
	__u8 passive; /* accepted, as far as known */
	__u8 pad[3];
};

/* Addresses are IPv6, IPv4 as ::ffff:a.b.c.d, in network order. Ports are in host order. */
struct connection {
	__u32 local[4], remote[4];
	__u16 local_port, remote_port;
};

struct listener {
	__u32 addr[4];
	__u16 port, pad;
};

#define TABLE(table, key_type, value_type, entries)                                                                    \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_LRU_HASH);                                                                   \
		__uint(max_entries, entries);                                                                          \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
	} table SEC(".maps")

TABLE(connections, struct connection, struct owner, 32768); /* TCP, by those who connect */
TABLE(listeners, struct listener, struct owner, 4096); /* TCP */
TABLE(udp_sockets, __u64, struct owner, 16384); /* open ones, by cookie */
TABLE(udp_closed, __u32, struct owner, 16384); /* by local port: the last one that was closed */

/* Fills in the process that runs now. Returns 0 if it is a thread of the kernel. */
static __always_inline int current_process(struct owner *o)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	if (BPF_CORE_READ(task, flags) & PF_KTHREAD)
		return 0;
	o->since = bpf_ktime_get_ns();
	o->pid = BPF_CORE_READ(task, tgid);
	o->cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	bpf_core_read(o->name, sizeof(o->name), &leader->comm);
	return 1;
}

/* The verifier takes loads of 32 bits at constant offsets of the context only. So every word is read, and each by a load of
 * its own (volatile), and only then chosen. */
#define PUT_ADDR(to, ctx, side)                                                                                        \
	do {                                                                                                           \
		volatile struct bpf_sock_ops *c = (ctx);                                                               \
		__u32 w4 = c->side##_ip4, w0 = c->side##_ip6[0];                                                       \
		__u32 w1 = c->side##_ip6[1], w2 = c->side##_ip6[2];                                                    \
		__u32 w3 = c->side##_ip6[3], is4 = c->family == AF_INET;                                               \
                                                                                                                       \
		(to)[0] = is4 ? 0 : w0;                                                                                \
		(to)[1] = is4 ? 0 : w1;                                                                                \
		(to)[2] = is4 ? bpf_htonl(0xffff) : w2;                                                                \
		(to)[3] = is4 ? w4 : w3;                                                                               \
	} while (0)

SEC("sockops")
int dpclass_tcp(struct bpf_sock_ops *ctx)
{
	struct connection key = {};
	struct listener at = {};
	struct owner o = {};
	__u32 family = ctx->family;

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ctx->op != BPF_SOCK_OPS_TCP_LISTEN_CB)
		return 1;
	if ((family != AF_INET && family != AF_INET6) || bpf_get_netns_cookie(ctx) != netns_cookie ||
	    !current_process(&o))
		return 1;
	if (ctx->op == BPF_SOCK_OPS_TCP_LISTEN_CB) {
		PUT_ADDR(at.addr, ctx, local);
		at.port = ctx->local_port;
		o.cookie = bpf_get_socket_cookie(ctx);
		bpf_map_update_elem(&listeners, &at, &o, BPF_ANY);
		return 1;
	}
	PUT_ADDR(key.local, ctx, local);
	PUT_ADDR(key.remote, ctx, remote);
	key.local_port = ctx->local_port;
	key.remote_port = bpf_ntohl(ctx->remote_port);
	bpf_map_update_elem(&connections, &key, &o, BPF_ANY);
	return 1;
}

SEC("cgroup/sock_create")
int dpclass_udp_open(struct bpf_sock *ctx)
{
	struct owner o = {};
	__u64 cookie;

	if (ctx->protocol != IPPROTO_UDP || bpf_get_netns_cookie(ctx) != netns_cookie || !current_process(&o))
		return 1;
	cookie = bpf_get_socket_cookie(ctx);
	bpf_map_update_elem(&udp_sockets, &cookie, &o, BPF_ANY);
	return 1;
}

/* Notes when a TCP socket that listens is closed. Another one may have its address and port by now: SO_REUSEPORT. */
static __always_inline void listener_closed(struct sock *sk, __u64 cookie)
{
	struct listener at = {};
	struct owner *known;

	if (BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN)
		return;
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET) {
		at.addr[2] = bpf_htonl(0xffff);
		at.addr[3] = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
	} else if (bpf_core_field_exists(sk->__sk_common.skc_v6_rcv_saddr)) { /* CONFIG_IPV6 */
		bpf_core_read(at.addr, sizeof(at.addr), &sk->__sk_common.skc_v6_rcv_saddr);
	}
	at.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	known = bpf_map_lookup_elem(&listeners, &at);
	if (known && known->cookie == cookie)
		known->until = bpf_ktime_get_ns();
}

SEC("cgroup/sock_release")
int dpclass_close(struct bpf_sock *ctx)
{
	struct sock *sk = (void *)ctx; /* the verifier does not let this kind of program read src_port */
	struct owner *known, o = {};
	__u64 cookie;
	__u32 port;

	if (bpf_get_netns_cookie(ctx) != netns_cookie)
		return 1;
	cookie = bpf_get_socket_cookie(ctx);
	if (ctx->protocol == IPPROTO_TCP)
		listener_closed(sk, cookie);
	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	port = BPF_CORE_READ(sk, __sk_common.skc_num);
	known = bpf_map_lookup_elem(&udp_sockets, &cookie);
	if (known) {
		o = *known;
		bpf_map_delete_elem(&udp_sockets, &cookie);
	} else {
		if (!current_process(&o))
			return 1;
		o.since = 0;
	}
	if (!port) /* never bound */
		return 1;
	o.until = bpf_ktime_get_ns();
	bpf_map_update_elem(&udp_closed, &port, &o, BPF_ANY);
	return 1;
}
