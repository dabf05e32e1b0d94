/* SPDX-License-Identifier: GPL-2.0 */
/* The maps of one interface; all but scratch and inbox are pinned. The loader sets the sizes. */
#ifndef DPCLASS_MAPS_H
#define DPCLASS_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "types.h"

/* IPv4 5-tuple to a flow with a final verdict. A HASH: no flood of new flows takes a decided flow out. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* IPv6 5-tuple to a flow with a final verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key6);
	__type(value, struct flow);
} flows6 SEC(".maps");

/* IPv4 5-tuple to a flow without a final verdict; the least recently used goes first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
} pending SEC(".maps");

/* IPv6 5-tuple to a flow without a final verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key6);
	__type(value, struct flow);
} pending6 SEC(".maps");

/* struct sample and packet, to the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} samples SEC(".maps");

/* enum reason to a count, on each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, reason_count);
	__type(key, enum reason);
	__type(value, __u64);
} counters SEC(".maps");

/* 0 to the policy in force. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct policy_state);
} policy SEC(".maps");

/* Two banks of rules: bank * max_rules + rule - 1. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * max_rules);
	__type(key, __u32);
	__type(value, struct rule);
} rules SEC(".maps");

/* What the rules did, index as in rules. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * max_rules);
	__type(key, __u32);
	__type(value, struct rule_counts);
} rule_stats SEC(".maps");

/* Token buckets of scope class, as theoretical arrival time in ns: 2 * (index as in rules) + direction. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4 * max_rules);
	__type(key, __u32);
	__type(value, __u64);
} buckets SEC(".maps");

/* 0 to the text of the policy file. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, max_source);
} policy_source SEC(".maps");

/* Prefixes that are never dropped or policed. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct lpm4);
	__type(value, __u8);
} protect SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct lpm6);
	__type(value, __u8);
} protect6 SEC(".maps");

/* Ports likewise. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct protect_port);
	__type(value, __u8);
} protect_ports SEC(".maps");

/* Flows likewise, in struct flow_key6 without VLAN ids: the SSH connection that applied the policy. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct flow_key6);
	__type(value, __u8);
} protect_flows SEC(".maps");

/* The last ended flows: (number - 1) % max_ended to the flow. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, max_ended);
	__type(key, __u32);
	__type(value, struct ended_flow);
} ended SEC(".maps");

/* 0: ends so far. 1: generations given out. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} sequence SEC(".maps");

/* 0 to where and how the programs are attached. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct interface_info);
} interface SEC(".maps");

/* 0 to what the live agent says of itself. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct agent_stats);
} agent SEC(".maps");

/* Label number to its name; beyond enum label a model's own names. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, max_labels);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, name_len);
} labels SEC(".maps");

/* Operations for the program apply; each process that stores verdicts has its own. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, max_batch);
	__type(key, __u32);
	__type(value, struct op);
} inbox SEC(".maps");

/* Room to put a sample together; an entry a direction, as the two hooks may nest. The packet's part is larger
 * than a sample so that the verifier sees any masked length fit. */
struct scratch {
	struct sample sample;
	__u8 packet[2048];
	__u64 woken_ns; /* last wake-up of the reader from this CPU */
	__u32 l3_offset; /* see forget() */
	__u32 l4_offset;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

/* Sends an offset through memory whose contents the verifier does not track. Otherwise it takes each combination of
 * tags and extension headers for a path of its own and checks everything behind it again, beyond its limit. */
static __always_inline __u32 forget(__u32 *memory, __u32 offset)
{
	*(volatile __u32 *)memory = offset;
	return *(volatile __u32 *)memory;
}

static __always_inline void count(enum reason reason)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &reason);

	if (n)
		*n += 1;
}

#endif
