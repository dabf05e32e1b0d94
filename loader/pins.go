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

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/netns"
)

// ABI is the version of the pinned maps. It is part of the pins' path: a
// dpclass of another version does not touch them.
const ABI = 1

const bpffs = "/sys/fs/bpf"

var pinRoot = filepath.Join(bpffs, "dpclass", "v"+strconv.Itoa(ABI))

// Names of the pinned links.
const (
	pinXDP = "link_xdp"
	pinIn  = "link_in"
	pinOut = "link_out"
)

// checkBPFFS makes sure that pins can be made. A mount namespace of its own, as
// "ip netns exec" makes, has an empty sysfs there.
func checkBPFFS() error {
	var stat unix.Statfs_t
	if err := unix.Statfs(bpffs, &stat); err == nil && uint32(stat.Type) == unix.BPF_FS_MAGIC {
		return nil
	}
	own, err1 := os.Readlink("/proc/self/ns/mnt")
	first, err2 := os.Readlink("/proc/1/ns/mnt")
	if err1 == nil && err2 == nil && own == first {
		if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err == nil {
			return nil
		}
		return fmt.Errorf("%q is not a BPF file system: mount it by \"mount -t bpf bpf %s\"", bpffs, bpffs)
	}
	return fmt.Errorf("%q is not a BPF file system here (\"ip netns exec\" hides it): run dpclass outside and give it --netns NAME", bpffs)
}

// pinDir returns where the pins of an interface of this namespace are.
func pinDir(iface string) (string, error) {
	suffix, err := netnsSuffix()
	if err != nil {
		return "", err
	}
	return filepath.Join(pinRoot, iface+suffix), nil
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

// findDir returns where the pins of an attached interface of this namespace
// are: by its name, or, where it was renamed, by its ifindex.
func findDir(iface string) (string, error) {
	dir, err := pinDir(iface)
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
	names, err := dirsHere()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		info, err := readInfo(filepath.Join(pinRoot, name))
		if err == nil && int(info.Ifindex) == device.Attrs().Index {
			return filepath.Join(pinRoot, name), nil
		}
	}
	return "", fmt.Errorf("interface %q: %w", iface, ErrNotAttached)
}

// dirsHere lists the directories of this namespace's interfaces.
func dirsHere() ([]string, error) {
	suffix, err := netnsSuffix()
	if err != nil {
		return nil, err
	}
	all, err := dirs()
	if err != nil {
		return nil, err
	}
	var here []string
	for _, name := range all {
		base, cookie, inOther := strings.Cut(name, "@")
		if inOther && "@"+cookie == suffix || !inOther && suffix == "" && base != "" {
			here = append(here, name)
		}
	}
	return here, nil
}

func dirs() ([]string, error) {
	entries, err := os.ReadDir(pinRoot)
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

// List returns the attached interfaces of this network namespace.
func List() ([]string, error) {
	names, err := dirsHere()
	if err != nil {
		return nil, err
	}
	for n := range names {
		names[n], _, _ = strings.Cut(names[n], "@")
	}
	return names, nil
}

// readInfo reads where and how the programs of a pin directory are attached.
func readInfo(dir string) (bpfInterfaceInfo, error) {
	var info bpfInterfaceInfo
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "interface"), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return info, err
	}
	defer m.Close()
	err = m.Lookup(uint32(0), &info)
	return info, err
}

// mapPins lists the maps that are pinned, by name.
func mapPins(maps *bpfMaps) map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		"flows": &maps.Flows, "flows6": &maps.Flows6, "pending": &maps.Pending, "pending6": &maps.Pending6,
		"samples": &maps.Samples, "counters": &maps.Counters, "policy": &maps.Policy, "rules": &maps.Rules,
		"rule_stats": &maps.RuleStats, "buckets": &maps.Buckets, "policy_source": &maps.PolicySource,
		"protect": &maps.Protect, "protect6": &maps.Protect6, "protect_ports": &maps.ProtectPorts,
		"protect_flows": &maps.ProtectFlows, "ended": &maps.Ended, "sequence": &maps.Sequence,
		"interface": &maps.Interface, "agent": &maps.Agent, "labels": &maps.Labels,
	}
}

// Open gives access to an attached interface of this network namespace, from
// its pins alone. The error wraps ErrNotAttached where there are none.
func Open(iface string) (*Interface, error) {
	dir, err := findDir(iface)
	if err != nil {
		return nil, err
	}
	ns, err := netns.Current()
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	i := &Interface{name: iface, dir: dir, net: ns, keep: DefaultTimeouts.Ended}
	for name, m := range mapPins(&i.maps) {
		*m, err = ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		if err != nil {
			err = fmt.Errorf("pins of %q are not whole, \"dpclass detach %s\" removes them: map %q: %w", iface, iface, name, err)
			return nil, errors.Join(err, i.Close())
		}
	}
	if err := i.maps.Interface.Lookup(uint32(0), &i.info); err != nil {
		return nil, errors.Join(fmt.Errorf("interface %q: %w", iface, err), i.Close())
	}
	if err := i.names.load(i.maps.Labels); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

// lockDir takes the lock that a live agent holds on its pin directory.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("pin directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("lock %q: %w", dir, err)
	}
	// A second lock, of the kind that can be asked for without taking it.
	shared := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &shared); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %q: %w", dir, err)
	}
	return f, nil
}

// isLocked tells whether a live agent holds the pin directory.
func isLocked(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, fmt.Errorf("pin directory: %w", err)
	}
	defer f.Close()
	wanted := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &wanted); err != nil {
		return false, fmt.Errorf("lock %q: %w", dir, err)
	}
	return wanted.Type != unix.F_UNLCK, nil
}

// agentPID returns the process that last said it serves the pins, or 0.
func agentPID(dir string) int {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "agent"), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return 0
	}
	defer m.Close()
	var stats bpfAgentStats
	if err := m.Lookup(uint32(0), &stats); err != nil {
		return 0
	}
	return int(stats.Pid)
}
