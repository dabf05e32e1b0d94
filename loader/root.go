// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/bpffs"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/netns"
)

// root is the directory with the pins: a directory for each interface.
type root string

func defaultRoot() root { return root(fmt.Sprintf("%s/dpclass/v%d", bpffs.Path, ABI)) }

// Prepare does what Attach needs more rights for than CAP_BPF, CAP_NET_ADMIN and
// CAP_PERFMON: it mounts the BPF file system if that is missing. Attach does so itself;
// Prepare is for those who give up rights before.
func Prepare() error { return mountBPFFS() }

// mountBPFFS makes sure that maps can be pinned. In a separate mount namespace, such as
// that of "ip netns exec", there is an empty sysfs instead.
func mountBPFFS() error {
	state, err := bpffs.Look()
	if err != nil || state == bpffs.Mounted {
		return err
	}
	missing := fmt.Errorf("%q is not a BPF file system", bpffs.Path)
	if state == bpffs.Hidden {
		return fault.Advise(missing, `run dpclass outside of "ip netns exec", which hides the file system, with --netns NAME`)
	}
	if err := unix.Mount("bpf", bpffs.Path, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fault.Advise(fmt.Errorf("%w, and cannot be mounted: %w", missing, err), "as root: mount -t bpf bpf %s", bpffs.Path)
	}
	return nil
}

// The names of directories are those of interfaces, with what would be ambiguous or what
// bpffs refuses (dots) written as % and two hexadecimal digits. The kernel allows no % in
// the name of an interface, but a # and an @.
var (
	escapes   = strings.NewReplacer("%", "%25", ".", "%2e", "#", "%23", "@", "%40")
	unescapes = strings.NewReplacer("%25", "%", "%2e", ".", "%23", "#", "%40", "@")
)

// netnsSuffix returns what the names of directories end with for this namespace's
// interfaces: nothing in the first namespace.
func netnsSuffix() (string, error) {
	if netns.IsFirst() {
		return "", nil
	}
	cookie, err := netns.Cookie()
	if err != nil {
		return "", err
	}
	return "@" + strconv.FormatUint(cookie, 10), nil
}

// place is a pin directory and the interface that its pins are for.
type place struct {
	dir  string
	name string // what the interface was called when it was attached
	info bpfInterfaceInfo
	err  error // why info could not be read
}

// of reports whether the place is that of the interface with this index.
func (p *place) of(ifindex int) bool { return p.err == nil && int(p.info.Ifindex) == ifindex }

func (r root) place(entry string) place {
	name, _, _ := strings.Cut(entry, "@")
	name, _, _ = strings.Cut(name, "#")
	p := place{dir: filepath.Join(string(r), entry), name: unescapes.Replace(name)}
	p.info, p.err = readInfo(p.dir)
	return p
}

// places returns all pin directories.
func (r root) places() ([]place, error) {
	entries, err := os.ReadDir(string(r))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		if err := bpffs.Usable(); err != nil {
			return nil, err
		}
		return nil, fault.Advise(fmt.Errorf("list pins: %w", err), notYours)
	}
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	var all []place
	for _, entry := range entries {
		if entry.IsDir() {
			all = append(all, r.place(entry.Name()))
		}
	}
	return all, nil
}

// notYours is the advice if pins belong to another user.
const notYours = "run as root, or as the user who attached"

// here returns the pin directories of this namespace's interfaces.
func (r root) here() ([]place, error) {
	all, err := r.places()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	cookie, err := netns.Cookie()
	if err != nil {
		return nil, err
	}
	suffix, err := netnsSuffix()
	if err != nil {
		return nil, err
	}
	var here []place
	for _, p := range all {
		if p.err == nil && p.info.NetnsCookie == cookie || p.err != nil && ending(p.dir) == suffix {
			here = append(here, p)
		}
	}
	return here, nil
}

// ending returns the netnsSuffix of a directory's name.
func ending(dir string) string {
	if at := strings.LastIndexByte(dir, '@'); at >= 0 {
		return dir[at:]
	}
	return ""
}

// find returns the pin directory of the interface that has this name now, by its index:
// after a rename the name of the directory is another one. If no interface has the name,
// it returns the pins of the one that had it, if that was deleted. The error wraps
// ErrNotAttached if there are none.
func (r root) find(iface string) (place, error) {
	here, err := r.here()
	if err != nil {
		return place{}, err
	}
	device, err := linkByName(iface)
	if err != nil {
		return place{}, err
	}
	none := fmt.Errorf("interface %q: %w", iface, ErrNotAttached)
	if device != nil {
		for _, p := range here {
			if p.of(device.Attrs().Index) {
				return p, nil
			}
		}
	}
	for _, p := range here {
		if p.name != iface {
			continue
		}
		if p.err != nil {
			return p, unreadable(p.err)
		}
		now, err := linkByIndex(int(p.info.Ifindex))
		switch {
		case err != nil:
			return p, err
		case now != nil:
			none = fault.Advise(none, "the interface that was attached as %q is called %q now", iface, now.Attrs().Name)
		case device != nil:
			none = fault.Advise(none, "pins of an earlier interface %q, which is gone, are left: attach or detach removes them", iface)
		default:
			return p, nil
		}
	}
	return place{}, none
}

// unreadable returns nil for pins that are incomplete, and an error for those of others.
func unreadable(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fault.Advise(fmt.Errorf("pins: %w", err), notYours)
	}
	return nil
}

// List returns the names of the attached interfaces of the calling thread's network
// namespace. A deleted interface is listed by its last known name.
func List() ([]string, error) { return defaultRoot().list() }

func (r root) list() ([]string, error) {
	here, err := r.here()
	if err != nil {
		return nil, err
	}
	var names []string
	for n := range here {
		name, err := here[n].nameNow()
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// nameNow returns the name of the interface, the last known if it is gone.
func (p *place) nameNow() (string, error) {
	if p.err != nil {
		return p.name, unreadable(p.err)
	}
	now, err := linkByIndex(int(p.info.Ifindex))
	if err != nil || now == nil {
		return p.name, err
	}
	return now.Attrs().Name, nil
}

// removeDir removes a directory, and its parents if that leaves them empty.
func (r root) removeDir(dir string) error {
	if err := unpin(dir); err != nil {
		return err
	}
	for parent := string(r); parent != bpffs.Path; parent = filepath.Dir(parent) {
		if os.Remove(parent) != nil {
			break // other pins keep it
		}
	}
	return nil
}

// unpinAll removes the pins in a directory.
func unpinAll(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pin directory: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		errs = append(errs, unpin(filepath.Join(dir, entry.Name())))
	}
	return errors.Join(errs...)
}

// unpin removes a pin. It does nothing if there is none.
func unpin(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pin: %w", err)
	}
	return nil
}
