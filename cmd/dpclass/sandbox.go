// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/ort"
	pinfs "github.com/dpclass/dpclass/internal/bpffs" // tests have a constant of that name
	"github.com/dpclass/dpclass/internal/capabilities"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/confine"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/netns"
	"github.com/dpclass/dpclass/loader"
)

// sandbox is what dpclass attach gives up before it reads packets and runs networks, and
// what it keeps to work without: the process that reads models, the open library.
type sandbox struct {
	g       *cli.Globals
	models  []string // of the command line
	off     bool     // --no-sandbox, or the process is not this verb's alone
	reader  *modelReader
	onnx    *os.File // ONNX Runtime's library
	entered bool
	level   int // version of Landlock's interface, 0 if it is not in force
}

// newSandbox starts what the agent needs in a sandbox. It takes nothing away yet.
func (f *attachFlags) newSandbox(g *cli.Globals) (*sandbox, error) {
	box := &sandbox{g: g, models: f.models, off: f.noSandbox || !g.Alone}
	if box.off || f.noClassify {
		return box, nil
	}
	// If there is no library, the classifier says so.
	if path, err := ort.Find(g.Library); err == nil {
		if box.onnx, err = os.Open(path); err != nil {
			return nil, fmt.Errorf("ONNX Runtime's library: %w", err)
		}
	}
	var err error
	box.reader, err = startModelReader(f.models)
	if err != nil {
		return nil, errors.Join(err, box.close())
	}
	return box, nil
}

// load reads the models of the command line, else the chosen ones, as they are now.
func (b *sandbox) load() ([]*model.Model, error) {
	if b.reader == nil {
		return loadModels(b.models)
	}
	return b.reader.load()
}

// library is the path of ONNX Runtime's library for [classifier.Options].
func (b *sandbox) library() string {
	// In a user's home directory, say, the path may lead nowhere any more.
	if b.onnx != nil && b.entered && unix.Access(b.onnx.Name(), unix.R_OK) != nil {
		return fmt.Sprintf("/proc/self/fd/%d", b.onnx.Fd())
	}
	return b.g.Library
}

// readable is what the agent reads, beside ONNX Runtime's library: what the dynamic linker
// and that library need, the state of the kernel, and the names of network namespaces.
var readable = []string{
	"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo",
	"/proc", "/sys/devices", "/sys/class", "/sys/kernel/btf", "/run/netns", "/dev/null",
}

// enter gives up all rights that the agent does not need, for good and in all threads.
func (b *sandbox) enter(log *slog.Logger) error {
	if b.off {
		if b.g.Alone {
			log.Warn("--no-sandbox: the agent keeps all rights that it was started with")
		}
		return nil
	}
	// What is missing, Attach says.
	if err := loader.Prepare(); err != nil {
		log.Debug("prepare the BPF file system", "error", err)
	}
	if err := b.enterNetns(); err != nil {
		return err
	}
	keep, err := capabilities.Keep()
	if err != nil {
		return err
	}
	if foreign := foreignPins(); foreign != "" && confine.Has(unix.CAP_DAC_OVERRIDE) {
		log.Warn("the agent keeps CAP_DAC_OVERRIDE, because another user owns a directory of pins", "directory", foreign)
		keep = append(keep, unix.CAP_DAC_OVERRIDE)
	}
	paths := confine.Paths{Read: append(readable, filepath.SplitList(os.Getenv("LD_LIBRARY_PATH"))...), Write: []string{pinfs.Path}}
	if b.onnx != nil {
		paths.Read = append(paths.Read, b.onnx.Name())
	}
	// Files first, because a directory above one may be closed to who has three capabilities.
	if b.level, err = confine.Files(paths); err != nil {
		return fault.Advise(err, "use --no-sandbox to attach with all rights")
	}
	whole, err := confine.Capabilities(keep...)
	if err != nil {
		return fault.Advise(err, "use --no-sandbox to attach with all rights")
	}
	b.entered = true
	if b.level == 0 {
		log.Warn("the kernel has no Landlock: the agent may still use the files of its user (see dpclass doctor)")
	}
	log.Debug("the agent has given up what it does not need", "capabilities", strings.Join(capabilities.Names(keep), ","),
		"bounding set", whole, "Landlock", b.level)
	return nil
}

// enterNetns moves all threads to the namespace of --netns: later, nothing could enter it.
func (b *sandbox) enterNetns() error {
	if b.g.Netns == "" {
		return nil
	}
	ns, err := netns.Current() // of this thread, which is there already
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer ns.Close()
	if !confine.Has(unix.CAP_SYS_ADMIN) { // the process was in this namespace from the start
		return nil
	}
	return confine.EnterNetns(int(ns))
}

// foreignPins returns a directory of pins that belongs to another user than this process's,
// "" if none does.
func foreignPins() string {
	own := uint32(os.Geteuid())
	dirs := []string{pinfs.Path, filepath.Join(pinfs.Path, "dpclass")}
	for _, pattern := range []string{"*", "*/*"} {
		found, _ := filepath.Glob(filepath.Join(pinfs.Path, "dpclass", pattern)) // the pattern is well-formed
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		var stat unix.Stat_t
		if unix.Stat(dir, &stat) == nil && stat.Uid != own {
			return dir
		}
	}
	return ""
}

// close ends the process that reads models.
func (b *sandbox) close() error {
	var errs []error
	if b.reader != nil {
		errs = append(errs, b.reader.close())
	}
	if b.onnx != nil {
		errs = append(errs, b.onnx.Close())
	}
	return errors.Join(errs...)
}
