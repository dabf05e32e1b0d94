// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"

	"github.com/dpclass/dpclass/flow"
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
	links      []link.Link
	made       []string // pins of the links that did not exist before
	ring       *Ring
	dns        *DNSRing
	log        *slog.Logger
}

// Attach loads the programs and attaches them to an interface of the calling
// thread's network namespace. If an earlier process left its pins, Attach takes them
// over: flows, verdicts and policy stay. Undecided flows whose samples were all taken
// are not sampled again until [Table.ResampleAll] is called.
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
	if device.Attrs().Flags&net.FlagUp == 0 {
		return nil, fault.Advise(fmt.Errorf("interface %q is down", iface), "set it up: ip link set %s up", iface)
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fault.Advise(fmt.Errorf("lock memory for maps: %w", err), rights)
	}
	if err := features.HaveProgramType(ebpf.Syscall); errors.Is(err, ebpf.ErrNotSupported) {
		return nil, fault.Advise(fmt.Errorf("%w: %w", ErrOldKernel, err), "use Linux 6.1 or newer")
	}
	if err := checkBPFFS(); err != nil {
		return nil, err
	}
	dir, err := r.claim(iface)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if errors.Is(err, ErrBusy) {
		return nil, fault.Advise(fmt.Errorf("interface %q: %w (process %d)", iface, ErrBusy, agentPID(dir)),
			"stop that agent, or run: dpclass detach %s", iface)
	}
	if err != nil {
		return nil, err
	}
	ns, err := netns.Current()
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	a := &Attachment{Pins: &Pins{name: iface, dir: dir, net: ns}, root: r, lock: lock, log: log}
	if arePinned(dir) {
		if err := a.adopt(ctx, device, &cfg); err != nil {
			return nil, errors.Join(fmt.Errorf("interface %q: %w", iface, err), a.Close())
		}
		return a, nil
	}
	if err := a.create(ctx, device, &cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("interface %q: %w", iface, err), a.Detach())
	}
	return a, nil
}

// rights is the advice if the process may not load programs.
const rights = "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"

// claim returns the pin directory of an interface, and creates it if necessary. An
// interface that was renamed keeps its directory.
func (r root) claim(iface string) (string, error) {
	dir, err := r.find(iface)
	if err == nil {
		return dir, nil
	}
	if dir, err = r.dirOf(iface); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("pin directory: %w", err)
	}
	return dir, nil
}

// create attaches if no process left its pins.
func (a *Attachment) create(ctx context.Context, device netlink.Link, cfg *Config) error {
	// What a crash may have left incomplete.
	if err := errors.Join(unlinkAll(a.dir), unpinAll(a.dir)); err != nil {
		return err
	}
	if err := a.load(device, cfg, nil); err != nil {
		return err
	}
	for name, m := range pinnedMaps(&a.maps) {
		if err := (*m).Pin(filepath.Join(a.dir, name)); err != nil {
			return fmt.Errorf("pin map %q: %w", name, err)
		}
	}
	if err := a.rules.Clear(); err != nil {
		return err
	}
	if err := a.attachHooks(ctx, device, cfg, a.newLink); err != nil {
		return err
	}
	return a.begin()
}

// adopt takes over the pins of a process that ended without detaching.
func (a *Attachment) adopt(ctx context.Context, device netlink.Link, cfg *Config) (err error) {
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
	earlier, err := readInfo(a.dir)
	if err != nil {
		return err
	}
	// The statistics are still those of the earlier process.
	if err := putAgent(pinned["agent"], nil, &AgentStats{PID: os.Getpid(), Started: time.Now(), Updated: time.Now()}); err != nil {
		return err
	}
	if err := a.load(device, cfg, pinned); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.undo(device, &earlier))
		}
	}()
	if err := a.attachHooks(ctx, device, cfg, a.updateLink); err != nil {
		return err
	}
	if a.info.Tc == bpfTcKindTcClsact && earlier.Tc == bpfTcKindTcOwnClsact {
		a.info.Tc = bpfTcKindTcOwnClsact // the qdisc is still ours to remove
	}
	if err := a.dropOthers(device, &earlier); err != nil {
		return err
	}
	return a.begin()
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
	a.info = info
	a.serve(cfg.Timeouts)
	a.ring = &Ring{iface: a.name, m: a.maps.Samples}
	a.dns = &DNSRing{iface: a.name, m: a.maps.Dns}
	return a.table.inbox.use(a.collection)
}

// begin is the last step of attaching: it records how the programs are attached.
func (a *Attachment) begin() (err error) {
	if err := a.maps.Interface.Put(uint32(0), &a.info); err != nil {
		return fmt.Errorf("record how the programs are attached: %w", err)
	}
	if a.table.endsSeen, err = a.table.ends(); err != nil {
		return err
	}
	// This lets Detach find this process. The agent reports later that it is ready.
	return a.Publish(AgentStats{PID: os.Getpid(), Started: time.Now(), Updated: time.Now()})
}

// Ring returns the samples of the interface.
func (a *Attachment) Ring() *Ring { return a.ring }

// DNS returns the DNS answers that pass the interface. There are none unless Config.DNS asks
// for them.
func (a *Attachment) DNS() *DNSRing { return a.dns }

// Detach detaches what Attach attached, removes the pins and closes the attachment.
func (a *Attachment) Detach() error {
	err := netns.In(a.net, func() error { return a.root.remove(a.dir, &a.info) })
	return errors.Join(err, a.Close())
}

// Close stops serving the interface. The programs stay attached, and another process
// can take them over.
func (a *Attachment) Close() error {
	var errs []error
	if a.maps.Agent != nil {
		// Clear the statistics before the lock is released, or they would pass for those of the next process.
		errs = append(errs, a.maps.Agent.Put(uint32(0), &bpfAgentStats{}))
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
