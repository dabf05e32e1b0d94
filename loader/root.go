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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/bpffs"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/netns"
)

// root is the directory with the pins: a directory for each interface.
type root string

func defaultRoot() root { return root(fmt.Sprintf("%s/dpclass/v%d", bpffs.Path, ABI)) }

// List returns the attached interfaces of the calling thread's network namespace.
func List() ([]string, error) { return defaultRoot().list() }

// checkBPFFS makes sure that maps can be pinned. In a separate mount namespace, such as
// that of "ip netns exec", there is an empty sysfs instead.
func checkBPFFS() error {
	var stat unix.Statfs_t
	if err := unix.Statfs(bpffs.Path, &stat); err == nil && uint32(stat.Type) == unix.BPF_FS_MAGIC {
		return nil
	}
	missing := fmt.Errorf("%q is not a BPF file system", bpffs.Path)
	own, err1 := os.Readlink("/proc/self/ns/mnt")
	first, err2 := os.Readlink("/proc/1/ns/mnt")
	if err1 == nil && err2 == nil && own == first {
		if err := unix.Mount("bpf", bpffs.Path, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err == nil {
			return nil
		}
		return fault.Advise(missing, "mount it: mount -t bpf bpf %s", bpffs.Path)
	}
	return fault.Advise(missing, `run dpclass outside of "ip netns exec", which hides the file system, with --netns NAME`)
}

// dirOf returns the directory for the pins of an interface of this namespace.
func (r root) dirOf(iface string) (string, error) {
	suffix, err := netnsSuffix()
	if err != nil {
		return "", err
	}
	return filepath.Join(string(r), iface+suffix), nil
}

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

// find returns the directory with the pins of an attached interface of this namespace:
// by its name, or, after a rename, by its ifindex. The error wraps ErrNotAttached if
// there are none.
func (r root) find(iface string) (string, error) {
	dir, err := r.dirOf(iface)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("pins of %q: %w", iface, err)
	}
	device, err := netlink.LinkByName(iface)
	if err != nil {
		return "", fmt.Errorf("interface %q: %w", iface, ErrNotAttached)
	}
	names, err := r.dirsHere()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		dir := filepath.Join(string(r), name)
		if info, err := readInfo(dir); err == nil && int(info.Ifindex) == device.Attrs().Index {
			return dir, nil
		}
	}
	return "", fmt.Errorf("interface %q: %w", iface, ErrNotAttached)
}

// dirs returns the names of all directories.
func (r root) dirs() ([]string, error) {
	entries, err := os.ReadDir(string(r))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// dirsHere returns the names of the directories of this namespace's interfaces.
func (r root) dirsHere() ([]string, error) {
	suffix, err := netnsSuffix()
	if err != nil {
		return nil, err
	}
	all, err := r.dirs()
	if err != nil {
		return nil, err
	}
	var here []string
	for _, name := range all {
		_, cookie, inOther := strings.Cut(name, "@")
		if inOther && "@"+cookie == suffix || !inOther && suffix == "" {
			here = append(here, name)
		}
	}
	return here, nil
}

func (r root) list() ([]string, error) {
	names, err := r.dirsHere()
	if err != nil {
		return nil, err
	}
	for n := range names {
		names[n], _, _ = strings.Cut(names[n], "@")
	}
	return names, nil
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
