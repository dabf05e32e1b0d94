// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dpclass/dpclass/flow"
)

// Session is the remote session that a process runs in.
type Session struct {
	Flows  []flow.Key // its SSH connections, at most flow.MaxProtectedFlows; of a shared terminal, those of everybody on it
	Server string     // a process that makes it remote, such as "sshd (process 812)"; "" if there seems to be none
}

// FindSession returns the remote session of a process. sudo and su take $SSH_CONNECTION out
// of the environment, so it also looks at the environments of the parents and at the sockets
// of an SSH server among them; if that finds nothing, at the other processes on the terminal;
// and at the clients of tmux or screen, because those run the shells in a process that
// outlives connections. What the process may not read is left out.
func FindSession(pid int) Session {
	var s Session
	parents := lineage(pid)
	s.add(parents)
	if i := slices.IndexFunc(parents, process.multiplexes); i >= 0 {
		s.addAll(func(p process) bool { return p.uid == parents[i].uid && p.attaches() })
	}
	if tty := parents.tty(); len(s.Flows) == 0 && tty != 0 {
		s.addAll(func(p process) bool { return p.tty == tty })
	}
	return s
}

// add adds what a process and its parents say: the connection in their environments, up to
// the server, or else the server's own.
func (s *Session) add(parents processes) {
	below := len(parents)
	if i := slices.IndexFunc(parents, process.serves); i >= 0 {
		below = i
		if s.Server == "" {
			s.Server = fmt.Sprintf("%s (process %d)", parents[i].name, parents[i].pid)
		}
	}
	if below < len(parents) && parents[below].name == mosh {
		return // the SSH connection that started it has ended
	}
	var keys []flow.Key
	for _, p := range parents[:below] {
		keys = append(keys, p.inEnvironment()...)
	}
	// The outermost: those below it have connections of their own, which they forward.
	for _, p := range slices.Backward(parents[below:]) {
		if len(keys) == 0 && p.serves() {
			keys = p.established()
		}
	}
	for _, key := range keys {
		if !slices.Contains(s.Flows, key) && len(s.Flows) < flow.MaxProtectedFlows {
			s.Flows = append(s.Flows, key)
		}
	}
}

// addAll adds what all processes of a kind and their parents say.
func (s *Session) addAll(kind func(process) bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if p, ok := readProcess(pid); ok && kind(p) {
			s.add(lineage(pid))
		}
	}
}

// process is a process as /proc/PID/stat describes it (proc_pid_stat(5)).
type process struct {
	pid, parent, tty int
	uid              uint64
	name             string
}

// processes is a process and its parents.
type processes []process

// maxParents bounds the parents, which change while they are read.
const maxParents = 256

func lineage(pid int) (all processes) {
	for len(all) < maxParents {
		p, ok := readProcess(pid)
		if !ok {
			break
		}
		all = append(all, p)
		pid = p.parent
	}
	return all
}

// tty returns the terminal of a process or of its next parent that has one, 0 if none has.
func (all processes) tty() int {
	for _, p := range all {
		if p.tty != 0 {
			return p.tty
		}
	}
	return 0
}

func readProcess(pid int) (p process, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, false
	}
	// The name may have blanks and brackets of its own.
	begin, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if begin < 0 || end < begin {
		return p, false
	}
	p = process{pid: pid, name: string(stat[begin+1 : end])}
	var state string
	var group, session int
	if _, err := fmt.Sscan(string(stat[end+1:]), &state, &p.parent, &group, &session, &p.tty); err != nil {
		return p, false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return p, false
	}
	if _, uids, found := strings.Cut(string(status), "\nUid:"); found {
		if _, err := fmt.Sscan(uids, &p.uid); err != nil {
			return p, false
		}
	}
	return p, true
}

// mosh is the name of a server that speaks UDP with clients whose addresses change.
const mosh = "mosh-server"

// serves reports whether the process is a server of remote sessions.
func (p process) serves() bool {
	return p.name == "sshd" || strings.HasPrefix(p.name, "sshd-") || p.name == "dropbear" || p.name == mosh
}

// multiplexes reports whether the process has the terminals of tmux or screen.
func (p process) multiplexes() bool {
	return strings.HasPrefix(p.name, "tmux: server") || strings.EqualFold(p.name, "screen")
}

// attaches reports whether the process shows these terminals on another one.
func (p process) attaches() bool {
	return strings.HasPrefix(p.name, "tmux: client") || p.name == "screen"
}

// inEnvironment returns the SSH connection in the process's environment, if there is one.
func (p process) inEnvironment() (keys []flow.Key) {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
	if err != nil {
		return nil
	}
	for variable := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := strings.CutPrefix(string(variable), "SSH_CONNECTION="); ok {
			if key, ok := SSHFlow(value); ok {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// established returns the TCP connections that the process has open.
func (p process) established() (keys []flow.Key) {
	dir := fmt.Sprintf("/proc/%d/fd", p.pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	open := map[string]bool{}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if inode, ok := strings.CutPrefix(target, "socket:["); err == nil && ok {
			open[strings.TrimSuffix(inode, "]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		file, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", p.pid, table))
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if key, inode, ok := parseSocket(lines.Text()); ok && open[inode] {
				keys = append(keys, key)
			}
		}
		file.Close()
	}
	return keys
}

// parseSocket reads a line of /proc/net/tcp or tcp6 (Linux, Documentation/networking/proc_net_tcp.rst).
// ok is false if it is not an established connection.
func parseSocket(line string) (key flow.Key, inode string, ok bool) {
	const local, remote, state, number = 1, 2, 3, 9
	fields := strings.Fields(line)
	if len(fields) <= number || fields[state] != "01" {
		return key, "", false
	}
	a, okA := parseSocketEnd(fields[local])
	b, okB := parseSocketEnd(fields[remote])
	if !okA || !okB {
		return key, "", false
	}
	key, ok = tcpKey(a, b)
	return key, fields[number], ok
}

// parseSocketEnd reads 0100007F:0016: words of the address in the machine's byte order, the
// port as a number.
func parseSocketEnd(text string) (end netip.AddrPort, ok bool) {
	address, port, _ := strings.Cut(text, ":")
	words, err := hex.DecodeString(address)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || len(words)%4 != 0 {
		return end, false
	}
	for i := 0; i < len(words); i += 4 {
		binary.NativeEndian.PutUint32(words[i:], binary.BigEndian.Uint32(words[i:]))
	}
	addr, ok := netip.AddrFromSlice(words)
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), ok
}
