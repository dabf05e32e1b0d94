// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/bounded"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/fault"
)

// Limits of the files.
const (
	maxOpen     = 128     // files that are open at a time
	writeAt     = 1 << 18 // bytes of a file that wait to be written
	reserveSize = 1 << 19 // bytes kept free for what waits when the disk is full,
	reserveLast = 1 << 16 // and of these for the manifest
)

// The files of a directory besides captures.
const (
	manifestName = "manifest.csv"
	partName     = manifestName + ".part" // the manifest while it is written
	reserveName  = ".dpclass-record"
)

// ownNames are names that no label may have, because its directory would be in the way. Names
// come from strangers.
var ownNames = []string{manifestName, partName, reserveName}

// columns are those of a manifest, as dplab traffic writes them, without those that only
// generated traffic has.
var columns = []string{"path", "set", "category", "app", "vpn", "capture", "linktype", "packets", "payload_packets", "flows", "source", "label_how",
	"use", "program"}

// files are the captures of one run and the manifest of the directory. All of them are
// reached through root, which follows no link out of the directory: that may be a user's, and
// this process root's.
type files struct {
	dir      string
	root     *os.Root
	session  string // name of the run
	header   []byte
	linkType int
	earlier  []byte   // manifest of earlier runs, at least its header
	lock     *os.File // see openFiles
	labels   map[string]*label
	order    []*label // by their last use, the newest last; open files only
	written  int64
	max      int64 // 0: no limit
}

// label is a capture file and what is in it.
type label struct {
	name    string
	path    string // below the directory, with slashes
	file    *os.File
	info    os.FileInfo // of the file, to know it again
	waiting []byte
	size    int64 // complete blocks in the file
	cut     bool  // the disk was full: the counts are too high

	Flows, PayloadFlows int
	Packets, Payload    int
	Bytes               int64
	programs            map[string]bool
}

// Errors that end a run.
var (
	errFull = errors.New("the disk is full")
	errSize = errors.New("the size limit is reached")
)

// openFiles prepares a directory: a new one, an empty one, or one of earlier runs.
func openFiles(dir, session string) (f *files, err error) {
	f = &files{dir: dir, session: session, labels: map[string]*label{}}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("directory %q: %w", dir, bounded.Bare(err))
	}
	if f.root, err = os.OpenRoot(dir); err != nil {
		return nil, fmt.Errorf("directory %q: %w", dir, bounded.Bare(err))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.release())
			f = nil
		}
	}()
	if err := f.takeLock(); err != nil {
		return f, err
	}
	fresh, err := f.readEarlier() // what an earlier run wrote is complete only once it has no lock
	if err != nil {
		return f, err
	}
	if err := unix.Fallocate(int(f.lock.Fd()), 0, 0, reserveSize); isFull(err) {
		return f, fmt.Errorf("directory %q: %w", dir, errFull)
	}
	if fresh {
		// If this run is killed, the next one knows the directory by it.
		err = f.writeManifest(f.earlier)
	}
	return f, err
}

// takeLock opens the file that keeps space and locks it: it is the lock of the directory too.
func (f *files) takeLock() error {
	busy := fault.Advise(fmt.Errorf("directory %q: another dpclass record writes to it", f.dir), "name another directory")
	for range 100 {
		lock, err := f.root.OpenFile(reserveName, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return f.problem(err)
		}
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			lock.Close()
			return busy
		}
		var stat unix.Stat_t
		if err := unix.Fstat(int(lock.Fd()), &stat); err != nil {
			return errors.Join(f.problem(err), lock.Close())
		}
		switch {
		case stat.Nlink == 1 && stat.Mode&unix.S_IFMT == unix.S_IFREG:
			f.lock = lock
			return nil
		case stat.Nlink == 0: // another run has removed it since it was opened
			lock.Close()
		default: // it would be cut
			lock.Close()
			return fault.Advise(fmt.Errorf("directory %q: %s is not a file of dpclass record", f.dir, reserveName), "name another directory")
		}
	}
	return busy
}

// readEarlier reads the manifest of earlier runs. fresh is true if the directory is empty.
func (f *files) readEarlier() (fresh bool, err error) {
	names, err := f.list()
	if err != nil {
		return false, f.problem(err)
	}
	header := []byte(strings.Join(columns, ",") + "\n")
	f.earlier, err = f.root.ReadFile(manifestName)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if slices.ContainsFunc(names, func(name string) bool { return name != reserveName && name != partName && name != "lost+found" }) {
			return false, fault.Advise(fmt.Errorf("directory %q: it is not empty and has no %s of an earlier run", f.dir, manifestName), "name another directory")
		}
		f.earlier = header
		return true, nil
	case err != nil:
		return false, f.problem(err)
	}
	first, _, _ := bytes.Cut(f.earlier, []byte("\n"))
	if strings.TrimRight(string(first), "\r") != strings.TrimSpace(string(header)) {
		return false, fault.Advise(fmt.Errorf("directory %q: its %s is not one of dpclass record", f.dir, manifestName), "name another directory")
	}
	if !bytes.HasSuffix(f.earlier, []byte("\n")) {
		f.earlier = append(f.earlier, '\n')
	}
	return false, nil
}

// list returns the names in the directory.
func (f *files) list() ([]string, error) {
	dir, err := f.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// sudoer returns the user who called sudo, to whom the files are to belong: the next steps
// need no root.
func sudoer() (uid, gid int, ok bool) {
	uid, err1 := strconv.Atoi(os.Getenv("SUDO_UID"))
	gid, err2 := strconv.Atoi(os.Getenv("SUDO_GID"))
	return uid, gid, os.Geteuid() == 0 && err1 == nil && err2 == nil
}

// makeDir makes a directory that only its owner reads, unless it exists, and those above it.
func makeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	return giveAway(os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0))
}

// mkdir makes the directory of a label, unless it exists.
func (f *files) mkdir(name string) error {
	if err := f.root.Mkdir(name, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	return giveAway(f.root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0))
}

// giveAway gives a directory that was just made to who called sudo, and closes it. It takes
// what opened it, not a path: only directories are opened so, whatever has replaced it.
func giveAway(dir *os.File, err error) error {
	if err != nil {
		return err
	}
	if uid, gid, ok := sudoer(); ok {
		err = dir.Chown(uid, gid)
	}
	return errors.Join(err, dir.Close())
}

// create makes a new file that only its owner reads: captures have everything that was sent.
func (f *files) create(name string) (*os.File, error) {
	file, err := f.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if uid, gid, ok := sudoer(); ok && err == nil {
		err = file.Chown(uid, gid)
	}
	return file, err
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// release removes the file that keeps space, and with it the lock, and lets go of the
// directory.
func (f *files) release() error {
	var err error
	if f.lock != nil {
		err = errors.Join(f.root.Remove(reserveName), f.lock.Close()) // while it is locked
		f.lock = nil
	}
	return errors.Join(err, f.root.Close())
}

// label returns the capture of a label.
func (f *files) label(name string) (*label, error) {
	if l, ok := f.labels[name]; ok {
		return l, nil
	}
	l := &label{name: name, programs: map[string]bool{}, waiting: slices.Clone(f.header)}
	if err := f.mkdir(name); err != nil {
		return nil, f.problem(err)
	}
	for n := 1; ; n++ {
		file := f.session + ".pcapng"
		if n > 1 {
			file = fmt.Sprintf("%s-%d.pcapng", f.session, n)
		}
		l.path = path.Join(name, file)
		var err error
		l.file, err = f.create(l.path)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return nil, f.problem(err)
		}
		break
	}
	var err error
	if l.info, err = l.file.Stat(); err != nil {
		return nil, errors.Join(f.problem(err), l.file.Close())
	}
	f.labels[name] = l
	return l, f.opened(l)
}

// opened notes that the file of a label is open, and closes another one if that are too many.
func (f *files) opened(l *label) error {
	f.order = append(f.order, l)
	if len(f.order) <= maxOpen {
		return nil
	}
	oldest := f.order[0]
	f.order = f.order[1:]
	if err := errors.Join(f.flush(oldest), oldest.file.Close()); err != nil {
		return f.problem(err)
	}
	oldest.file = nil
	return nil
}

// reopen opens the file of a label again.
func (f *files) reopen(l *label, flag int) (*os.File, error) {
	file, err := f.root.OpenFile(l.path, flag|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, f.problem(err)
	}
	if info, err := file.Stat(); err != nil || !os.SameFile(info, l.info) {
		return nil, errors.Join(fmt.Errorf("directory %q: somebody has replaced %s", f.dir, l.path), err, file.Close())
	}
	return file, nil
}

// problem turns an error of a file into one that ends the run.
func (f *files) problem(err error) error {
	if isFull(err) {
		return errFull
	}
	return fmt.Errorf("directory %q: %w", f.dir, bounded.Bare(err))
}

// write adds a frame to a capture. A frame beyond the size limit is not written.
func (f *files) write(l *label, at time.Time, data []byte, length int) error {
	before := len(l.waiting)
	l.waiting = capture.AppendPacket(l.waiting, at, data, length)
	size := int64(len(l.waiting) - before)
	if f.max > 0 && f.written+size > f.max {
		l.waiting = l.waiting[:before]
		return errSize
	}
	f.written += size
	l.Bytes += size
	if len(l.waiting) >= writeAt {
		return f.flush(l)
	}
	return nil
}

// flush writes the blocks that wait. If the disk is full, the file ends with the last
// complete block that was written before.
func (f *files) flush(l *label) error {
	if len(l.waiting) == 0 {
		return nil
	}
	if l.file == nil {
		var err error
		if l.file, err = f.reopen(l, os.O_WRONLY); err != nil {
			return err
		}
		if err := f.opened(l); err != nil {
			return err
		}
		if _, err := l.file.Seek(l.size, io.SeekStart); err != nil {
			return f.problem(err)
		}
	}
	n, err := l.file.Write(l.waiting)
	if err != nil {
		complete := wholeBlocks(l.waiting, n)
		l.size += int64(complete)
		f.written -= int64(len(l.waiting) - complete)
		l.cut = true
		l.Bytes -= int64(len(l.waiting) - complete)
		l.waiting = l.waiting[:0]
		return errors.Join(f.problem(err), l.file.Truncate(l.size))
	}
	l.size += int64(n)
	l.waiting = l.waiting[:0]
	return nil
}

// wholeBlocks returns how many of the first n bytes are complete blocks of pcapng.
func wholeBlocks(data []byte, n int) int {
	at := 0
	for at+8 <= n {
		length := int(data[at+4]) | int(data[at+5])<<8 | int(data[at+6])<<16 | int(data[at+7])<<24
		if at+length > n {
			break
		}
		at += length
	}
	return at
}

// flushAll writes everything that waits.
func (f *files) flushAll() error {
	var errs []error
	for _, l := range f.labels {
		errs = append(errs, f.flush(l))
	}
	return errors.Join(errs...)
}

// sorted returns the captures by label.
func (f *files) sorted() []*label {
	all := make([]*label, 0, len(f.labels))
	for _, l := range f.labels {
		all = append(all, l)
	}
	sort.Slice(all, func(a, b int) bool { return all[a].name < all[b].name })
	return all
}

// manifest writes the rows of this run after those of earlier ones, all at once.
func (f *files) manifest(by By, task flow.Task, other bool) error {
	var text bytes.Buffer
	out := csv.NewWriter(&text)
	how := map[By]string{Process: "program that opened the socket", Cgroup: "cgroup of the program that opened the socket", Name: "server name"}[by]
	for _, l := range f.sorted() {
		category, app := l.name, ""
		if l.name == flow.Unknown {
			if !other {
				continue
			}
			category = dataset.NoClass[0]
		}
		if l.PayloadFlows == 0 {
			continue // nothing in it that a model could read
		}
		vpn := "0"
		if flow.IsVPN(category) {
			vpn = "1"
		}
		if task == flow.App {
			category, app = app, category
			if l.name == flow.Unknown {
				category, app = dataset.NoClass[0], ""
			}
		}
		whole, err := filepath.Abs(f.dir)
		if err != nil {
			return err
		}
		row := []string{l.path, filepath.Base(whole), category, app, vpn, l.path, strconv.Itoa(f.linkType), strconv.Itoa(l.Packets),
			strconv.Itoa(l.Payload), strconv.Itoa(l.PayloadFlows), "dpclass record", how, "train", strings.Join(l.names(), " ")}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return f.writeManifest(append(slices.Clone(f.earlier), text.Bytes()...))
}

func (f *files) writeManifest(text []byte) error {
	_ = f.root.Remove(partName) // of a run that was killed
	file, err := f.create(partName)
	if err == nil {
		_, err = file.Write(text)
		err = errors.Join(err, file.Close())
	}
	if err == nil {
		err = f.root.Rename(partName, manifestName)
	}
	if err != nil {
		_ = f.root.Remove(partName)
		return f.problem(err)
	}
	return nil
}

// maxPrograms is how many programs a row of the manifest lists.
const maxPrograms = 20

// names returns the programs of a capture.
func (l *label) names() []string {
	all := make([]string, 0, len(l.programs))
	for name := range l.programs {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}

// recount counts what is in the file of a capture that was cut. Flows stays: some flows may
// have lost packets, few all.
func (f *files) recount(l *label) error {
	file, err := f.reopen(l, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	name := fmt.Sprintf("/proc/self/fd/%d", file.Fd()) // this file, whatever has its name now
	if l.PayloadFlows, l.Payload, err = dataset.Count(context.Background(), name); err != nil {
		return err
	}
	reader, err := capture.Open(name)
	if err != nil {
		return err
	}
	defer reader.Close()
	for {
		if _, err := reader.Next(); err != nil {
			l.Packets = reader.Stats().Packets
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// close writes everything and the manifest, and frees the directory.
func (f *files) close(by By, task flow.Task, other bool) error {
	// If the disk is full, this makes room for small captures that had not been written yet.
	err := f.lock.Truncate(reserveLast)
	all := f.sorted()
	slices.SortStableFunc(all, func(a, b *label) int { return len(a.waiting) - len(b.waiting) })
	for _, l := range all {
		err = errors.Join(err, f.flush(l))
	}
	for _, l := range f.order {
		err = errors.Join(err, l.file.Close())
		l.file = nil
	}
	for name, l := range f.labels {
		if l.size <= int64(len(f.header)) { // the disk was full before its first packet
			err = errors.Join(err, f.root.Remove(l.path))
			_ = f.root.Remove(l.name) // unless it has captures of earlier runs
			delete(f.labels, name)
		} else if l.cut {
			err = errors.Join(err, f.recount(l))
		}
	}
	// Make room for the manifest. The lock stays until it is complete.
	err = errors.Join(err, f.lock.Truncate(0), f.manifest(by, task, other))
	return errors.Join(err, f.release())
}
