/* SPDX-License-Identifier: GPL-2.0 */
/* The key of a flow: its 5-tuple, the same for both directions. */
#ifndef DPCLASS_KEY_H
#define DPCLASS_KEY_H

#include <linux/types.h>

/* Endpoint a is the one that sorts first, by address and then port, as bytes on the wire. vlan is the outer and the
 * inner VLAN id, 12 bits each, or 0. */
struct flow_key {
	__u8 addr_a[4];
	__u8 addr_b[4];
	__be16 port_a;
	__be16 port_b;
	__u8 proto;
	__u8 vlan[3];
} __attribute__((aligned(8)));

/* The same for IPv6. If it is used for both families, an IPv4 address is in the first four bytes. */
struct flow_key6 {
	__u8 addr_a[16];
	__u8 addr_b[16];
	__be16 port_a;
	__be16 port_b;
	__u8 proto;
	__u8 vlan[3];
} __attribute__((aligned(8)));

/* Makes the common form of a key of either family. */
static __always_inline void widen_key(struct flow_key6 *wide, const void *key, int family)
{
	if (family == 6) {
		__builtin_memcpy(wide, key, sizeof(*wide));
		return;
	}

	const struct flow_key *narrow = key;

	__builtin_memset(wide, 0, sizeof(*wide));
	*(__be32 *)wide->addr_a = *(const __be32 *)narrow->addr_a;
	*(__be32 *)wide->addr_b = *(const __be32 *)narrow->addr_b;
	wide->port_a = narrow->port_a;
	wide->port_b = narrow->port_b;
	wide->proto = narrow->proto;
	__builtin_memcpy(wide->vlan, narrow->vlan, sizeof(wide->vlan));
}

/* Makes the IPv4 key from the common form. */
static __always_inline void narrow_key(struct flow_key *narrow, const struct flow_key6 *wide)
{
	*(__be32 *)narrow->addr_a = *(const __be32 *)wide->addr_a;
	*(__be32 *)narrow->addr_b = *(const __be32 *)wide->addr_b;
	narrow->port_a = wide->port_a;
	narrow->port_b = wide->port_b;
	narrow->proto = wide->proto;
	__builtin_memcpy(narrow->vlan, wide->vlan, sizeof(narrow->vlan));
}

#endif
