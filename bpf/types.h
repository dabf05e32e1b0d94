/* SPDX-License-Identifier: GPL-2.0 */
/* Keys and values of the maps. bpf2go makes the Go structs out of these; there are no others. */
#ifndef DPCLASS_TYPES_H
#define DPCLASS_TYPES_H

#include <linux/types.h>
#include "limits.h"

/* The canonical 5-tuple: endpoint a sorts before endpoint b, by address and port in network byte order.
 * vlan is the outer and the inner VLAN id, 12 bits each, or 0. */
struct flow_key {
	__u8 addr_a[4];
	__u8 addr_b[4];
	__be16 port_a;
	__be16 port_b;
	__u8 proto;
	__u8 vlan[3];
} __attribute__((aligned(8)));

/* The same for IPv6; where it stands for both, an IPv4 address is in the first four bytes. */
struct flow_key6 {
	__u8 addr_a[16];
	__u8 addr_b[16];
	__be16 port_a;
	__be16 port_b;
	__u8 proto;
	__u8 vlan[3];
} __attribute__((aligned(8)));

enum direction {
	direction_in, /* received */
	direction_out, /* sent */
};

/* Bits of flow.state. */
enum flow_state {
	state_syn = 1, /* SYN or SYN-ACK seen */
	state_fin_a = 2, /* FIN from endpoint a */
	state_fin_b = 4,
	state_rst = 8,
	state_idle = 16, /* ended by time-out */
	state_sent_a = 32, /* packets from endpoint a seen */
	state_sent_b = 64,
	state_first_b = 128, /* the first packet came from endpoint b */
	state_midstream = 256, /* TCP whose SYN was not seen */
	state_reported = 512, /* the end is in the map ended */
	state_promoted = 1024, /* pending entry whose flow has moved to flows */
	state_protected = 2048, /* named by the policy's protect: */
	state_settled = 4096, /* no verdict changes any more, except by an operator: no more samples */
};

enum source {
	source_none,
	source_model,
	source_operator,
} __attribute__((packed));

/* The answer to one question about a flow (flow.Task in Go). */
struct verdict {
	enum label label;
	enum source source;
	__u8 model; /* number of the model's name in the map labels; 0: none */
	__u8 final; /* only an operator changes it */
	__u16 confidence; /* in 65535ths */
};

/* A flow. Three cache lines (of IPv4's tables): what is mostly read, and what each direction writes. The two directions
 * are often handled on two CPUs, and counters in one line would travel between them. */
struct flow {
	__u64 last_jiffies; /* of the last packet */
	enum flow_state state; /* bits */
	__u32 policy_epoch; /* of rule; 0: the policy is to be asked again */
	struct verdict category;
	struct verdict app;
	__u8 rule; /* policy rule that acts on the flow, from 1; 0: none */
	__u8 pad[3];
	__u32 generation;
	__u32 samples; /* payload packets sampled */
	__u64 first_ns; /* CLOCK_MONOTONIC of the first packet */
	__u64 first_jiffies;
	__u64 dropped; /* packets dropped by policy */

	__u64 packets_in;
	__u64 bytes_in; /* IP bytes on the wire */
	__u64 tat_in; /* policer of the flow: theoretical arrival time, ns */
	__u64 pad_in[5];

	__u64 packets_out;
	__u64 bytes_out;
	__u64 tat_out;
	__u64 pad_out[5];
};

/* Bits of sample.reasons. */
enum sample_reason {
	sample_cut = 1, /* longer than snap_len on the wire */
	sample_segment = 2, /* first wire segment of an offloaded super-packet */
	sample_fragment = 4, /* first fragment */
	sample_midstream = 8, /* of a TCP flow whose SYN was not seen */
} __attribute__((packed));

/* The header of a sample in the ring buffer; the packet follows, from the IP header on. */
struct sample {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 generation;
	__u32 length; /* L3 length on the wire, bytes */
	__u16 captured; /* bytes that follow */
	__u8 index; /* in the flow, from 0 */
	__u8 direction; /* enum direction */
	__u8 family; /* 4 or 6 */
	enum sample_reason reasons; /* bits */
	__u8 from_a; /* sent by endpoint a */
	__u8 pad;
	struct flow_key6 key;
};

enum op_kind {
	op_verdict, /* store verdicts */
	op_resample, /* take back op.samples samples, they were shed */
	op_merge, /* second half of a promotion: what was counted meanwhile */
	op_idle, /* end by time-out */
	op_report, /* write the end into the map ended */
	op_remove, /* take the flow out */
} __attribute__((packed));

/* An operation of user space on one flow. Generation 0 means any (an operator's verdict). */
struct op {
	struct flow_key6 key;
	__u64 last_jiffies; /* op_idle and op_remove: only if no packet came since */
	__u32 generation;
	struct verdict category; /* op_verdict; source_none: leave it as it is */
	struct verdict app;
	enum op_kind kind;
	__u8 family;
	__u8 settled; /* op_verdict: no verdict of the model's comes after these */
	__u8 samples; /* op_resample */
	__u32 pad;
};

/* Context of the program that applies the inbox. */
struct batch {
	__u32 count; /* operations in the inbox */
	__u32 stale; /* out: the flow was gone or of another generation */
};

struct ended_flow {
	struct flow_key6 key;
	__u64 number; /* of the end, from 1; 0: the slot is empty */
	__u8 family;
	__u8 pad[7];
	struct flow flow;
};

enum rule_flag {
	rule_any_category = 1,
	rule_any_app = 2,
	rule_provisional = 4, /* acts on provisional verdicts too */
	rule_midstream = 8, /* a drop acts on midstream flows too */
	rule_end = 16, /* no rule: the list ends here */
} __attribute__((packed));

enum rule_action {
	action_drop = 1,
	action_police = 2,
	action_dscp = 4,
	action_per_flow = 8, /* the policer's bucket is the flow's own */
} __attribute__((packed));

struct rule {
	__u64 categories[4]; /* bit set of labels */
	__u64 apps[4];
	__u64 cost; /* ns a byte at the policed rate, << 16 */
	__u64 burst_ns; /* the burst in time at the policed rate */
	__u16 min_confidence;
	enum rule_flag flags; /* bits */
	enum rule_action actions; /* bits */
	__u8 dscp;
	__u8 pad[3];
};

/* The policy in force: the rules of bank (epoch & 1). A new epoch puts a whole new policy in force at once. */
struct policy_state {
	__u32 epoch; /* never 0 */
	__u32 count;
	__u64 applied_ns; /* CLOCK_REALTIME */
	__u32 source_len; /* bytes in policy_source */
	__u32 pad;
};

struct rule_counts {
	__u64 packets;
	__u64 bytes;
	__u64 dropped;
	__u64 dropped_bytes;
	__u64 marked;
};

struct lpm4 {
	__u32 prefix_len;
	__u8 addr[4];
};

struct lpm6 {
	__u32 prefix_len;
	__u8 addr[16];
};

struct protect_port {
	__be16 port;
	__u8 proto;
	__u8 pad;
};

/* How the ingress program is attached. */
enum attach_mode {
	mode_none,
	mode_native, /* XDP in the driver */
	mode_tc, /* a tc program in XDP's place */
} __attribute__((packed));

/* How tc programs are attached. */
enum tc_kind {
	tc_tcx, /* tcx links */
	tc_clsact, /* filters in a clsact qdisc that was there */
	tc_own_clsact, /* filters in a clsact qdisc of ours */
} __attribute__((packed));

/* Where and how the programs were attached; for the command line. */
struct interface_info {
	__u64 netns_cookie;
	__u64 tick_ns; /* length of a jiffy */
	__u64 attached_ns; /* CLOCK_REALTIME */
	__u32 ifindex;
	__u32 samples; /* budget of a flow */
	__u64 timeouts[4]; /* jiffies: TCP opening, established, UDP single, stream */
	enum attach_mode mode;
	enum tc_kind tc;
	__u8 ingress;
	__u8 egress;
	__u8 vlan;
	__u8 l3_device;
	__u8 pad[2];
	__u8 driver[32];
};

/* What a live agent says of itself, once a second. */
struct agent_stats {
	__u64 started_ns; /* CLOCK_REALTIME */
	__u64 updated_ns;
	__u64 samples;
	__u64 verdicts;
	__u64 shed;
	__u64 batches;
	__u64 samples_per_second_milli;
	__u64 verdicts_per_second_milli;
	__u64 batch_mean_milli;
	__u64 p50_ns; /* time to verdict */
	__u64 p99_ns;
	__u64 ring_bytes;
	__u64 ring_used;
	__u32 pid;
	__u8 classify;
	__u8 ready;
	__u8 pad[2];
	__u8 model[2][name_len];
	__u8 last_error[128];
};

/* Why a packet was passed without a flow, or something else did not go its usual way. */
enum reason {
	reason_sampled, /* not a fault: samples queued */
	reason_not_ip, /* ARP, LLDP, ... */
	reason_vlan_depth, /* more than two tags */
	reason_truncated, /* the frame ends within a header */
	reason_ip_header, /* version, ihl or length is impossible */
	reason_ext_headers, /* more than eight IPv6 extension headers */
	reason_fragment, /* later fragment */
	reason_icmp, /* ICMP and ICMPv6 */
	reason_tunnel, /* IPIP, SIT, GRE, ESP */
	reason_other_proto,
	reason_l4_header, /* TCP data offset or length is impossible */
	reason_ring_full, /* sample not queued, tried again with the flow's next packet */
	reason_table_full, /* no room for a flow */
	reason_stale_verdict, /* verdict for another generation */
	reason_dns, /* port 53: never sampled */
	reason_copy, /* packet could not be copied or changed */
	reason_policer, /* policer's bucket was contended, passed */
	reason_count,
};

#endif
