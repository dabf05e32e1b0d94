// SPDX-License-Identifier: Apache-2.0

package loader

// All Go structs of map values are generated from the C code in bpf/.
//go:generate go tool bpf2go -go-package loader -target bpfel -cc clang -strip llvm-strip -cflags "-O2 -g -Wall -Werror -mcpu=v3" -type label -type protocol -type name_source -type flow_evidence -type lpm_name -type kept_key -type kept_sample -type host_key -type port_key -type dns_answer -type attach_mode -type tc_kind -type flow_state -type source -type flow_key -type flow_key6 -type verdict -type flow -type sample -type op -type op_kind -type batch -type ended_flow -type rule -type rule_flag -type rule_action -type rule_term -type bucket -type moment -type active -type clock_kind -type clock_request -type rule_host -type host_use -type policy_state -type policy_flag -type datagram_key -type dropped_datagram -type rule_counts -type protect_port -type interface_info -type agent_stats -type reason -type side -type choice -type choice_bit -type held bpf ../bpf/dpclass.bpf.c -- -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu
//go:generate go run ../internal/genabi
