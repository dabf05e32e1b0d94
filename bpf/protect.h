/* SPDX-License-Identifier: GPL-2.0 */
/* What a policy never drops or polices. */
#ifndef DPCLASS_PROTECT_H
#define DPCLASS_PROTECT_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "key.h"
#include "limits.h"

struct lpm4 {
	__u32 prefix_len;
	__u8 addr[4];
};

struct lpm6 {
	__u32 prefix_len;
	__u8 addr[16];
};

struct protect_port {
	__be16 port;
	__u8 proto;
	__u8 pad;
};

/* Prefixes that are never dropped or policed. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, max_protected);
	__type(key, struct lpm4);
	__type(value, __u8);
} protect SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, max_protected);
	__type(key, struct lpm6);
	__type(value, __u8);
} protect6 SEC(".maps");

/* Ports that are never dropped or policed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, max_protected);
	__type(key, struct protect_port);
	__type(value, __u8);
} protect_ports SEC(".maps");

/* Flows that are never dropped or policed, without VLAN ids: the SSH connection that applied the policy. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct flow_key6);
	__type(value, __u8);
} protect_flows SEC(".maps");

/* Whether an address is protected, in the first four or all bytes of addr. The prefix is room for a key. */
static __always_inline bool is_protected_addr(struct lpm6 *prefix, const __u8 *addr, int family)
{
	__builtin_memcpy(prefix->addr, addr, sizeof(prefix->addr));
	if (family == 4) {
		prefix->prefix_len = 32;
		return bpf_map_lookup_elem(&protect, prefix); /* struct lpm4 is the beginning of struct lpm6 */
	}
	prefix->prefix_len = 128;
	return bpf_map_lookup_elem(&protect6, prefix);
}

/* Whether a flow is protected. The key has no VLAN ids. */
static __always_inline bool is_protected(const struct flow_key6 *key, struct lpm6 *prefix, int family)
{
	struct protect_port port = {.proto = key->proto};

	port.port = key->port_a;
	if (bpf_map_lookup_elem(&protect_ports, &port))
		return true;
	port.port = key->port_b;
	if (bpf_map_lookup_elem(&protect_ports, &port))
		return true;
	if (bpf_map_lookup_elem(&protect_flows, key))
		return true;
	return is_protected_addr(prefix, key->addr_a, family) || is_protected_addr(prefix, key->addr_b, family);
}

#endif
