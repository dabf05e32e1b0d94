/* SPDX-License-Identifier: GPL-2.0 */
/* From a packet to its flow, the flow's life, its counters. */
#ifndef DPCLASS_FLOW_H
#define DPCLASS_FLOW_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"
#include "evidence.h"
#include "key.h"
#include "limits.h"
#include "line.h"
#include "packet.h"
#include "parse.h"
#include "protocols.h"
#include "table.h"

struct ended_flow {
	struct flow_key6 key;
	__u64 number; /* number of the end, from 1; 0: the slot is empty */
	__u8 family;
	__u8 pad[7];
	struct flow flow;
};

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

/* What a flow leaves to the next one of its 5-tuple, whose rules it chooses until that has a verdict of its own. */
struct held {
	struct verdict category;
	struct verdict app;
	__u64 evidence;
	__u64 jiffies; /* when the verdicts were last a flow's own */
	__u32 state; /* state_held_both, state_enforced */
	struct choice choice; /* so that a policer of the flow goes on */
	enum protocol protocol;
	__u8 pad[3];
};

/* 5-tuples of flows that have left the tables, and of which packets were dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, max_enforced);
	__type(key, struct flow_key6);
	__type(value, struct held);
} enforced SEC(".maps");

/* Room to put a new flow together. One slot for each direction, because the two hooks may nest, and one for the program
 * apply. */
#define BIRTH_APPLY 2

struct birth {
	struct flow flow;
	struct flow_key6 key;
	struct held held;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BIRTH_APPLY + 1);
	__type(key, __u32);
	__type(value, struct birth);
} births SEC(".maps");

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

/* To be called before and after what the choice of rules rests on changes. Until the end, packets act by the rules
 * found before; after it, the next packet looks them up again. Several may change a flow at the same time. */
static __always_inline void begin_change(struct flow *f)
{
	__sync_fetch_and_add((__u64 *)&f->choice, (__u64)choice_writer << CHOICE_SHIFT);
}

static __always_inline void end_change(struct flow *f, bool changed)
{
	__u64 end = -((__u64)choice_writer << CHOICE_SHIFT);

	if (changed) {
		__sync_fetch_and_and((__u64 *)&f->choice, ~((__u64)choice_found << CHOICE_SHIFT));
		end += (__u64)choice_change << CHOICE_SHIFT;
	}
	__sync_fetch_and_add((__u64 *)&f->choice, end);
}

/* Whether the verdict of an earlier flow of the 5-tuple is the one that rules act by. */
static __always_inline bool is_held(const struct flow *f)
{
	return f->state & state_held && !(f->state & state_settled) && !is_firm(&f->category) && !is_firm(&f->app);
}

/* Whether the packet begins a new flow on a key that is in the table: any packet if user space has ended the old flow
 * as idle; a SYN on a closed or timed-out TCP flow; any packet on a timed-out UDP flow. A SYN on a live flow: no, unless
 * all that the flow has is an earlier one's verdict that is too old: where a rule drops each SYN, nothing else ends it. */
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
	if (is_held(f) && (__s64)(now - f->held_jiffies) > (__s64)timeout_held)
		return true;
	return (__s64)(now - last_seen(f, p->family)) > (__s64)idle_timeout(state, p->proto);
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

/* Gives out a generation. It is never 0: an operation with generation 0 means any flow. */
static __always_inline __u32 next_generation(void)
{
	__u64 *generations = sequence_at(sequence_generations);
	__u32 next;

	if (!generations)
		return 0;
	next = __sync_fetch_and_add(generations, 1) + 1;
	return next ? next : __sync_fetch_and_add(generations, 1) + 1;
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
	collect(f, family);
	slot->flow = *f;
	slot->number = number;
	return 0;
}

/* Notes what a flow leaves to the next one of its 5-tuple: the verdicts that its own rules were chosen by (gather). */
static __always_inline void hold(struct held *h, const struct flow *f)
{
	bool held = is_held(f);

	h->category = held && f->held_category.source ? f->held_category : f->category;
	h->app = held && f->held_app.source ? f->held_app : f->app;
	h->evidence = held && !f->evidence ? f->held_evidence : f->evidence;
	h->protocol = held && !f->protocol ? f->held_protocol : f->protocol;
	h->jiffies = held ? f->held_jiffies : f->last_jiffies;
	h->choice = f->choice;
	h->state = held ? f->state & state_held_both : 0;
	if (f->state & state_confirmed)
		h->state |= state_held_both;
	if (f->dropped || f->state & state_enforced)
		h->state |= state_enforced;
}

/* Puts what a flow leaves into a slot of the map births, which has its key, and into the map enforced, if packets of it
 * were dropped. Global, so that the verifier checks it only once. */
__noinline int remember(struct flow *f, __u32 slot)
{
	struct birth *b = bpf_map_lookup_elem(&births, &slot);

	if (!f || !b)
		return 0;
	hold(&b->held, f);
	if (f->dropped || f->state & state_enforced)
		bpf_map_update_elem(&enforced, &b->key, &b->held, BPF_ANY);
	return 0;
}

/* Gives a new flow what an earlier one has left, unless that is too old. */
__noinline int inherit(struct birth *b)
{
	struct flow *f;
	struct held *h;

	if (!b)
		return 0;
	f = &b->flow;
	h = &b->held;
	if ((__s64)(f->first_jiffies - h->jiffies) > (__s64)timeout_held)
		return 0;
	f->state |= state_held | h->state;
	f->held_category = h->category;
	f->held_app = h->app;
	f->held_evidence = h->evidence;
	f->held_protocol = h->protocol;
	f->held_jiffies = h->jiffies;
	f->choice = h->choice;
	f->choice.change &= choice_protected;
	return 0;
}

/* Removes a flow whose key is used again, and notes in *b what it leaves. */
static __always_inline void retire(const struct packet *p, const struct tables *t, struct flow *f, struct birth *b)
{
	bool first = !(__sync_fetch_and_or(&f->state, state_retired | (has_ended(f->state) ? 0 : state_idle)) &
		       state_retired);

	put_out(f, p->family); /* after the bit: see put_in */
	remember(f, p->direction);
	b->flow.tat_in = f->tat_in;
	b->flow.tat_out = f->tat_out;
	if (!first)
		return; /* another CPU removes it */
	report_end(f, &b->key, p->family);
	bpf_map_delete_elem(t->flows, p->key);
	bpf_map_delete_elem(t->pending, p->key);
}

/* Begins a flow with its first packet; *b has its key and, if `again`, what an earlier flow has left. NULL if there is
 * no room. */
static __always_inline struct flow *begin(const struct packet *p, const struct tables *t, __u64 now, struct birth *b,
					  bool again)
{
	__u64 *unborn = sequence_at(sequence_unborn);
	struct flow *new = &b->flow, *f, *moved;
	struct held *left;

	new->generation = next_generation();
	if (!new->generation || !unborn)
		return NULL;
	new->first_ns = bpf_ktime_get_ns();
	new->first_jiffies = now;
	new->last_jiffies = now;
	if (!p->from_a)
		new->state |= state_first_b;
	if (p->from_a == (p->direction == direction_out))
		new->state |= state_a_out;
	if (p->proto == IPPROTO_TCP && !(p->tcp_flags & TCP_SYN))
		new->state |= state_midstream;
	if (is_dns(p)) /* known from the port: DNS is never sampled */
		new->protocol = protocol_dns;
	if (!again) {
		left = bpf_map_lookup_elem(&enforced, &b->key);
		if (left) {
			b->held = *left;
			again = true;
		}
	}
	if (again)
		inherit(b);
	/* Another CPU may have begun the same flow: then both count into that one. */
	if (bpf_map_update_elem(t->pending, p->key, new, BPF_NOEXIST))
		__sync_fetch_and_add(unborn, 1);
	f = bpf_map_lookup_elem(t->pending, p->key);
	/* Or the flow has moved to flows since the first look-up there, and its pending entry is already gone. Then the
	 * new entry is one whose counts op_merge adds to that flow. */
	moved = bpf_map_lookup_elem(t->flows, p->key);
	if (!f || !moved || moved->state & state_retired || begins_again(moved, p, now))
		return f;
	if (f->generation == new->generation)
		__sync_fetch_and_add(unborn, 1);
	f->generation = moved->generation;
	__sync_fetch_and_or(&f->state, state_promoted);
	return moved;
}

/* Returns the flow of a packet that is not a decided and live one, a new flow if necessary. NULL if there is no room.
 * `old` is an entry of flows whose key is used again, or NULL. */
static __always_inline struct flow *find_open(const struct packet *p, const struct tables *t, __u64 now,
					      struct flow *old)
{
	struct flow *f = bpf_map_lookup_elem(t->pending, p->key);
	__u32 slot = p->direction;
	struct birth *b;

	if (f && !(f->state & state_promoted)) {
		if (!begins_again(f, p, now))
			return f;
		old = f;
	} else if (f && !old) { /* the flow has moved to flows since the first look-up there */
		old = bpf_map_lookup_elem(t->flows, p->key);
		if (old && !begins_again(old, p, now))
			return old;
		if (!old)
			old = f;
	}
	b = bpf_map_lookup_elem(&births, &slot);
	if (!b)
		return NULL;
	__builtin_memset(&b->flow, 0, sizeof(b->flow));
	widen_key(&b->key, p->key, p->family);
	if (old)
		retire(p, t, old, b);
	return begin(p, t, now, b, old);
}

/* Returns the flow of a packet, a new one if necessary. NULL if there is no room. A decided flow costs one lookup. */
static __always_inline struct flow *find_flow(const struct packet *p, const struct tables *t, __u64 now)
{
	struct flow *f = bpf_map_lookup_elem(t->flows, p->key);

	if (f && !begins_again(f, p, now))
		return f;
	return find_open(p, t, now, f);
}

/* A FIN or RST is at most this far beyond what its sender has sent: the least that all windows have. */
#define TCP_CLOSE (64 << 10)

static __always_inline bool is_near(__u32 a, __u32 b, __u32 distance)
{
	return a - b + distance < 2 * distance;
}

/* The numbers of a TCP packet. */
struct segment {
	__u32 seq;
	__u32 end; /* one after its last byte; SYN and FIN count as one */
	__u32 ack;
	__u8 flags;
	__u8 from_a;
	__u8 pad[2];
};

/* Whether the endpoint's FIN or RST is plausible: between what the other one has acknowledged and what it has sent, or
 * a little further; before it has sent anything, an answer to what the other one has sent. */
static __always_inline bool closes(const struct segment *s, const struct side *mine, const struct side *other,
				   bool sent, bool other_sent, bool other_acked)
{
	bool ack = s->flags & TCP_ACK;

	if (s->flags & TCP_RST && ack && !s->seq && other_sent && s->ack == other->end)
		return true; /* it refuses a SYN (RFC 9293, section 3.5.2) */
	if (!sent) {
		if (ack)
			return !other_sent || is_near(s->ack, other->end, TCP_CLOSE);
		return !other_sent || (other_acked && is_near(s->seq, other->ack, TCP_CLOSE));
	}
	if (is_near(s->seq, mine->end, TCP_CLOSE))
		return true;
	return other_acked && mine->end - other->ack < 1 << 30 && s->seq - other->ack + 1 <= mine->end - other->ack + 1;
}

/* Lets the flow be classified again: its verdicts may come from packets that were not those of the connection. */
static __always_inline void forget_verdicts(struct flow *f)
{
	__u64 *unborn = sequence_at(sequence_unborn);
	__u32 generation = next_generation();

	if (!generation || !unborn)
		return;
	__sync_fetch_and_add(unborn, 1); /* the old generation leaves no record */
	f->generation = generation;
	f->samples = 0;
	if (f->category.source != source_operator)
		*(volatile __u64 *)&f->category = 0;
	if (f->app.source != source_operator)
		*(volatile __u64 *)&f->app = 0;
	f->evidence = 0;
	if (f->protocol != protocol_dns) /* known from the port: no sample would tell it again */
		f->protocol = protocol_unknown;
	__sync_fetch_and_and(&f->state, ~(state_settled | state_conflict));
}

/* Adds a TCP packet to the state of its flow. Returns whether its numbers fit; if they do not and the connection is
 * confirmed, the packet changes nothing. A connection is confirmed as soon as a packet acknowledges what the other end
 * has sent, and continues what the other end has acknowledged: whoever does not see the packets of both ends cannot do that
 * (RFC 5961, section 1.1, has the odds). Global, so that the verifier checks it only once. */
__noinline int judge(struct flow *f, const struct segment *s)
{
	bool ack, sent, other_sent, other_acked, knows_other, is_known, fits, closing, confirms;
	__u32 sent_bit, acked_bit, seen = 0, state;
	struct side *mine, *other;

	if (!f || !s)
		return 0;
	state = f->state;
	ack = s->flags & TCP_ACK;
	mine = &f->side_in;
	other = &f->side_out;
	if (!s->from_a == !(state & state_a_out)) {
		mine = &f->side_out;
		other = &f->side_in;
	}
	sent_bit = s->from_a ? state_sent_a : state_sent_b;
	acked_bit = s->from_a ? state_acked_a : state_acked_b;
	sent = state & sent_bit;
	other_sent = state & (state_sent_a | state_sent_b) & ~sent_bit;
	other_acked = state & (state_acked_a | state_acked_b) & ~acked_bit;

	knows_other = ack && other_sent && is_near(s->ack, other->end, TCP_NEAR);
	is_known = other_acked && is_near(s->seq, other->ack, TCP_NEAR);
	closing = s->flags & (TCP_FIN | TCP_RST) && closes(s, mine, other, sent, other_sent, other_acked);
	if (sent)
		fits = is_near(s->seq, mine->end, TCP_NEAR) || (state & state_confirmed && is_known);
	else
		fits = !other_sent || knows_other || !ack;
	if (s->flags & TCP_RST || state & state_confirmed)
		fits |= closing;
	if (!fits && state & state_confirmed)
		return 0;
	if (s->flags & TCP_RST && !closing)
		return 0;

	seen = sent_bit;
	if (ack)
		seen |= acked_bit;
	if (s->flags & TCP_SYN)
		seen |= state_syn;
	if (closing && s->flags & TCP_FIN)
		seen |= s->from_a ? state_fin_a : state_fin_b;
	if (closing && s->flags & TCP_RST)
		seen |= state_rst;
	if (!fits)
		seen |= state_conflict;
	if (!(s->flags & TCP_RST && sent)) {
		if (!fits || !sent || (__s32)(s->end - mine->end) > 0)
			mine->end = s->end;
		if (ack)
			mine->ack = s->ack;
	}
	confirms = !(state & state_confirmed) && fits && knows_other && is_known && !(s->flags & TCP_RST);
	if (confirms) {
		begin_change(f);
		if (state & state_conflict)
			forget_verdicts(f);
		seen |= state_confirmed;
	}
	if ((state & seen) != seen)
		__sync_fetch_and_or(&f->state, seen);
	if (confirms)
		end_change(f, true);
	return fits && (knows_other || !(state & state_confirmed));
}

/* Adds a TCP packet to the state of its flow. Returns whether it may be sampled. */
static __always_inline bool follow(struct flow *f, const struct packet *p)
{
	__u32 state = f->state, end = p->seq + p->l3_len - p->payload_offset;
	struct side *mine = !p->from_a == !(state & state_a_out) ? &f->side_out : &f->side_in;

	if (state & state_settled && (!both_ends || state & state_confirmed) &&
	    (p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) == TCP_ACK &&
	    is_near(p->seq, mine->end, TCP_NEAR)) {
		if ((__s32)(end - mine->end) > 0)
			mine->end = end;
		if (mine->ack != p->ack)
			mine->ack = p->ack;
		return false;
	}

	struct segment s = {.seq = p->seq, .end = end, .ack = p->ack, .flags = p->tcp_flags, .from_a = p->from_a};
	bool fits;

	if (p->tcp_flags & (TCP_SYN | TCP_FIN))
		s.end++;
	fits = judge(f, &s);
	if ((f->state ^ state) & state_confirmed) /* what the choice of rules rests on has changed */
		put_out(f, p->family);
	return fits;
}

/* Adds a packet to its flow. Returns whether it may be sampled. */
static __always_inline bool touch(struct flow *f, const struct packet *p, __u64 now)
{
	__u32 seen = p->from_a ? state_sent_a : state_sent_b;
	bool fits = true;

	if (p->proto == IPPROTO_TCP) {
		if (f->line)
			pull_sides(f, p->family);
		fits = follow(f, p);
	} else if ((f->state & seen) != seen)
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
	return fits;
}

#endif
