/* SPDX-License-Identifier: GPL-2.0 */
/* Sizes that the kernel and user space both use. bpf2go makes Go constants from them. */
#ifndef DPCLASS_LIMITS_H
#define DPCLASS_LIMITS_H

#include "labels.h"

enum limit {
	snap_len = 1500, /* bytes of a packet that a sample holds, from the IP header on (paper, section 3.2) */
	max_rules = 64, /* of a policy */
	max_source = 65536, /* bytes of a policy file */
	max_protected = 1024, /* prefixes, and as many ports, that a policy protects */
	max_protected_flows = 64, /* flows that a policy protects */
	max_batch = 4096, /* operations in the inbox */
	max_batch_unrolled = 8, /* operations in one run without bpf_loop */
	max_ended = 4096, /* ended flows that are remembered */
	max_labels = 2048, /* labels and names of models */
	max_moments = 1024, /* of a policy's schedules that are known in advance */
	max_hosts = 16384, /* hosts that rules have buckets or quotas for */
	max_matches = 1024, /* names, and as many hosts, that the rules of a policy match */
	host_fixed_bits = 32, /* of a struct host_key, before the address */
	max_evidence = 16384, /* different evidence that is remembered */
	max_enforced = 16384, /* 5-tuples that are remembered because packets of theirs were dropped */
	max_kept = 4096, /* samples that are kept */
	max_datagrams = 8192, /* datagrams whose first fragment was dropped */
	max_answer = 1232, /* bytes of a DNS answer that are copied (over UDP, DNS Flag Day 2020) */
	max_name = 253, /* bytes of a server name (RFC 1035, section 2.3.4) */
	own_labels = FIRST_OWN_LABEL, /* from here on, numbers are labels that models add and names of models */
	name_len = 64, /* bytes of a label's or a model's name, with the 0 at its end */
};

/* Never read: it puts the enum into the object's BTF, where bpf2go finds it. */
volatile const enum limit limits = 0;

#endif
