/* SPDX-License-Identifier: GPL-2.0 */
/* What the policy does to a packet of a flow. A flow remembers its rule until the policy or its verdict changes. */
#ifndef DPCLASS_POLICY_H
#define DPCLASS_POLICY_H

#include "sample.h"

#define CAS_TRIES 4
#define COARSE_TICKS 16 /* a burst this long is told by the tick: it is at most one longer */

/* Whether a verdict is there to stay: final, or an operator's. */
static __always_inline bool is_firm(const struct verdict *v)
{
	return v->final || v->source == source_operator;
}

static __always_inline bool in_set(const __u64 *set, __u8 label)
{
	return set[(label >> 6) & 3] >> (label & 63) & 1;
}

static __always_inline bool is_protected(const struct flow_key6 *key, const int family)
{
	struct protect_port port = {.proto = key->proto};
	struct flow_key6 flow = *key;

	port.port = key->port_a;
	if (bpf_map_lookup_elem(&protect_ports, &port))
		return true;
	port.port = key->port_b;
	if (bpf_map_lookup_elem(&protect_ports, &port))
		return true;
	flow.vlan[0] = flow.vlan[1] = flow.vlan[2] = 0;
	if (bpf_map_lookup_elem(&protect_flows, &flow))
		return true;
	if (family == 4) {
		struct lpm4 prefix = {.prefix_len = 32};

		__builtin_memcpy(prefix.addr, key->addr_a, 4);
		if (bpf_map_lookup_elem(&protect, &prefix))
			return true;
		__builtin_memcpy(prefix.addr, key->addr_b, 4);
		return bpf_map_lookup_elem(&protect, &prefix);
	} else {
		struct lpm6 prefix = {.prefix_len = 128};

		__builtin_memcpy(prefix.addr, key->addr_a, 16);
		if (bpf_map_lookup_elem(&protect6, &prefix))
			return true;
		__builtin_memcpy(prefix.addr, key->addr_b, 16);
		return bpf_map_lookup_elem(&protect6, &prefix);
	}
}

/* Whether the rule may rest on a task's verdict. */
static __always_inline bool rests_on(const struct rule *r, const struct verdict *v)
{
	if (v->label == undecided || v->confidence < r->min_confidence)
		return false;
	return is_firm(v) || r->flags & rule_provisional;
}

/* A rule rests on the verdict of each task that it names labels of; one that names none rests on either. */
static __always_inline bool rule_matches(const struct rule *r, const struct flow *f)
{
	bool any_category = r->flags & rule_any_category, any_app = r->flags & rule_any_app;
	bool category = rests_on(r, &f->category), app = rests_on(r, &f->app);

	if (!any_category && !(category && in_set(r->categories, f->category.label)))
		return false;
	if (!any_app && !(app && in_set(r->apps, f->app.label)))
		return false;
	if (any_category && any_app && !category && !app)
		return false;
	if (r->actions & action_drop && f->state & state_midstream && !(r->flags & rule_midstream))
		return false;
	return true;
}

/* Finds the first rule that matches and stores it in the flow. Global, so that it is verified once, not in each place. */
__noinline int find_rule(struct flow *f, const struct flow_key6 *key, __u32 epoch, int family)
{
	__u32 bank = epoch & 1, rule = 0;

	if (!f || !key)
		return 0;
	/* This comes before the loop because it takes less stack so (TestStack). */
	if (family == 4 ? is_protected(key, 4) : is_protected(key, 6))
		__sync_fetch_and_or(&f->state, state_protected);
	else
		__sync_fetch_and_and(&f->state, ~state_protected);
	for (__u32 i = 0; i < max_rules; i++) {
		__u32 index = bank * max_rules + i;
		struct rule *r;

		r = bpf_map_lookup_elem(&rules, &index);
		if (!r || r->flags & rule_end)
			break;
		if (rule_matches(r, f)) {
			rule = i + 1;
			break;
		}
	}
	f->rule = rule;
	f->tat_in = 0;
	f->tat_out = 0;
	f->policy_epoch = epoch;
	return 0;
}

/* Token bucket as GCRA (ATM Forum TM 4.1; the same limit as a bucket of `burst` bytes): the packet conforms
 * unless the theoretical arrival time is more than the burst ahead. */
static __always_inline bool conforms(__u64 *tat, const struct rule *r, __u64 bytes, __u64 now)
{
	__u64 cost = (bytes * r->cost) >> 16;

#pragma unroll
	for (int i = 0; i < CAS_TRIES; i++) {
		__u64 old = *(volatile __u64 *)tat;
		__u64 from = old > now ? old : now;

		if (from - now > r->burst_ns)
			return false;
		if (__sync_val_compare_and_swap(tat, old, from + cost) == old)
			return true;
	}
	count(reason_policer);
	return true;
}

/* Writes the DSCP (RFC 2474) and keeps the ECN bits; a right IPv4 checksum stays right (RFC 1624, equation 3). */
static __always_inline bool set_dscp(void *ctx, const struct packet *p, __u8 dscp, const int family, const bool xdp)
{
	__be16 old, new;
	__u16 word;

	if (xdp) {
		struct xdp_md *md = ctx;
		void *data = (void *)(long)md->data, *end = (void *)(long)md->data_end;
		__u32 slot = direction_in;
		struct scratch *s = bpf_map_lookup_elem(&scratch, &slot);
		__be16 *head;

		if (!s)
			goto failed;
		head = data + (forget(&s->l3_offset, p->l3_offset) & 63);
		if ((void *)(head + 10) > end)
			return false;
		old = head[0];
		word = bpf_ntohs(old);
		word = family == 4 ? (word & 0xff03) | dscp << 2 : (word & 0xf03f) | dscp << 6;
		new = bpf_htons(word);
		if (new == old)
			return false;
		head[0] = new;
		if (family == 4) {
			__u32 sum = (__u16)~head[5] + (__u16)~old + new;

			sum = (sum & 0xffff) + (sum >> 16);
			sum = (sum & 0xffff) + (sum >> 16);
			head[5] = ~sum;
		}
		return true;
	}
	if (bpf_skb_load_bytes(ctx, p->l3_offset, &old, sizeof(old)))
		goto failed;
	word = bpf_ntohs(old);
	word = family == 4 ? (word & 0xff03) | dscp << 2 : (word & 0xf03f) | dscp << 6;
	new = bpf_htons(word);
	if (new == old)
		return false;
	if (family == 4 && bpf_l3_csum_replace(ctx, p->l3_offset + 10, old, new, 2))
		goto failed;
	if (bpf_skb_store_bytes(ctx, p->l3_offset, &new, sizeof(new), 0))
		goto failed;
	return true;
failed:
	count(reason_copy);
	return false;
}

/* The time of a rule's policers: a jiffy costs nothing to read, a nanosecond does. A rule keeps to one clock. */
static __always_inline __u64 bucket_time(const struct rule *r)
{
	if (r->burst_ns >= COARSE_TICKS * tick_ns)
		return bpf_jiffies64() * tick_ns;
	return bpf_ktime_get_ns();
}

/* Returns whether the packet is to be dropped. */
static __always_inline bool enforce(void *ctx, const struct packet *p, const void *key, struct flow *f, __u64 bytes,
				    __u32 segments, const int dir, const int family, const bool xdp)
{
	struct rule_counts *stats;
	struct policy_state *now;
	struct rule *r;
	__u32 zero = 0, index;
	bool drop = false;

	now = bpf_map_lookup_elem(&policy, &zero);
	if (!now)
		return false;
	if (f->policy_epoch != now->epoch) {
		struct flow_key6 wide;

		widen_key(&wide, key, family);
		find_rule(f, &wide, now->epoch, family);
	}
	if (!f->rule)
		return false;
	index = (f->policy_epoch & 1) * max_rules + f->rule - 1;
	r = bpf_map_lookup_elem(&rules, &index);
	stats = bpf_map_lookup_elem(&rule_stats, &index);
	if (!r || !stats)
		return false;

	stats->packets += segments;
	stats->bytes += bytes;
	if (!(f->state & state_protected)) {
		if (r->actions & action_drop)
			drop = true;
		if (r->actions & action_police) {
			__u32 slot = 2 * index + dir;
			__u64 *tat;

			if (r->actions & action_per_flow)
				tat = dir == direction_in ? &f->tat_in : &f->tat_out;
			else
				tat = bpf_map_lookup_elem(&buckets, &slot);
			if (tat && !conforms(tat, r, bytes, bucket_time(r)))
				drop = true;
		}
	}
	if (drop) {
		stats->dropped += segments;
		stats->dropped_bytes += bytes;
		__sync_fetch_and_add(&f->dropped, segments);
		return true;
	}
	if (r->actions & action_dscp && set_dscp(ctx, p, r->dscp, family, xdp))
		stats->marked += segments;
	return false;
}

#endif
