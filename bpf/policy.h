/* SPDX-License-Identifier: GPL-2.0 */
/* What the policy does to a packet. A flow remembers its rules until the policy, the
 * flow's verdict or its evidence changes. */
#ifndef DPCLASS_POLICY_H
#define DPCLASS_POLICY_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"
#include "flow.h"
#include "forget.h"
#include "key.h"
#include "limits.h"
#include "match.h"
#include "packet.h"
#include "protect.h"
#include "protocols.h"
#include "sample.h"

#define PROTECTED 256 /* a flag added to the number of a rule */
#define REMEMBER_EVERY 256 /* dropped packets */
#define FOREIGN_NS (1ull << 42) /* 73 minutes; the two clocks differ by weeks */
#define COARSE_TICKS 16 /* bursts this long are measured in ticks, which makes them at most one tick longer */

/* The DSCP in the first 16 bits of the IP header. */
#define IP4_DSCP 0x00fc
#define IP4_DSCP_SHIFT 2
#define IP6_DSCP 0x0fc0
#define IP6_DSCP_SHIFT 6

enum rule_flag {
	rule_any_category = 1,
	rule_any_app = 2,
	rule_provisional = 4, /* acts on provisional verdicts too */
	rule_midstream = 8, /* a drop acts on midstream flows too */
	rule_end = 16, /* no rule: the list ends here */
	rule_any_name = 32,
	rule_any_host = 64,
	rule_any_port = 128,
	rule_any_protocol = 256,
	rule_any_source = 512,
	rule_no_verdict = 1024, /* asks nothing about verdicts: acts on undecided flows too */
	rule_not_in = 2048, /* does not act on received packets */
	rule_not_out = 4096,
	rule_one_sided = 8192, /* a drop acts before both ends of a TCP connection were seen */
} __attribute__((packed));

enum rule_action {
	action_drop = 1,
	action_police = 2,
	action_dscp = 4,
	action_per_flow = 8, /* the policer's bucket is the flow's own */
	action_special = 16, /* act_specially() finds what to do: see enum rule_term */
	action_keep = 32, /* a DSCP that the packet has already stays */
	action_dry = 64, /* count what would be done, and do nothing */
} __attribute__((packed));

/* What only rules with action_special have. Other rules pay nothing for it. */
enum rule_term {
	term_per_host = 1, /* the policer has a bucket for each host */
	term_fair = 2, /* hosts share the bucket of the rule fairly */
	term_near = 4, /* the host is the end on this side of the wire */
	term_quota = 8, /* beyond `quota` bytes of a host and day, the actions are those for over */
	term_mark = 16, /* set skb->mark of sent packets */
	term_classid = 32, /* set skb->priority of sent packets, which names a class to classful qdiscs */
	term_all = 0xffff,
} __attribute__((packed));

struct rule {
	__u64 cost; /* ns per byte at the policed rate, << 16 */
	__u64 burst_ns; /* the burst in time at the policed rate */
	enum rule_flag flags; /* bits */
	__u16 min_confidence;
	enum rule_action actions; /* bits */
	__u8 dscp;
	__u8 sources; /* bit set of enum source */
	__u8 slot; /* index in rule_stats: the same as long as the rule stays in the policy, whatever its number */
	__u8 was; /* number of the same rule in the policy before; 0: it is new */
	enum rule_action over_actions; /* beyond the quota */
	__u8 over_dscp;
	enum rule_term terms; /* bits */
	__u32 mark; /* skb->mark */
	__u32 classid; /* skb->priority */
	__u32 id; /* never that of another rule: key of its hosts */
	__u64 over_cost; /* the rate of a host beyond the quota, as cost and burst_ns */
	__u64 over_burst_ns;
	__u64 quota; /* IP bytes of a host in a day, both directions */
	__u64 host_mask[2]; /* the bits of an IPv6 address that make a host, as in memory */
	__u64 identity[2]; /* hash of what the rule says, by which user space finds unchanged rules */
	__u64 protocols[MAX_PROTOCOLS / 64]; /* bit set of enum protocol */
	__u64 categories[max_labels / 64]; /* bit set of labels */
	__u64 apps[max_labels / 64];
};

enum policy_flag {
	policy_drops = 1, /* a rule drops or polices */
	policy_drops_unparsed = 2, /* unparsed: drop */
	policy_dry_run = 4, /* for readers: the rules have action_dry */
};

/* The policy in force: the rules of bank (epoch & 1). A new epoch puts a whole new policy in force at once. */
struct policy_state {
	__u32 epoch; /* never 0 */
	__u32 source_len; /* bytes in policy_source */
	__u64 applied_ns; /* CLOCK_REALTIME */
	enum policy_flag flags; /* bits */
	__u32 protects; /* prefixes, ports and flows in this bank, in all: a reader of the maps sees whether it saw them all */
	__u32 first; /* the epoch with which this policy came in force; a schedule raises it by two */
	__u32 former; /* the same of the policy before, whose rules rule.was numbers */
	__u64 confirm_ns; /* CLOCK_BOOTTIME: then the former policy comes in force again; 0: never */
};

struct rule_counts {
	__u64 packets;
	__u64 bytes;
	__u64 dropped;
	__u64 dropped_bytes;
	__u64 marked;
	__u64 categories[COUNTED_CATEGORIES]; /* packets by the category of their flow */
	__u64 dscps[64]; /* packets by the DSCP with which they went on, for rules that set one */
};

/* A token bucket, as theoretical arrival time. */
struct bucket {
	__u64 tat; /* ns */
	__u64 hosts; /* how many hosts share it (term_fair): window << 32 | in this window << 16 | in the one before */
};

/* Key 0 to the policy in force, key 1 to the one that comes back unless the one in force is confirmed. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
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

/* What the rules have done, by rule.slot. There are slots for the rules of two policies. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * max_rules);
	__type(key, __u32);
	__type(value, struct rule_counts);
} rule_stats SEC(".maps");

/* Token buckets of rules; index 2 * rule.slot + direction. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4 * max_rules);
	__type(key, __u32);
	__type(value, struct bucket);
} buckets SEC(".maps");

/* Bank to the text of the policy file. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, max_source);
} policy_source SEC(".maps");

static __always_inline struct policy_state *policy_in_force(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&policy, &zero);
}

#include "clock.h"

static __always_inline bool in_set(const __u64 *set, const __u32 words, __u32 number)
{
	return set[(number >> 6) & (words - 1)] >> (number & 63) & 1;
}

/* Whether the rule may act on a task's verdict. */
static __always_inline bool rests_on(const struct rule *r, const struct verdict *v)
{
	if (v->label == undecided || v->confidence < r->min_confidence)
		return false;
	return is_firm(v) || r->flags & rule_provisional;
}

/* A rule acts on the verdicts of the tasks whose labels it names; a rule that names none acts on either task's. Its
 * sources are those of the category's verdict, or of the app's if it names apps only. */
static __always_inline bool verdicts_match(const struct rule *r, const struct matching *f)
{
	bool any_category = r->flags & rule_any_category, any_app = r->flags & rule_any_app;
	bool category = rests_on(r, &f->category), app = rests_on(r, &f->app);

	if (r->flags & rule_no_verdict)
		return true;
	if (!any_category && !(category && in_set(r->categories, max_labels / 64, f->category.label)))
		return false;
	if (!any_app && !(app && in_set(r->apps, max_labels / 64, f->app.label)))
		return false;
	if (!(r->flags & rule_any_source)) {
		if (any_category && !any_app)
			return app && r->sources >> (f->app.source & 7) & 1;
		return category && r->sources >> (f->category.source & 7) & 1;
	}
	return !any_category || !any_app || category || app;
}

/* Whether a rule matches a flow, apart from names, hosts and ports. Global, so that the verifier checks it only once. */
__noinline int rule_matches(const struct rule *r, const struct matching *f)
{
	if (!r || !f)
		return false;
	if (!(r->flags & rule_any_protocol) && !in_set(r->protocols, MAX_PROTOCOLS / 64, f->protocol))
		return false;
	if (!verdicts_match(r, f))
		return false;
	if (!(r->actions & action_drop))
		return true;
	if (f->exempt && !(r->flags & rule_midstream))
		return false;
	return f->both || r->flags & rule_one_sided;
}

/* The lowest rule of a set, from 1; 0: none. */
static __always_inline __u8 first_rule(__u64 set)
{
	__u8 rule = 1;

	if (!set)
		return 0;
#pragma unroll
	for (int step = 32; step; step /= 2) { /* clang 14 has no __builtin_ctzll for BPF */
		if (set << (64 - step))
			continue;
		set >>= step;
		rule += step;
	}
	return rule;
}

/* Puts together what the rules are chosen by: the flow's own verdicts, or what it holds (compare hold). */
static __always_inline void gather(struct matching *m, const struct flow *f)
{
	__u32 state = f->state;
	bool held = is_held(f);

	*(__u64 *)&m->category = read_word(held && f->held_category.source ? &f->held_category : &f->category);
	*(__u64 *)&m->app = read_word(held && f->held_app.source ? &f->held_app : &f->app);
	m->evidence = held && !f->evidence ? f->held_evidence : f->evidence;
	m->protocol = held && !f->protocol ? f->held_protocol : f->protocol;
	m->both = !both_ends || m->key.proto != IPPROTO_TCP || state & state_confirmed ||
		  (held && state & state_held_both);
	m->exempt = state & state_midstream && !(state & state_enforced);
}

/* What a choice says for a direction: number of the rule, and PROTECTED. */
static __always_inline int chosen(const struct choice *c, int direction)
{
	return (direction == direction_in ? c->rule_in : c->rule_out) | (c->change & choice_protected ? PROTECTED : 0);
}

/* Whether a rule that was chosen earlier is the one that is chosen now, perhaps by another number: then its policers go
 * on. Global, so that the verifier checks it only once. */
__noinline int is_same_rule(__u32 old_epoch, __u32 old_rule, __u32 epoch, __u32 rule)
{
	struct policy_state *now = policy_in_force();
	__u32 index = (epoch & 1) * max_rules + ((rule - 1) & (max_rules - 1));
	struct rule *r;

	if (!now || !rule)
		return false;
	if ((__s32)(epoch - now->first) < 0) /* another policy came in force meanwhile */
		return false;
	if (old_epoch - now->first <= epoch - now->first)
		return old_rule == rule;
	if (old_epoch - now->former >= now->first - now->former)
		return false;
	r = bpf_map_lookup_elem(&rules, &index);
	return r && r->was && r->was == old_rule;
}

/* Finds the first rule for each direction and stores them in the flow, whose key is in the map matching. Returns the
 * flow's choice in this direction (rule, and PROTECTED), or -1 if what it rests on is being changed or has changed:
 * nothing is stored then. Global, so that the verifier checks it only once. */
__noinline int find_rules(struct flow *f, __u32 epoch, int family, int direction)
{
	__u64 by_name, by_host, by_port, bit = 1;
	__u32 bank = epoch & 1, slot = direction;
	union choice_word old, new;
	struct matching *m;
	struct active *active;

	if (!f)
		return -1;
	m = bpf_map_lookup_elem(&matching, &slot);
	active = bpf_map_lookup_elem(&active_rules, &bank);
	if (!m || !active)
		return -1;
	/* Compare and swap is a barrier: what is read after it is not older. */
	old.word = read_word(&f->choice);
	old.word = __sync_val_compare_and_swap((__u64 *)&f->choice, old.word, old.word);
	if (old.choice.change & (choice_change - choice_writer))
		return -1;
	gather(m, f);
	m->in = 0;
	m->out = 0;
	new.word = 0;
	new.choice.epoch = epoch;
	new.choice.change = (old.choice.change & ~(choice_change - 1)) | choice_found;
	if (is_protected(&m->key, &m->host, bank, family))
		new.choice.change |= choice_protected;
	by_name = rules_of_name(m->evidence, bank);
	by_host = rules_of_hosts(m, bank, family);
	by_port = rules_of_ports(m, bank);
	for (__u32 i = 0; i < max_rules; i++, bit <<= 1) {
		__u32 index = bank * max_rules + i;
		struct rule *r;

		r = bpf_map_lookup_elem(&rules, &index);
		if (!r || r->flags & rule_end)
			break;
		if (!(r->flags & rule_any_name) && !(by_name & bit))
			continue;
		if (!(r->flags & rule_any_host) && !(by_host & bit))
			continue;
		if (!(r->flags & rule_any_port) && !(by_port & bit))
			continue;
		if (!rule_matches(r, m))
			continue;
		if (!(r->flags & rule_not_in))
			m->in |= bit;
		if (!(r->flags & rule_not_out))
			m->out |= bit;
	}
	new.choice.rule_in = first_rule(m->in & ~active->inactive);
	new.choice.rule_out = first_rule(m->out & ~active->inactive);
	if (__sync_val_compare_and_swap((__u64 *)&f->choice, old.word, new.word) != old.word)
		return -1;
	/* A policer of the flow goes on under the same rule. */
	if (!is_same_rule(old.choice.epoch, old.choice.rule_in, epoch, new.choice.rule_in))
		reset_tat(f, direction_in, family);
	if (!is_same_rule(old.choice.epoch, old.choice.rule_out, epoch, new.choice.rule_out))
		reset_tat(f, direction_out, family);
	return chosen(&new.choice, direction);
}

/* Token bucket as GCRA (ATM Forum TM 4.1; the same limit as a bucket of `burst` bytes): the packet conforms
 * unless the theoretical arrival time is more than the burst ahead. So far ahead as none can be is one of the other clock,
 * which a packet that was held up has stored after the flow changed its rule. */
static __always_inline bool conforms(__u64 *tat, __u64 cost_per_byte, __u64 burst_ns, __u64 bytes, __u64 now)
{
	__u64 cost = (bytes * cost_per_byte) >> 16;

#pragma unroll
	for (int i = 0; i < CAS_TRIES; i++) {
		__u64 old = *(volatile __u64 *)tat;
		__u64 from = old > now ? old : now;

		if (from - now > burst_ns) {
			if (from - now < burst_ns + FOREIGN_NS)
				return false;
			from = now;
		}
		if (__sync_val_compare_and_swap(tat, old, from + cost) == old)
			return true;
	}
	count(reason_policer);
	return true;
}

/* Returns the first word of the IP header with another DSCP (RFC 2474). The ECN bits stay. */
static __always_inline __be16 with_dscp(__be16 old, __u8 dscp, const int family)
{
	__u16 word = bpf_ntohs(old);

	if (family == 4)
		word = (word & ~IP4_DSCP) | dscp << IP4_DSCP_SHIFT;
	else
		word = (word & ~IP6_DSCP) | dscp << IP6_DSCP_SHIFT;
	return bpf_htons(word);
}

/* Counts a packet of a rule that sets a DSCP by the DSCP with which it goes on. Returns that the DSCP is to be written. */
static __always_inline bool is_to_mark(const struct packet *p, struct rule_counts *stats, __u32 todo, __u8 dscp,
				       __be16 old)
{
	__u8 has = bpf_ntohs(old) >> (p->family == 4 ? IP4_DSCP_SHIFT : IP6_DSCP_SHIFT) & 63;

	if (todo & action_keep && has)
		dscp = has;
	stats->dscps[dscp & 63] += p->segments;
	if (dscp == has)
		return false;
	stats->marked += p->segments;
	return !(todo & action_dry);
}

/* Writes the DSCP. A correct IPv4 checksum stays correct (RFC 1624, equation 3).
 *
 * The kernel may have the sum over a received packet (CHECKSUM_COMPLETE), and has to be told what changes it. In IPv4
 * nothing does, because the header's checksum makes up for the DSCP. XDP has no sum to change: drivers that run a
 * program do not pass theirs on, because they could not know what the program has written. */
static __always_inline void set_dscp(const struct packet *p, struct rule_counts *stats, __u32 todo, __u8 dscp)
{
	__be16 old, new;

	if (p->xdp) {
		struct xdp_md *md = p->ctx;
		void *data = (void *)(long)md->data, *end = (void *)(long)md->data_end;
		__u32 slot = p->direction;
		struct forgotten *memory = bpf_map_lookup_elem(&forgotten, &slot);
		__be16 *head, *check;

		if (!memory)
			goto failed;
		head = data + (forget(&memory->offset, p->l3_offset) & MAX_LINK_LEN);
		if ((void *)head + sizeof(struct iphdr) > end)
			return;
		old = *head;
		if (!is_to_mark(p, stats, todo, dscp, old))
			return;
		new = with_dscp(old, dscp, p->family);
		*head = new;
		if (p->family == 4) {
			check = (void *)head + offsetof(struct iphdr, check);

			__u32 sum = (__u16) ~*check + (__u16)~old + new;

			sum = (sum & 0xffff) + (sum >> 16);
			sum = (sum & 0xffff) + (sum >> 16);
			*check = ~sum;
		}
		return;
	}
	if (bpf_skb_load_bytes(p->ctx, p->l3_offset, &old, sizeof(old)))
		goto failed;
	if (!is_to_mark(p, stats, todo, dscp, old))
		return;
	new = with_dscp(old, dscp, p->family);
	if (p->family == 4 &&
	    bpf_l3_csum_replace(p->ctx, p->l3_offset + offsetof(struct iphdr, check), old, new, sizeof(new)))
		goto failed;
	if (bpf_skb_store_bytes(p->ctx, p->l3_offset, &new, sizeof(new), p->family == 6 ? BPF_F_RECOMPUTE_CSUM : 0))
		goto failed;
	return;
failed:
	count(reason_copy);
}

/* The time for a policer. Jiffies cost nothing to read, nanoseconds do. A bucket always uses the same clock. */
static __always_inline __u64 bucket_time(__u64 burst_ns)
{
	if (burst_ns >= COARSE_TICKS * tick_ns)
		return bpf_jiffies64() * tick_ns;
	return bpf_ktime_get_ns();
}

/* Returns the IP bytes to charge for a packet: for the first fragment of a UDP datagram those of the whole datagram,
 * since later fragments are not charged. Each of them has IP headers of its own. */
static __always_inline __u64 charged_bytes(const struct packet *p)
{
	__u32 carried = p->l3_len - p->l4_offset, length;
	__be16 said;

	if (!p->fragment || p->proto != IPPROTO_UDP)
		return p->bytes;
	if (!copy_bytes(&said, p, p->l4_offset + offsetof(struct udphdr, len), sizeof(said)))
		return p->bytes;
	length = bpf_ntohs(said);
	if (length <= carried)
		return p->bytes;
	return length + (length + carried - 1) / carried * p->l4_offset;
}

/* The bucket of a rule in a direction. */
static __always_inline struct bucket *bucket_of(const struct rule *r, int direction)
{
	__u32 index = 2 * (__u32)r->slot + (direction & 1);

	return bpf_map_lookup_elem(&buckets, &index);
}

/* Whether the packet exceeds the rate of the rule. */
static __always_inline bool is_over_rate(const struct packet *p, struct flow *f, const struct rule *r, __u64 bytes)
{
	struct bucket *b;
	__u64 *tat;

	if (r->actions & action_per_flow) {
		tat = tat_of(f, p->direction, p->family);
	} else {
		b = bucket_of(r, p->direction);
		if (!b)
			return false;
		tat = &b->tat;
	}
	return !conforms(tat, r->cost, r->burst_ns, bytes, bucket_time(r->burst_ns));
}

#include "special.h"

/* Keeps the flow's verdicts for the next flow of its 5-tuple, because the table may evict this one. */
static __always_inline void remember_packet(const struct packet *p, struct flow *f)
{
	__u32 slot = p->direction;
	struct birth *b = bpf_map_lookup_elem(&births, &slot);

	if (!b)
		return;
	widen_key(&b->key, p->key, p->family);
	remember(f, slot);
}

/* Looks the rules up again; the flow's key is in the map matching. Returns what chosen() returns. */
__noinline int choose(struct flow *f, __u32 epoch, int family, int direction)
{
	union choice_word now;
	int found;

	if (!f)
		return 0;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		found = find_rules(f, epoch, family, direction);
		if (found >= 0)
			return found;
		now.word = read_word(&f->choice);
		if (now.choice.epoch == epoch && now.choice.change & choice_found)
			return chosen(&now.choice, direction); /* another packet has found them meanwhile */
	}
	/* A verdict is being stored just now: the rules found before act once more, if the policy is theirs. */
	return now.choice.epoch == epoch ? chosen(&now.choice, direction) : 0;
}

/* Finds out what a rule with action_special does to the packet: bits of enum rule_action and enum special. */
static __always_inline __u32 act_specially(const struct packet *p, struct flow *f, const struct rule *r, __u64 bytes,
					   __u32 choice, __u32 epoch)
{
	__u32 slot = p->direction;
	struct matching *m = bpf_map_lookup_elem(&matching, &slot);
	__u32 how = (p->direction == direction_out ? how_out : 0) | (p->family == 6 ? how_v6 : 0) |
		    (p->from_a ? how_from_a : 0) | (choice & PROTECTED ? how_protected : 0) |
		    (epoch & 1 ? how_bank : 0);

	if (!m)
		return 0;
	widen_key(&m->key, p->key, p->family);
	return find_special(f, r, bytes, how);
}

/* Applies the policy to the packet. Returns whether to drop it. */
static __always_inline bool enforce(const struct packet *p, struct flow *f)
{
	struct rule_counts *stats;
	struct policy_state *now;
	struct rule *r;
	__u32 slot = p->direction, index, epoch, choice, todo;
	union choice_word word;
	struct matching *m;
	__u64 dropped, bytes;
	__u8 rule;

	now = policy_in_force();
	if (!now)
		return false;
	epoch = *(volatile __u32 *)&now->epoch; /* once: a new policy may come in force meanwhile */
	word.word = read_word(&f->choice);
	choice = chosen(&word.choice, p->direction);
	if (word.choice.epoch != epoch || !(word.choice.change & choice_found)) {
		m = bpf_map_lookup_elem(&matching, &slot);
		if (!m)
			return false;
		widen_key(&m->key, p->key, p->family);
		__builtin_memset(m->key.vlan, 0, sizeof(m->key.vlan));
		choice = choose(f, epoch, p->family, p->direction);
	}
	rule = choice;
	if (!rule)
		return false;
	index = (epoch & 1) * max_rules + ((rule - 1) & (max_rules - 1));
	r = bpf_map_lookup_elem(&rules, &index);
	if (!r)
		return false;
	index = r->slot;
	stats = bpf_map_lookup_elem(&rule_stats, &index);
	if (!stats)
		return false;

	stats->packets += p->segments;
	stats->bytes += p->bytes;
	stats->categories[counted_category(f)] += p->segments;
	todo = r->actions;
	if (choice & PROTECTED && !(todo & action_special))
		todo &= ~(action_drop | action_police);
	if (todo & (action_police | action_special)) {
		bytes = charged_bytes(p);
		if (__builtin_expect(todo & action_special, 0))
			todo = act_specially(p, f, r, bytes, choice, epoch);
		else if (is_over_rate(p, f, r, bytes))
			todo |= action_drop;
	}
	if (todo & action_drop) {
		stats->dropped += p->segments;
		stats->dropped_bytes += p->bytes;
		if (todo & action_dry)
			return false;
		dropped = __sync_fetch_and_add(&f->dropped, p->segments);
		__sync_fetch_and_add(&f->dropped_bytes, p->bytes);
		if (!dropped || (dropped ^ (dropped + p->segments)) >= REMEMBER_EVERY)
			remember_packet(p, f);
		return true;
	}
	if (!p->xdp && todo & special_mark)
		((struct __sk_buff *)p->ctx)->mark = r->mark;
	if (!p->xdp && todo & special_classid)
		((struct __sk_buff *)p->ctx)->priority = r->classid;
	if (todo & action_dscp)
		set_dscp(p, stats, todo, todo & special_over ? r->over_dscp : r->dscp);
	return false;
}

#endif
