/* SPDX-License-Identifier: GPL-2.0 */
/* Settings: constants for the verifier. The loader sets those without a value before it loads the programs. */
#ifndef DPCLASS_CONFIG_H
#define DPCLASS_CONFIG_H

#include <linux/types.h>
#include <stdbool.h>

volatile const bool l3_device; /* frames begin with the IP header (tun, WireGuard) */
volatile const bool vlan_in_key; /* VLAN ids are part of the 5-tuple */
volatile const bool has_bpf_loop; /* kernel 5.17 */
volatile const bool has_xdp_load_bytes; /* kernel 5.18, with bpf_xdp_get_buff_len */
volatile const bool copy_dns; /* copy DNS answers to the agent */
volatile const bool
	both_ends; /* packets of both ends of a flow are seen: both directions are watched, or the device is a loopback */
volatile const bool delays; /* for tests: some packets are held where others may come between, see held_up() */
volatile const bool fast_path; /* decided flows have lines */
volatile const __u64 line_seed[5]; /* random, the same in all processes: of the places of lines */
volatile const __u32 bucket_mask; /* number of buckets less 1, for IPv4 and IPv6 */
volatile const __u32 bucket_mask6;
volatile const __u32 max_places; /* the last place, for IPv4 and IPv6 */
volatile const __u32 max_places6;
volatile const __u64 source_seed[4]; /* random: nobody can choose addresses with equal hashes */
volatile const __u64 ring_bytes; /* size of the map samples */
volatile const __u32 sample_budget; /* payload packets sampled of each flow */
volatile const __u64 wakeup_interval_ns = 200000; /* each CPU wakes the reader at most once in this time */

volatile const __u64 tick_ns; /* length of a jiffy */

/* Idle time-outs in jiffies. */
volatile const __u64 timeout_tcp_opening; /* one direction seen */
volatile const __u64 timeout_tcp_established; /* both directions seen */
volatile const __u64 timeout_udp_single;
volatile const __u64 timeout_udp_stream;
volatile const __u64 timeout_held; /* jiffies that a rule acts by the verdict of an earlier flow of the 5-tuple */

#endif
