/* SPDX-License-Identifier: GPL-2.0 */
/* The flow tables: from a packet to its flow, the flow's life, its counters. */
#ifndef DPCLASS_FLOW_H
#define DPCLASS_FLOW_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "evidence.h"
#include "key.h"
#include "labels.h"
#include "limits.h"
#include "packet.h"
#include "parse.h"
#include "protocols.h"

#define CAS_TRIES 4 /* of a compare-and-swap that competes with other CPUs */

/* Bits of flow.state. */
enum flow_state {
	state_syn = 1, /* SYN or SYN-ACK seen */
	state_fin_a = 2, /* FIN from endpoint a */
	state_fin_b = 4,
	state_rst = 8,
	state_idle = 16, /* ended by time-out */
	state_sent_a = 32, /* packets from endpoint a seen */
	state_sent_b = 64,
	state_first_b = 128, /* the first packet came from endpoint b */
	state_midstream = 256, /* TCP whose SYN was not seen */
	state_reported = 512, /* the end is in the map ended */
	state_promoted = 1024, /* pending entry whose flow has moved to flows */
	state_protected = 2048, /* named by the policy's protect: */
	state_settled = 4096, /* from now on only an operator changes a verdict: no more samples */
};

enum source {
	source_none,
	source_model,
	source_operator,
	source_name, /* the server name */
	source_protocol,
} __attribute__((packed));

/* The answer to one question about a flow (flow.Task in Go). */
struct verdict {
	enum label label;
	__u16 model; /* number of the model's name in the map labels; 0: none */
	__u16 confidence; /* in 65535ths */
	enum source source;
	__u8 final; /* only an operator changes it */
};

/* A flow. Three cache lines (in the IPv4 tables): what is mostly read, and what each direction writes. Different CPUs
 * often handle the two directions, and counters in one line would travel between them. */
struct flow {
	__u64 last_jiffies; /* of the last packet */
	enum flow_state state; /* bits */
	__u32 policy_epoch; /* epoch that the rules belong to; 0: look up the rules again */
	struct verdict category;
	struct verdict app;
	__u64 evidence; /* key in the map evidence; 0: none */
	__u32 generation;
	__u32 samples; /* payload packets sampled */
	__u8 rule_in; /* number of the policy rule that acts on received packets, from 1; 0: none */
	__u8 rule_out; /* on sent packets */
	enum protocol protocol;
	__u8 pad[5];
	__u64 dropped; /* packets dropped by policy */

	__u64 packets_in;
	__u64 bytes_in; /* IP bytes on the wire */
	__u64 tat_in; /* policer of the flow: theoretical arrival time, ns */
	__u64 first_ns; /* CLOCK_MONOTONIC of the first packet */
	__u64 first_jiffies;
	__u64 pad_in[3];

	__u64 packets_out;
	__u64 bytes_out;
	__u64 tat_out;
	__u64 dropped_bytes; /* of the packets dropped by policy: their IP bytes */
	__u64 pad_out[4];
};

struct ended_flow {
	struct flow_key6 key;
	__u64 number; /* number of the end, from 1; 0: the slot is empty */
	__u8 family;
	__u8 pad[7];
	struct flow flow;
};

/* The loader sets the sizes of the four tables. */

/* IPv4 5-tuple to a flow with a firm verdict. A HASH: a flood of new flows cannot evict a decided flow. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* IPv6 5-tuple to a flow with a firm verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow_key6);
	__type(value, struct flow);
} flows6 SEC(".maps");

/* IPv4 5-tuple to a flow without a firm verdict. An LRU_HASH: the least recently used flow is evicted first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key);
	__type(value, struct flow);
} pending SEC(".maps");

/* IPv6 5-tuple to a flow without a firm verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key6);
	__type(value, struct flow);
} pending6 SEC(".maps");

/* The last ended flows: (number - 1) % max_ended to the flow. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, max_ended);
	__type(key, __u32);
	__type(value, struct ended_flow);
} ended SEC(".maps");

enum sequence_slot {
	sequence_ends, /* number of ends so far */
	sequence_generations, /* number of generations given out */
	sequence_unborn, /* generations without a flow: there was no room, or another CPU began the same flow */
	sequence_count,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, sequence_count);
	__type(key, enum sequence_slot);
	__type(value, __u64);
} sequence SEC(".maps");

/* The tables of one IP version. */
struct tables {
	void *flows;
	void *pending;
};

/* Whether only an operator can change the verdict. */
static __always_inline bool is_firm(const struct verdict *v)
{
	return v->final || v->source == source_operator;
}

static __always_inline bool has_ended(__u32 state)
{
	return state & (state_rst | state_idle) || (state & (state_fin_a | state_fin_b)) == (state_fin_a | state_fin_b);
}

static __always_inline __u64 idle_timeout(__u32 state, __u8 proto)
{
	bool both = (state & (state_sent_a | state_sent_b)) == (state_sent_a | state_sent_b);

	if (proto == IPPROTO_TCP)
		return both ? timeout_tcp_established : timeout_tcp_opening;
	return both ? timeout_udp_stream : timeout_udp_single;
}

/* Whether the packet begins a new flow on a key that is in the table: any packet if user space has ended the old flow
 * as idle; a SYN on a closed or timed-out TCP flow; any packet on a timed-out UDP flow. A SYN on a live flow: no. */
static __always_inline bool begins_again(const struct flow *f, const struct packet *p, __u64 now)
{
	bool syn = p->proto == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	__u32 state = f->state;

	if (state & state_idle)
		return true;
	if (!syn && p->proto == IPPROTO_TCP)
		return false;
	if (has_ended(state))
		return true;
	return (__s64)(now - f->last_jiffies) > (__s64)idle_timeout(state, p->proto);
}

/* Takes back up to n of the flow's samples, but never more than it has: other CPUs may be changing the number. Global, so
 * that the verifier checks it only once. */
__noinline int take_back(struct flow *f, __u32 n)
{
	if (!f)
		return 0;
#pragma unroll
	for (int i = 0; i < CAS_TRIES; i++) {
		__u32 old = *(volatile __u32 *)&f->samples;

		if (__sync_val_compare_and_swap(&f->samples, old, old > n ? old - n : 0) == old)
			return 0;
	}
	return 0; /* lost: the flow has fewer samples than its budget */
}

static __always_inline __u64 *sequence_at(enum sequence_slot slot)
{
	return bpf_map_lookup_elem(&sequence, &slot);
}

/* Reports the end of a flow in the map ended, once. */
__noinline int report_end(struct flow *f, const struct flow_key6 *key, int family)
{
	struct ended_flow *slot;
	__u64 *ends, number;
	__u32 index;

	if (!f || !key)
		return 0;
	if (__sync_fetch_and_or(&f->state, state_reported) & state_reported)
		return 0;
	ends = sequence_at(sequence_ends);
	if (!ends)
		return 0;
	number = __sync_fetch_and_add(ends, 1) + 1;
	index = (number - 1) % max_ended;
	slot = bpf_map_lookup_elem(&ended, &index);
	if (!slot)
		return 0;
	slot->key = *key;
	slot->family = family;
	slot->flow = *f;
	slot->number = number;
	return 0;
}

/* Removes a flow whose key is used again. */
static __always_inline void retire(const struct packet *p, const struct tables *t, struct flow *f)
{
	struct flow_key6 wide;

	widen_key(&wide, p->key, p->family);
	__sync_fetch_and_or(&f->state, has_ended(f->state) ? 0 : state_idle);
	report_end(f, &wide, p->family);
	bpf_map_delete_elem(t->flows, p->key);
	bpf_map_delete_elem(t->pending, p->key);
}

/* Begins a flow with its first packet. NULL if there is no room. */
static __always_inline struct flow *begin(const struct packet *p, const struct tables *t, __u64 now)
{
	__u64 *generations = sequence_at(sequence_generations), *unborn = sequence_at(sequence_unborn);
	struct flow f = {};

	if (!generations || !unborn)
		return NULL;
	f.generation = __sync_fetch_and_add(generations, 1) + 1;
	if (!f.generation)
		f.generation = __sync_fetch_and_add(generations, 1) + 1;
	f.first_ns = bpf_ktime_get_ns();
	f.first_jiffies = now;
	f.last_jiffies = now;
	if (!p->from_a)
		f.state |= state_first_b;
	if (p->proto == IPPROTO_TCP && !(p->tcp_flags & TCP_SYN))
		f.state |= state_midstream;
	if (is_dns(p)) /* known without a sample, of which there is none */
		f.protocol = protocol_dns;
	/* Another CPU may have begun the same flow: then both count into that one. */
	if (bpf_map_update_elem(t->pending, p->key, &f, BPF_NOEXIST))
		__sync_fetch_and_add(unborn, 1);
	return bpf_map_lookup_elem(t->pending, p->key);
}

/* Returns the flow of a packet, a new one if necessary. NULL if there is no room. A decided flow costs one lookup. */
static __always_inline struct flow *find_flow(const struct packet *p, const struct tables *t, __u64 now)
{
	struct flow *f;

	f = bpf_map_lookup_elem(t->flows, p->key);
	if (f) {
		if (!begins_again(f, p, now))
			return f;
		retire(p, t, f);
	}
	f = bpf_map_lookup_elem(t->pending, p->key);
	if (f) {
		if (!(f->state & state_promoted) && !begins_again(f, p, now))
			return f;
		retire(p, t, f);
	}
	return begin(p, t, now);
}

/* Adds a packet to its flow. */
static __always_inline void touch(struct flow *f, const struct packet *p, __u64 now)
{
	__u32 seen = p->from_a ? state_sent_a : state_sent_b;

	if (p->proto == IPPROTO_TCP) {
		if (p->tcp_flags & TCP_FIN)
			seen |= p->from_a ? state_fin_a : state_fin_b;
		if (p->tcp_flags & TCP_RST)
			seen |= state_rst;
		if (p->tcp_flags & TCP_SYN)
			seen |= state_syn;
	}
	if ((f->state & seen) != seen)
		__sync_fetch_and_or(&f->state, seen);
	if (f->last_jiffies != now) /* once a jiffy: the line stays shared */
		f->last_jiffies = now;
	if (p->direction == direction_in) {
		__sync_fetch_and_add(&f->packets_in, p->segments);
		__sync_fetch_and_add(&f->bytes_in, p->bytes);
	} else {
		__sync_fetch_and_add(&f->packets_out, p->segments);
		__sync_fetch_and_add(&f->bytes_out, p->bytes);
	}
}

#endif
