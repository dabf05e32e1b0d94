//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/* The programs of one interface: XDP or tcx ingress, tcx egress, and the one through which user space changes flows.
 * Packets that they cannot handle pass and are counted by reason. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "apply.h"
#include "config.h"
#include "counters.h"
#include "dns.h"
#include "evidence.h"
#include "fast.h"
#include "flow.h"
#include "fragment.h"
#include "info.h"
#include "key.h"
#include "packet.h"
#include "parse.h"
#include "policy.h"
#include "sample.h"

char LICENSE[] SEC("license") = "GPL";

#define TC_NEXT TC_ACT_UNSPEC /* let the next program decide; TCX_NEXT, and the next filter in clsact */
#define unlikely(x) __builtin_expect(!!(x), 0) /* keeps the fast path straight */
#define PULL_LEN 128 /* link layer, IPv6 with some extension headers, TCP */

/* One packet of a flow: look up, sample, enforce. Returns as handle(). */
static __always_inline int handle_flow(struct packet *p, const struct tables *t)
{
	__u64 now = bpf_jiffies64();
	struct flow *f;
	bool fits, drop;

	measure(p);
	f = find_flow(p, t, now);
	if (!f)
		return -reason_table_full;
	fits = touch(f, p, now);
	if (copy_dns && is_from_dns(p))
		copy_answer(p);
	if (unlikely(fits && !(f->state & state_settled)))
		take_sample(p, f);
	drop = enforce(p, f);
	if (unlikely(p->fragment))
		note_first_fragment(p, f, drop);
	if (f->line && renew(f, now, p->direction, p->family))
		remember_packet(p, f);
	return drop;
}

/* Returns 1 to drop, 0 to pass or, negative, the reason why the packet has no flow, perhaps with MAY_DROP. */
static __always_inline int handle(struct packet *p)
{
	void *pos = p->start;
	int err = parse_link(p, &pos);

	if (err)
		return err;
	if (p->ethertype == bpf_htons(ETH_P_IP)) {
		const struct tables t = {&flows, &pending};
		struct flow_key key = {};

		err = parse_ipv4(p, pos, &key);
		return err ? without_flow(p, err) : handle_flow(p, &t);
	}
	if (p->ethertype == bpf_htons(ETH_P_IPV6)) {
		const struct tables t = {&flows6, &pending6};
		struct flow_key6 key = {};

		err = parse_ipv6(p, pos, &key);
		return err ? without_flow(p, err) : handle_flow(p, &t);
	}
	return -reason_not_ip;
}

/* Counts a packet without a flow. Returns whether to drop it. */
static __always_inline bool finish(__u32 reason, const enum direction direction)
{
	if (reason & MAY_DROP)
		return drop_without_flow(direction, reason & ~MAY_DROP);
	count(reason);
	return false;
}

/* The programs of the general way. A fast program goes on with one of them. The loader fills the maps, and pins them: the kernel
 * empties a map of programs that no process and no pin holds. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} general_xdp SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2); /* enum direction */
	__type(key, __u32);
	__type(value, __u32);
} general_tc SEC(".maps");

static __always_inline void look_at_xdp(struct packet *p, struct xdp_md *ctx)
{
	p->start = (void *)(long)ctx->data;
	p->end = (void *)(long)ctx->data_end;
	p->length = p->end - p->start;
}

/* If the device removed a VLAN tag, the tag is in the skb. */
static __always_inline void look_at_skb(struct packet *p, struct __sk_buff *skb)
{
	if (vlan_in_key && skb->vlan_present)
		p->vlan = skb->vlan_tci & VLAN_ID;
	p->start = (void *)(long)skb->data;
	p->end = (void *)(long)skb->data_end;
	p->length = skb->len;
	p->gso_size = skb->gso_size;
}

SEC("xdp")
int dpclass_xdp_all(struct xdp_md *ctx)
{
	struct packet p = {.ctx = ctx, .direction = direction_in, .xdp = true};
	int result;

	look_at_xdp(&p, ctx);
	result = handle(&p);
	if (result < 0)
		result = finish(-result, direction_in);
	return result > 0 ? XDP_DROP : XDP_PASS;
}

/* The tc hooks. Headers that lie outside of the linear part are pulled into it, but only then, because that may copy the
 * packet. Then the program begins again: as a loop, the verifier would check all of it twice. */
static __always_inline int handle_skb(struct __sk_buff *skb, const enum direction direction)
{
	struct packet p = {.ctx = skb, .direction = direction, .xdp = false};
	__u32 slot = direction;
	struct forgotten *memory = bpf_map_lookup_elem(&forgotten, &slot);
	bool again;
	int result;

	if (!memory)
		return TC_NEXT;
	again = memory->again;
	memory->again = false;
	look_at_skb(&p, skb);
	result = handle(&p);
	if ((-result & ~MAY_DROP) == reason_truncated && !again &&
	    !bpf_skb_pull_data(skb, skb->len < PULL_LEN ? skb->len : PULL_LEN)) {
		memory->again = true;
		bpf_tail_call(skb, &general_tc, direction);
		memory->again = false;
	}
	if (result < 0)
		result = finish(-result, direction);
	return result > 0 ? TC_ACT_SHOT : TC_NEXT;
}

SEC("tc")
int dpclass_in_all(struct __sk_buff *skb)
{
	return handle_skb(skb, direction_in);
}

SEC("tc")
int dpclass_out_all(struct __sk_buff *skb)
{
	return handle_skb(skb, direction_out);
}

SEC("xdp")
int dpclass_xdp(struct xdp_md *ctx)
{
	struct packet p = {.ctx = ctx, .direction = direction_in, .xdp = true};
	enum way way;

	look_at_xdp(&p, ctx);
	way = handle_fast(&p);
	if (way == way_general)
		bpf_tail_call(ctx, &general_xdp, 0);
	return way == way_drop ? XDP_DROP : XDP_PASS;
}

static __always_inline int handle_skb_fast(struct __sk_buff *skb, const enum direction direction)
{
	struct packet p = {.ctx = skb, .direction = direction, .xdp = false};
	enum way way;

	look_at_skb(&p, skb);
	way = handle_fast(&p);
	if (way == way_general)
		bpf_tail_call(skb, &general_tc, direction);
	return way == way_drop ? TC_ACT_SHOT : TC_NEXT;
}

SEC("tc")
int dpclass_in(struct __sk_buff *skb)
{
	return handle_skb_fast(skb, direction_in);
}

SEC("tc")
int dpclass_out(struct __sk_buff *skb)
{
	return handle_skb_fast(skb, direction_out);
}

/* Applies the inbox; its context is struct batch. Without bpf_loop, at most max_batch_unrolled operations per run. */
SEC("syscall")
int dpclass_apply(struct batch *ctx)
{
	struct batch batch = {.count = ctx->count};
	struct line_state *state = line_state_of(4);

	ctx->busy = !state || __sync_val_compare_and_swap(&state->applying, 0, 1);
	if (ctx->busy)
		return 0;
	if (has_bpf_loop) {
		bpf_loop(batch.count < max_batch ? batch.count : max_batch, apply_one, &batch, 0);
	} else {
		for (__u32 i = 0; i < max_batch_unrolled; i++) {
			if (i >= batch.count || apply_one(i, &batch))
				break;
		}
	}
	__sync_lock_test_and_set(&state->applying, 0);
	ctx->stale = batch.stale;
	ctx->missing = batch.missing;
	return 0;
}

/* Starts the policy's clock, or does what else the request says. */
SEC("syscall")
int dpclass_clock(struct clock_request *ctx)
{
	ctx->result = ctx->kind == clock_confirm ? confirm() : start_clock(ctx->kind == clock_rewind);
	return 0;
}
