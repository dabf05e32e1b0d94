//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/* The programs of one interface: XDP or tcx ingress, tcx egress, and the one through which user space changes flows.
 * Everything that cannot be handled is passed and counted by reason. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "apply.h"

char LICENSE[] SEC("license") = "GPL";

#define TC_NEXT TC_ACT_UNSPEC /* let the next program decide; TCX_NEXT, and the next filter in clsact */
#define PULL_LEN 128 /* link layer, IPv6 with some extension headers, TCP */

/* Returns 1 to drop, 0 to pass, or, negative, the reason why the packet is passed without a flow. length: of the frame;
 * with XDP of its linear part. */
static __always_inline int handle(void *ctx, void *data, void *end, __u32 length, struct packet *p, const int dir,
				  const bool xdp)
{
	void *pos = data;
	int err;

	err = parse_link(&pos, end, p);
	if (err)
		return err;
	if (p->ethertype == bpf_htons(ETH_P_IP)) {
		struct flow_key key = {};

		err = parse_ipv4(ctx, pos, end, length - p->l3_offset, p, &key, xdp);
		return err ? err : handle_flow(ctx, p, &key, &flows, &pending, dir, 4, xdp);
	}
	if (p->ethertype == bpf_htons(ETH_P_IPV6)) {
		struct flow_key6 key = {};

		err = parse_ipv6(ctx, pos, end, length - p->l3_offset, p, &key, xdp);
		return err ? err : handle_flow(ctx, p, &key, &flows6, &pending6, dir, 6, xdp);
	}
	return -reason_not_ip;
}

SEC("xdp")
int dpclass_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet p = {};
	int result = handle(ctx, data, end, end - data, &p, direction_in, true);

	if (result < 0)
		count(-result);
	return result > 0 ? XDP_DROP : XDP_PASS;
}

/* The tc hooks: a tag that the device took off stands in the skb. Headers may lie outside the linear part; they are pulled
 * into it only then, as that may copy the packet. */
static __always_inline int handle_skb(struct __sk_buff *skb, const int dir)
{
	int result = 0;

#pragma clang loop unroll(disable)
	for (int i = 0; i < 2; i++) {
		struct packet p = {};

		if (vlan_in_key && skb->vlan_present)
			p.vlan = skb->vlan_tci & 0xfff;
		p.gso_size = skb->gso_size;
		result = handle(skb, (void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, &p, dir, false);
		if (result != -reason_truncated || bpf_skb_pull_data(skb, skb->len < PULL_LEN ? skb->len : PULL_LEN))
			break;
	}
	if (result < 0)
		count(-result);
	return result > 0 ? TC_ACT_SHOT : TC_NEXT;
}

SEC("tc")
int dpclass_in(struct __sk_buff *skb)
{
	return handle_skb(skb, direction_in);
}

SEC("tc")
int dpclass_out(struct __sk_buff *skb)
{
	return handle_skb(skb, direction_out);
}

/* Applies the inbox: context struct batch. Without bpf_loop at most max_batch_unrolled operations a run. */
SEC("syscall")
int dpclass_apply(struct batch *ctx)
{
	struct batch batch = {.count = ctx->count};

	if (has_bpf_loop) {
		bpf_loop(batch.count < max_batch ? batch.count : max_batch, apply_one, &batch, 0);
	} else {
		for (__u32 i = 0; i < max_batch_unrolled; i++) {
			if (i >= batch.count || apply_one(i, &batch))
				break;
		}
	}
	ctx->stale = batch.stale;
	return 0;
}
