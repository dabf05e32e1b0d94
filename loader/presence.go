// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"os"
	"path/filepath"

	"github.com/dpclass/dpclass/internal/netns"
)

// Presence says what has become of an attached interface and of its pins.
type Presence int

const (
	Present  Presence = iota
	Gone              // the interface was deleted
	Moved             // it is in another network namespace, and the programs still see its packets there
	Unpinned          // the pins were removed: no other process finds the maps
)

func (p Presence) String() string {
	return map[Presence]string{Present: "present", Gone: "deleted", Moved: "moved to another network namespace", Unpinned: "pins removed"}[p]
}

// Presence reports what has become of the interface, and its name, which changes if
// somebody renames it. A deleted interface that somebody created again is another
// interface: Detach this attachment, then Attach again.
func (a *Attachment) Presence() (p Presence, name string, err error) {
	name = a.name
	err = netns.In(a.net, func() error {
		device, err := linkByIndex(int(a.info.Ifindex))
		if err != nil {
			return err
		}
		if device == nil {
			p = a.whereElse()
			return nil
		}
		name = device.Attrs().Name
		return nil
	})
	if err == nil && p == Present && !a.isPinned() {
		p = Unpinned
	}
	return p, name, err
}

// whereElse says what has become of an interface that is not in its namespace. A link
// knows its interface in any namespace.
func (a *Attachment) whereElse() Presence {
	for _, l := range a.links {
		if info, err := l.Info(); err == nil && linkIfindex(info) != 0 {
			return Moved
		}
	}
	return Gone
}

// isPinned reports whether the pins in the attachment's directory are its own.
func (a *Attachment) isPinned() bool {
	if _, err := os.Stat(filepath.Join(a.dir, "interface")); err != nil {
		return false
	}
	return a.ownsDir()
}

// ownsDir reports whether the path of the pins still leads to the directory that this
// process has locked.
func (a *Attachment) ownsDir() bool { return a.lock != nil && isDir(a.lock, a.dir) }
