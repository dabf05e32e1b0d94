/* SPDX-License-Identifier: GPL-2.0 */
/* The flow table: from a packet to its flow, the flow's life, its counters. */
#ifndef DPCLASS_FLOW_H
#define DPCLASS_FLOW_H

#include "policy.h"

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

/* Whether the packet begins a new flow on a key that is in the table: any packet where the time-out ended the old
 * one; a SYN on a closed or timed-out TCP flow; anything on a timed-out UDP flow. A SYN on a live flow never does. */
static __always_inline bool begins_anew(const struct flow *f, const struct packet *p, __u64 now)
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

/* Remembers the end of a flow, unless that was done already. */
__noinline int report_end(struct flow *f, const struct flow_key6 *key, int family)
{
	struct ended_flow *slot;
	__u32 zero = 0, index;
	__u64 *ends, number;

	if (!f || !key)
		return 0;
	if (__sync_fetch_and_or(&f->state, state_reported) & state_reported)
		return 0;
	ends = bpf_map_lookup_elem(&sequence, &zero);
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

/* Takes out a flow whose key is used again. */
static __always_inline void retire(void *flows, void *pending, const void *key, struct flow *f, const int family)
{
	struct flow_key6 wide;

	widen_key(&wide, key, family);
	__sync_fetch_and_or(&f->state, has_ended(f->state) ? 0 : state_idle);
	report_end(f, &wide, family);
	bpf_map_delete_elem(flows, key);
	bpf_map_delete_elem(pending, key);
}

static __always_inline struct flow *begin(void *pending, const void *key, const struct packet *p, __u64 now)
{
	struct flow f = {};
	__u32 one = 1;
	__u64 *generations;

	generations = bpf_map_lookup_elem(&sequence, &one);
	if (!generations)
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
	/* Another CPU may have begun the same flow: both count into the one that is there. */
	bpf_map_update_elem(pending, key, &f, BPF_NOEXIST);
	return bpf_map_lookup_elem(pending, key);
}

static __always_inline void touch(struct flow *f, const struct packet *p, __u64 now, __u64 bytes, __u32 segments,
				  const int dir)
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
	if (dir == direction_in) {
		__sync_fetch_and_add(&f->packets_in, segments);
		__sync_fetch_and_add(&f->bytes_in, bytes);
	} else {
		__sync_fetch_and_add(&f->packets_out, segments);
		__sync_fetch_and_add(&f->bytes_out, bytes);
	}
}

/* The flow of a packet, a new one where there is none; NULL where there is no room. A decided flow costs one look-up. */
static __always_inline struct flow *find_flow(const struct packet *p, const void *key, void *flows, void *pending,
					      __u64 now, const int family)
{
	struct flow *f;

	f = bpf_map_lookup_elem(flows, key);
	if (f) {
		if (!begins_anew(f, p, now))
			return f;
		retire(flows, pending, key, f, family);
	}
	f = bpf_map_lookup_elem(pending, key);
	if (f) {
		if (!(f->state & state_promoted) && !begins_anew(f, p, now))
			return f;
		retire(flows, pending, key, f, family);
	}
	return begin(pending, key, p, now);
}

/* One packet of a flow; returns whether to drop it. */
static __always_inline bool handle_flow(void *ctx, const struct packet *p, const void *key, void *flows, void *pending,
					const int dir, const int family, const bool xdp)
{
	__u64 now = bpf_jiffies64();
	__u32 segments = wire_segments(p);
	__u64 bytes = wire_bytes(p, segments);
	struct flow *f = find_flow(p, key, flows, pending, now, family);

	if (!f) {
		count(reason_table_full);
		return false;
	}
	touch(f, p, now, bytes, segments, dir);
	if (!(f->state & state_settled))
		take_sample(ctx, p, key, f, dir, family, xdp);
	return enforce(ctx, p, key, f, bytes, segments, dir, family, xdp);
}

#endif
