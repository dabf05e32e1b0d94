/* SPDX-License-Identifier: GPL-2.0 */
/* One parser for both hooks: a cursor over the linear part of a frame, one bounds check a header. */
#ifndef DPCLASS_PARSE_H
#define DPCLASS_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include "maps.h"

#define MAX_VLANS 2
#define MAX_EXT_HEADERS 8
#define MAX_L4_OFFSET 1480 /* TCP or UDP further behind is out of the vector */
#define DNS_PORT 53

#define ETH_P_QINQ_OLD 0x9100 /* QinQ before 802.1ad */
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Not in an enum of linux/in.h: IANA protocol numbers. */
#define IPPROTO_HIP 139
#define IPPROTO_SHIM6 140

struct vlan_header {
	__be16 tci;
	__be16 proto;
};

struct ext_header {
	__u8 next;
	__u8 len;
};

struct frag_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

/* What the parser found. Offsets count from the IP header. */
struct packet {
	__u32 l3_offset; /* of the IP header in the frame */
	__u32 l3_len; /* IP bytes of what is in hand, padding left out */
	__u32 l4_offset;
	__u32 payload_offset;
	__u32 gso_size; /* payload of a wire segment; 0: not a super-packet */
	__u32 vlan; /* outer id << 12 | inner id */
	__be16 ethertype;
	__be16 sport;
	__be16 dport;
	__u16 first_fragment; /* more fragments follow: not 0 */
	__u8 proto;
	__u8 tcp_flags;
	__u8 from_a;
};

/* Steps over the link layer. Returns 0 or, negative, the reason; *pos is behind it then. */
static __always_inline int parse_link(void **pos, void *end, struct packet *p)
{
	if (l3_device) {
		__u8 *version = *pos;

		if ((void *)(version + 1) > end)
			return -reason_truncated;
		if (*version >> 4 == 4)
			p->ethertype = bpf_htons(ETH_P_IP);
		else if (*version >> 4 == 6)
			p->ethertype = bpf_htons(ETH_P_IPV6);
		else
			return -reason_not_ip;
		return 0;
	}

	struct ethhdr *eth = *pos;

	if ((void *)(eth + 1) > end)
		return -reason_truncated;
	p->ethertype = eth->h_proto;
	*pos = eth + 1;
	p->l3_offset = sizeof(*eth);

#pragma unroll
	for (int i = 0; i < MAX_VLANS; i++) {
		struct vlan_header *vlan = *pos;

		if (p->ethertype != bpf_htons(ETH_P_8021Q) && p->ethertype != bpf_htons(ETH_P_8021AD) &&
		    p->ethertype != bpf_htons(ETH_P_QINQ_OLD))
			break;
		if ((void *)(vlan + 1) > end)
			return -reason_truncated;
		p->vlan = (p->vlan << 12 | (bpf_ntohs(vlan->tci) & 0xfff)) & 0xffffff;
		p->ethertype = vlan->proto;
		*pos = vlan + 1;
		p->l3_offset += sizeof(*vlan);
	}
	if (p->ethertype == bpf_htons(ETH_P_8021Q) || p->ethertype == bpf_htons(ETH_P_8021AD) ||
	    p->ethertype == bpf_htons(ETH_P_QINQ_OLD))
		return -reason_vlan_depth;
	return 0;
}

static __always_inline int reason_of_proto(__u8 proto)
{
	switch (proto) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return -reason_icmp;
	case IPPROTO_IPIP:
	case IPPROTO_IPV6:
	case IPPROTO_GRE:
	case IPPROTO_ESP:
		return -reason_tunnel;
	}
	return -reason_other_proto;
}

/* Reads TCP or UDP at *pos. l3_offset to l4_offset and l3_len are set. */
static __always_inline int parse_l4(void *pos, void *end, struct packet *p)
{
	if (p->proto == IPPROTO_TCP) {
		struct tcphdr *tcp = pos;
		__u8 *bytes = pos;

		if (p->l4_offset + sizeof(*tcp) > p->l3_len)
			return -reason_l4_header;
		if ((void *)(tcp + 1) > end)
			return -reason_truncated;
		p->sport = tcp->source;
		p->dport = tcp->dest;
		p->tcp_flags = bytes[13];
		p->payload_offset = p->l4_offset + (bytes[12] >> 4) * 4;
		if (bytes[12] >> 4 < 5 || p->payload_offset > p->l3_len)
			return -reason_l4_header;
		return 0;
	}
	if (p->proto == IPPROTO_UDP) {
		struct udphdr *udp = pos;

		if (p->l4_offset + sizeof(*udp) > p->l3_len)
			return -reason_l4_header;
		if ((void *)(udp + 1) > end)
			return -reason_truncated;
		p->sport = udp->source;
		p->dport = udp->dest;
		p->payload_offset = p->l4_offset + sizeof(*udp);
		return 0;
	}
	return reason_of_proto(p->proto);
}

/* The length that counts: what the header says, or what the frame holds where that is 0 or more than it holds. */
static __always_inline __u32 ip_length(__u32 said, __u32 held)
{
	return said == 0 || said > held ? held : said;
}

static __always_inline int set_vlan(__u8 *vlan, const struct packet *p)
{
	if (!vlan_in_key)
		return 0;
	vlan[0] = p->vlan >> 16;
	vlan[1] = p->vlan >> 8;
	vlan[2] = p->vlan;
	return 0;
}

/* Reads an IPv4 packet and fills in the key. held: bytes of the frame from the IP header on. */
static __always_inline int parse_ipv4(void *pos, void *end, __u32 held, struct packet *p, struct flow_key *key)
{
	struct iphdr *ip = pos;
	__u32 ihl;
	int err;

	if ((void *)(ip + 1) > end)
		return -reason_truncated;
	ihl = ip->ihl * 4;
	if (ip->version != 4 || ihl < sizeof(*ip))
		return -reason_ip_header;
	p->l3_len = ip_length(bpf_ntohs(ip->tot_len), held);
	if (p->l3_len < ihl)
		return -reason_ip_header;
	if (ip->frag_off & bpf_htons(IP_OFFSET))
		return -reason_fragment;
	p->first_fragment = ip->frag_off & bpf_htons(IP_MF);
	p->proto = ip->protocol;
	p->l4_offset = ihl;
	err = parse_l4(pos + ihl, end, p);
	if (err)
		return err;

	__u32 src = bpf_ntohl(ip->saddr), dst = bpf_ntohl(ip->daddr);

	p->from_a = src < dst || (src == dst && bpf_ntohs(p->sport) <= bpf_ntohs(p->dport));
	*(__be32 *)key->addr_a = p->from_a ? ip->saddr : ip->daddr;
	*(__be32 *)key->addr_b = p->from_a ? ip->daddr : ip->saddr;
	key->port_a = p->from_a ? p->sport : p->dport;
	key->port_b = p->from_a ? p->dport : p->sport;
	key->proto = p->proto;
	return set_vlan(key->vlan, p);
}

static __always_inline bool is_ext_header(__u8 proto)
{
	switch (proto) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
	case IPPROTO_HIP:
	case IPPROTO_SHIM6:
	case IPPROTO_AH:
	case IPPROTO_FRAGMENT:
		return true;
	}
	return false;
}

/* Walks the extension headers of the IPv6 packet at ip (RFC 8200, section 4) up to TCP, UDP or something unknown.
 * The first one is at p->l4_offset. Each step begins from forgotten offsets, so that the steps merge for the verifier. */
static __always_inline int walk_ext_headers(void *ip, void *end, struct packet *p)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!s)
		return -reason_ext_headers;
	for (int i = 0; i < MAX_EXT_HEADERS + 1; i++) {
		__u32 offset = forget(&s->l4_offset, p->l4_offset);
		__u8 proto = forget(&s->l3_offset, p->proto);
		struct ext_header *ext;

		p->l4_offset = offset;
		p->proto = proto;
		if (!is_ext_header(proto))
			return 0;
		if (i == MAX_EXT_HEADERS || offset > MAX_L4_OFFSET)
			break;
		if (offset + 8 > p->l3_len)
			return -reason_ip_header;
		ext = ip + offset;
		if ((void *)ext + 8 > end)
			return -reason_truncated;
		if (proto == IPPROTO_FRAGMENT) {
			struct frag_header *frag = (void *)ext;

			if (frag->offset & bpf_htons(0xfff8))
				return -reason_fragment;
			p->first_fragment |= frag->offset & bpf_htons(1);
			offset += sizeof(*frag);
		} else if (proto == IPPROTO_AH) {
			offset += (ext->len + 2) * 4; /* RFC 4302, section 2.2 */
		} else {
			offset += (ext->len + 1) * 8;
		}
		p->proto = ext->next;
		p->l4_offset = offset;
	}
	return -reason_ext_headers;
}

static __always_inline int parse_ipv6(void *pos, void *end, __u32 held, struct packet *p, struct flow_key6 *key)
{
	struct ipv6hdr *ip = pos;
	__u32 said;
	int err;

	if ((void *)(ip + 1) > end)
		return -reason_truncated;
	if (ip->version != 6)
		return -reason_ip_header;
	said = bpf_ntohs(ip->payload_len);
	p->l3_len = ip_length(said ? said + sizeof(*ip) : 0, held);
	p->proto = ip->nexthdr;
	p->l4_offset = sizeof(*ip);
	if (is_ext_header(p->proto)) {
		err = walk_ext_headers(pos, end, p);
		if (err)
			return err;
		if (p->l4_offset > MAX_L4_OFFSET)
			return -reason_ext_headers;
	}
	err = parse_l4(pos + p->l4_offset, end, p);
	if (err)
		return err;

	/* Both addresses as two big-endian words each, so that the order is that of the bytes. */
	const __u64 *src = (const void *)&ip->saddr, *dst = (const void *)&ip->daddr;
	__u64 src_high = src[0], src_low = src[1], dst_high = dst[0], dst_low = dst[1];
	__u64 *a = (void *)key->addr_a, *b = (void *)key->addr_b;

	if (src_high != dst_high)
		p->from_a = bpf_be64_to_cpu(src_high) < bpf_be64_to_cpu(dst_high);
	else if (src_low != dst_low)
		p->from_a = bpf_be64_to_cpu(src_low) < bpf_be64_to_cpu(dst_low);
	else
		p->from_a = bpf_ntohs(p->sport) <= bpf_ntohs(p->dport);
	a[0] = p->from_a ? src_high : dst_high;
	a[1] = p->from_a ? src_low : dst_low;
	b[0] = p->from_a ? dst_high : src_high;
	b[1] = p->from_a ? dst_low : src_low;
	key->port_a = p->from_a ? p->sport : p->dport;
	key->port_b = p->from_a ? p->dport : p->sport;
	key->proto = p->proto;
	return set_vlan(key->vlan, p);
}

/* Segments and IP bytes on the wire: a super-packet's headers are sent once for each segment. */
static __always_inline __u32 wire_segments(const struct packet *p)
{
	__u32 payload = p->l3_len - p->payload_offset;

	if (!p->gso_size || payload <= p->gso_size)
		return 1;
	return (payload + p->gso_size - 1) / p->gso_size;
}

static __always_inline __u64 wire_bytes(const struct packet *p, __u32 segments)
{
	return p->l3_len + (__u64)(segments - 1) * p->payload_offset;
}

#endif
