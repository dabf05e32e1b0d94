/* SPDX-License-Identifier: GPL-2.0 */
/* What a policy never drops or polices. */
#ifndef DPCLASS_PROTECT_H
#define DPCLASS_PROTECT_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "key.h"
#include "limits.h"

/* A prefix in a bank of rules. prefix_len counts from the bank on: host_fixed_bits and the bits of the address. */
struct host_key {
	__u32 prefix_len;
	__u8 bank;
	__u8 family; /* 4 or 6 */
	__u8 pad[2];
	__u8 addr[16]; /* an IPv4 address is in the first four bytes */
};

struct protect_port {
	__be16 port;
	__u8 proto;
	__u8 bank;
};

/* Prefixes that are never dropped or policed. All three maps are for both banks of rules: what a new policy protects is
 * written next to what the one in force protects. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * max_protected);
	__type(key, struct host_key);
	__type(value, __u8);
} protect SEC(".maps");

/* Ports that are never dropped or policed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * max_protected);
	__type(key, struct protect_port);
	__type(value, __u8);
} protect_ports SEC(".maps");

/* Flows that are never dropped or policed: the SSH connection that applied the policy. The first byte of the VLAN ids
 * is the bank, the others are 0. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * max_protected_flows);
	__type(key, struct flow_key6);
	__type(value, __u8);
} protect_flows SEC(".maps");

/* Whether an address is protected, in the first four or all bytes of addr. host is room for a key. */
static __always_inline bool is_protected_addr(struct host_key *host, const __u8 *addr, __u32 bank, int family)
{
	host->prefix_len = host_fixed_bits + (family == 4 ? 32 : 128);
	host->bank = bank;
	host->family = family;
	__builtin_memcpy(host->addr, addr, sizeof(host->addr));
	return bpf_map_lookup_elem(&protect, host);
}

/* Whether a flow is protected. The key has no VLAN ids; host is room for a key. */
static __always_inline bool is_protected(struct flow_key6 *key, struct host_key *host, __u32 bank, int family)
{
	struct protect_port port = {.proto = key->proto, .bank = bank};

	port.port = key->port_a;
	if (bpf_map_lookup_elem(&protect_ports, &port))
		return true;
	port.port = key->port_b;
	if (bpf_map_lookup_elem(&protect_ports, &port))
		return true;
	key->vlan[0] = bank;
	if (bpf_map_lookup_elem(&protect_flows, key))
		return true;
	return is_protected_addr(host, key->addr_a, bank, family) || is_protected_addr(host, key->addr_b, bank, family);
}

#endif
