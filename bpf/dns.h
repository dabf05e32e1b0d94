/* SPDX-License-Identifier: GPL-2.0 */
/* Copies DNS answers into their own ring buffer, if the settings ask for it. They are not samples. */
#ifndef DPCLASS_DNS_H
#define DPCLASS_DNS_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "counters.h"
#include "key.h"
#include "limits.h"
#include "packet.h"
#include "sample.h"

#define DNS_HEADER_LEN 12 /* RFC 1035, section 4.1.1 */
#define DNS_FLAGS_AT 2
#define DNS_QR 0x80 /* an answer, not a question */

/* The header of an answer in the ring buffer; the UDP payload follows. */
struct dns_answer {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 length; /* of the payload on the wire, bytes */
	__u16 captured; /* bytes that follow */
	__u8 family; /* 4 or 6 */
	__u8 from_a; /* the server is endpoint a of the key, otherwise endpoint b */
	struct flow_key6 key;
};

/* struct dns_answer and payload, to the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 128 << 10);
} dns SEC(".maps");

struct answer_copy {
	struct dns_answer answer;
	__u8 payload[SCRATCH_LEN]; /* see bounded() */
};

/* Room to put an answer together. One entry for each direction, because the two hooks may nest. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct answer_copy);
} answer_copies SEC(".maps");

/* Whether a packet comes from a DNS server. */
static __always_inline bool is_from_dns(const struct packet *p)
{
	return p->proto == IPPROTO_UDP && p->sport == bpf_htons(DNS_PORT) &&
	       p->l3_len >= p->payload_offset + DNS_HEADER_LEN;
}

/* Copies the packet if it is an answer. */
static __always_inline void copy_answer(const struct packet *p)
{
	__u32 slot = p->direction, length = p->l3_len - p->payload_offset, captured;
	struct answer_copy *c = bpf_map_lookup_elem(&answer_copies, &slot);

	if (!c)
		return;
	if (p->gso_size && length > p->gso_size)
		length = p->gso_size; /* the first of several */
	captured = bounded(length, max_answer);
	if (!copy_bytes(c->payload, p, p->payload_offset, captured)) {
		count(reason_copy);
		return;
	}
	if (!(c->payload[DNS_FLAGS_AT] & DNS_QR))
		return;
	c->answer.time_ns = bpf_ktime_get_ns();
	c->answer.length = length;
	c->answer.captured = captured;
	c->answer.family = p->family;
	c->answer.from_a = p->from_a;
	widen_key(&c->answer.key, p->key, p->family);
	if (bpf_ringbuf_output(&dns, c, sizeof(c->answer) + captured, 0))
		count(reason_dns_full);
}

#endif
