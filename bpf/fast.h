/* SPDX-License-Identifier: GPL-2.0 */
/* The fast way of a packet: its flow's line says what to do. Whatever is out of the ordinary goes the general way, which
 * knows everything (handle_flow) and lets the line know (renew). */
#ifndef DPCLASS_FAST_H
#define DPCLASS_FAST_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "flow.h"
#include "limits.h"
#include "line.h"
#include "packet.h"
#include "policy.h"
#include "quick.h"

/* What the fast way can do. A rule or a policy with something else takes the general way. */
#define FAST_ACTIONS (action_drop | action_police | action_dscp | action_per_flow | action_keep)
#define FAST_POLICY (policy_drops | policy_drops_unparsed)

enum way {
	way_pass,
	way_drop,
	way_general,
};

/* The line of the flow with this key in the packet's direction. */
static __always_inline struct line *find_line(const struct packet *p, const __u64 *key, const int family)
{
	__u64 hash = key_hash(key, family);
	struct place_bucket *b = place_bucket_of(hash, false, family);
	__u32 i = 0, entry;
	struct line *l;

#pragma clang loop unroll(disable)
	do {
		if (!b)
			return NULL;
		entry = *(volatile __u32 *)&b->entry[i % BUCKET_ENTRIES];
		if (entry >> BUCKET_PLACE_BITS == line_tag(hash)) {
			l = line_at(entry & ((1u << BUCKET_PLACE_BITS) - 1), p->direction, family);
			if (l && likely(has_key(l, key, family)))
				return l;
		}
		if (++i == BUCKET_ENTRIES)
			b = place_bucket_of(hash, true, family);
	} while (i < 2 * BUCKET_ENTRIES);
	return NULL;
}

static __always_inline enum way fast_way(struct packet *p, const __u64 *key, const int family)
{
	__u64 control, count, now = bpf_jiffies64();
	struct rule_counts *stats = NULL;
	struct policy_state *policy;
	__u32 sent, index, epoch;
	struct line_rest *rest;
	struct bucket *bucket;
	struct rule *r = NULL;
	bool drop = false;
	struct line *l;
	__u64 *tat;

	l = find_line(p, key, family);
	policy = policy_in_force();
	if (!l || !policy)
		return way_general;
	held_up(256);
	epoch = *(volatile __u32 *)&policy->epoch;
	rest = rest_of(l, family);
	control = read_word(&l->control);
	sent = p->from_a ? line_sent_a : line_sent_b;
	if (control >> LINE_EPOCH_SHIFT != epoch || !(control & line_live) || !(control & sent) ||
	    *(volatile __u32 *)&policy->flags & ~FAST_POLICY)
		return way_general;
	if (p->proto == IPPROTO_TCP) {
		if (!(control & line_from_a) != !p->from_a || !is_near(p->seq, rest->side.end, TCP_NEAR))
			return way_general;
	} else {
		bool both = (control & (line_sent_a | line_sent_b)) == (line_sent_a | line_sent_b);

		if ((__u32)now - l->last > (both ? timeout_udp_stream : timeout_udp_single))
			return way_general;
	}
	count = read_word(&l->count);
	if (count & LINE_HALF)
		return way_general;
	held_up(256);
	measure(p);
	if (control >> LINE_RULE_SHIFT & 0xff) {
		index = (epoch & 1) * max_rules + (((control >> LINE_RULE_SHIFT) - 1) & (max_rules - 1));
		r = bpf_map_lookup_elem(&rules, &index);
		if (!r || r->actions & ~FAST_ACTIONS)
			return way_general;
		index = r->slot;
		stats = bpf_map_lookup_elem(&rule_stats, &index);
		bucket = bucket_of(r, p->direction);
		if (!stats || !bucket)
			return way_general;
		if (!(control & line_protected)) {
			drop = r->actions & action_drop;
			if (!drop && r->actions & action_police) {
				tat = r->actions & action_per_flow ? &rest->tat : &bucket->tat;
				drop = !conforms(tat, r->cost, r->burst_ns, p->bytes, bucket_time(r->burst_ns));
			}
			if (drop && (!(control & line_dropped) ||
				     read_word(&rest->dropped) >> LINE_PACKETS_SHIFT >= LINE_DROPPED))
				return way_general;
		}
		stats->packets += p->segments;
		stats->bytes += p->bytes;
		stats->categories[control >> LINE_CATEGORY_SHIFT & (COUNTED_CATEGORIES - 1)] += p->segments;
	}
	if (p->proto == IPPROTO_TCP) {
		__u32 end = p->seq + p->l3_len - p->payload_offset;

		if ((__s32)(end - rest->side.end) > 0)
			rest->side.end = end;
		if (rest->side.ack != p->ack)
			rest->side.ack = p->ack;
	}
	if (l->last != (__u32)now)
		l->last = now;
	__sync_fetch_and_add(&l->count, (__u64)p->segments << LINE_PACKETS_SHIFT | p->bytes);
	if (drop) {
		__sync_fetch_and_add(&rest->dropped, (__u64)p->segments << LINE_PACKETS_SHIFT | p->bytes);
		stats->dropped += p->segments;
		stats->dropped_bytes += p->bytes;
		return way_drop;
	}
	if (r && r->actions & action_dscp)
		set_dscp(p, stats, r->actions, r->dscp);
	return way_pass;
}

/* Handles a plain packet of a flow that has lines. */
static __always_inline enum way handle_fast(struct packet *p)
{
	__u64 key[KEY_WORDS(6)];

	if (!quick_link(p))
		return way_general;
	if (p->ethertype == bpf_htons(ETH_P_IP) && quick_ipv4(p, key))
		return fast_way(p, key, 4);
	if (p->ethertype == bpf_htons(ETH_P_IPV6) && quick_ipv6(p, key))
		return fast_way(p, key, 6);
	return way_general;
}

#endif
