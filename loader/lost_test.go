// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/dpclass/dpclass/lab"
)

// isLost holds why the attachment says that it has lost its interface.
func isLost(t *testing.T, a *Attachment, want error) {
	t.Helper()
	if got, err := a.Lost(); err != nil || !errors.Is(got, want) {
		t.Errorf("lost: %v, %v; want %v", got, err, want)
	}
}

func deviceOf(t *testing.T, h *lab.Host, name string) (device netlink.Link) {
	t.Helper()
	in(t, h, func() (err error) { device, err = netlink.LinkByName(name); return err })
	return device
}

// TestLost: an attachment knows what became of its interface.
func TestLost(t *testing.T) {
	for name, cfg := range map[string]Config{"native": {}, "tcx": {Mode: TC}, "persist": {Persist: true}} {
		t.Run(name, func(t *testing.T) {
			h, peer := wired(t)
			a := attached(t, h, cfg)
			isLost(t, a, nil)
			device := deviceOf(t, h, "eth0")
			in(t, h, func() error {
				return errors.Join(netlink.LinkSetDown(device), netlink.LinkSetName(device, "wan0"), netlink.LinkSetUp(device))
			})
			isLost(t, a, nil)
			third := newHost(t, h.Lab(), "third")
			moveTo(t, h, device, third)
			moved := ErrDeviceLeft
			if len(a.links) == 0 { // clsact filters do not tell where the interface is
				moved = ErrDeviceGone
			}
			isLost(t, a, moved)
			if err := a.Detach(); err != nil {
				t.Error(err)
			}
			if xdp := deviceOf(t, third, "wan0").Attrs().Xdp; xdp != nil && xdp.Attached {
				t.Error("the program is on the interface in the other namespace")
			}
			nothingLeft(t, nil)

			b := attached(t, peer, cfg)
			in(t, peer, func() error { return netlink.LinkDel(deviceOf(t, peer, "eth0")) })
			eventually(t, "gone", func() bool { reason, err := b.Lost(); return err == nil && errors.Is(reason, ErrDeviceGone) })
			if err := b.Detach(); err != nil {
				t.Error(err)
			}
			nothingLeft(t, nil)
		})
	}
}

// moveTo moves a device of a host to another host.
func moveTo(t *testing.T, h *lab.Host, device netlink.Link, to *lab.Host) {
	t.Helper()
	ns, err := netns.GetFromName(to.Netns())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	in(t, h, func() error { return netlink.LinkSetNsFd(device, int(ns)) })
}

// TestPinsGone: an attachment whose pins somebody removed knows it, and leaves those alone
// that another process put in their place.
func TestPinsGone(t *testing.T) {
	h, _ := wired(t)
	first := attached(t, h, Config{Mode: TC})
	if err := os.Remove(filepath.Join(first.dir, "interface")); err != nil {
		t.Fatal(err)
	}
	isLost(t, first, ErrPinsGone)
	if err := errors.Join(unpinAll(first.dir), os.Remove(first.dir)); err != nil {
		t.Fatal(err)
	}
	isLost(t, first, ErrPinsGone)
	second := attached(t, h, Config{Mode: TC})
	if second.dir != first.dir {
		t.Fatalf("at %q, not %q", second.dir, first.dir)
	}
	isLost(t, first, ErrPinsGone)
	if err := first.Detach(); err != nil {
		t.Error(err)
	}
	isLost(t, second, nil)
	for _, hook := range states(t, second) {
		if hook.State != HookAttached {
			t.Errorf("%s is %s", hook.Name, hook.State)
		}
	}
	if !arePinned(second.dir) {
		t.Error("the second's pins are gone")
	}
	if err := second.Detach(); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, nil)
}

// TestDied: of an agent that died without Config.Persist nothing is taken over, and the
// filters and the qdisc that it could not take with it are removed.
func TestDied(t *testing.T) {
	oneWay := Config{Mode: TC, Clsact: true, Egress: true}
	for name, cfg := range map[string]Config{"links": {}, "clsact": {Mode: TC, Clsact: true}, "clsact egress": oneWay} {
		for _, next := range []string{"attach", "attach otherwise", "detach"} {
			t.Run(name+"/"+next, func(t *testing.T) {
				h, _ := wired(t)
				i := attached(t, h, cfg)
				die(t, i)
				device := deviceOf(t, h, "eth0")
				switch next {
				case "attach":
					again := attached(t, h, cfg)
					if again.info.Tc != i.info.Tc {
						t.Errorf("whose qdisc: %v, before %v", again.info.Tc, i.info.Tc)
					}
					for _, hook := range states(t, again) {
						if hook.State != HookAttached {
							t.Errorf("%s is %s", hook.Name, hook.State)
						}
					}
					if err := again.Detach(); err != nil {
						t.Error(err)
					}
				case "attach otherwise":
					again := attached(t, h, Config{Mode: TC, Ingress: true})
					in(t, h, func() error {
						if again.info.Tc == bpfTcKindTcTcx && hasClsact(t, device) {
							t.Error("the qdisc of the one that died is left")
						}
						return nil
					})
					if err := again.Detach(); err != nil {
						t.Error(err)
					}
				case "detach":
					detached(t, h, "eth0")
				}
				in(t, h, func() error {
					if hasClsact(t, device) {
						t.Error("the clsact qdisc is left")
					}
					return nil
				})
				nothingLeft(t, nil)
			})
		}
	}
}

// die leaves what the kernel leaves of a process that ends: pins and filters, no links.
func die(t *testing.T, a *Attachment) {
	t.Helper()
	tc := a.info.Tc
	a.info.Persist = 1 // so that Close does not clean up; the pins say otherwise
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a.info.Tc = tc
}

// TestNames: the names of directories can be told apart, and read back.
func TestNames(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"eth0", "eth0.100", "a@5", "a#5", "a", "...", "é.1"} {
		entry := escapes.Replace(name)
		for _, suffix := range []string{"", "#7", "@12", "#7@12"} {
			if other, twice := seen[entry+suffix]; twice {
				t.Errorf("%q and %q are both %q", name, other, entry+suffix)
			}
			seen[entry+suffix] = name + suffix
			if p := testRoot.place(entry + suffix); p.name != name {
				t.Errorf("%q is read as %q", name, p.name)
			}
		}
	}
}
