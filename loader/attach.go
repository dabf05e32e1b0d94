// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/netns"

	"github.com/dpclass/dpclass/flow"
)

// Attach loads the programs and attaches them to an interface of the calling
// thread's network namespace. Pins of ours without a live agent are taken over:
// their flows, verdicts and policy stay. Nothing is left behind where it fails.
func Attach(iface string, cfg Config, log *slog.Logger) (_ *Interface, err error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	device, err := deviceByName(iface)
	if err != nil {
		return nil, err
	}
	if device.Attrs().Flags&net.FlagUp == 0 {
		return nil, fmt.Errorf("interface %q is down: \"ip link set %s up\" first", iface, iface)
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lock memory for maps (root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, are needed): %w", err)
	}
	if err := checkBPFFS(); err != nil {
		return nil, err
	}
	dir, err := pinDir(iface)
	if err != nil {
		return nil, err
	}
	if other, err := findDir(iface); err == nil {
		dir = other // a renamed interface keeps its pins
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("pin directory: %w", err)
	}
	lock, err := lockDir(dir)
	if errors.Is(err, ErrBusy) {
		return nil, fmt.Errorf("interface %q: %w (process %d): end it, or \"dpclass detach %s\"", iface, ErrBusy, agentPID(dir), iface)
	}
	if err != nil {
		return nil, err
	}
	ns, err := netns.Current()
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	i := &Interface{name: iface, dir: dir, net: ns, lock: lock, log: log, keep: cfg.Timeouts.Ended}
	if i.keep == 0 {
		i.keep = DefaultTimeouts.Ended
	}
	taken := isWhole(dir)
	if taken {
		// What the agent before said of itself is not this one's.
		if err := claim(dir); err != nil {
			return nil, errors.Join(err, i.Close())
		}
	}
	defer func() {
		if err == nil {
			return
		}
		if taken {
			err = errors.Join(err, i.Close())
		} else {
			err = errors.Join(err, i.Detach())
		}
	}()
	if !taken {
		// What a crash may have left half made.
		if err := clearDir(dir); err != nil {
			return nil, err
		}
	}
	if err := i.load(device, &cfg, taken); err != nil {
		return nil, err
	}
	if err := i.hook(device, &cfg, taken); err != nil {
		return nil, fmt.Errorf("interface %q: %w", iface, err)
	}
	if taken {
		// What the agent before had not decided: its sums went with it.
		if err := i.ResampleAll(); err != nil {
			return nil, err
		}
	}
	if i.endsSeen, err = i.ends(); err != nil {
		return nil, err
	}
	// So that detach finds this process; ready comes from the agent.
	if err := i.PublishAgent(AgentStats{PID: os.Getpid(), Started: time.Now(), Updated: time.Now()}); err != nil {
		return nil, err
	}
	return i, nil
}

// claim has the pins say that this process serves them, and is not ready yet.
func claim(dir string) error {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "agent"), nil)
	if err != nil {
		return fmt.Errorf("pinned map %q: %w", "agent", err)
	}
	defer m.Close()
	now := uint64(time.Now().UnixNano())
	stats := bpfAgentStats{Pid: uint32(os.Getpid()), StartedNs: now, UpdatedNs: now}
	if err := m.Put(uint32(0), &stats); err != nil {
		return fmt.Errorf("publish the agent's statistics: %w", err)
	}
	return nil
}

// isWhole tells whether all maps are pinned: those of an agent that ended
// without detaching.
func isWhole(dir string) bool {
	for name := range mapPins(&bpfMaps{}) {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

func clearDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("pin directory: %w", err)
	}
	for _, entry := range entries {
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove pin: %w", err)
		}
	}
	return nil
}

// isL3 tells whether the device's frames begin with the IP header.
func isL3(device netlink.Link) bool {
	switch device.Attrs().EncapType {
	case "none", "ppp", "rawip", "ipip", "sit", "gre", "tunnel6", "ip6gre":
		return true
	}
	return len(device.Attrs().HardwareAddr) == 0 && device.Attrs().EncapType != "ether" && device.Attrs().EncapType != "loopback"
}

// jiffies converts a time-out; 0 stands for the default.
func jiffies(d, standard time.Duration, tick uint64) uint64 {
	if d <= 0 {
		d = standard
	}
	return max(uint64(d)/tick, 1)
}

// load loads programs and maps, with the pinned maps of an earlier agent where
// there are any, and pins the maps.
func (i *Interface) load(device netlink.Link, cfg *Config, taken bool) error {
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("BPF objects: %w", err)
	}
	tick, err := tickLength()
	if err != nil {
		return err
	}
	timeouts := [4]uint64{
		jiffies(cfg.Timeouts.TCPOpening, DefaultTimeouts.TCPOpening, tick),
		jiffies(cfg.Timeouts.TCPEstablished, DefaultTimeouts.TCPEstablished, tick),
		jiffies(cfg.Timeouts.UDPSingle, DefaultTimeouts.UDPSingle, tick),
		jiffies(cfg.Timeouts.UDPStream, DefaultTimeouts.UDPStream, tick),
	}
	frags := features.HaveProgramHelper(ebpf.XDP, asm.FnXdpLoadBytes) == nil
	l3 := isL3(device)
	for name, value := range map[string]any{
		"l3_device": l3, "vlan_in_key": cfg.VLAN, "has_bpf_loop": haveLoop(), "has_xdp_load_bytes": frags,
		"sample_budget": uint32(cfg.Samples), "tick_ns": tick, "timeout_tcp_opening": timeouts[0], "timeout_tcp_established": timeouts[1],
		"timeout_udp_single": timeouts[2], "timeout_udp_stream": timeouts[3],
	} {
		variable, ok := spec.Variables[name]
		if !ok {
			return fmt.Errorf("BPF objects: no setting %q", name)
		}
		if err := variable.Set(value); err != nil {
			return fmt.Errorf("setting %q: %w", name, err)
		}
	}
	if frags {
		spec.Programs[bpfProgDpclassXdp].Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	spec.Maps["flows"].MaxEntries, spec.Maps["flows6"].MaxEntries = cfg.MaxFlows, cfg.MaxFlows
	spec.Maps["pending"].MaxEntries, spec.Maps["pending6"].MaxEntries = cfg.MaxPending, cfg.MaxPending
	spec.Maps["samples"].MaxEntries = cfg.RingBytes

	replace := map[string]*ebpf.Map{}
	if taken {
		defer func() {
			for _, m := range replace {
				m.Close()
			}
		}()
		for name := range mapPins(&i.maps) {
			m, err := ebpf.LoadPinnedMap(filepath.Join(i.dir, name), nil)
			if err != nil {
				return fmt.Errorf("pinned map %q: %w", name, err)
			}
			replace[name] = m
			spec.Maps[name].MaxEntries = m.MaxEntries() // tables keep their size
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return fmt.Errorf("load the BPF programs (kernel 5.15 or newer, and root, are needed): %w", err)
	}
	i.collection = collection
	for name, m := range mapPins(&i.maps) {
		*m = collection.Maps[name]
		if !taken {
			if err := (*m).Pin(filepath.Join(i.dir, name)); err != nil {
				return fmt.Errorf("pin map %q: %w", name, err)
			}
		}
	}
	if err := i.names.load(i.maps.Labels); err != nil {
		return err
	}
	if err := i.names.extend(flow.Vocabulary, cfg.Labels); err != nil {
		return err
	}
	if !taken {
		if err := i.clearPolicy(); err != nil {
			return err
		}
	}
	cookie, err := netns.Cookie()
	if err != nil {
		return err
	}
	i.info = bpfInterfaceInfo{
		NetnsCookie: cookie, TickNs: tick, AttachedNs: uint64(time.Now().UnixNano()),
		Ifindex: uint32(device.Attrs().Index), Samples: uint32(cfg.Samples), Timeouts: timeouts,
		Ingress: bit(cfg.Ingress), Egress: bit(cfg.Egress), Vlan: bit(cfg.VLAN),
	}
	copy(i.info.Driver[:len(i.info.Driver)-1], driverOf(device))
	return i.inbox.open(collection.Maps["inbox"], collection.Programs[bpfProgDpclassApply])
}

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// stripsTags tells whether the device takes VLAN tags off before XDP sees the frame.
func stripsTags(device netlink.Link) bool {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return false
	}
	defer tool.Close()
	features, err := tool.Features(device.Attrs().Name)
	return err == nil && features["rx-vlan-hw-parse"]
}

func driverOf(device netlink.Link) string {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return device.Type()
	}
	defer tool.Close()
	name, err := tool.DriverName(device.Attrs().Name)
	if err != nil || name == "" {
		return device.Type()
	}
	return name
}

// hook attaches the programs, or puts them in the place of an earlier agent's,
// and writes down where.
func (i *Interface) hook(device netlink.Link, cfg *Config, taken bool) error {
	mode := cfg.Mode
	if cfg.Ingress && mode != TC {
		err := i.attachLink(hookIn(Native), device, taken)
		switch {
		case err == nil:
			mode = Native
		case errors.Is(err, errNotNative) && mode == Auto:
			i.log.Debug("no native XDP", "iface", i.name, "error", err)
			mode = TC
		default:
			return err
		}
	} else if mode == Auto {
		mode = TC
	}
	i.info.Mode = bpfAttachModeModeTc
	if mode == Native {
		i.info.Mode = bpfAttachModeModeNative
		if cfg.VLAN && stripsTags(device) {
			i.log.Warn("the device strips VLAN tags before XDP sees them: VLAN ids of received packets are 0 in the 5-tuple",
				"iface", i.name, "do", "ethtool -K "+i.name+" rxvlan off, or --mode tc")
		}
	}
	for _, h := range hooks(&i.info) {
		if h.pin == pinXDP {
			continue
		}
		if err := i.attachTC(h, device, cfg.Clsact, taken); err != nil {
			return err
		}
	}
	if taken {
		// Hooks that this agent was not asked for.
		want := map[string]bool{}
		for _, h := range hooks(&i.info) {
			want[h.pin] = true
		}
		for _, pin := range []string{pinXDP, pinIn, pinOut} {
			if !want[pin] {
				if err := unpin(filepath.Join(i.dir, pin)); err != nil {
					return err
				}
			}
		}
	}
	if err := i.maps.Interface.Put(uint32(0), &i.info); err != nil {
		return fmt.Errorf("write down how the programs are attached: %w", err)
	}
	return nil
}

// attachLink attaches by a pinned link: the one that is there, where it is still alive.
func (i *Interface) attachLink(h hook, device netlink.Link, taken bool) error {
	program, pin := i.collection.Programs[h.program], filepath.Join(i.dir, h.pin)
	if taken {
		if state, err := pinnedHook(i.dir, h); err == nil && state.State == "attached" {
			l, err := link.LoadPinnedLink(pin, nil)
			if err != nil {
				return fmt.Errorf("pinned link %q: %w", h.pin, err)
			}
			i.links = append(i.links, l)
			if err := l.Update(program); err != nil {
				return fmt.Errorf("put the program into %s: %w", h.name, err)
			}
			return nil
		}
		if err := unpin(pin); err != nil {
			return err
		}
	}
	var l link.Link
	var err error
	if h.pin == pinXDP {
		l, err = attachXDP(program, device.Attrs().Index)
	} else {
		l, err = link.AttachTCX(link.TCXOptions{Program: program, Attach: h.attach, Interface: device.Attrs().Index})
	}
	if err != nil {
		return err
	}
	i.links = append(i.links, l)
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pin the link of %s: %w", h.name, err)
	}
	return nil
}

func (i *Interface) attachTC(h hook, device netlink.Link, clsact, taken bool) error {
	if !clsact {
		err := i.attachLink(h, device, taken)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return fmt.Errorf("attach to tcx %s: %w", h.name, err)
		}
	}
	own, err := attachClsact(i.collection.Programs[h.program], device, h)
	if own || i.info.Tc == bpfTcKindTcTcx {
		i.info.Tc = bpfTcKindTcClsact
		if own {
			i.info.Tc = bpfTcKindTcOwnClsact
		}
	}
	return err
}

func unpin(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pin: %w", err)
	}
	return nil
}

// deviceByName finds an interface of the calling thread's namespace.
func deviceByName(iface string) (netlink.Link, error) {
	device, err := netlink.LinkByName(iface)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, fmt.Errorf("interface %q: there is none of that name (see \"ip link\"; in another namespace: --netns NAME)", iface)
	}
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", iface, err)
	}
	return device, nil
}
