// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
)

// older notes the sockets that were opened before the programs ran. What the programs have
// noted meanwhile is newer and stays.
func (f *Finder) older() error {
	type open struct {
		socket
		proto flow.Proto
	}
	var all []open
	wanted := map[uint64]bool{}
	listening := map[netip.AddrPort]bool{} // ports of listeners; the address is not compared
	port := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(netip.Addr{}, a.Port()) }
	for _, proto := range []flow.Proto{flow.TCP, flow.UDP} {
		for _, is6 := range []bool{false, true} {
			err := f.diag.all(proto, is6, func(s socket) {
				if s.inode == 0 {
					return // TIME_WAIT and the like
				}
				all = append(all, open{s, proto})
				wanted[s.inode] = true
				if proto == flow.TCP && s.state == tcpListen {
					listening[port(s.local)] = true
				}
			})
			if err != nil {
				return err
			}
		}
	}
	holders, problem := holdersOf(wanted)
	for _, s := range all {
		o, ok := holders[s.inode]
		if !ok {
			continue
		}
		var err error
		switch {
		case s.proto == flow.UDP:
			err = f.maps.UdpSockets.Update(&s.cookie, &o, ebpf.UpdateNoExist)
		case s.state == tcpListen:
			o.Cookie = s.cookie
			key := socketsListener{Addr: wide(s.local.Addr()), Port: s.local.Port()}
			err = f.maps.Listeners.Update(&key, &o, ebpf.UpdateNoExist)
		default:
			if listening[port(s.local)] {
				o.Passive = 1
			}
			key := socketsConnection{
				Local: wide(s.local.Addr()), Remote: wide(s.remote.Addr()), LocalPort: s.local.Port(), RemotePort: s.remote.Port(),
			}
			err = f.maps.Connections.Update(&key, &o, ebpf.UpdateNoExist)
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("note a socket that is older: %w", err)
		}
	}
	return problem
}

// Each socket that the maps do not have makes the finder read /proc; not more often than
// this, and not again for the same socket within holderFor.
const (
	sweepEvery  = 500 * time.Millisecond
	holderFor   = 30 * time.Second
	missFor     = 5 * time.Second
	mostHolders = 4096
)

// holder returns the process that has a socket open, by /proc.
func (f *Finder) holder(inode uint64) (socketsOwner, bool) {
	if inode == 0 {
		return socketsOwner{}, false
	}
	now := time.Now()
	if h, ok := f.holders[inode]; ok && now.Before(h.until) {
		return h.owner, h.known
	}
	if now.Sub(f.swept) < sweepEvery {
		return socketsOwner{}, false
	}
	f.swept = now
	found, _ := holdersOf(map[uint64]bool{inode: true})
	o, ok := found[inode]
	if len(f.holders) >= mostHolders {
		clear(f.holders)
	}
	h := holder{owner: o, known: ok, until: now.Add(holderFor)}
	if !ok {
		h.until = now.Add(missFor)
	}
	f.holders[inode] = h
	return o, ok
}

// PtraceRights is the advice where /proc does not show the files of other users' processes.
const PtraceRights = "to know them too run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"

// holdersOf returns the processes that have sockets open, by the sockets' inodes. Of several,
// it is the oldest one, but not pid 1, which hands sockets to services. problem says that
// some processes could not be looked into.
func holdersOf(inodes map[uint64]bool) (map[uint64]socketsOwner, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	found := map[uint64]socketsOwner{}
	denied := 0
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", entry.Name())
		files, err := os.ReadDir(filepath.Join(dir, "fd"))
		if errors.Is(err, fs.ErrPermission) {
			denied++
		}
		var o *socketsOwner
		for _, file := range files {
			target, err := os.Readlink(filepath.Join(dir, "fd", file.Name()))
			if err != nil {
				continue
			}
			text, isSocket := strings.CutPrefix(target, "socket:[")
			inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
			if !isSocket || err != nil || !inodes[inode] {
				continue
			}
			if before, ok := found[inode]; ok && before.Pid != 1 && (pid == 1 || before.Pid < uint32(pid)) {
				continue
			}
			if o == nil {
				o = processOf(pid, dir)
			}
			found[inode] = *o
		}
	}
	if denied > 0 {
		return found, fault.Advise(fmt.Errorf("%d processes may not be looked into", denied), PtraceRights)
	}
	return found, nil
}

// processOf describes a process by /proc. One that has just ended has no name.
func processOf(pid int, dir string) *socketsOwner {
	o := &socketsOwner{Pid: uint32(pid)}
	if name, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil {
		o.setName(strings.TrimSuffix(string(name), "\n"))
	}
	if path := cgroupPath(filepath.Join(dir, "cgroup")); path != "" {
		if root, err := cgroupRoot(); err == nil {
			o.Cgroup = cgroupID(filepath.Join(root, path))
		}
	}
	return o
}

// cgroupPath returns the cgroup v2 of a /proc/PID/cgroup (cgroups(7)): the line "0::PATH".
func cgroupPath(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path
		}
	}
	return ""
}

// cgroupID returns the id of a cgroup: the inode number of its directory.
func cgroupID(dir string) uint64 {
	info, err := os.Stat(dir)
	if err != nil {
		return 0
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}
