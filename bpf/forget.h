/* SPDX-License-Identifier: GPL-2.0 */
/* A way to make the verifier forget what it knows about a number. */
#ifndef DPCLASS_FORGET_H
#define DPCLASS_FORGET_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* One entry for each direction, because the two hooks may nest. */
struct forgotten {
	__u32 offset;
	__u32 proto;
	__u32 fragment;
	__u32 again; /* the program was begun again for the packet, see handle_skb() */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct forgotten);
} forgotten SEC(".maps");

/* Sends a number through memory whose contents the verifier does not track. Otherwise it treats each combination of
 * tags and extension headers as a separate path, checks all code after it again, and exceeds its limit. */
static __always_inline __u32 forget(__u32 *memory, __u32 number)
{
	*(volatile __u32 *)memory = number;
	return *(volatile __u32 *)memory;
}

#endif
