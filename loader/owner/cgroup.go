// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Cgroups finds the paths of cgroups by their ids. A cgroup that was removed keeps the path
// that it had, as long as somebody asked for it before. The zero value is ready.
type Cgroups struct {
	mu    sync.Mutex
	paths map[uint64]string
	read  time.Time
}

// cgroupsFor is how long the tree is not read again for an id that is not in it.
const cgroupsFor = 200 * time.Millisecond

// Path returns the path of a cgroup below the root of the tree: "/" or
// "/system.slice/nginx.service". ok is false if there is no such cgroup.
func (c *Cgroups) Path(id uint64) (path string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if path, ok := c.paths[id]; ok || id == 0 || time.Since(c.read) < cgroupsFor {
		return path, ok
	}
	c.read = time.Now()
	root, err := cgroupRoot()
	if err != nil {
		return "", false
	}
	if c.paths == nil {
		c.paths = map[uint64]string{}
	}
	// A directory that goes while the tree is read is skipped.
	_ = filepath.WalkDir(root, func(dir string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil //nolint:nilerr // see above
		}
		if info, err := entry.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				below, _ := filepath.Rel(root, dir)
				c.paths[stat.Ino] = filepath.Join("/", below)
			}
		}
		return nil
	})
	path, ok = c.paths[id]
	return path, ok
}

// containerID finds the id that container engines put into the names of cgroups, such as
// docker-ID.scope, cri-containerd-ID.scope, libpod-ID.scope or /docker/ID.
var containerID = regexp.MustCompile(`^(?:([a-z-]+)-)?([0-9a-f]{12})[0-9a-f]{52}(?:\.scope)?$`)

// CgroupName returns the short name of a cgroup: the last part of its path that names
// something, which is a unit of systemd (nginx.service, app-firefox-1234.scope) or a
// container (docker-0123456789ab, lxc.payload.web). The root is "root". Characters that
// systemd has escaped (\x2d) are as they were.
func CgroupName(path string) string {
	var best string
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		switch {
		case part == "":
		case best == "", isUnit(part), containerID.MatchString(part):
			best = part
		case !isUnit(best) && !containerID.MatchString(best) && !strings.HasPrefix(best, "lxc."):
			best = part
		}
	}
	if best == "" {
		return "root"
	}
	if m := containerID.FindStringSubmatch(best); m != nil {
		kind := m[1]
		if kind == "" {
			kind = "container"
		}
		return kind + "-" + m[2]
	}
	return unescape(best)
}

// isUnit reports whether a part of a path is a unit of systemd that has processes.
func isUnit(part string) bool {
	switch filepath.Ext(part) {
	case ".service", ".scope", ".slice":
		return true
	}
	return false
}

// unescape undoes systemd's escapes (systemd.unit(5)).
func unescape(name string) string {
	for at := 0; ; {
		i := strings.Index(name[at:], `\x`)
		if i < 0 || at+i+4 > len(name) {
			return name
		}
		at += i
		if b, err := strconv.ParseUint(name[at+2:at+4], 16, 8); err == nil {
			name = name[:at] + string(rune(b)) + name[at+4:]
		}
		at++
	}
}
