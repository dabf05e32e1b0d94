// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/bpffs"
	"github.com/dpclass/dpclass/internal/capabilities"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/netns"
)

// Attachment is an interface that this process has attached and serves: no other
// process can while it is open. Its methods may be called from several goroutines,
// except Detach and Close, which come last.
type Attachment struct {
	*Pins
	root       root
	lock       *os.File
	collection *ebpf.Collection
	links      []heldLink
	ring       *Ring
	dns        *DNSRing
	log        *slog.Logger
}

// heldLink is the link of a hook. The kernel takes the program off when the process ends,
// unless the link is pinned.
type heldLink struct {
	link.Link
	hook hook
	made bool // by this process, not taken over
}

// Attach loads the programs and attaches them to an interface of the calling
// thread's network namespace. If an earlier process attached it with Config.Persist,
// Attach takes its pins over: flows, verdicts and policy stay. Undecided flows whose
// samples were all taken are not sampled again until [Table.ResampleAll] is called. What
// any other process left is removed.
//
// If Attach fails, it takes off what it attached. A hook that it took over stays
// attached, but may run the new program, which works on the same maps; a hook that the
// new configuration does not want may be off. The error wraps ErrBusy if another process
// serves the interface, ErrForeignXDP if another XDP program is attached, and ErrOldKernel
// if the kernel is too old. log may be nil.
func Attach(ctx context.Context, iface string, cfg Config, log *slog.Logger) (*Attachment, error) {
	return defaultRoot().attach(ctx, iface, cfg, log)
}

func (r root) attach(ctx context.Context, iface string, cfg Config, log *slog.Logger) (*Attachment, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.Default()
	}
	device, err := deviceByName(iface)
	if err != nil {
		return nil, err
	}
	iface = device.Attrs().Name // it may have been an alternative name
	if device.Attrs().Flags&net.FlagUp == 0 {
		return nil, fault.Advise(fmt.Errorf("interface %q is down", iface), "set it up: ip link set %s up", iface)
	}
	if err := checkRights(); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fault.Advise(fmt.Errorf("lock memory for maps: %w", err), rights)
	}
	if err := checkKernel(always); err != nil {
		return nil, err
	}
	if err := mountBPFFS(); err != nil {
		return nil, err
	}
	if err := bpffs.Usable(); err != nil {
		return nil, err
	}
	ns, err := netns.Current()
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	dir, lock, err := r.claim(device)
	if err != nil {
		ns.Close()
		return nil, err
	}
	a := &Attachment{Pins: &Pins{name: iface, dir: dir, net: ns}, root: r, lock: lock, log: log}
	earlier, err := readInfo(dir)
	if err == nil && earlier.Persist != 0 && int(earlier.Ifindex) == device.Attrs().Index && arePinned(dir) {
		if err := a.adopt(ctx, device, &cfg, &earlier); err != nil {
			return nil, errors.Join(fmt.Errorf("interface %q: %w", iface, err), a.Close())
		}
		return a, nil
	}
	if err == nil && earlier.Persist != 0 {
		log.Warn("the pins of an earlier interface of this name, which is gone, are removed; its flows and policy were not taken over", "iface", iface)
	}
	if err := a.create(ctx, device, &cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("interface %q: %w", iface, err), a.Detach())
	}
	return a, nil
}

// rights is the advice if the process may not load programs.
const rights = "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"

// checkRights names the capabilities that the process lacks.
func checkRights() error {
	missing, err := capabilities.Missing()
	if err != nil || len(missing) == 0 {
		return nil // if they cannot be read, the kernel has the last word
	}
	return fault.Advise(fmt.Errorf("missing %s", strings.Join(missing, ", ")), rights)
}

// claim finds or creates the pin directory of an interface and locks it. The directory
// has the name of the interface, unless the pins of a renamed one are there.
func (r root) claim(device netlink.Link) (dir string, lock *os.File, err error) {
	iface, ifindex := device.Attrs().Name, device.Attrs().Index
	// Others may remove the directory before this process has locked it.
	for range claims {
		dir, made, err := r.choose(iface, ifindex)
		if err != nil {
			return "", nil, err
		}
		lock, err := lockDir(dir)
		switch {
		case errors.Is(err, ErrBusy):
			advice := fmt.Sprintf("stop that agent, or run: dpclass detach %s", iface)
			return "", nil, fault.Advise(fmt.Errorf("interface %q: %w (process %d)", iface, ErrBusy, holder(dir)), advice)
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			if made {
				err = errors.Join(err, r.removeDir(dir))
			}
			return "", nil, err
		}
		if again, _, err := r.choose(iface, ifindex); isDir(lock, dir) && err == nil && again == dir {
			return dir, lock, nil
		}
		lock.Close()
	}
	return "", nil, fmt.Errorf("interface %q: %w: its pins come and go", iface, ErrBusy)
}

const claims = 100 // attempts to lock a directory

// choose returns the directory for the pins of an interface, and creates it if necessary.
func (r root) choose(iface string, ifindex int) (dir string, made bool, err error) {
	here, err := r.here()
	if err != nil {
		return "", false, err
	}
	suffix, err := netnsSuffix()
	if err != nil {
		return "", false, err
	}
	dir = filepath.Join(string(r), escapes.Replace(iface)+suffix)
	for _, p := range here {
		if p.of(ifindex) {
			return p.dir, false, nil
		}
		if p.dir != dir {
			continue
		}
		// An interface that had this name. If it is gone, its pins are of no use.
		if p.err != nil {
			if err := unreadable(p.err); err != nil {
				return "", false, err
			}
			continue
		}
		now, err := linkByIndex(int(p.info.Ifindex))
		if err != nil {
			return "", false, err
		}
		if now != nil {
			dir = filepath.Join(string(r), fmt.Sprintf("%s#%d%s", escapes.Replace(iface), ifindex, suffix))
		}
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", false, fmt.Errorf("pin directory: %w", err)
	}
	err = os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", false, errors.Join(fmt.Errorf("pin directory: %w", err), r.removeDir(dir))
	}
	return dir, err == nil, nil
}

// create attaches if there is nothing to take over.
func (a *Attachment) create(ctx context.Context, device netlink.Link, cfg *Config) error {
	if err := a.root.clear(a.dir); err != nil {
		return err
	}
	if err := a.load(device, cfg, nil); err != nil {
		return err
	}
	// First record whose pins these are, and which process is making them.
	if err := a.record(); err != nil {
		return err
	}
	if err := putAgent(a.maps.Agent, nil, &AgentStats{PID: os.Getpid(), Started: time.Now()}); err != nil {
		return err
	}
	if err := a.pinMaps(); err != nil {
		return err
	}
	if err := a.rules.Clear(); err != nil {
		return err
	}
	if err := a.attachHooks(ctx, device, cfg, a.newLink); err != nil {
		return err
	}
	return a.begin()
}

// pinMaps pins the maps, and those by which others know the interface first.
func (a *Attachment) pinMaps() error {
	maps := pinnedMaps(&a.maps)
	names := []string{"interface", "agent"}
	for name := range maps {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if err := (*maps[name]).Pin(filepath.Join(a.dir, name)); err != nil {
			return fmt.Errorf("pin map %q: %w", name, err)
		}
	}
	return nil
}

// adopt takes over the pins of a process that ended without detaching.
func (a *Attachment) adopt(ctx context.Context, device netlink.Link, cfg *Config, earlier *bpfInterfaceInfo) (err error) {
	pinned := map[string]*ebpf.Map{}
	defer func() {
		for _, m := range pinned {
			m.Close() // the collection has its own references
		}
	}()
	for name := range pinnedMaps(&a.maps) {
		m, err := openMap(a.dir, name)
		if err != nil {
			return err
		}
		pinned[name] = m
	}
	// The statistics are still those of the earlier process.
	if err := putAgent(pinned["agent"], nil, &AgentStats{PID: os.Getpid(), Started: time.Now()}); err != nil {
		return err
	}
	if err := a.load(device, cfg, pinned); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.undo(device, earlier))
		}
	}()
	if err := a.attachHooks(ctx, device, cfg, a.updateLink); err != nil {
		return err
	}
	if a.info.Tc == bpfTcKindTcClsact && earlier.Tc == bpfTcKindTcOwnClsact {
		a.info.Tc = bpfTcKindTcOwnClsact // the qdisc is still ours to remove
	}
	if err := a.dropOthers(device, earlier); err != nil {
		return err
	}
	if err := a.begin(); err != nil || a.info.Persist != 0 {
		return err
	}
	// This process holds the links, and the kernel is to take the programs off when it ends.
	for _, l := range a.links {
		if err := unpin(filepath.Join(a.dir, l.hook.pin)); err != nil {
			return err
		}
	}
	return nil
}

// load loads programs and maps, reusing pinned maps, and creates the objects that work
// on them.
func (a *Attachment) load(device netlink.Link, cfg *Config, pinned map[string]*ebpf.Map) error {
	spec, info, err := specFor(device, cfg)
	if err != nil {
		return err
	}
	for name, m := range pinned {
		spec.Maps[name].MaxEntries = m.MaxEntries() // tables keep their size
	}
	if m := pinned["interface"]; m != nil {
		var earlier bpfInterfaceInfo
		if err := m.Lookup(uint32(0), &earlier); err != nil {
			return fmt.Errorf("read how it was attached: %w", err)
		}
		info.LineSeed = earlier.LineSeed // lines keep their places
	}
	if spec.Maps["lines_in"].MaxEntries == 1 {
		info.Fast = 0 // taken over from an agent without the fast path: there is no place but 0
	}
	if err := setLines(spec, &info); err != nil {
		return err
	}
	if err := set(spec, map[string]any{"ring_bytes": uint64(spec.Maps["samples"].MaxEntries)}); err != nil {
		return err
	}
	a.collection, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: pinned})
	if err != nil {
		return fault.Advise(fmt.Errorf("load the BPF programs: %w", err), rights)
	}
	for name, m := range pinnedMaps(&a.maps) {
		*m = a.collection.Maps[name]
	}
	if err := a.labels.load(a.maps.Labels); err != nil {
		return err
	}
	if err := a.labels.extend(flow.Vocabulary, cfg.Labels); err != nil {
		return err
	}
	if err := a.fillGeneral(); err != nil {
		return err
	}
	a.info = info
	a.serve(cfg.Timeouts)
	a.ring = &Ring{iface: a.name, m: a.maps.Samples}
	a.dns = &DNSRing{iface: a.name, m: a.maps.Dns}
	return a.table.inbox.use(a.collection)
}

// begin is the last step of attaching: it records how the programs are attached.
func (a *Attachment) begin() (err error) {
	for _, h := range hooksOf(&a.info) {
		id, err := programID(a.programAt(h))
		if err != nil {
			return err
		}
		a.info.Programs[h.place], a.info.Links[h.place] = uint32(id), 0
	}
	for _, l := range a.links {
		info, err := l.Info()
		if err != nil {
			return fmt.Errorf("link of %s: %w", l.hook.name, err)
		}
		a.info.Links[l.hook.place] = uint32(info.ID)
	}
	if err := a.record(); err != nil {
		return err
	}
	if a.table.endsSeen, err = a.table.ends(); err != nil {
		return err
	}
	// Loading may take longer than hungAfter, so report again. The agent says later that it
	// is ready.
	return a.Publish(AgentStats{PID: os.Getpid(), Started: time.Now()})
}

// record stores how the programs are attached, for other processes.
func (a *Attachment) record() error {
	if err := a.maps.Interface.Put(uint32(0), &a.info); err != nil {
		return fmt.Errorf("record how the programs are attached: %w", err)
	}
	return nil
}

func programID(program *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := program.Info()
	if err != nil {
		return 0, fmt.Errorf("id of a program: %w", err)
	}
	id, _ := info.ID()
	return id, nil
}

// Ring returns the samples of the interface.
func (a *Attachment) Ring() *Ring { return a.ring }

// DNS returns the DNS answers that pass the interface. There are none unless Config.DNS asks
// for them.
func (a *Attachment) DNS() *DNSRing { return a.dns }

// Detach detaches what Attach attached, removes the pins and closes the attachment. A
// second call does nothing.
func (a *Attachment) Detach() error {
	if a.lock == nil {
		return nil
	}
	// Take the programs off first: no packet must find a map missing.
	errs := []error{a.takeOff()}
	// If somebody removed the directory, another process may have one with the same name.
	if a.ownsDir() {
		errs = append(errs, unlinkAll(a.dir), unpinAll(a.dir), a.root.removeDir(a.dir))
	}
	return errors.Join(append(errs, a.Close())...)
}

// takeOff takes the programs off the interface. Closing links is not enough: the kernel
// detaches some time after the last reference is gone.
func (a *Attachment) takeOff() error {
	var errs []error
	for _, l := range a.links {
		errs = append(errs, drop(l.Link, l.hook.name))
	}
	if a.info.Tc == bpfTcKindTcTcx {
		return errors.Join(errs...)
	}
	err := netns.In(a.net, func() error { return removeClsact(&a.info) })
	if err == nil {
		a.info.Tc = bpfTcKindTcTcx // what others add from now on is not ours
		err = a.record()
	}
	return errors.Join(append(errs, err)...)
}

// Close stops serving the interface. After Config.Persist the programs stay attached, and
// another process can take them over. Else only the maps stay, for others to read, until
// the next Attach or Detach.
func (a *Attachment) Close() error {
	var errs []error
	if a.maps.Agent != nil {
		// Clear the statistics before the lock is released, or they would pass for those of the next process.
		errs = append(errs, a.maps.Agent.Put(uint32(0), &bpfAgentStats{}))
	}
	if a.info.Persist == 0 {
		errs = append(errs, a.takeOff())
	}
	for _, l := range a.links {
		errs = append(errs, l.Close())
	}
	a.links = nil
	errs = append(errs, a.Pins.Close())
	if a.collection != nil {
		a.collection.Close()
	}
	if a.lock != nil {
		errs = append(errs, a.lock.Close())
		a.lock = nil
	}
	return errors.Join(errs...)
}
