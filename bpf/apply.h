/* SPDX-License-Identifier: GPL-2.0 */
/* What user space does to flows, as operations of a batch. The kernel applies them, so that user space never overwrites
 * a counter that packets are adding to, and changes only the generation of the flow that it means. */
#ifndef DPCLASS_APPLY_H
#define DPCLASS_APPLY_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "counters.h"
#include "evidence.h"
#include "flow.h"
#include "key.h"
#include "limits.h"
#include "line.h"

#define EEXIST 17 /* asm-generic/errno-base.h */

enum op_kind {
	op_verdict, /* store verdicts */
	op_resample, /* take back op.samples samples that were shed */
	op_merge, /* second half of a promotion: add what was counted since the first */
	op_idle, /* end by time-out */
	op_report, /* write the end into the map ended */
	op_remove, /* remove the flow from the tables */
	op_collect, /* move to the flow what its lines have counted */
	op_line, /* give the flow lines, if it may have some */
	op_free, /* free the place op.generation, whose control word is op.last_jiffies */
} __attribute__((packed));

/* An operation of user space on one flow. Generation 0 means any (an operator's verdict). */
struct op {
	struct flow_key6 key;
	__u64 last_jiffies; /* op_idle and op_remove: apply only if no packet has come since then */
	__u64 evidence; /* op_verdict; 0: leave it as it is */
	struct verdict category; /* op_verdict; source_none: leave it as it is */
	struct verdict app;
	__u32 generation;
	enum op_kind kind;
	__u8 family;
	__u8 settled; /* op_verdict: no model's verdict comes after these */
	__u8 samples; /* op_resample */
	enum protocol protocol; /* op_verdict; protocol_unknown: leave it as it is */
	__u8 missing; /* out: the map evidence lacks op.evidence */
	__u8 pad[6];
};

/* Context of the program that applies the inbox. */
struct batch {
	__u32 count; /* operations in the inbox */
	__u32 stale; /* out: the flow was gone or of another generation */
	__u32 missing; /* out: operations whose evidence is missing */
	__u32 busy; /* out: another process is applying operations, nothing was done */
};

/* Operations for the program apply; each process that stores verdicts has its own. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, max_batch);
	__type(key, __u32);
	__type(value, struct op);
} inbox SEC(".maps");

/* Stores a task's verdict. Only an operator changes a final verdict or an operator's. */
static __always_inline bool set_verdict(struct verdict *to, const struct verdict *from)
{
	union {
		struct verdict verdict;
		__u64 word;
	} old, new = {.verdict = *from};

	if (from->source == source_none)
		return false;
	for (int i = 0; i < CAS_TRIES; i++) { /* an operator's may come meanwhile */
		old.word = read_word(to);
		if (from->source != source_operator && is_firm(&old.verdict))
			return false;
		if (old.word == new.word)
			return false;
		if (__sync_val_compare_and_swap((__u64 *)to, old.word, new.word) == old.word)
			return true;
	}
	count(reason_stale_verdict); /* lost */
	return false;
}

/* Stores what a flow's payload says. Returns whether that is new. */
static __always_inline bool set_evidence(struct flow *f, const struct op *op)
{
	bool changed = false;

	if (op->protocol != protocol_unknown && op->protocol != f->protocol) {
		f->protocol = op->protocol;
		changed = true;
	}
	if (op->evidence && op->evidence != f->evidence) {
		f->evidence = op->evidence;
		changed = true;
	}
	return changed;
}

static __always_inline void set_verdicts(struct flow *f, const struct op *op)
{
	bool changed;

	begin_change(f);
	changed = set_verdict(&f->category, &op->category);
	changed |= set_verdict(&f->app, &op->app);
	changed |= set_evidence(f, op);
	if (op->settled || (f->category.final && f->app.final))
		changed |= !(__sync_fetch_and_or(&f->state, state_settled) & state_settled) && f->state & state_held;
	end_change(f, changed);
}

/* Moves the counts of the pending entry to the promoted flow. */
static __always_inline void move_counts(struct flow *to, struct flow *from)
{
	__sync_fetch_and_add(&to->packets_in, __sync_lock_test_and_set(&from->packets_in, 0));
	__sync_fetch_and_add(&to->bytes_in, __sync_lock_test_and_set(&from->bytes_in, 0));
	__sync_fetch_and_add(&to->packets_out, __sync_lock_test_and_set(&from->packets_out, 0));
	__sync_fetch_and_add(&to->bytes_out, __sync_lock_test_and_set(&from->bytes_out, 0));
	__sync_fetch_and_add(&to->dropped, __sync_lock_test_and_set(&from->dropped, 0));
	__sync_fetch_and_add(&to->dropped_bytes, __sync_lock_test_and_set(&from->dropped_bytes, 0));
}

/* Moves a flow with a firm verdict from pending to flows. The pending entry stays until op_merge: a packet that
 * found it just before may still be counting there. */
static __always_inline void promote(const struct tables *t, const void *key, struct flow *f)
{
	struct flow copy = *f, *to;
	long err;

	copy.line = 0;
	copy.choice.change &= choice_protected; /* others may be changing the verdict just now */
	copy.packets_in = copy.bytes_in = copy.packets_out = copy.bytes_out = copy.dropped = copy.dropped_bytes = 0;
	err = bpf_map_update_elem(t->flows, key, &copy, BPF_NOEXIST);
	if (err) {
		if (err != -EEXIST) /* another process promoted it meanwhile */
			count(reason_table_full); /* the flow stays in pending, with its verdict */
		return;
	}
	to = bpf_map_lookup_elem(t->flows, key);
	if (!to)
		return;
	__sync_fetch_and_or(&f->state, state_promoted);
	move_counts(to, f);
	/* Bits that a packet set while the copy was made. */
	__sync_fetch_and_or(&to->state, f->state & ~state_promoted);
	to->last_jiffies = f->last_jiffies;
	to->side_in = f->side_in;
	to->side_out = f->side_out;
}

static __always_inline bool is_meant(const struct flow *f, const struct op *op)
{
	return f && (!op->generation || f->generation == op->generation);
}

/* Applies an operation to the flow with its key. Returns whether the flow was there. */
static __always_inline bool apply_to(const struct op *op, const void *key, const struct tables *t, const int family)
{
	struct flow *decided = bpf_map_lookup_elem(t->flows, key);
	struct flow *open = bpf_map_lookup_elem(t->pending, key);
	__u32 slot = BIRTH_APPLY;
	struct birth *left;
	struct flow *f;

	if (op->kind == op_free)
		return free_place(t->flows, op->generation, op->last_jiffies, family);
	if (!is_meant(decided, op))
		decided = NULL;
	if (!is_meant(open, op))
		open = NULL;
	f = decided ? decided : open;
	if (!f)
		return false;

	switch (op->kind) {
	case op_verdict:
		set_verdicts(f, op);
		if (!decided && (is_firm(&f->category) || is_firm(&f->app)))
			promote(t, key, f);
		decided = decided ? NULL : bpf_map_lookup_elem(t->flows, key);
		if (decided &&
		    decided->generation == f->generation) /* another process may have promoted it meanwhile */
			set_verdicts(decided, op);
		decided = bpf_map_lookup_elem(t->flows, key);
		if (decided) {
			revise(decided, family);
			put_in(t->flows, key, decided, family);
		}
		return true;
	case op_resample:
		if (f->state & state_settled)
			return false;
		take_back(f, op->samples);
		return true;
	case op_merge:
		if (!open || !(open->state & state_promoted))
			return false;
		if (decided)
			move_counts(decided, open);
		bpf_map_delete_elem(t->pending, key);
		return true;
	case op_idle:
		if (last_seen(f, family) != op->last_jiffies)
			return false;
		__sync_fetch_and_or(&f->state, state_idle);
		put_out(f, family);
		return true;
	case op_report:
		if (!has_ended(f->state))
			return false;
		report_end(f, &op->key, op->family);
		return true;
	case op_remove:
		if (last_seen(f, family) != op->last_jiffies)
			return false;
		put_out(f, family);
		if (has_ended(f->state))
			report_end(f, &op->key, op->family);
		left = bpf_map_lookup_elem(&births, &slot);
		if (left) {
			left->key = op->key;
			remember(f, slot);
		}
		if (decided)
			bpf_map_delete_elem(t->flows, key);
		if (open)
			bpf_map_delete_elem(t->pending, key);
		return true;
	case op_collect:
		collect(f, family);
		return true;
	case op_line:
		if (decided)
			put_in(t->flows, key, decided, family);
		return decided;
	case op_free:
		break;
	}
	return false;
}

/* Applies one operation of the inbox; a callback of bpf_loop. */
static long apply_one(__u32 index, struct batch *batch)
{
	struct op *op = bpf_map_lookup_elem(&inbox, &index);
	bool applied;

	if (!op)
		return 1;
	if (op->family == 4) {
		const struct tables t = {&flows, &pending};
		struct flow_key key = {};

		narrow_key(&key, &op->key);
		applied = apply_to(op, &key, &t, 4);
	} else {
		const struct tables t = {&flows6, &pending6};
		struct flow_key6 key = op->key;

		applied = apply_to(op, &key, &t, 6);
	}
	if (applied && op->evidence && !bpf_map_lookup_elem(&evidence, &op->evidence)) {
		op->missing = 1;
		batch->missing++;
	}
	if (!applied) {
		batch->stale++;
		if (op->kind == op_verdict)
			count(reason_stale_verdict);
	}
	return 0;
}

#endif
