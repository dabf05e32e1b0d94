/* SPDX-License-Identifier: GPL-2.0 */
/* The flow tables and what is in them. */
#ifndef DPCLASS_TABLE_H
#define DPCLASS_TABLE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "key.h"
#include "labels.h"
#include "protocols.h"

#define CAS_TRIES 4 /* of a compare-and-swap that competes with other CPUs */

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
	state_retired = 2048, /* its key is used again: it leaves the tables */
	state_settled = 4096, /* from now on only an operator changes a verdict: no more samples */
	state_a_out = 8192, /* endpoint a's packets are the sent ones; otherwise the received ones */
	state_acked_a = 16384, /* side.ack of endpoint a is set */
	state_acked_b = 32768,
	state_confirmed = 65536, /* TCP: both ends have acknowledged what the other one sent */
	state_conflict = 131072, /* TCP: before that, some sequence numbers did not fit together */
	state_held = 262144, /* an earlier flow of the 5-tuple left its verdicts */
	state_held_both = 524288, /* that flow was confirmed */
	state_enforced = 1048576, /* packets of that flow were dropped */
};

enum source {
	source_none,
	source_model,
	source_operator,
	source_name, /* the server name */
	source_protocol,
} __attribute__((packed));

/* The answer to one question about a flow (flow.Task in Go). It is one word, and changes at once. */
struct verdict {
	enum label label;
	__u16 model; /* number of the model's name in the map labels; 0: none */
	__u16 confidence; /* in 65535ths */
	enum source source;
	__u8 final; /* only an operator changes it */
} __attribute__((aligned(8)));

/* Bits of choice.change. */
enum choice_bit {
	choice_found = 1, /* the rules are those for epoch and the flow's verdicts */
	choice_protected = 2, /* named by the policy's protect: */
	choice_writer = 4, /* the lowest of three bits: how many are changing the flow's verdicts */
	choice_change = 32, /* the lowest of eleven bits: how often they were changed */
	choice_all = 0xffff,
} __attribute__((packed));

/* The rules that act on a flow. It is one word: a packet reads rules, epoch and protection as they belong together, and
 * whoever has found rules stores them only if nothing that they rest on has changed meanwhile (find_rules). */
struct choice {
	__u32 epoch; /* of the policy */
	__u8 rule_in; /* number of the rule that acts on received packets, from 1; 0: none */
	__u8 rule_out; /* on sent packets */
	enum choice_bit change; /* bits */
};

#define CHOICE_SHIFT 48 /* of change in the word */

union choice_word {
	struct choice choice;
	__u64 word;
};

/* Sequence numbers of one connection differ by less: what is in flight, and unseen losses. */
#define TCP_NEAR (4 << 20)

/* What an endpoint has sent and acknowledged, as TCP sequence numbers (RFC 9293, section 3.4). */
struct side {
	__u32 end; /* one after the highest that it has sent */
	__u32 ack; /* what it acknowledged last */
};

/* A flow. Three cache lines (in the IPv4 tables): what is mostly read, and what each direction writes. Different CPUs
 * often handle the two directions, and counters in one line would travel between them. */
struct flow {
	__u64 last_jiffies; /* of the last packet */
	enum flow_state state; /* bits */
	__u32 generation;
	struct verdict category;
	struct verdict app;
	__u64 evidence; /* key in the map evidence; 0: none */
	struct choice choice;
	__u32 samples; /* payload packets sampled */
	enum protocol protocol;
	enum protocol held_protocol; /* this and the other held ones: see struct held */
	__u8 pad[2];
	__u32 line; /* place of the flow's lines, from 1; 0: none */
	__u32 pad_line;

	__u64 packets_in;
	__u64 bytes_in; /* IP bytes on the wire */
	__u64 tat_in; /* policer of the flow: theoretical arrival time, ns */
	__u64 first_ns; /* CLOCK_MONOTONIC of the first packet */
	__u64 first_jiffies;
	struct side side_in; /* of the endpoint whose packets are received */
	__u64 held_jiffies;
	__u64 dropped; /* packets dropped by policy */

	__u64 packets_out;
	__u64 bytes_out;
	__u64 tat_out;
	struct side side_out;
	struct verdict held_category;
	struct verdict held_app;
	__u64 held_evidence;
	__u64 dropped_bytes; /* of the packets dropped by policy: their IP bytes */
};

/* The loader sets the sizes of the four tables. */

/* IPv4 5-tuple to a flow with a firm verdict. A HASH: a flood of new flows cannot evict a decided flow. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* IPv6 5-tuple to a flow with a firm verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow_key6);
	__type(value, struct flow);
} flows6 SEC(".maps");

/* IPv4 5-tuple to a flow without a firm verdict. An LRU_HASH: the least recently used flow is evicted first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key);
	__type(value, struct flow);
} pending SEC(".maps");

/* IPv6 5-tuple to a flow without a firm verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key6);
	__type(value, struct flow);
} pending6 SEC(".maps");

#endif
