/* SPDX-License-Identifier: GPL-2.0 */
/* A packet on its way through a program. */
#ifndef DPCLASS_PACKET_H
#define DPCLASS_PACKET_H

#include <stdbool.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>

#define DNS_PORT 53

enum direction {
	direction_in, /* received */
	direction_out, /* sent */
} __attribute__((packed));

/* Every function that takes a packet is inlined: the fields are in registers, and fields that are constant at a hook
 * cost nothing. Offsets after l3_offset count from the IP header. */
struct packet {
	/* The hook. */
	void *ctx; /* struct xdp_md or struct __sk_buff */
	void *start; /* of the linear part of the frame */
	void *end;
	__u32 length; /* of the frame; with XDP of its linear part */
	__u32 gso_size; /* payload of a wire segment; 0: not a super-packet */
	enum direction direction;
	bool xdp;

	/* What the parser found. */
	__u8 family; /* 4 or 6 */
	__u8 proto;
	__u8 tcp_flags;
	__u32 seq; /* of TCP */
	__u32 ack;
	bool from_a; /* sent by endpoint a of the key */
	__be16 ethertype;
	__be16 sport;
	__be16 dport;
	__u32 vlan; /* outer id << 12 | inner id */
	__u32 l3_offset; /* of the IP header in the frame */
	__u32 l3_len; /* IP bytes that are available here, without padding */
	__u32 l4_offset;
	__u32 fragment; /* not 0: a first fragment; with IPv6 the offset of its fragment header */
	__u32 payload_offset;
	const void *key; /* struct flow_key or struct flow_key6 */

	/* What it amounts to on the wire. */
	__u32 segments;
	__u64 bytes; /* IP bytes */
};

/* Whether either port is that of DNS (RFC 1035, section 4.2). */
static __always_inline bool is_dns(const struct packet *p)
{
	return p->sport == bpf_htons(DNS_PORT) || p->dport == bpf_htons(DNS_PORT);
}

/* Counts segments and IP bytes on the wire: a super-packet's headers are sent once for each segment. */
static __always_inline void measure(struct packet *p)
{
	__u32 payload = p->l3_len - p->payload_offset;

	p->segments = 1;
	if (p->gso_size && payload > p->gso_size)
		p->segments = (payload + p->gso_size - 1) / p->gso_size;
	p->bytes = p->l3_len + (__u64)(p->segments - 1) * p->payload_offset;
}

#endif
