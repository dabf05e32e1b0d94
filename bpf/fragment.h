/* SPDX-License-Identifier: GPL-2.0 */
/* What the policy does to packets without a flow: fragments after the first one, which have no ports, and packets that
 * the parser cannot read. None of this runs for whole packets. */
#ifndef DPCLASS_FRAGMENT_H
#define DPCLASS_FRAGMENT_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"
#include "flow.h"
#include "limits.h"
#include "packet.h"
#include "parse.h"
#include "policy.h"
#include "protect.h"
#include "sample.h"

#define FRAGMENT_TIMEOUT_NS 30000000000ULL /* net.ipv4.ipfrag_time: how long receivers wait for the rest */

/* Names a datagram that was sent in fragments (RFC 791, section 3.2; RFC 8200, section 4.5). */
struct datagram_key {
	__u8 src[16]; /* an IPv4 address is in the first four bytes */
	__u8 dst[16];
	__be32 id; /* IPv4: 16 bits */
	__u8 proto; /* 0 for IPv6, where each fragment may name another one */
	__u8 family; /* 4 or 6 */
	__u8 pad[2];
};

struct dropped_datagram {
	__u64 jiffies; /* when its first fragment was dropped */
	__u32 epoch; /* of the policy that dropped it */
	__u32 rule; /* index in rule_stats */
};

/* Datagrams whose first fragment was dropped. Only a policy that drops or polices fills it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, max_datagrams);
	__type(key, struct datagram_key);
	__type(value, struct dropped_datagram);
} fragments SEC(".maps");

/* What does not fit on the stack. */
struct headers {
	struct datagram_key key;
	struct dropped_datagram dropped;
	struct host_key host;
	__u32 epoch; /* of the policy */
	enum policy_flag flags; /* of the policy */
	__u32 length; /* IP bytes */
	__u32 offset; /* of the fragment in its datagram, bytes */
	__u8 proto; /* of what is fragmented */
	__u8 pad[3];
	__u8 ip[sizeof(struct ipv6hdr)];
	struct frag_header fragment;
};

/* One entry for each direction, because the two hooks may nest. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct headers);
} headers SEC(".maps");

/* Reads the addresses of a packet into the map headers and, of a fragment, what names its datagram: fragment is the
 * offset of the fragment header. Returns whether it succeeded. */
static __always_inline int read_headers(const struct packet *p, __u32 fragment)
{
	__u32 slot = p->direction;
	struct headers *h = bpf_map_lookup_elem(&headers, &slot);

	if (!h)
		return false;
	__builtin_memset(&h->key, 0, sizeof(h->key));
	h->key.family = p->family;
	if (p->family == 4) {
		struct iphdr *ip = (void *)h->ip;

		if (!copy_bytes(h->ip, p, 0, sizeof(*ip)))
			return false;
		*(__be32 *)h->key.src = ip->saddr;
		*(__be32 *)h->key.dst = ip->daddr;
		h->key.id = ip->id;
		h->key.proto = ip->protocol;
		h->proto = ip->protocol;
		h->offset = (bpf_ntohs(ip->frag_off) & IP_OFFSET) * 8;
		return true;
	}

	struct ipv6hdr *ip = (void *)h->ip;

	if (!copy_bytes(h->ip, p, 0, sizeof(*ip)))
		return false;
	__builtin_memcpy(h->key.src, &ip->saddr, sizeof(h->key.src));
	__builtin_memcpy(h->key.dst, &ip->daddr, sizeof(h->key.dst));
	if (!fragment)
		return true;
	if (!copy_bytes(&h->fragment, p, fragment, sizeof(h->fragment)))
		return false;
	h->key.id = h->fragment.id;
	h->proto = h->fragment.next;
	h->offset = bpf_ntohs(h->fragment.offset) & IP6_OFFSET;
	return true;
}

/* The same with arguments that a global function can have: the verifier checks it only once. */
__noinline int read_headers_xdp(struct xdp_md *md, __u32 l3_offset, __u32 fragment, int family)
{
	struct packet p = {.ctx = md, .xdp = true, .direction = direction_in, .family = family, .l3_offset = l3_offset};

	return read_headers(&p, fragment);
}

__noinline int read_headers_skb(struct __sk_buff *skb, __u32 l3_offset, __u32 fragment, int family, int direction)
{
	struct packet p = {.ctx = skb, .xdp = false, .direction = direction, .family = family, .l3_offset = l3_offset};

	return read_headers(&p, fragment);
}

static __always_inline bool have_headers(const struct packet *p, __u32 fragment)
{
	if (p->xdp)
		return read_headers_xdp(p->ctx, p->l3_offset, fragment, p->family);
	return read_headers_skb(p->ctx, p->l3_offset, fragment, p->family, p->direction);
}

/* Remembers the datagram in the map headers if its first fragment, of this flow, was dropped. If it passes, forgets the
 * datagram: hosts use the same numbers again. */
__noinline int note_datagram(const struct flow *f, int direction, int dropped)
{
	__u32 slot = direction;
	struct headers *h = bpf_map_lookup_elem(&headers, &slot);
	union choice_word word;
	struct rule *r;
	__u32 index;
	__u8 rule;

	if (!f || !h)
		return 0;
	if (!dropped)
		return bpf_map_delete_elem(&fragments, &h->key);
	word.word = read_word(&f->choice);
	rule = chosen(&word.choice, direction);
	h->dropped.jiffies = bpf_jiffies64();
	h->dropped.epoch = word.choice.epoch;
	index = (word.choice.epoch & 1) * max_rules + ((rule - 1) & (max_rules - 1));
	r = bpf_map_lookup_elem(&rules, &index);
	h->dropped.rule = r ? r->slot : 0;
	return bpf_map_update_elem(&fragments, &h->key, &h->dropped, BPF_ANY);
}

/* Lets the fragments after this first one share its fate. */
static __always_inline void note_first_fragment(const struct packet *p, const struct flow *f, bool dropped)
{
	struct policy_state *now = policy_in_force();

	if (now && now->flags & policy_drops && have_headers(p, p->fragment))
		note_datagram(f, p->direction, dropped);
}

/* Whether the first fragment of the datagram was dropped: then the later one is counted as its rule's. */
static __always_inline bool follows_dropped(const struct headers *h)
{
	struct dropped_datagram *first = bpf_map_lookup_elem(&fragments, &h->key);
	struct rule_counts *stats;
	__u32 index;

	if (!first || first->epoch != h->epoch || (bpf_jiffies64() - first->jiffies) * tick_ns > FRAGMENT_TIMEOUT_NS)
		return false;
	index = first->rule;
	stats = bpf_map_lookup_elem(&rule_stats, &index);
	if (stats) {
		stats->packets += 1;
		stats->bytes += h->length;
		stats->dropped += 1;
		stats->dropped_bytes += h->length;
	}
	return true;
}

/* Whether a later fragment lies over the TCP header of the first one, and so may hide it from the parser (RFC 1858,
 * section 3.2; RFC 3128). */
static __always_inline bool overlaps_tcp(const struct headers *h)
{
	return h->proto == IPPROTO_TCP && h->offset < sizeof(struct tcphdr);
}

/* Whether the policy drops the packet in the map headers, which has no flow for this reason. Counts it. Global, so that
 * the verifier checks it only once. */
__noinline int drop_without_flow(int direction, enum reason reason)
{
	bool later = reason == reason_fragment;
	__u32 slot = direction;
	struct headers *h = bpf_map_lookup_elem(&headers, &slot);

	if (!h)
		return false;
	if (later && h->flags & policy_drops && follows_dropped(h))
		return true;
	count(reason);
	if (!(h->flags & policy_drops_unparsed) || (later && !overlaps_tcp(h)))
		return false;
	if (is_protected_addr(&h->host, h->key.src, h->epoch & 1, h->key.family) ||
	    is_protected_addr(&h->host, h->key.dst, h->epoch & 1, h->key.family))
		return false;
	count(reason_unparsed);
	return true;
}

/* Whether a packet of TCP or UDP could not be read. What is after more IPv6 extension headers than the parser walks,
 * nobody knows; a first fragment has to have them all (RFC 7112, section 5). */
static __always_inline bool is_unparsed(const struct packet *p, enum reason reason)
{
	switch (reason) {
	case reason_ext_headers:
	case reason_l4_header:
		return true;
	case reason_truncated:
	case reason_ip_header:
		return p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP ||
		       (p->family == 6 && is_ext_header(p->proto));
	default:
		return false;
	}
}

#define MAY_DROP 0x100 /* with a reason: the packet is in the map headers, for drop_without_flow() */

/* Returns what handle() returns for a packet without a flow, with MAY_DROP if the policy may drop it all the same. */
static __always_inline int without_flow(const struct packet *p, int err)
{
	bool later = err == -reason_fragment;
	struct policy_state *now = policy_in_force();
	__u32 slot = p->direction;
	struct headers *h = bpf_map_lookup_elem(&headers, &slot);

	if (!now || !now->flags || !h || (!later && !is_unparsed(p, -err)))
		return err;
	if (!have_headers(p, later ? p->l4_offset : 0)) /* where the walk of extension headers ended */
		return err;
	h->epoch = now->epoch;
	h->flags = now->flags;
	h->length = p->l3_len;
	return err - MAY_DROP;
}

#endif
