/* SPDX-License-Identifier: GPL-2.0 */
/* Sizes that the kernel and user space both use. bpf2go makes Go constants from them. */
#ifndef DPCLASS_LIMITS_H
#define DPCLASS_LIMITS_H

#include "labels.h"

enum limit {
	snap_len = 1500, /* bytes of a packet that a sample holds, from the IP header on (paper, section 3.2) */
	max_rules = 64, /* of a policy */
	max_source = 65536, /* bytes of a policy file */
	max_protected = 1024, /* prefixes of each IP version, and ports, that a policy protects */
	max_batch = 4096, /* operations in the inbox */
	max_batch_unrolled = 32, /* operations in one run without bpf_loop */
	max_ended = 4096, /* ended flows that are remembered */
	max_labels = 256, /* a label is one byte */
	own_labels = FIRST_OWN_LABEL, /* from here on, numbers are labels that models add and names of models */
	name_len = 64, /* bytes of a label's or a model's name, with the 0 at its end */
};

/* Never read: it puts the enum into the object's BTF, where bpf2go finds it. */
volatile const enum limit limits = 0;

#endif
