// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/netns"
)

// specFor returns the programs and maps for the device according to the configuration,
// and the information to record about them. The calling thread is in the device's
// network namespace.
func specFor(device netlink.Link, cfg *Config) (*ebpf.CollectionSpec, bpfInterfaceInfo, error) {
	tick, err := tickLength()
	if err != nil {
		return nil, bpfInterfaceInfo{}, err
	}
	cookie, err := netns.Cookie()
	if err != nil {
		return nil, bpfInterfaceInfo{}, err
	}
	cfg.chooseDirections(isLoopback(device))
	info := bpfInterfaceInfo{
		NetnsCookie: cookie, TickNs: tick, AttachedNs: uint64(time.Now().UnixNano()),
		Ifindex: uint32(device.Attrs().Index), Samples: uint32(cfg.Samples),
		Ingress: bit(cfg.Ingress), Egress: bit(cfg.Egress), Vlan: bit(cfg.VLAN), Persist: bit(cfg.Persist), Loopback: bit(isLoopback(device)),
	}
	for n, d := range []time.Duration{cfg.Timeouts.TCPOpening, cfg.Timeouts.TCPEstablished, cfg.Timeouts.UDPSingle, cfg.Timeouts.UDPStream} {
		info.Timeouts[n] = max(uint64(d)/tick, 1)
	}
	copy(info.Driver[:len(info.Driver)-1], driverOf(device))

	spec, err := loadBpf()
	if err != nil {
		return nil, info, fmt.Errorf("BPF objects: %w", err)
	}
	frags := features.HaveProgramHelper(ebpf.XDP, asm.FnXdpLoadBytes) == nil
	var seed [4]uint64
	for n := range seed {
		seed[n] = rand.Uint64()
	}
	err = set(spec, map[string]any{
		"both_ends": bothEnds(&info), "timeout_held": uint64(cfg.Timeouts.Held) / tick, "source_seed": seed,
		"l3_device": isL3(device), "vlan_in_key": cfg.VLAN, "copy_dns": cfg.DNS, "has_bpf_loop": haveLoop(), "has_xdp_load_bytes": frags,
		"sample_budget": info.Samples, "tick_ns": tick,
		"timeout_tcp_opening": info.Timeouts[0], "timeout_tcp_established": info.Timeouts[1],
		"timeout_udp_single": info.Timeouts[2], "timeout_udp_stream": info.Timeouts[3],
	})
	if err != nil {
		return nil, info, err
	}
	delete(spec.Programs, bpfProgDpclassClock) // only policies that need it load it: Linux 5.15
	if frags {
		spec.Programs[bpfProgDpclassXdp].Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	// Maps that an earlier process pinned keep their size: load sets it.
	for name, entries := range map[string]uint32{
		"flows": cfg.MaxFlows, "flows6": cfg.MaxFlows, "pending": cfg.MaxPending, "pending6": cfg.MaxPending,
		"samples": cfg.RingBytes,
	} {
		spec.Maps[name].MaxEntries = entries
	}
	return spec, info, nil
}

// set sets the constants of the programs.
func set(spec *ebpf.CollectionSpec, settings map[string]any) error {
	for name, value := range settings {
		variable, ok := spec.Variables[name]
		if !ok {
			return fmt.Errorf("BPF objects: no setting %q", name)
		}
		if err := variable.Set(value); err != nil {
			return fmt.Errorf("setting %q: %w", name, err)
		}
	}
	return nil
}

// isLoopback reports whether the device receives what it sends.
func isLoopback(device netlink.Link) bool { return device.Attrs().Flags&net.FlagLoopback != 0 }

// bothEnds reports whether the programs see packets of both ends of a flow.
func bothEnds(info *bpfInterfaceInfo) bool {
	return info.Loopback != 0 || info.Ingress != 0 && info.Egress != 0
}

// haveLoop reports whether the kernel has bpf_loop (5.17).
func haveLoop() bool { return features.HaveProgramHelper(ebpf.Syscall, asm.FnLoop) == nil }

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}
