// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"math/bits"
	"unsafe"
)

// What the kernel adds to an entry of a hash table: struct htab_elem (kernel/bpf/hashtab.c),
// and a bucket of 16 bytes for each entry, rounded up to a power of two.
const (
	hashEntry  = 48
	hashBucket = 16
)

// entryBytes returns the memory of an entry in a flow table.
func entryBytes(key uintptr) uint64 {
	return hashEntry + hashBucket + uint64(key) + uint64(unsafe.Sizeof(bpfFlow{}))
}

// FlowBytes returns the memory that a decided flow of each IP version takes in the kernel,
// with its share of the tables of lines if there is a fast path.
func FlowBytes(fastPath bool) (ipv4, ipv6 int) {
	ipv4, ipv6 = int(entryBytes(unsafe.Sizeof(bpfFlowKey{}))), int(entryBytes(unsafe.Sizeof(bpfFlowKey6{})))
	if fastPath {
		const inBuckets = 8 // two entries
		ipv4 += 2*int(unsafe.Sizeof(bpfLine4{}))*15/16 + inBuckets
		ipv6 += 2*int(unsafe.Sizeof(bpfLine6{}))*15/16 + inBuckets
	}
	return ipv4, ipv6
}

// otherBytes is about what the maps take whose sizes are fixed: the samples that are kept,
// ended flows, evidence, names, the text of the policy.
const otherBytes = 32 << 20

// Memory returns about how much memory attaching to an interface takes in the kernel. All
// of it is allocated at once. Zero values mean the defaults.
func (c *Config) Memory() uint64 {
	config := *c
	if err := config.setDefaults(); err != nil {
		return 0
	}
	four, six := FlowBytes(!config.NoFastPath)
	flows := uint64(four+six) * roundUp(config.MaxFlows)
	pending := (entryBytes(unsafe.Sizeof(bpfFlowKey{})) + entryBytes(unsafe.Sizeof(bpfFlowKey6{}))) * roundUp(config.MaxPending)
	return flows + pending + uint64(config.RingBytes) + otherBytes
}

func roundUp(n uint32) uint64 { return uint64(1) << bits.Len32(n-1) }

// memory returns the memory of the interface's maps as the kernel counts it, 0 if it does
// not say.
func (p *Pins) memory() (bytes uint64) {
	for _, m := range pinnedMaps(&p.maps) {
		info, err := (*m).Info()
		if err != nil {
			return 0
		}
		n, ok := info.Memlock()
		if !ok {
			return 0
		}
		bytes += n
	}
	return bytes
}
