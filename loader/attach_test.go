// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/lab"
)

// wired returns a host with eth0, and the host at the other end.
func wired(t *testing.T) (h, peer *lab.Host) {
	t.Helper()
	needRoot(t)
	l := lab.ForTest(t)
	h, peer = newHost(t, l, "near"), newHost(t, l, "far")
	err := l.Wire(lab.Wire{
		A: lab.End{Host: h, Iface: "eth0", Addrs: []string{"10.9.0.1/24"}},
		B: lab.End{Host: peer, Iface: "eth0", Addrs: []string{"10.9.0.2/24"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, peer
}

func newHost(t *testing.T, l *lab.Lab, name string) *lab.Host {
	t.Helper()
	h, err := l.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// in runs fn in the host's namespace.
func in(t *testing.T, h *lab.Host, fn func() error) {
	t.Helper()
	if err := h.Do(fn); err != nil {
		t.Fatal(err)
	}
}

func attachTo(h *lab.Host, iface string, cfg Config) (i *Attachment, err error) {
	cfg.MaxFlows, cfg.MaxPending = 256, 256
	err = h.Do(func() error {
		i, err = testRoot.attach(context.Background(), iface, cfg, slog.New(slog.DiscardHandler))
		return err
	})
	return i, err
}

func attached(t *testing.T, h *lab.Host, cfg Config) *Attachment {
	t.Helper()
	i, err := attachTo(h, "eth0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	return i
}

// detached detaches an interface of the host that has pins.
func detached(t *testing.T, h *lab.Host, iface string) {
	t.Helper()
	in(t, h, func() error {
		done, err := testRoot.detach(t.Context(), iface)
		if !done.Attached || done.Agent != 0 {
			t.Errorf("detach %s: %+v", iface, done)
		}
		return err
	})
}

// nothingLeft holds that no pin of the host is left, and no link or program of the ids.
func nothingLeft(t *testing.T, hooks []Hook) {
	t.Helper()
	if names, err := os.ReadDir(string(testRoot)); len(names) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pins left: %v, %v", names, err)
	}
	for _, h := range hooks {
		gone := func() bool {
			if program, err := ebpf.NewProgramFromID(ebpf.ProgramID(h.ProgID)); err == nil {
				program.Close()
				return false
			}
			if h.LinkID != 0 {
				if l, err := link.NewFromID(link.ID(h.LinkID)); err == nil {
					l.Close()
					return false
				}
			}
			return true
		}
		eventually(t, "the "+h.Name+" program goes", gone)
	}
}

func states(t *testing.T, i *Attachment) []Hook {
	t.Helper()
	hooks, err := i.Hooks()
	if err != nil {
		t.Fatal(err)
	}
	return hooks
}

func TestAttachAndDetach(t *testing.T) {
	for name, test := range map[string]struct {
		cfg  Config
		mode Mode
		want string
	}{
		"auto":    {Config{}, Native, "ingress dpclass_xdp, egress dpclass_out"},
		"tc":      {Config{Mode: TC}, TC, "ingress dpclass_in, egress dpclass_out"},
		"clsact":  {Config{Mode: TC, Clsact: true}, TC, "ingress dpclass_in, egress dpclass_out"},
		"ingress": {Config{Ingress: true}, Native, "ingress dpclass_xdp"},
		"egress":  {Config{Egress: true}, TC, "egress dpclass_out"},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := wired(t)
			i := attached(t, h, test.cfg)
			hooks := states(t, i)
			var got []string
			for _, hook := range hooks {
				if hook.State != HookAttached {
					t.Errorf("%s is %s", hook.Name, hook.State)
				}
				got = append(got, hook.Name+" "+hook.Program)
			}
			if strings.Join(got, ", ") != test.want {
				t.Errorf("hooks: %v, want %s", got, test.want)
			}
			if s, err := i.Status(); err != nil || test.cfg.Egress == test.cfg.Ingress && s.Mode != test.mode || s.Ready {
				t.Errorf("status %+v, %v", s, err)
			}
			if _, err := attachTo(h, "eth0", test.cfg); !errors.Is(err, ErrBusy) {
				t.Errorf("a second agent: %v", err)
			}
			if err := i.Detach(); err != nil {
				t.Fatal(err)
			}
			nothingLeft(t, hooks)
			in(t, h, func() error {
				if again, err := testRoot.detach(t.Context(), "eth0"); err != nil || again.Attached {
					t.Errorf("detach again: %+v, %v", again, err)
				}
				if _, err := testRoot.open("eth0"); !errors.Is(err, ErrNotAttached) {
					t.Errorf("open after detach: %v", err)
				}
				device, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				if hasClsact(t, device) {
					t.Error("the clsact qdisc is left")
				}
				return nil
			})
		})
	}
}

func hasClsact(t *testing.T, device netlink.Link) bool {
	t.Helper()
	qdiscs, err := netlink.QdiscList(device)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(qdiscs, func(q netlink.Qdisc) bool { return q.Type() == "clsact" })
}

// TestForeignXDP: another's program is refused, and stays.
func TestForeignXDP(t *testing.T) {
	h, _ := wired(t)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for _, flags := range []link.XDPAttachFlags{link.XDPDriverMode, link.XDPGenericMode} {
		in(t, h, func() error {
			device, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			foreign, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: device.Attrs().Index, Flags: flags})
			if err != nil {
				return err
			}
			defer foreign.Close()
			for _, mode := range []Mode{Auto, Native} {
				_, err := testRoot.attach(t.Context(), "eth0", Config{Mode: mode}, slog.New(slog.DiscardHandler))
				if !errors.Is(err, ErrForeignXDP) || !isAdvised(err) {
					t.Errorf("flags %v, mode %s: %v", flags, mode, err)
				}
			}
			info, err := foreign.Info()
			if err == nil && info.XDP().Ifindex != uint32(device.Attrs().Index) {
				t.Error("the foreign program is off")
			}
			return err
		})
	}
	nothingLeft(t, nil)
}

// isAdvised reports whether the error is one line and says what to do.
func isAdvised(err error) bool {
	return !strings.Contains(err.Error(), "\n") && len(fault.Advice(err)) > 0
}

func TestAttachRefused(t *testing.T) {
	h, _ := wired(t)
	in(t, h, func() error {
		device, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(device)
	})
	for iface, want := range map[string]string{"eth0": "is down", "eth7": "does not exist"} {
		_, err := attachTo(h, iface, Config{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), iface) || !isAdvised(err) {
			t.Errorf("%s: %v", iface, err)
		}
	}
	nothingLeft(t, nil)
}

// TestTakeover: an agent that ended without detaching leaves verdicts and policy to the next.
func TestTakeover(t *testing.T) {
	for _, cfg := range []Config{{Persist: true}, {Mode: TC, Persist: true}, {Mode: TC, Clsact: true, Persist: true}} {
		h, _ := wired(t)
		first := attached(t, h, cfg)
		c := tcp(1)
		run := func(i *Attachment) {
			t.Helper()
			if _, err := i.programAt(hook{program: progXDP}).Run(&ebpf.RunOptions{Data: c.sent(syn, 0)}); err != nil {
				t.Fatal(err)
			}
		}
		run(first)
		verdict := flow.Verdicts{flow.Category: {Label: "voip", Confidence: 1, Source: flow.SourceOperator, Final: true}}
		if err := first.table.SetVerdicts(c.key(), verdict); err != nil {
			t.Fatal(err)
		}
		if err := first.rules.Set(&flow.Policy{Rules: []flow.Rule{{Action: marking(46)}}, Source: []byte("text")}); err != nil {
			t.Fatal(err)
		}
		before := states(t, first)
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		in(t, h, func() error { // without an agent, from the pins
			i, err := testRoot.open("eth0")
			if err != nil {
				return err
			}
			if r, err := i.table.Lookup(c.key()); err != nil || r.Category != "voip" {
				t.Errorf("%+v, %v", r, err)
			}
			if s, err := i.Status(); err != nil || s.Agent != nil || s.Ready {
				t.Errorf("status %+v, %v", s, err)
			}
			return i.Close()
		})
		second := attached(t, h, cfg)
		run(second)
		r, err := second.table.Lookup(c.key())
		if err != nil || r.Category != "voip" || r.Packets != 2 || r.Rule != 1 {
			t.Errorf("%+v %+v, %v", r, r.Live, err)
		}
		if p, stats, err := second.rules.Policy(); err != nil || p == nil || string(p.Source) != "text" || len(stats) != 1 {
			t.Errorf("policy %+v, %v", p, err)
		}
		after := states(t, second)
		for n := range after {
			if after[n].State != HookAttached || after[n].LinkID != before[n].LinkID || after[n].ProgID == before[n].ProgID {
				t.Errorf("hook %+v, before %+v", after[n], before[n])
			}
		}
		if err := second.Detach(); err != nil {
			t.Fatal(err)
		}
		nothingLeft(t, append(before, after...))
	}
}

// TestTakeoverWithOtherHooks: the hooks of the earlier agent that the new one does not use are taken off.
func TestTakeoverWithOtherHooks(t *testing.T) {
	native, tcx, clsact := Config{Persist: true}, Config{Mode: TC, Persist: true}, Config{Mode: TC, Clsact: true, Persist: true}
	in1, out1 := clsact, tcx
	in1.Ingress, out1.Egress = true, true
	for name, configs := range map[string][2]Config{
		"native to tcx": {native, tcx}, "tcx to native": {tcx, native}, "tcx to clsact": {tcx, clsact},
		"clsact to tcx": {clsact, tcx}, "clsact to one": {clsact, in1}, "tcx to one": {tcx, out1}, "clsact to clsact": {clsact, clsact},
	} {
		h, _ := wired(t)
		first := attached(t, h, configs[0])
		before := states(t, first)
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		second := attached(t, h, configs[1])
		after := states(t, second)
		for _, hook := range after {
			if hook.State != HookAttached {
				t.Errorf("%s: %+v", name, hook)
			}
		}
		pins, err := filepath.Glob(filepath.Join(second.dir, "link_*"))
		if err != nil {
			t.Fatal(err)
		}
		places := len(pins)
		in(t, h, func() error {
			device, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
				if filters, err := netlink.FilterList(device, parent); err == nil {
					places += len(filters)
				}
			}
			return nil
		})
		if places != len(after) {
			t.Errorf("%s: %d programs at %d hooks", name, places, len(after))
		}
		if err := second.Detach(); err != nil {
			t.Fatal(err)
		}
		in(t, h, func() error {
			device, err := netlink.LinkByName("eth0")
			if err == nil && hasClsact(t, device) {
				t.Errorf("%s: the clsact qdisc is left", name)
			}
			return err
		})
		nothingLeft(t, append(before, after...))
	}
}

// TestTakeoverFails: nothing that a takeover attached is left when it fails midway, and the earlier hooks stay.
func TestTakeoverFails(t *testing.T) {
	for name, cfg := range map[string]Config{
		"link": {Mode: Native, Clsact: true, Persist: true}, "filter": {Mode: TC, Clsact: true, Persist: true},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := wired(t)
			first := attached(t, h, Config{Mode: TC, Egress: true, Persist: true})
			if first.info.Tc != bpfTcKindTcTcx {
				if err := first.Detach(); err != nil {
					t.Fatal(err)
				}
				t.Skip("SKIPPED: without tcx the earlier hook is a filter too, and no other can keep a new one out")
			}
			before := states(t, first)
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			var device netlink.Link
			in(t, h, func() (err error) { // the filter of another keeps ours out of egress
				if device, err = netlink.LinkByName("eth0"); err != nil {
					return err
				}
				if err := netlink.QdiscAdd(clsactOf(device)); err != nil {
					return err
				}
				return addForeignFilter(device, netlink.HANDLE_MIN_EGRESS, filterPriority)
			})
			if _, err := attachTo(h, "eth0", cfg); err == nil || !isAdvised(err) {
				t.Fatalf("attach: %v", err)
			}
			in(t, h, func() error {
				again, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				if xdp := again.Attrs().Xdp; xdp != nil && xdp.Attached {
					t.Error("the XDP program is left")
				}
				if filters, err := netlink.FilterList(device, netlink.HANDLE_MIN_INGRESS); err != nil || len(filters) > 0 {
					t.Errorf("filters left: %v, %v", filters, err)
				}
				pins, err := testRoot.open("eth0")
				if err != nil {
					return err
				}
				defer pins.Close()
				after, err := pins.Hooks()
				if !slices.Equal(after, before) {
					t.Errorf("hooks %+v, before %+v", after, before)
				}
				return err
			})
			detached(t, h, "eth0")
			nothingLeft(t, before)
		})
	}
}

// TestCancelled: a context that has ended ends attaching and detaching, and changes nothing.
func TestCancelled(t *testing.T) {
	h, _ := wired(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	in(t, h, func() error {
		if _, err := testRoot.attach(gone, "eth0", Config{}, slog.New(slog.DiscardHandler)); !errors.Is(err, context.Canceled) {
			t.Errorf("attach: %v", err)
		}
		return nil
	})
	nothingLeft(t, nil)

	a := attached(t, h, Config{})
	if err := a.Publish(AgentStats{}); err != nil { // no process: detach has no one to end, and waits
		t.Fatal(err)
	}
	in(t, h, func() error {
		if _, err := testRoot.detach(gone, "eth0"); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrBusy) {
			t.Errorf("detach: %v", err)
		}
		return nil
	})
	for _, hook := range states(t, a) {
		if hook.State != HookAttached {
			t.Errorf("%s is %s", hook.Name, hook.State)
		}
	}
	if err := a.Detach(); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, nil)
}

// TestTwoNamespaces: an eth0 in each.
func TestTwoNamespaces(t *testing.T) {
	h, peer := wired(t)
	one, two := attached(t, h, Config{}), attached(t, peer, Config{})
	if one.dir == two.dir {
		t.Fatalf("both at %q", one.dir)
	}
	for _, host := range []*lab.Host{h, peer} {
		in(t, host, func() error {
			names, err := testRoot.list()
			if !slices.Equal(names, []string{"eth0"}) {
				t.Errorf("listed %v", names)
			}
			return err
		})
	}
	if err := one.Detach(); err != nil {
		t.Fatal(err)
	}
	for _, hook := range states(t, two) {
		if hook.State != HookAttached {
			t.Errorf("the other's %s is %s", hook.Name, hook.State)
		}
	}
	if err := two.Detach(); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, nil)
}

// addForeignFilter attaches a filter that is not ours.
func addForeignFilter(device netlink.Link, parent uint32, priority uint16) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return err
	}
	defer program.Close()
	return netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: device.Attrs().Index, Parent: parent,
			Handle: 1, Priority: priority, Protocol: unix.ETH_P_ALL},
		Fd: program.FD(), Name: "foreign", DirectAction: true})
}

// TestForeignClsact: a qdisc and filters of others stay.
func TestForeignClsact(t *testing.T) {
	h, _ := wired(t)
	var device netlink.Link
	in(t, h, func() (err error) {
		if device, err = netlink.LinkByName("eth0"); err != nil {
			return err
		}
		if err := netlink.QdiscAdd(clsactOf(device)); err != nil {
			return err
		}
		return addForeignFilter(device, netlink.HANDLE_MIN_INGRESS, 7)
	})
	i := attached(t, h, Config{Mode: TC, Clsact: true})
	if err := i.Detach(); err != nil {
		t.Fatal(err)
	}
	in(t, h, func() error {
		filters, err := netlink.FilterList(device, netlink.HANDLE_MIN_INGRESS)
		if len(filters) != 1 || filters[0].Attrs().Priority != 7 {
			t.Errorf("filters: %v", filters)
		}
		return err
	})
}

// TestDeviceGone: its hooks are stale, and detach cleans up.
func TestDeviceGone(t *testing.T) {
	for _, cfg := range []Config{{}, {Mode: TC}, {Mode: TC, Clsact: true}} {
		h, _ := wired(t)
		i := attached(t, h, cfg)
		in(t, h, func() error {
			device, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.LinkDel(device)
		})
		eventually(t, "stale", func() bool {
			for _, hook := range states(t, i) {
				if hook.State != HookStale {
					return false
				}
			}
			return true
		})
		if err := i.Close(); err != nil {
			t.Fatal(err)
		}
		detached(t, h, "eth0")
		nothingLeft(t, nil)
	}
}

// TestRename: an interface keeps its pins under a new name.
func TestRename(t *testing.T) {
	h, _ := wired(t)
	i := attached(t, h, Config{})
	hooks := states(t, i)
	in(t, h, func() error {
		device, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetDown(device), netlink.LinkSetName(device, "wan0"), netlink.LinkSetUp(device)); err != nil {
			return err
		}
		opened, err := testRoot.open("wan0")
		if err != nil {
			return err
		}
		return opened.Close()
	})
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	detached(t, h, "wan0")
	nothingLeft(t, hooks)
}

// TestTun: a device whose frames begin with the IP header.
func TestTun(t *testing.T) {
	needRoot(t)
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("SKIPPED: no tun devices here: %v", err)
	}
	h := newHost(t, lab.ForTest(t), "near")
	in(t, h, func() error {
		tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, Mode: netlink.TUNTAP_MODE_TUN}
		if err := netlink.LinkAdd(tun); err != nil {
			return err
		}
		return netlink.LinkSetUp(tun)
	})
	i := attached(t, h, Config{})
	if s, err := i.Status(); err != nil || s.Mode != TC {
		t.Errorf("mode %s, %v", s.Mode, err)
	}
	packet := tcp(1).spec(syn, 0).Build().Data
	if _, err := i.programAt(hook{program: progIn}).Run(&ebpf.RunOptions{Data: packet}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.table.Lookup(tcp(1).key()); err != nil {
		t.Error(err)
	}
	if err := i.Detach(); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, nil)
}

// TestHalfMade: what a crash left half made is cleared.
func TestHalfMade(t *testing.T) {
	h, _ := wired(t)
	i := attached(t, h, Config{Persist: true})
	held, err := link.LoadPinnedLink(filepath.Join(i.dir, pinXDP), nil) // removing its pin does not take it off
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := errors.Join(i.Close(), os.Remove(filepath.Join(i.dir, "flows"))); err != nil {
		t.Fatal(err)
	}
	again := attached(t, h, Config{})
	for _, hook := range states(t, again) {
		if hook.State != HookAttached {
			t.Errorf("%s is %s", hook.Name, hook.State)
		}
	}
	if err := again.Detach(); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, nil)
}

// TestLoopback: a packet on lo passes both hooks, and counts once; whoever asks for both hooks gets both.
func TestLoopback(t *testing.T) {
	needRoot(t)
	h := newHost(t, lab.ForTest(t), "near")
	for _, test := range []struct {
		config  Config
		hooks   string
		in, out uint64
	}{
		{Config{}, "[ingress]", 6, 0},
		{Config{Clsact: true}, "[ingress]", 6, 0},
		{Config{Ingress: true, Egress: true}, "[ingress egress]", 6, 6},
		{Config{Egress: true}, "[egress]", 0, 6},
	} {
		i, err := attachTo(h, "lo", test.config)
		if err != nil {
			t.Fatal(err)
		}
		var hooks []string
		for _, hook := range states(t, i) {
			hooks = append(hooks, hook.Name)
		}
		status, err := i.Status()
		if err != nil || !status.Loopback || fmt.Sprint(hooks) != test.hooks {
			t.Errorf("%+v: hooks %v, loopback %v, %v", test.config, hooks, status.Loopback, err)
		}
		for _, address := range []string{"127.0.0.1", "[::1]"} {
			ctx := t.Context()
			server, err := h.ListenUDP(ctx, address+":7000")
			if err != nil {
				t.Fatal(err)
			}
			client, err := h.Dial(ctx, "udp", address+":7001", address+":7000")
			if err != nil {
				t.Fatal(err)
			}
			packet := make([]byte, 120)
			for range 3 {
				if _, err := client.Write(packet); err != nil {
					t.Fatal(err)
				}
				_, from, err := server.ReadFromUDPAddrPort(packet)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := server.WriteToUDPAddrPort(packet, from); err != nil {
					t.Fatal(err)
				}
				if _, err := client.Read(packet); err != nil {
					t.Fatal(err)
				}
			}
			server.Close()
			client.Close()
			key, _ := flow.MakeKey(flow.UDP, netip.MustParseAddrPort(address+":7001"), netip.MustParseAddrPort(address+":7000"), 0)
			r, err := i.table.Lookup(key)
			length := uint64(148)
			if key.Is6() {
				length = 168
			}
			samples := min(int(test.in+test.out), flow.DefaultSamples)
			if err != nil || r.PacketsIn != test.in || r.PacketsOut != test.out || r.Bytes != (test.in+test.out)*length ||
				r.Samples != samples || r.SrcPort != 7001 {
				t.Errorf("%+v: flow %q: %+v %+v, %v", test.config, key, r, r.Live, err)
			}
			var f bpfFlow
			open := i.maps.Pending6
			wide, _ := wideKey(key)
			lookup := any(wide)
			if !key.Is6() {
				open, lookup = i.maps.Pending, narrowKey(key)
			}
			if err := open.Lookup(lookup, &f); err != nil || !flowState(f.State).has(bpfFlowStateStateSentA|bpfFlowStateStateSentB) {
				t.Errorf("%+v: flow %q: state %#x, %v: packets of both ends were seen", test.config, key, f.State, err)
			}
		}
		if err := i.Detach(); err != nil {
			t.Error(err)
		}
	}
}
