/* SPDX-License-Identifier: GPL-2.0 */
/* What is counted, by reason. */
#ifndef DPCLASS_COUNTERS_H
#define DPCLASS_COUNTERS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Why a packet has no flow, and other events. */
enum reason {
	reason_sampled, /* normal: sample queued */
	reason_not_ip, /* ARP, LLDP, ... */
	reason_vlan_depth, /* more than two tags */
	reason_truncated, /* the frame ends within a header */
	reason_ip_header, /* version, ihl or length is impossible */
	reason_ext_headers, /* more than eight IPv6 extension headers */
	reason_fragment, /* later fragment; not counted if it was dropped because the first one was */
	reason_icmp, /* ICMP and ICMPv6 */
	reason_tunnel, /* IPIP, SIT, GRE, ESP */
	reason_other_proto,
	reason_l4_header, /* TCP data offset or length is impossible */
	reason_ring_full, /* sample not queued; the flow's next packet is tried instead */
	reason_table_full, /* no room for a flow */
	reason_stale_verdict, /* verdict for another generation */
	reason_dns, /* port 53: never sampled */
	reason_copy, /* packet could not be copied or changed */
	reason_dns_full, /* DNS answer not queued */
	reason_policer, /* passed because several CPUs used the policer's bucket at once */
	reason_mpls_depth, /* more than four MPLS labels */
	reason_unparsed, /* dropped: the policy says unparsed: drop, and the packet was counted by another reason too */
	reason_count,
};

/* enum reason to a count, on each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, reason_count);
	__type(key, enum reason);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(enum reason reason)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &reason);

	if (n)
		*n += 1;
}

#endif
