/* SPDX-License-Identifier: GPL-2.0 */
/* What rules with action_special do: rates for each host, a class that hosts share, quotas. policy.h includes it. It is a
 * global function, which the verifier checks once, and which costs the packets of other rules nothing. */
#ifndef DPCLASS_SPECIAL_H
#define DPCLASS_SPECIAL_H

/* What to do with the packet, above the bits of enum rule_action. */
enum special {
	special_mark = 256,
	special_classid = 512,
	special_over = 1024, /* the host is beyond its quota */
};

/* How the packet goes. */
enum how {
	how_out = 1, /* it is sent */
	how_v6 = 2,
	how_from_a = 4, /* by endpoint a of its key */
	how_protected = 8, /* never dropped or policed */
	how_bank = 16, /* the rule is in bank 1 */
};

#define WINDOW_SHIFT 30 /* hosts share a bucket that have sent or received in the last two windows of 1.07 s */
#define MOST_HOSTS 0xffff

/* A host of a rule. */
struct rule_host {
	__u32 rule; /* rule.id */
	__u8 family; /* 4 or 6 */
	__u8 pad[3];
	__u64 addr[2]; /* as bytes on the wire; an IPv4 address is in the first four */
};

/* What a host has used. Index of the arrays: direction. */
struct host_use {
	__u64 tat[2]; /* policer */
	__u64 over_tat[2]; /* policer beyond the quota */
	__u64 bytes; /* IP bytes on `day`, both directions */
	__u32 day; /* active.day */
	__u32 window[2]; /* in which it was counted last (bucket.hosts) */
	__u32 pad;
};

/* The least recently used host is forgotten first: its buckets are full again then, and its quota unused. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, max_hosts);
	__type(key, struct rule_host);
	__type(value, struct host_use);
} host_uses SEC(".maps");

/* What does not fit on the stack. */
struct host_room {
	struct rule_host key;
	struct host_use use;
};

/* One entry for each direction, because the two hooks may nest. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct host_room);
} host_rooms SEC(".maps");

/* Returns what the packet's host has used. The packet's key is in the map matching. */
static __always_inline struct host_use *host_of(const struct rule *r, __u32 how)
{
	__u32 slot = how & how_out;
	struct matching *m = bpf_map_lookup_elem(&matching, &slot);
	struct host_room *room = bpf_map_lookup_elem(&host_rooms, &slot);
	bool far_sends = !(how & how_out), sender_is_a = how & how_from_a;
	struct host_use *use;
	__u64 *addr;

	if (!m || !room)
		return NULL;
	/* Received packets come from the far end of the wire, and sent ones go to it. */
	if (r->terms & term_near)
		far_sends = !far_sends;
	addr = sender_is_a == far_sends ? (__u64 *)m->key.addr_a : (__u64 *)m->key.addr_b;
	room->key.rule = r->id;
	room->key.family = how & how_v6 ? 6 : 4;
	room->key.addr[0] = addr[0];
	room->key.addr[1] = addr[1];
	if (how & how_v6) {
		room->key.addr[0] &= r->host_mask[0];
		room->key.addr[1] &= r->host_mask[1];
	}
	use = bpf_map_lookup_elem(&host_uses, &room->key);
	if (use)
		return use;
	bpf_map_update_elem(&host_uses, &room->key, &room->use, BPF_NOEXIST);
	return bpf_map_lookup_elem(&host_uses, &room->key);
}

/* conforms() as a global function: the verifier checks it only once. */
__noinline int conforms_to(__u64 *tat, __u64 cost_per_byte, __u64 burst_ns, __u64 bytes, __u64 now)
{
	return tat && conforms(tat, cost_per_byte, burst_ns, bytes, now);
}

/* Counts a host among those that share a bucket, once in each window. Returns how many do. Global, too. */
__noinline int sharers(struct bucket *b, struct host_use *use, __u32 direction)
{
	__u32 window = (bpf_jiffies64() * tick_ns) >> WINDOW_SHIFT;
	__u64 old, current = 0, before = 0;

	if (!b || !use)
		return 1;
#pragma unroll
	for (int i = 0; i < CAS_TRIES; i++) {
		old = read_word(&b->hosts);
		current = old >> 16 & MOST_HOSTS;
		before = old & MOST_HOSTS;
		if (old >> 32 != window) {
			before = (__u32)(old >> 32) + 1 == window ? current : 0;
			current = 0;
		}
		if (use->window[direction & 1] == window)
			break;
		if (current < MOST_HOSTS)
			current++;
		if (__sync_val_compare_and_swap(&b->hosts, old, (__u64)window << 32 | current << 16 | before) == old) {
			use->window[direction & 1] = window;
			break;
		}
	}
	current = current > before ? current : before;
	return current ? current : 1;
}

/* Finds out what to do with a packet: bits of enum rule_action and enum special. `bytes` is what to charge for it. Global,
 * so that the verifier checks it only once. */
__noinline int find_special(struct flow *f, const struct rule *r, __u64 bytes, __u32 how)
{
	__u64 *tat, now, cost, burst_ns, from;
	__u32 todo, direction = how & how_out;
	struct host_use *use = NULL;
	struct bucket *b;
	bool over = false;

	if (!f || !r)
		return 0;
	todo = r->actions & ~action_special;
	if (r->terms & (term_per_host | term_fair | term_quota)) {
		use = host_of(r, how);
		if (!use) {
			count(reason_policer);
			return todo & (action_dscp | action_keep | action_dry);
		}
	}
	if (direction && r->terms & term_mark && !(todo & action_dry))
		todo |= special_mark;
	if (direction && r->terms & term_classid && !(todo & action_dry))
		todo |= special_classid;
	if (r->terms & term_quota && use) {
		__u32 bank = !!(how & how_bank);
		struct active *active = bpf_map_lookup_elem(&active_rules, &bank);

		if (active && use->day != active->day) {
			use->day = active->day;
			use->bytes = 0;
		}
		if (__sync_fetch_and_add(&use->bytes, bytes) >= r->quota) {
			todo = (todo & (action_dry | action_keep | special_mark | special_classid)) | r->over_actions |
			       special_over;
			over = true;
		}
	}
	if (how & how_protected)
		return todo & ~(action_drop | action_police);
	if (!(todo & action_police))
		return todo;
	cost = r->cost;
	burst_ns = r->burst_ns;
	if (over) {
		cost = r->over_cost;
		burst_ns = r->over_burst_ns;
	}
	now = bucket_time(burst_ns);
	b = bucket_of(r, direction);
	if (!b)
		return todo;
	tat = &b->tat;
	if (use && over) {
		tat = &use->over_tat[direction];
	} else if (use && r->terms & term_fair) {
		/* While less than half of the rule's bucket is used, all hosts may have what is left. From then on, only
		 * one that is within its own share of the rate. So a host gets its share, and what others leave of theirs. */
		from = read_word(&b->tat);
		from = from > now ? from - now : 0;
		if (!conforms_to(&use->tat[direction], cost * sharers(b, use, direction), burst_ns / 2, bytes, now) &&
		    from > burst_ns / 2)
			return todo | action_drop;
	} else if (use && r->terms & term_per_host) {
		tat = &use->tat[direction];
	} else if (todo & action_per_flow) {
		tat = direction ? tat_of(f, direction_out, how & how_v6 ? 6 : 4)
				: tat_of(f, direction_in, how & how_v6 ? 6 : 4);
	}
	if (!conforms_to(tat, cost, burst_ns, bytes, now))
		todo |= action_drop;
	return todo;
}

#endif
