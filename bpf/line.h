/* SPDX-License-Identifier: GPL-2.0 */
/* Lines: what most packets of a decided flow need, in one cache line for each direction, found without a helper call.
 *
 * A flow in the tables flows and flows6 may have a place, at which there is a line for each direction. The places of flows are
 * in a hash table of our own (struct place_bucket), in one of two buckets. A packet counts in the line; what the flow has counted is
 * the sum of its entry and its lines (collect).
 *
 * Only the program apply gives out and frees places, one run at a time (applying). A line goes out of use with put_out: it is
 * not live any more, and not in a bucket. Packets that have found it may still count in it. So user space waits for a grace
 * period of RCU before it frees the place (op_free): then no packet is at it, its counts are whole, and it may be another flow's.
 *
 * The word control is read once: owner, verdict, rule and policy belong together. Whoever changes what the choice of rules
 * rests on raises its version (revise); a packet in the general way stores the rule that it has found only if the word has
 * not changed since before it looked (renew). At the last version the line goes out of use, so that within a grace
 * period no version comes twice. */
#ifndef DPCLASS_LINE_H
#define DPCLASS_LINE_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "key.h"
#include "packet.h"
#include "table.h"

enum line_bit {
	line_used = 1, /* a flow's; without line_live: out of use, to be freed */
	line_live = 2,
	line_sent_a = 4, /* packets from endpoint a seen */
	line_sent_b = 8,
	line_from_a = 16, /* the line is that of endpoint a's packets; for TCP, whose numbers it has */
	line_protected = 32,
	line_dropped = 64, /* packets of the flow were dropped, and its verdicts are remembered */
};

/* Never read: it puts the enum into the object's BTF (see limits.h). */
volatile const enum line_bit line_bits = 0;

/* Of the categories, rules count those with a number below the last slot one by one (rule_counts). */
#define COUNTED_CATEGORIES 64

#define LINE_BITS 0xffull
#define LINE_RULE_SHIFT 8 /* number of the rule that acts in this direction, from 1; 0: none */
#define LINE_VERSION_SHIFT 16
#define LINE_VERSIONS 0x3ffull
#define LINE_CATEGORY_SHIFT 26 /* the flow's slot in rule_counts.categories */
#define LINE_EPOCH_SHIFT 32 /* of the policy; 0: the rule is to be found */

/* Packets and bytes that a line has counted are one word. When either is half full, packets go the general way, which moves
 * both to the flow. */
#define LINE_PACKETS_SHIFT 40
#define LINE_BYTES ((1ull << LINE_PACKETS_SHIFT) - 1)
#define LINE_DROPPED 256 /* dropped packets in a line: then the general way remembers the flow's verdicts */
#define LINE_HALF (1ull << 63 | 1ull << (LINE_PACKETS_SHIFT - 1))

/* What the lines of both families begin with. */
struct line {
	__u64 control; /* epoch << 32 | category << 26 | version << 16 | rule << 8 | bits (enum line_bit) */
	__u64 count; /* packets << 40 | IP bytes on the wire */
	__u32 last; /* jiffies of the last packet, the lower half; of a free place: the next one */
	__u32 generation; /* of the flow; 0: the place is free */
};

/* What they end with. */
struct line_rest {
	struct side side; /* of the endpoint that sends in this direction */
	__u64 tat; /* policer of the flow: theoretical arrival time, ns */
	__u64 dropped; /* packets << 40 | bytes, of those in count */
};

struct line4 {
	struct line head;
	struct flow_key key;
	struct line_rest rest;
} __attribute__((aligned(64)));

struct line6 {
	struct line head;
	struct flow_key6 key;
	struct line_rest rest;
	__u64 pad[5];
} __attribute__((aligned(64)));

#define LINE_KEY sizeof(struct line)
#define KEY_WORDS(family) ((family) == 4 ? sizeof(struct flow_key) / 8 : sizeof(struct flow_key6) / 8)

/* The loader sets the sizes. Place 0 stays empty. The arrays are mapped, so they begin on a page, and a line is a cache line. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct line4);
} lines_in SEC(".maps"), lines_out SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct line6);
} lines6_in SEC(".maps"), lines6_out SEC(".maps");

#define BUCKET_ENTRIES 4
#define BUCKET_PLACE_BITS 24

struct place_bucket {
	__u32 entry[BUCKET_ENTRIES]; /* 8 bits of the hash << 24 | place; 0: free */
};

/* Hashes of keys to places. The number of buckets is a power of two. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct place_bucket);
} places SEC(".maps"), places6 SEC(".maps");

/* Which places are free. */
struct line_state {
	__u32 fresh; /* places from 1 that were given out at least once */
	__u32 free; /* the first of a list of places that were freed; 0: none */
	__u64 applying; /* in the first entry: not 0 while a process applies operations */
};

/* 0: IPv4, 1: IPv6. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct line_state);
} line_states SEC(".maps");

/* Reads a word that others write, once. */
static __always_inline __u64 read_word(const void *word)
{
	return *(const volatile __u64 *)word;
}

/* With the setting `delays`, one packet in `often` stays here for some 400 us, as when its CPU is taken away; and lines
 * have few versions, so that they go out of use under load. */
static __always_inline void held_up(const __u32 often)
{
	if (!delays || bpf_get_prandom_u32() % often)
		return;
#pragma clang loop unroll(disable)
	for (int i = 0; i < 16384; i++)
		bpf_ktime_get_ns();
}

/* NH (UMAC, RFC 4418, section 5.2): over the seeds, two keys agree with probability 2^-32. Then it is mixed, because bucket
 * and tag are parts of it. */
static __always_inline __u64 nh(__u64 word, __u64 seed)
{
	return (__u64)((__u32)word + (__u32)seed) * ((__u32)(word >> 32) + (__u32)(seed >> 32));
}

static __always_inline __u64 key_hash(const __u64 *key, const int family)
{
	__u64 h = nh(key[0], line_seed[0]) + nh(key[1], line_seed[1]);

	if (family == 6)
		h += nh(key[2], line_seed[2]) + nh(key[3], line_seed[3]) + nh(key[4], line_seed[4]);
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ull; /* an odd constant with about as many ones as zeros */
	return h ^ h >> 32;
}

static __always_inline __u32 line_tag(__u64 hash)
{
	return hash >> 56;
}

/* One of the two buckets for a hash. */
static __always_inline struct place_bucket *place_bucket_of(__u64 hash, const bool second, const int family)
{
	__u32 index = second ? hash >> 28 : hash;

	index &= family == 4 ? bucket_mask : bucket_mask6;
	return family == 4 ? bpf_map_lookup_elem(&places, &index) : bpf_map_lookup_elem(&places6, &index);
}

static __always_inline struct line *line_at(__u32 place, const enum direction direction, const int family)
{
	if (family == 4)
		return direction == direction_in ? bpf_map_lookup_elem(&lines_in, &place)
						 : bpf_map_lookup_elem(&lines_out, &place);
	return direction == direction_in ? bpf_map_lookup_elem(&lines6_in, &place)
					 : bpf_map_lookup_elem(&lines6_out, &place);
}

static __always_inline struct line_rest *rest_of(struct line *l, const int family)
{
	return (void *)l + (family == 4 ? offsetof(struct line4, rest) : offsetof(struct line6, rest));
}

static __always_inline bool has_key(const struct line *l, const __u64 *key, const int family)
{
	const __u64 *own = (const void *)l + LINE_KEY;

	if (own[0] != key[0] || own[1] != key[1])
		return false;
	return family == 4 || (own[2] == key[2] && own[3] == key[3] && own[4] == key[4]);
}

/* Takes a place out of its bucket. */
static __always_inline void unlink_place(const __u64 *key, __u32 place, const int family)
{
	__u64 hash = key_hash(key, family);
	__u32 i = 0, entry;

#pragma clang loop unroll(disable)
	do {
		struct place_bucket *b =
			i < BUCKET_ENTRIES ? place_bucket_of(hash, false, family) : place_bucket_of(hash, true, family);

		if (!b)
			return;
		entry = *(volatile __u32 *)&b->entry[i % BUCKET_ENTRIES];
		if (entry == (line_tag(hash) << BUCKET_PLACE_BITS | place))
			__sync_val_compare_and_swap(&b->entry[i % BUCKET_ENTRIES], entry, 0);
	} while (++i < 2 * BUCKET_ENTRIES);
}

/* Moves what a line has counted to its flow. */
static __always_inline void collect_line(struct flow *f, struct line *l, const enum direction direction,
					 const int family)
{
	__u64 count = __sync_lock_test_and_set(&l->count, 0), dropped;

	if (direction == direction_in) {
		__sync_fetch_and_add(&f->packets_in, count >> LINE_PACKETS_SHIFT);
		__sync_fetch_and_add(&f->bytes_in, count & LINE_BYTES);
	} else {
		__sync_fetch_and_add(&f->packets_out, count >> LINE_PACKETS_SHIFT);
		__sync_fetch_and_add(&f->bytes_out, count & LINE_BYTES);
	}
	if (!read_word(&rest_of(l, family)->dropped))
		return;
	dropped = __sync_lock_test_and_set(&rest_of(l, family)->dropped, 0);
	__sync_fetch_and_add(&f->dropped, dropped >> LINE_PACKETS_SHIFT);
	__sync_fetch_and_add(&f->dropped_bytes, dropped & LINE_BYTES);
}

/* How many jiffies after its flow's last packet the line had its own; not below 0. */
static __always_inline __s32 later(const struct flow *f, const struct line *l)
{
	__s32 later = l->last - (__u32)f->last_jiffies;

	return later > 0 ? later : 0;
}

/* Moves what the flow's lines have counted, and the time of the last packet, to the flow. */
static __always_inline int collect_from(struct flow *f, const int family)
{
	__u32 place = f->line;
	struct line *in = line_at(place, direction_in, family), *out = line_at(place, direction_out, family);

	if (!place || !in || !out)
		return 0;
	collect_line(f, in, direction_in, family);
	collect_line(f, out, direction_out, family);
	f->last_jiffies += later(f, in);
	f->last_jiffies += later(f, out);
	return 0;
}

/* This function and the other global ones of this file are checked by the verifier only once. */
__noinline int collect(struct flow *f, int family)
{
	if (!f || !f->line)
		return 0;
	return family == 4 ? collect_from(f, 4) : collect_from(f, 6);
}

/* Copies to the flow what its lines know about its ends. */
static __always_inline void pull_from(struct flow *f, struct line *in, struct line *out, const int family)
{
	f->side_in = rest_of(in, family)->side;
	f->side_out = rest_of(out, family)->side;
}

static __always_inline int put_out_from(struct flow *f, const int family)
{
	__u32 place = f->line;
	struct line *in = line_at(place, direction_in, family), *out = line_at(place, direction_out, family);
	__u64 key[KEY_WORDS(6)];

	if (!place || !in || !out)
		return 0;
	__sync_fetch_and_and(&out->control, ~(__u64)line_live);
	if (!(__sync_fetch_and_and(&in->control, ~(__u64)line_live) & line_live))
		return 0; /* another one has done it */
#pragma unroll
	for (int i = 0; i < KEY_WORDS(family); i++)
		key[i] = ((__u64 *)((void *)in + LINE_KEY))[i];
	unlink_place(key, place, family);
	pull_from(f, in, out, family);
	f->tat_in = rest_of(in, family)->tat;
	f->tat_out = rest_of(out, family)->tat;
	return collect_from(f, family);
}

/* Puts the flow's lines out of use. */
__noinline int put_out(struct flow *f, int family)
{
	if (!f || !f->line)
		return 0;
	return family == 4 ? put_out_from(f, 4) : put_out_from(f, 6);
}

/* The line of a flow in a direction, NULL if it has none in use. As long as a packet that has got it runs, the place is
 * not freed. The generation tells the line of another flow, which may have got the place since f->line was read. */
static __always_inline struct line *live_line(const struct flow *f, const enum direction direction, const int family)
{
	__u32 place = f->line;
	struct line *l;

	if (!place)
		return NULL;
	l = line_at(place, direction, family);
	return l && read_word(&l->control) & line_live && l->generation == f->generation ? l : NULL;
}

static __always_inline int pull_sides_from(struct flow *f, const int family)
{
	struct line *in = live_line(f, direction_in, family), *out = live_line(f, direction_out, family);

	if (in && out)
		pull_from(f, in, out, family);
	return 0;
}

/* Copies to the flow what its lines know about its ends, as long as they are in use. */
__noinline int pull_sides(struct flow *f, int family)
{
	if (!f || !f->line)
		return 0;
	return family == 4 ? pull_sides_from(f, 4) : pull_sides_from(f, 6);
}

static __always_inline int lines_later_from(const struct flow *f, const int family)
{
	struct line *in = live_line(f, direction_in, family), *out = live_line(f, direction_out, family);
	__s32 most = 0;

	if (in)
		most = later(f, in);
	if (out && later(f, out) > most)
		most = later(f, out);
	return most;
}

/* How many jiffies after the flow's last packet its lines had theirs. */
__noinline int lines_later(const struct flow *f, int family)
{
	if (!f || !f->line)
		return 0;
	return family == 4 ? lines_later_from(f, 4) : lines_later_from(f, 6);
}

/* Returns when the last packet of a flow came, in jiffies. */
static __always_inline __u64 last_seen(const struct flow *f, int family)
{
	return f->last_jiffies + (f->line ? lines_later(f, family) : 0);
}

/* Sets the policer of the flow in a direction back, where it has it now. */
static __always_inline int reset_tat_of(struct flow *f, const enum direction direction, const int family)
{
	struct line *l = live_line(f, direction, family);

	if (direction == direction_in)
		f->tat_in = 0;
	else
		f->tat_out = 0;
	if (l)
		rest_of(l, family)->tat = 0;
	return 0;
}

__noinline int reset_tat(struct flow *f, int direction, int family)
{
	if (!f)
		return 0;
	if (family == 4)
		return direction == direction_in ? reset_tat_of(f, direction_in, 4) : reset_tat_of(f, direction_out, 4);
	return direction == direction_in ? reset_tat_of(f, direction_in, 6) : reset_tat_of(f, direction_out, 6);
}

/* The policer of the flow in a direction. */
static __always_inline __u64 *tat_of(struct flow *f, const enum direction direction, const int family)
{
	struct line *l = live_line(f, direction, family);

	if (l)
		return &rest_of(l, family)->tat;
	return direction == direction_in ? &f->tat_in : &f->tat_out;
}

/* Bits of the state of a flow as those of a line. */
static __always_inline __u64 sent_bits(__u32 state)
{
	return (state & state_sent_a ? line_sent_a : 0) | (state & state_sent_b ? line_sent_b : 0);
}

/* The slot in which the packets of a rule are counted by the category of their flow. Numbers from the last one on share it. */
static __always_inline __u32 counted_category(const struct flow *f)
{
	__u32 label = f->category.label;

	return label < COUNTED_CATEGORIES ? label : COUNTED_CATEGORIES - 1;
}

/* Stores what the general way knows about an end, unless packets in the fast way have gone on meanwhile. */
static __always_inline void push_side(struct line_rest *rest, const struct side *side)
{
	if (rest->side.end - side->end >= TCP_NEAR)
		rest->side.end = side->end;
	if (rest->side.ack - side->ack >= TCP_NEAR)
		rest->side.ack = side->ack;
}

static __always_inline int renew_from(struct flow *f, __u32 now, const enum direction direction, const int family)
{
	struct line *l = live_line(f, direction, family);
	__u64 before, after;
	union choice_word found;
	struct line *other;
	__u64 dropped;
	bool many;

	if (!l)
		return 0;
	/* Compare and swap is a barrier: the flow is read after it. */
	before = __sync_val_compare_and_swap(&l->control, 0, 0);
	if (!(before & line_live))
		return 0;
	l->last = now;
	push_side(rest_of(l, family), direction == direction_in ? &f->side_in : &f->side_out);
	/* Where one hook sees both ends, nothing else tells the other line. */
	other = live_line(f, direction == direction_in ? direction_out : direction_in, family);
	if (other)
		push_side(rest_of(other, family), direction == direction_in ? &f->side_out : &f->side_in);
	dropped = read_word(&rest_of(l, family)->dropped);
	if (dropped || read_word(&l->count) & LINE_HALF)
		collect_line(f, l, direction, family);
	many = dropped >> LINE_PACKETS_SHIFT >= LINE_DROPPED / 2;
	found.word = read_word(&f->choice);
	if (!(found.choice.change & choice_found) || found.choice.change & (choice_change - choice_writer))
		return many;
	held_up(4);
	after = before & (LINE_VERSIONS << LINE_VERSION_SHIFT | line_used | line_live | line_from_a);
	after |= (__u64)found.choice.epoch << LINE_EPOCH_SHIFT | sent_bits(f->state);
	after |= (__u64)counted_category(f) << LINE_CATEGORY_SHIFT;
	after |= (__u64)(direction == direction_in ? found.choice.rule_in : found.choice.rule_out) << LINE_RULE_SHIFT;
	if (found.choice.change & choice_protected)
		after |= line_protected;
	if (f->dropped || f->state & state_enforced)
		after |= line_dropped;
	if (after != before)
		__sync_val_compare_and_swap(&l->control, before, after);
	return many;
}

/* Lets the flow's line in the direction know what the general way has found out about it, with a packet at `now`. Returns
 * whether the flow's verdicts are to be remembered again: many packets were dropped. */
__noinline int renew(struct flow *f, __u32 now, int direction, int family)
{
	if (!f || !f->line)
		return 0;
	if (family == 4)
		return direction == direction_in ? renew_from(f, now, direction_in, 4)
						 : renew_from(f, now, direction_out, 4);
	return direction == direction_in ? renew_from(f, now, direction_in, 6) : renew_from(f, now, direction_out, 6);
}

/* What follows is for the program apply alone. */

/* Makes the next packet of each direction find the rule, after what it rests on has changed. */
static __always_inline void revise(struct flow *f, const int family)
{
	const __u64 keep = LINE_VERSIONS << LINE_VERSION_SHIFT | LINE_BITS | 0xffull << LINE_RULE_SHIFT;
	struct line *in = live_line(f, direction_in, family), *out = live_line(f, direction_out, family);

	if (!in || !out)
		return;
	if ((in->control >> LINE_VERSION_SHIFT & LINE_VERSIONS) >= (delays ? 3 : LINE_VERSIONS)) {
		put_out(f, family);
		return;
	}
	/* Only an atomic operation whose result is used is a barrier: what was changed before is seen by who sees the version. */
	if (!__sync_fetch_and_add(&in->control, 1ull << LINE_VERSION_SHIFT))
		return;
	__sync_fetch_and_add(&out->control, 1ull << LINE_VERSION_SHIFT);
	__sync_fetch_and_and(&in->control, keep);
	__sync_fetch_and_and(&out->control, keep);
}

static __always_inline struct line_state *line_state_of(const int family)
{
	__u32 slot = family == 4 ? 0 : 1;

	return bpf_map_lookup_elem(&line_states, &slot);
}

/* Whether all packets of the flow but a few may go the fast way. */
static __always_inline bool may_have_line(const struct flow *f, const __u64 *key, const int family)
{
	__u64 end = key[KEY_WORDS(family) - 1];
	__u32 state = f->state;

	if (!fast_path || !(state & state_settled) || state & (state_retired | state_idle))
		return false;
	if ((__u16)end == bpf_htons(DNS_PORT) || (__u16)(end >> 16) == bpf_htons(DNS_PORT))
		return false; /* answers may be copied */
	return (__u8)(end >> 32) != IPPROTO_TCP || !both_ends || state & state_confirmed;
}

static __always_inline void fill_line(struct line *l, const __u64 *key, const struct flow *f,
				      const enum direction direction, const int family)
{
	bool from_a = !(f->state & state_a_out) == (direction == direction_in);
	struct line_rest *rest = rest_of(l, family);
	__u64 *own = (void *)l + LINE_KEY;

#pragma unroll
	for (int i = 0; i < KEY_WORDS(family); i++)
		own[i] = key[i];
	l->count = 0;
	l->last = f->last_jiffies;
	l->generation = f->generation;
	rest->side = direction == direction_in ? f->side_in : f->side_out;
	rest->tat = direction == direction_in ? f->tat_in : f->tat_out;
	rest->dropped = 0;
	/* All of it before the word that lets packets in. */
	__sync_lock_test_and_set(&l->control, line_used | line_live | sent_bits(f->state) | (from_a ? line_from_a : 0));
}

/* Gives a decided flow lines, if there is room. */
static __always_inline void put_in(const void *map, const __u64 *key, struct flow *f, const int family)
{
	struct line_state *state = line_state_of(family);
	__u64 hash = key_hash(key, family);
	__u32 i = 0, place, most = family == 4 ? max_places : max_places6;
	struct line *in, *out;
	struct place_bucket *b;

	if (f->line || !state || !may_have_line(f, key, family))
		return;
#pragma clang loop unroll(disable)
	do {
		b = i < BUCKET_ENTRIES ? place_bucket_of(hash, false, family) : place_bucket_of(hash, true, family);
		if (!b)
			return;
		if (!*(volatile __u32 *)&b->entry[i % BUCKET_ENTRIES])
			goto room;
	} while (++i < 2 * BUCKET_ENTRIES);
	return;
room:
	place = state->free ? state->free : state->fresh + 1;
	if (place > most)
		return;
	in = line_at(place, direction_in, family);
	out = line_at(place, direction_out, family);
	if (!in || !out)
		return;
	if (state->free)
		state->free = in->last;
	else
		state->fresh = place;
	fill_line(out, key, f, direction_out, family);
	fill_line(in, key, f, direction_in, family);
	__sync_lock_test_and_set(&f->line, place);
	__sync_val_compare_and_swap(&b->entry[i % BUCKET_ENTRIES], 0, line_tag(hash) << BUCKET_PLACE_BITS | place);
	/* The flow may have been retired meanwhile: either that has seen the line, or this sees the bit. */
	if (*(volatile __u32 *)&f->state & state_retired || bpf_map_lookup_elem((void *)map, key) != f)
		put_out(f, family);
	/* Whoever put the lines out of use before the place was in the bucket has not taken it out of there. */
	if (!(read_word(&in->control) & line_live))
		unlink_place(key, place, family);
}

/* Frees a place whose lines went out of use at least a grace period ago. Returns whether it did. */
static __always_inline bool free_place(void *map, __u32 place, __u64 control, const int family)
{
	struct line *in = line_at(place, direction_in, family), *out = line_at(place, direction_out, family);
	struct line_state *state = line_state_of(family);
	__u64 key[KEY_WORDS(6)] = {};
	struct flow *f;

	if (!place || !in || !out || !state)
		return false;
	if (in->control != control || (control & (line_used | line_live)) != line_used)
		return false;
#pragma unroll
	for (int i = 0; i < KEY_WORDS(family); i++)
		key[i] = ((__u64 *)((void *)in + LINE_KEY))[i];
	f = bpf_map_lookup_elem(map, key);
	if (f && f->line == place) {
		collect_from(f, family);
		__sync_lock_test_and_set(&f->line, 0);
	}
	in->generation = 0;
	out->generation = 0;
	out->control = 0;
	in->control = 0;
	in->last = state->free;
	state->free = place;
	return true;
}

#endif
