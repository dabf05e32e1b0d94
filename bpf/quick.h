/* SPDX-License-Identifier: GPL-2.0 */
/* The parser of plain packets: IPv4 without options or IPv6 without extension headers, no fragment, UDP, or TCP with ACK and
 * without SYN, FIN and RST, nothing cut. It refuses everything else without a reason: parse.h reads that. It stores nothing
 * in memory: fields and key stay in registers. */
#ifndef DPCLASS_QUICK_H
#define DPCLASS_QUICK_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "packet.h"
#include "parse.h"

#define likely(x) __builtin_expect(!!(x), 1)

/* Steps over Ethernet and VLAN tags. */
static __always_inline bool quick_link(struct packet *p)
{
	struct ethhdr *eth = p->start;
	struct vlan_header *vlan;

	if (l3_device) {
		__u8 *version = p->start;

		if ((void *)(version + 1) > p->end)
			return false;
		p->ethertype = *version >> 4 == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
		return true;
	}
	if ((void *)(eth + 1) > p->end)
		return false;
	p->ethertype = eth->h_proto;
	p->l3_offset = sizeof(*eth);
	vlan = (void *)(eth + 1);
#pragma unroll
	for (int i = 0; i < MAX_VLANS; i++) {
		if (likely(!is_tag(p->ethertype)))
			break;
		if ((void *)(vlan + 1) > p->end)
			return false;
		p->vlan = (p->vlan << 12 | (bpf_ntohs(vlan->tci) & VLAN_ID)) & 0xffffff;
		p->ethertype = vlan->proto;
		p->l3_offset += sizeof(*vlan);
		vlan++;
	}
	return true;
}

/* The end of both keys (key_end); swap is all ones if the sender is endpoint b. */
static __always_inline __u64 quick_end(const struct packet *p, __u32 ports, __u64 swap)
{
	__u32 turned = ports >> 16 | ports << 16;
	__u64 end = (ports ^ ((ports ^ turned) & (__u32)swap)) | (__u64)p->proto << 32;

	if (vlan_in_key)
		end |= (__u64)(p->vlan >> 16 & 0xff) << 40 | (__u64)(p->vlan >> 8 & 0xff) << 48 |
		       (__u64)(p->vlan & 0xff) << 56;
	return end;
}

/* Reads TCP or UDP at l4, of which the frame has eight bytes. */
static __always_inline bool quick_l4(struct packet *p, const __u8 *l4, __u32 l4_offset)
{
	p->l4_offset = l4_offset;
	if (p->proto == IPPROTO_TCP) {
		const struct tcphdr *tcp = (const void *)l4;
		__u32 header;

		if ((void *)(tcp + 1) > p->end)
			return false;
		header = (l4[TCP_DATA_OFFSET_AT] >> 4) * 4;
		p->tcp_flags = l4[TCP_FLAGS_AT];
		p->seq = bpf_ntohl(tcp->seq);
		p->ack = bpf_ntohl(tcp->ack_seq);
		p->payload_offset = l4_offset + header;
		return (p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) == TCP_ACK && header >= sizeof(*tcp) &&
		       p->payload_offset <= p->l3_len;
	}
	p->payload_offset = l4_offset + sizeof(struct udphdr);
	return p->proto == IPPROTO_UDP && p->payload_offset <= p->l3_len;
}

/* Reads an IPv4 packet and its key. Two ends with the same address are for the general way. */
static __always_inline bool quick_ipv4(struct packet *p, __u64 *key)
{
	const __u8 *ip = p->start + p->l3_offset;
	__u64 there, back, swap;
	__u32 src, dst;

	if ((void *)(ip + sizeof(struct iphdr) + sizeof(struct udphdr)) > p->end)
		return false;
	if (ip[0] != 0x45 || *(__be16 *)(ip + offsetof(struct iphdr, frag_off)) & bpf_htons(IP_MF | IP_OFFSET))
		return false;
	p->family = 4;
	p->proto = ip[offsetof(struct iphdr, protocol)];
	p->l3_len = bpf_ntohs(*(__be16 *)(ip + offsetof(struct iphdr, tot_len)));
	if (p->l3_len + p->l3_offset > p->length || !quick_l4(p, ip + sizeof(struct iphdr), sizeof(struct iphdr)))
		return false;
	src = *(__be32 *)(ip + offsetof(struct iphdr, saddr));
	dst = *(__be32 *)(ip + offsetof(struct iphdr, daddr));
	if (src == dst)
		return false;
	/* Without a branch: which end sorts first is as good as random. */
	swap = (__s64)((__u64)bpf_ntohl(dst) - bpf_ntohl(src)) >> 63;
	there = src | (__u64)dst << 32;
	back = dst | (__u64)src << 32;
	p->from_a = swap + 1;
	key[0] = there ^ ((there ^ back) & swap);
	key[1] = quick_end(p, *(__u32 *)(ip + sizeof(struct iphdr)), swap);
	return true;
}

/* Reads an IPv6 packet and its key. */
static __always_inline bool quick_ipv6(struct packet *p, __u64 *key)
{
	const __u8 *ip = p->start + p->l3_offset;
	const __u64 *src = (const void *)(ip + offsetof(struct ipv6hdr, saddr));
	const __u64 *dst = (const void *)(ip + offsetof(struct ipv6hdr, daddr));
	__u64 swap;
	__u32 said;

	if ((void *)(ip + sizeof(struct ipv6hdr) + sizeof(struct udphdr)) > p->end)
		return false;
	if (ip[0] >> 4 != 6)
		return false;
	p->family = 6;
	p->proto = ip[offsetof(struct ipv6hdr, nexthdr)];
	said = bpf_ntohs(*(__be16 *)(ip + offsetof(struct ipv6hdr, payload_len)));
	p->l3_len = said + sizeof(struct ipv6hdr);
	if (!said || p->l3_len + p->l3_offset > p->length ||
	    !quick_l4(p, ip + sizeof(struct ipv6hdr), sizeof(struct ipv6hdr)))
		return false;
	if (src[0] != dst[0])
		swap = bpf_be64_to_cpu(dst[0]) < bpf_be64_to_cpu(src[0]);
	else if (src[1] != dst[1])
		swap = bpf_be64_to_cpu(dst[1]) < bpf_be64_to_cpu(src[1]);
	else
		return false;
	swap = -swap;
	p->from_a = swap + 1;
	key[0] = src[0] ^ ((src[0] ^ dst[0]) & swap);
	key[1] = src[1] ^ ((src[1] ^ dst[1]) & swap);
	key[2] = dst[0] ^ ((src[0] ^ dst[0]) & swap);
	key[3] = dst[1] ^ ((src[1] ^ dst[1]) & swap);
	key[4] = quick_end(p, *(__u32 *)(ip + sizeof(struct ipv6hdr)), swap);
	return true;
}

#endif
