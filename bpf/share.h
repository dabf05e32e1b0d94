/* SPDX-License-Identifier: GPL-2.0 */
/* Who may use the sample ring while it fills up: flows with packets of both ends go first, and no source gets more than its
 * share. As long as the agent keeps the ring nearly empty, there is no limit. */
#ifndef DPCLASS_SHARE_H
#define DPCLASS_SHARE_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"
#include "flow.h"
#include "key.h"
#include "limits.h"
#include "packet.h"

/* The header of a sample in the ring buffer; the packet follows, from the IP header on. */
struct sample {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 generation;
	__u32 length; /* L3 length on the wire, bytes */
	__u16 captured; /* bytes that follow */
	__u8 index; /* number of the sample in the flow, from 0 */
	enum direction direction;
	__u8 family; /* 4 or 6 */
	__u8 from_a; /* sent by endpoint a */
	__u8 inner; /* the device has no Ethernet: the packet may be inside a VPN */
	__u8 two_way; /* packets of both ends were seen, or only one direction is watched */
	struct flow_key6 key;
};

/* struct sample and packet, to the agent. The loader sets the size. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
} samples SEC(".maps");

#define SCRATCH_LEN 2048 /* a power of two beyond snap_len: the verifier sees any masked offset fit */

/* Room to put a sample together. One entry for each direction, because the two hooks may nest. */
struct scratch {
	struct sample sample;
	__u8 packet[SCRATCH_LEN];
	__u64 woken_ns; /* last wake-up of the reader from this CPU */
	__u32 start; /* of the wire segment's payload in the packet's payload */
	__u32 l4_offset; /* this and the rest: the packet's, see forget() */
	__u32 payload_offset;
	__u32 l3_len;
	__u32 segments; /* that are to be sampled */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

/* Parts of the ring, as divisors of its size. What is in the ring came in at most five windows, the first and the last of
 * them in part: a source has at most an eighth and five shares in it, which is less than half. */
#define RING_FREE 8 /* filled less than this: free for all */
#define RING_ONE_WAY 2 /* filled less than this: free for flows with packets of one end only */
#define RING_WINDOW 4 /* that much was written: a window in which sources have their shares */
#define RING_SHARE 16 /* of a source in a window */

#define SHARE_ROWS 2
#define SHARE_COLUMN_BITS 10

/* A count-min sketch (Cormode and Muthukrishnan, 2005): two rows of window << 32 | bytes that the sources with this hash
 * wrote in the window. It may count too much for a source, if it shares both cells with others, and never too little. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SHARE_ROWS << SHARE_COLUMN_BITS);
	__type(key, __u32);
	__type(value, __u64);
} shares SEC(".maps");

/* Whether packets of both ends were seen, or cannot be. */
static __always_inline bool is_two_way(const struct flow *f)
{
	const __u32 both = state_sent_a | state_sent_b;

	return !both_ends || (f->state & both) == both;
}

/* The address at the far end of the wire, from which the interface gets the packet or to which it sends it: of IPv6 the
 * /64, because a host may use all of it. */
static __always_inline __u64 source_of(const struct sample *s)
{
	bool is_a = s->from_a == (s->direction == direction_in);

	return *(const __u64 *)(is_a ? s->key.addr_a : s->key.addr_b);
}

static __always_inline __u64 *share_of(__u64 source, const __u32 row)
{
	/* Multiply-shift hashing (Dietzfelbinger, 1996). */
	__u64 hash = (source * (source_seed[2 * row] | 1) + source_seed[2 * row + 1]) >> (64 - SHARE_COLUMN_BITS);
	__u32 index = row << SHARE_COLUMN_BITS | hash;

	return bpf_map_lookup_elem(&shares, &index);
}

/* Whether the ring has room for the sample that is being put together in a slot of scratch. Global, so that the verifier
 * checks it only once; the stack has no room for more arguments. */
__noinline int has_room(__u32 slot)
{
	__u64 used = bpf_ringbuf_query(&samples, BPF_RB_AVAIL_DATA), window, source, old0, old1;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &slot);
	__u32 bytes, spent0, spent1, spent;
	__u64 *cell0, *cell1;

	if (!s || used < ring_bytes / RING_FREE)
		return 1;
	if (!s->sample.two_way && used >= ring_bytes / RING_ONE_WAY) {
		count(reason_one_way);
		return 0;
	}
	window = (bpf_ringbuf_query(&samples, BPF_RB_PROD_POS) / (ring_bytes / RING_WINDOW) + 1) << 32;
	source = source_of(&s->sample);
	cell0 = share_of(source, 0);
	cell1 = share_of(source, 1);
	if (!cell0 || !cell1)
		return 1;
	old0 = *(volatile __u64 *)cell0;
	old1 = *(volatile __u64 *)cell1;
	spent0 = (old0 ^ window) >> 32 ? 0 : old0;
	spent1 = (old1 ^ window) >> 32 ? 0 : old1;
	spent = spent0 < spent1 ? spent0 : spent1;
	if (spent >= ring_bytes / RING_SHARE) {
		count(reason_source_share);
		return 0;
	}
	bytes = s->segments * (sizeof(struct sample) + (s->l3_len < snap_len ? s->l3_len : snap_len));
	/* A count that is lost to another CPU does no harm. */
	__sync_val_compare_and_swap(cell0, old0, window | (spent0 + bytes));
	__sync_val_compare_and_swap(cell1, old1, window | (spent1 + bytes));
	return 1;
}

#endif
