/* SPDX-License-Identifier: GPL-2.0 */
/* What the first payload packets of flows say by themselves. User space finds it out. */
#ifndef DPCLASS_EVIDENCE_H
#define DPCLASS_EVIDENCE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "limits.h"

/* Where a server name comes from (flow.NameSource in Go). */
enum name_source {
	name_none,
	name_tls,
	name_quic,
	name_http,
	name_dns,
	name_server,
} __attribute__((packed));

/* A server name, last byte first, and a dot after it: "moc.elpmaxe." is a prefix of the form of every name below
 * example.com, and of no other. */
struct lpm_name {
	__u32 prefix_len; /* bits */
	__u8 reversed[256];
};

struct flow_evidence {
	struct lpm_name match; /* prefix_len 0: no rule matches the name */
	char name[max_name + 1]; /* with a 0 at the end, as the other texts */
	enum name_source name_source;
	char alpn[32];
	char ja4[41];
};

/* The key is a hash that user space makes. Flows with equal evidence share an entry; the protocol is in the flow. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, max_evidence);
	__type(key, __u64);
	__type(value, struct flow_evidence);
} evidence SEC(".maps");

#endif
