/* SPDX-License-Identifier: GPL-2.0 */
/* Settings: constants for the verifier, set by the loader before the programs are loaded. */
#ifndef DPCLASS_CONFIG_H
#define DPCLASS_CONFIG_H

#include <linux/types.h>
#include <stdbool.h>

volatile const bool l3_device = false; /* frames begin with the IP header (tun, WireGuard) */
volatile const bool vlan_in_key = false; /* VLAN ids are part of the 5-tuple */
volatile const bool has_bpf_loop = true; /* kernel 5.17 */
volatile const bool has_xdp_load_bytes = true; /* kernel 5.18, with bpf_xdp_get_buff_len */
volatile const __u32 sample_budget = 5; /* payload packets sampled of each flow */
volatile const __u64 wakeup_interval_ns = 200000; /* each CPU wakes the reader at most once in this time */

volatile const __u64 tick_ns = 4000000; /* length of a jiffy */

/* Idle time-outs in jiffies. */
volatile const __u64 timeout_tcp_opening = 30 * 250; /* one direction seen */
volatile const __u64 timeout_tcp_established = 300 * 250; /* both directions seen */
volatile const __u64 timeout_udp_single = 30 * 250;
volatile const __u64 timeout_udp_stream = 120 * 250;

#endif
