/* SPDX-License-Identifier: GPL-2.0 */
/* Copies a payload packet of a flow into the ring buffer. The packet itself is not changed. */
#ifndef DPCLASS_SAMPLE_H
#define DPCLASS_SAMPLE_H

#include "parse.h"

#define BPF_RB_WAKE 2 /* BPF_RB_FORCE_WAKEUP */
#define BPF_RB_WAIT 1 /* BPF_RB_NO_WAKEUP */

/* The offsets are bounded by the parser, the mask shows the verifier that they fit. */
#define PACKET_MASK 2047

static __always_inline void zero2(__u8 *packet, __u32 offset)
{
	offset &= PACKET_MASK;
	if (offset > SNAP_LEN)
		return;
	packet[offset] = 0;
	packet[offset + 1] = 0;
}

static __always_inline void put2(__u8 *packet, __u32 offset, __u16 value)
{
	offset &= PACKET_MASK;
	if (offset > SNAP_LEN)
		return;
	packet[offset] = value >> 8;
	packet[offset + 1] = value;
}

/* Makes the copied headers of a super-packet those of its first wire segment: lengths as segmentation writes
 * them, FIN and PSH only on the last segment (tcp_gso_segment, __udp_gso_segment in the kernel). */
static __always_inline void cut_to_segment(__u8 *packet, const struct packet *p, __u32 l4_offset, __u32 length,
					   int family)
{
	__u32 offset;

	if (family == 4)
		put2(packet, 2, length);
	else
		put2(packet, 4, length - sizeof(struct ipv6hdr));
	if (p->proto == IPPROTO_UDP) {
		put2(packet, l4_offset + 4, length - l4_offset);
		return;
	}
	offset = (l4_offset + 13) & PACKET_MASK;
	if (offset <= SNAP_LEN)
		packet[offset] &= ~0x09;
}

/* Zeroes what names the hosts: the addresses, and the checksums that would give them away. */
static __always_inline void mask_copy(__u8 *packet, const struct packet *p, __u32 l4_offset, int family)
{
	if (family == 4) {
		__builtin_memset(packet + 12, 0, 8);
		packet[10] = 0;
		packet[11] = 0;
	} else {
		__builtin_memset(packet + 8, 0, 32);
	}
	zero2(packet, l4_offset + (p->proto == IPPROTO_TCP ? 16 : 6));
}

static __always_inline void widen_key(struct flow_key6 *wide, const void *key, int family)
{
	if (family == 6) {
		__builtin_memcpy(wide, key, sizeof(*wide));
		return;
	}

	const struct flow_key *narrow = key;

	__builtin_memset(wide, 0, sizeof(*wide));
	*(__be32 *)wide->addr_a = *(const __be32 *)narrow->addr_a;
	*(__be32 *)wide->addr_b = *(const __be32 *)narrow->addr_b;
	wide->port_a = narrow->port_a;
	wide->port_b = narrow->port_b;
	wide->proto = narrow->proto;
	__builtin_memcpy(wide->vlan, narrow->vlan, sizeof(wide->vlan));
}

/* Whether the packet is one that the networks are fed with (paper, section 3.2): payload, and not DNS. */
static __always_inline bool has_payload(const struct packet *p)
{
	return p->l3_len > p->payload_offset;
}

static __always_inline bool is_dns(const struct packet *p)
{
	return p->sport == bpf_htons(DNS_PORT) || p->dport == bpf_htons(DNS_PORT);
}

static __always_inline void take_sample(void *ctx, const struct packet *p, const void *key, struct flow *flow,
					const int dir, const int family, const bool xdp)
{
	__u32 slot = dir, length, captured, index, l4_offset, state = flow->state;
	struct scratch *s;
	__u64 flags;
	long err;

	if (flow->samples >= sample_budget || !has_payload(p))
		return;
	if (is_dns(p)) {
		count(reason_dns);
		return;
	}
	s = bpf_map_lookup_elem(&scratch, &slot);
	if (!s)
		return;
	index = __sync_fetch_and_add(&flow->samples, 1);
	if (index >= sample_budget) { /* another CPU took the last one */
		__sync_fetch_and_add(&flow->samples, -1);
		return;
	}

	length = p->l3_len;
	s->sample.reasons = (state & state_midstream ? sample_midstream : 0) |
			    (p->first_fragment ? sample_fragment : 0);
	if (p->gso_size && length - p->payload_offset > p->gso_size) {
		length = p->payload_offset + p->gso_size;
		s->sample.reasons |= sample_segment;
	}
	captured = length;
	if (captured > SNAP_LEN) {
		captured = SNAP_LEN;
		s->sample.reasons |= sample_cut;
	}
	asm volatile("" : "+r"(captured)); /* keep the bounds check below, the verifier wants it */
	if (captured == 0 || captured > SNAP_LEN)
		goto undo;
	if (!xdp)
		err = bpf_skb_load_bytes(ctx, p->l3_offset, s->packet, captured);
	else if (has_xdp_load_bytes)
		err = bpf_xdp_load_bytes(ctx, p->l3_offset, s->packet, captured);
	else
		err = bpf_probe_read_kernel(s->packet, captured,
					    (void *)(long)((struct xdp_md *)ctx)->data + p->l3_offset);
	if (err) {
		count(reason_copy);
		goto undo;
	}
	l4_offset = forget(&s->l4_offset, p->l4_offset);
	if (s->sample.reasons & sample_segment)
		cut_to_segment(s->packet, p, l4_offset, length, family);
	mask_copy(s->packet, p, l4_offset, family);

	s->sample.time_ns = bpf_ktime_get_ns();
	s->sample.generation = flow->generation;
	s->sample.length = length;
	s->sample.captured = captured;
	s->sample.index = index;
	s->sample.direction = dir;
	s->sample.family = family;
	s->sample.from_a = p->from_a;
	widen_key(&s->sample.key, key, family);

	flags = BPF_RB_WAIT;
	if (s->sample.time_ns - s->woken_ns >= wakeup_interval_ns) {
		flags = BPF_RB_WAKE;
		s->woken_ns = s->sample.time_ns;
	}
	if (bpf_ringbuf_output(&samples, s, sizeof(s->sample) + captured, flags)) {
		count(reason_ring_full);
		goto undo;
	}
	count(reason_sampled);
	return;
undo: /* so that the flow's next packet is tried */
	__sync_fetch_and_add(&flow->samples, -1);
}

#endif
