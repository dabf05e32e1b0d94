/* SPDX-License-Identifier: GPL-2.0 */
/* Which rules of a policy match a server name, a host or a port. Each is a set of rules: bit 0 is the first rule. User
 * space unites into an entry what shorter prefixes of the same policy say, because a lookup finds the longest only. */
#ifndef DPCLASS_MATCH_H
#define DPCLASS_MATCH_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "evidence.h"
#include "flow.h"
#include "key.h"
#include "limits.h"
#include "protect.h"

struct port_key {
	__u32 prefix_len;
	__u8 bank;
	__u8 proto;
	__be16 port;
};

/* Suffixes of server names to sets of rules. There is one map for each bank of rules, because the key is the evidence
 * itself, which all flows share. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, max_matches);
	__type(key, struct lpm_name);
	__type(value, __u64);
} names0 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, max_matches);
	__type(key, struct lpm_name);
	__type(value, __u64);
} names1 SEC(".maps");

/* Prefixes to sets of rules, for both banks. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * max_matches);
	__type(key, struct host_key);
	__type(value, __u64);
} hosts SEC(".maps");

/* Ports to sets of rules, for both banks. A range of ports is up to 30 prefixes. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * 2 * 65536);
	__type(key, struct port_key);
	__type(value, __u64);
} ports SEC(".maps");

/* What does not fit on the stack. The verifier does not track the sets: otherwise it would follow each combination of
 * rules separately. */
struct matching {
	struct flow_key6 key; /* of the flow, without VLAN ids */
	struct host_key host;
	struct verdict category; /* what the rules are chosen by: the flow's own, or an earlier flow's */
	struct verdict app;
	__u64 evidence;
	enum protocol protocol;
	__u8 both; /* a drop may act: packets of both ends were seen, or it is not TCP */
	__u8 exempt; /* midstream, and nothing was dropped before */
	__u8 pad[5];
	__u64 in; /* rules that match, for each direction */
	__u64 out;
};

/* One entry for each direction, because the two hooks may nest. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct matching);
} matching SEC(".maps");

/* The rules that match the name in a flow's evidence. */
static __always_inline __u64 rules_of_name(__u64 id, __u32 bank)
{
	struct flow_evidence *e;
	__u64 *set;

	if (!id)
		return 0;
	e = bpf_map_lookup_elem(&evidence, &id);
	if (!e || !e->match.prefix_len)
		return 0;
	set = bank ? bpf_map_lookup_elem(&names1, &e->match) : bpf_map_lookup_elem(&names0, &e->match);
	return set ? *set : 0;
}

/* The rules that match either endpoint's address. */
static __always_inline __u64 rules_of_hosts(struct matching *m, __u32 bank, int family)
{
	struct host_key *k = &m->host;
	__u64 *a, *b;

	k->prefix_len = host_fixed_bits + (family == 4 ? 32 : 128);
	k->bank = bank;
	k->family = family;
	__builtin_memcpy(k->addr, m->key.addr_a, sizeof(k->addr));
	a = bpf_map_lookup_elem(&hosts, k);
	__builtin_memcpy(k->addr, m->key.addr_b, sizeof(k->addr));
	b = bpf_map_lookup_elem(&hosts, k);
	return (a ? *a : 0) | (b ? *b : 0);
}

/* The rules that match either endpoint's port. */
static __always_inline __u64 rules_of_ports(const struct matching *m, __u32 bank)
{
	struct port_key k = {.prefix_len = 32, .bank = bank, .proto = m->key.proto, .port = m->key.port_a};
	__u64 *a, *b;

	a = bpf_map_lookup_elem(&ports, &k);
	k.port = m->key.port_b;
	b = bpf_map_lookup_elem(&ports, &k);
	return (a ? *a : 0) | (b ? *b : 0);
}

#endif
