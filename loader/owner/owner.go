// SPDX-License-Identifier: Apache-2.0

// Package owner knows which process of this machine opened the socket of a flow.
//
// [Start] hangs three small BPF programs on the root of the cgroup v2 tree. They run when a
// socket is opened, connected, set to listen or closed, so they cost a packet nothing, and
// note the process in four maps. Start also notes the sockets that are older, from the
// kernel's lists of sockets and /proc. A [Finder] looks a flow up in the maps; for UDP, whose
// sockets need not be connected, it asks the kernel which socket receives the flow's packets.
//
// Only sockets of one network namespace count: that of the thread that calls Start.
package owner

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/netns"
)

// Process is the process that opened a socket, as it was then.
type Process struct {
	PID    int    // in the first pid namespace
	Name   string // of the process, not of its threads; the kernel cuts it to 15 bytes
	Cgroup uint64 // id of its cgroup v2, for [Cgroups]; 0: not known
}

// Rights is the advice if the programs cannot be loaded or attached.
const Rights = "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"

// Watch notes the processes that open sockets. The programs are held by links without a pin:
// however this process ends, the kernel takes them off.
type Watch struct {
	maps   socketsMaps
	progs  socketsPrograms
	links  []link.Link
	pinned []string
	finder *Finder
}

// Start begins to note which processes open sockets in the calling thread's network
// namespace. problem says why sockets that are older than this are not known, or not all of
// them; Start works without.
func Start() (w *Watch, problem, err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, nil, fault.Advise(fmt.Errorf("lock memory for maps: %w", err), Rights)
	}
	w = &Watch{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
			w = nil
		}
	}()
	cookie, err := netns.Cookie()
	if err != nil {
		return w, nil, err
	}
	tree, err := cgroupRoot()
	if err != nil {
		return w, nil, err
	}
	spec, err := loadSockets()
	if err != nil {
		return w, nil, fmt.Errorf("BPF objects: %w", err)
	}
	if err := spec.Variables[socketsVarNetnsCookie].Set(cookie); err != nil {
		return w, nil, fmt.Errorf("BPF objects: %w", err)
	}
	var all struct {
		socketsMaps
		socketsPrograms
	}
	if err := spec.LoadAndAssign(&all, nil); err != nil {
		return w, nil, fault.Advise(fmt.Errorf("load the programs that watch sockets: %w", err), Rights)
	}
	w.maps, w.progs = all.socketsMaps, all.socketsPrograms
	if w.finder, err = newFinder(&w.maps); err != nil {
		return w, nil, err
	}
	root, err := os.Open(tree)
	if err != nil {
		return w, nil, fmt.Errorf("root of the cgroups: %w", err)
	}
	defer root.Close()
	for _, hook := range []struct {
		kind    ebpf.AttachType
		program *ebpf.Program
	}{
		{ebpf.AttachCgroupInetSockRelease, w.progs.DpclassClose},
		{ebpf.AttachCGroupInetSockCreate, w.progs.DpclassUdpOpen},
		{ebpf.AttachCGroupSockOps, w.progs.DpclassTcp},
	} {
		// Not link.AttachCgroup: where links are missing, it attaches in a way that outlives
		// the process.
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(root.Fd()), Program: hook.program, Attach: hook.kind})
		if err != nil {
			return w, nil, fault.Advise(fmt.Errorf("watch sockets at cgroup %q (%s): %w", tree, hook.kind, err), Rights)
		}
		w.links = append(w.links, l)
	}
	return w, w.finder.older(), nil
}

// Finder returns what looks flows up. It works until Close.
func (w *Watch) Finder() *Finder { return w.finder }

// Close takes the programs off and removes the pins.
func (w *Watch) Close() error {
	var errs []error
	for _, l := range w.links {
		errs = append(errs, l.Close())
	}
	w.links = nil
	for _, pin := range w.pinned {
		if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove pin: %w", err))
		}
	}
	w.pinned = nil
	if w.finder != nil {
		errs = append(errs, w.finder.closeSockets())
		w.finder = nil
	}
	errs = append(errs, w.progs.Close(), w.maps.Close())
	return errors.Join(errs...)
}

// The names of the pins begin with this, next to those of the interface.
const pinPrefix = "process_"

// pins returns the maps by the names of their pins.
func pins(maps *socketsMaps) map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		pinPrefix + "connections": &maps.Connections, pinPrefix + "listeners": &maps.Listeners,
		pinPrefix + "udp": &maps.UdpSockets, pinPrefix + "udp_closed": &maps.UdpClosed,
	}
}

// Pin pins the maps in a directory of a bpffs, so that [Open] finds them. Close removes the
// pins.
func (w *Watch) Pin(dir string) error {
	for name, m := range pins(&w.maps) {
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of an earlier process
			return fmt.Errorf("remove pin: %w", err)
		}
		// A clone: a map is pinned once, and there may be several interfaces.
		clone, err := (*m).Clone()
		if err != nil {
			return fmt.Errorf("pin map %q: %w", name, err)
		}
		err = clone.Pin(path)
		clone.Close()
		if err != nil {
			return fmt.Errorf("pin map %q: %w", name, err)
		}
		w.pinned = append(w.pinned, path)
	}
	return nil
}

// Unpin removes the pins in a directory: of an interface that others may attach from now on.
func (w *Watch) Unpin(dir string) error {
	var errs []error
	w.pinned = slices.DeleteFunc(w.pinned, func(pin string) bool {
		if filepath.Dir(pin) != filepath.Clean(dir) {
			return false
		}
		if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove pin: %w", err))
		}
		return true
	})
	return errors.Join(errs...)
}

// RemovePins removes the pins that a process has left in a directory because it was killed.
// Nobody updates the maps any more.
func RemovePins(dir string) error {
	var errs []error
	for name := range pins(&socketsMaps{}) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove pin: %w", err))
		}
	}
	return errors.Join(errs...)
}

// ErrNoWatch says that no process notes which processes open sockets.
var ErrNoWatch = errors.New("processes are not known")

// Open opens the maps that another process has pinned in dir. The calling thread is in the
// network namespace of the flows. The error wraps ErrNoWatch if there are none. The caller
// closes the finder.
func Open(dir string) (*Finder, error) {
	maps := &socketsMaps{}
	for name, m := range pins(maps) {
		opened, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		if err != nil {
			maps.close()
			if errors.Is(err, os.ErrNotExist) {
				return nil, ErrNoWatch
			}
			return nil, fmt.Errorf("pinned map %q: %w", name, err)
		}
		*m = opened
	}
	f, err := newFinder(maps)
	if err != nil {
		maps.close()
		return nil, err
	}
	f.own = true
	return f, nil
}

func (m *socketsMaps) close() {
	for _, one := range pins(m) {
		(*one).Close() // nil is allowed
	}
}

// Close closes a finder that Open returned.
func (f *Finder) Close() error {
	if f.own {
		f.maps.close()
	}
	return f.closeSockets()
}

// Missing says what this machine lacks to watch sockets, whatever the user may do: nil if it
// has everything.
func Missing() error {
	if _, err := cgroupRoot(); err != nil {
		return err
	}
	if _, err := btf.LoadKernelSpec(); err != nil {
		return fault.New("the kernel has no BTF, so the programs that watch sockets cannot be loaded", "use a kernel with CONFIG_DEBUG_INFO_BTF")
	}
	return nil
}

// cgroupRoot returns where the cgroup v2 tree is mounted.
func cgroupRoot() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("mounts: %w", err)
	}
	if found := findCgroup2(string(text)); found != "" {
		return found, nil
	}
	return "", fault.New("the cgroup v2 tree is not mounted, so nobody can watch sockets", "mount it (mount -t cgroup2 none DIR); in ip netns exec, which hides it, run dpclass outside with --netns NAME instead")
}

// findCgroup2 finds the mount of the whole cgroup v2 tree in the text of mountinfo
// (proc(5)): the fields after " - " begin with the type, the fourth is the part of the tree,
// the fifth the place.
func findCgroup2(mounts string) string {
	best := ""
	for line := range strings.Lines(mounts) {
		front, back, _ := strings.Cut(line, " - ")
		kind, _, _ := strings.Cut(back, " ")
		fields := strings.Fields(front)
		if kind != "cgroup2" || len(fields) < 5 || fields[3] != "/" {
			continue
		}
		place := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(fields[4])
		if best == "" || len(place) < len(best) {
			best = place
		}
	}
	return best
}

// process returns what a map says.
func (o *socketsOwner) process() Process {
	return Process{PID: int(o.Pid), Name: o.name(), Cgroup: o.Cgroup}
}

func (o *socketsOwner) name() string {
	raw := make([]byte, 0, len(o.Name))
	for _, c := range o.Name {
		raw = append(raw, byte(c))
	}
	if end := bytes.IndexByte(raw, 0); end >= 0 {
		raw = raw[:end]
	}
	return string(raw)
}

func (o *socketsOwner) setName(name string) {
	clear(o.Name[:])
	for i := range min(len(name), len(o.Name)-1) {
		o.Name[i] = int8(name[i])
	}
}

// monotonic returns CLOCK_MONOTONIC in ns.
func monotonic() int64 {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return 0
	}
	return now.Nano()
}

// wide returns an address as the maps have it, in words that are in network order.
func wide(addr netip.Addr) (words [4]uint32) {
	bytes := addr.As16()
	for i := range words {
		words[i] = nativeEndian.Uint32(bytes[4*i:])
	}
	return words
}

// slack is what may lie between a packet's time and the kernel's note about its socket: the
// clocks of both are read at different moments.
const slack = 250 * time.Millisecond
