/* SPDX-License-Identifier: GPL-2.0 */
/* What user space stores for other processes. No program reads it. */
#ifndef DPCLASS_INFO_H
#define DPCLASS_INFO_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "limits.h"

/* How the ingress program is attached. */
enum attach_mode {
	mode_none,
	mode_native, /* XDP in the driver */
	mode_tc, /* a tc program instead of XDP */
} __attribute__((packed));

/* How tc programs are attached. */
enum tc_kind {
	tc_tcx, /* tcx links */
	tc_clsact, /* filters in a clsact qdisc that was already there */
	tc_own_clsact, /* filters in a clsact qdisc that we added */
} __attribute__((packed));

/* Where and how the programs were attached; for the command line. */
struct interface_info {
	__u64 netns_cookie;
	__u64 tick_ns; /* length of a jiffy */
	__u64 attached_ns; /* CLOCK_REALTIME */
	__u32 ifindex;
	__u32 samples; /* sample budget of a flow */
	__u64 timeouts[4]; /* jiffies: TCP opening, established, UDP single, stream */
	enum attach_mode mode;
	enum tc_kind tc;
	__u8 ingress;
	__u8 egress;
	__u8 vlan;
	__u8 persist; /* the links are pinned: programs and policy outlive the agent */
	__u8 loopback; /* every packet passes both hooks */
	__u8 fast; /* the fast programs are attached */
	__u8 driver[32];
	__u32 programs[2]; /* ids of the programs of ingress and egress; 0: none */
	__u32 links[2]; /* ids of their links; 0: a clsact filter, or none */
	__u64 line_seed[5]; /* of the places of lines */
};

/* What a live agent reports about itself, once a second. */
struct agent_stats {
	__u64 started_ns; /* CLOCK_REALTIME */
	__u64 updated_ns; /* CLOCK_MONOTONIC: a step of the wall clock is no hung agent */
	__u64 samples;
	__u64 verdicts;
	__u64 shed;
	__u64 batches;
	__u64 samples_per_second_milli;
	__u64 verdicts_per_second_milli;
	__u64 batch_mean_milli;
	__u64 p50_ns; /* from packet to stored verdict */
	__u64 p99_ns;
	__u64 ring_bytes;
	__u64 ring_used;
	__u32 pid;
	__u32 reloads_begun; /* times that it began to load its models again */
	__u32 reloads; /* times that it ended that, with success or not */
	__u8 classify;
	__u8 ready;
	__u8 ending; /* it is about to let go of the interface */
	__u8 takes_reload; /* SIGUSR1 makes it load its models again */
	__u32 landlock; /* version of the Landlock interface that limits it, 0 if none does */
	__u32 pad;
	__u8 model[2][name_len];
	__u8 last_error[128];
	__u8 reload_error[256]; /* of the last reload that ended; empty if it changed the models */
	__u64 says[2][2][max_labels / 64]; /* bit sets of the labels that each model may say, for each task */
};

/* Key 0 to where and how the programs are attached. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct interface_info);
} interface SEC(".maps");

/* Key 0 to what the live agent reports. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct agent_stats);
} agent SEC(".maps");

/* Number to name: enum label, then labels that models add; names of models from the highest number down. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, max_labels);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, name_len);
} labels SEC(".maps");

#endif
