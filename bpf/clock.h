/* SPDX-License-Identifier: GPL-2.0 */
/* What a policy does at certain times: schedules, the days of quotas, and the return of the former policy if the one in
 * force is not confirmed. A timer of the kernel does it (Linux 5.15), so it needs no process, and packets do not look at
 * the time. policy.h includes it. */
#ifndef DPCLASS_CLOCK_H
#define DPCLASS_CLOCK_H

#define CLOCK_MONOTONIC 1
#define TICK_NS 1000000000ULL /* the policy's clock ticks once a second */
#define AT_ONCE_NS 1000000ULL
#define NS_PER_S 1000000000ULL

/* A time at which something changes. User space computes them, because it knows time zones. */
struct moment {
	__u64 at; /* seconds since 1970 */
	__u64 inactive; /* set of rules: bit 0 is the first one. Their schedules rest */
	__u32 day; /* local date, as the number 20260131 */
	__u32 pad;
};

/* How it is now. */
struct active {
	__u64 inactive;
	__u32 day;
	__u32 next; /* index of the next moment */
	__u32 moments;
	__u32 pad;
};

/* Bank to the moments that have come. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct active);
} active_rules SEC(".maps");

/* Two banks of moments: bank * max_moments + index. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * max_moments);
	__type(key, __u32);
	__type(value, struct moment);
} moments SEC(".maps");

/* CLOCK_REALTIME less CLOCK_BOOTTIME in ns: programs cannot read the wall clock. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} wall SEC(".maps");

struct policy_clock {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct policy_clock);
} policy_clock SEC(".maps");

enum clock_kind {
	clock_start,
	clock_rewind, /* start, and begin again with the first moment: the wall clock was set */
	clock_confirm, /* the policy in force stays */
};

/* The context of dpclass_clock. */
struct clock_request {
	enum clock_kind kind;
	__s32 result; /* of clock_start: 0 or an error; of clock_confirm: whether the policy was to be confirmed */
};

/* Whether the one who calls it ends the wait for a confirmation. */
static __always_inline bool end_wait(struct policy_state *now)
{
	__u64 until = read_word(&now->confirm_ns);

	return until && __sync_val_compare_and_swap(&now->confirm_ns, until, 0) == until;
}

static __always_inline int confirm(void)
{
	struct policy_state *now = policy_in_force();

	return now && end_wait(now);
}

/* Puts the former policy in force again: its bank is as it was. */
static __always_inline void take_policy_back(struct policy_state *now)
{
	__u32 one = 1, epoch = now->epoch;
	struct policy_state *former = bpf_map_lookup_elem(&policy, &one);

	if (!former || !end_wait(now))
		return;
	now->source_len = former->source_len;
	now->applied_ns = former->applied_ns;
	now->flags = former->flags;
	now->protects = former->protects;
	now->first = epoch + 1;
	now->former = epoch + 1; /* rule.was does not number the rules of this one */
	__sync_val_compare_and_swap(&now->epoch, epoch, epoch + 1);
}

/* Brings a bank up to date. Returns whether other rules are active now. */
static __always_inline bool advance(struct active *active, __u32 bank, __u64 seconds)
{
	__u64 inactive = active->inactive;
	__u32 index, next = active->next, day = active->day;
	struct moment *m;
	bool changed;

#pragma clang loop unroll(disable)
	for (int i = 0; i < max_moments; i++) {
		if (next >= active->moments)
			break;
		index = bank * max_moments + (next & (max_moments - 1));
		m = bpf_map_lookup_elem(&moments, &index);
		if (!m || m->at > seconds)
			break;
		inactive = m->inactive;
		day = m->day;
		next++;
	}
	/* At once: after the clock was set back, packets must not see the moments in between. */
	changed = active->inactive != inactive;
	active->inactive = inactive;
	active->day = day;
	active->next = next;
	return changed;
}

/* A tick of the clock. It starts the next one as long as there is something to wait for. */
static int tick(void *map, int *key, struct policy_clock *c)
{
	struct policy_state *now = policy_in_force();
	__u64 boot = bpf_ktime_get_boot_ns(), *offset;
	__u32 zero = 0, epoch, bank;
	struct active *active;

	offset = bpf_map_lookup_elem(&wall, &zero);
	if (!now || !offset)
		return 0;
	if (now->confirm_ns && boot >= now->confirm_ns)
		take_policy_back(now);
	epoch = *(volatile __u32 *)&now->epoch;
	bank = epoch & 1;
	active = bpf_map_lookup_elem(&active_rules, &bank);
	if (!active)
		return 0;
	/* Flows choose their rules again in a new epoch of the same bank. */
	if (advance(active, bank, (boot + *offset) / NS_PER_S))
		__sync_val_compare_and_swap(&now->epoch, epoch, epoch + 2);
	if (now->confirm_ns || active->next < active->moments)
		bpf_timer_start(&c->timer, TICK_NS, 0);
	return 0;
}

/* Starts the clock, whether it runs or not. */
static __always_inline int start_clock(bool rewind)
{
	struct policy_state *now = policy_in_force();
	struct policy_clock *c;
	struct active *active;
	__u32 zero = 0, bank;

	c = bpf_map_lookup_elem(&policy_clock, &zero);
	if (!now || !c)
		return -1;
	bank = now->epoch & 1;
	active = bpf_map_lookup_elem(&active_rules, &bank);
	if (active && rewind)
		active->next = 0;
	bpf_timer_init(&c->timer, &policy_clock, CLOCK_MONOTONIC); /* does nothing the second time */
	bpf_timer_set_callback(&c->timer, tick);
	return bpf_timer_start(&c->timer, AT_ONCE_NS, 0);
}

#endif
