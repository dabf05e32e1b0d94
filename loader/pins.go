// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/netns"
)

// Pins gives access to an attached interface through its pinned maps. It works without
// the process that attached, and any number of processes may have one. Its methods may
// be called from several goroutines.
type Pins struct {
	name   string
	dir    string // of the pins
	net    netns.Handle
	maps   bpfMaps
	info   bpfInterfaceInfo
	labels nameTable
	table  *Table
	rules  *Rules
}

// Open opens an attached interface of the calling thread's network namespace. The
// error wraps ErrNotAttached if the interface that has the name now is not attached.
func Open(iface string) (*Pins, error) { return defaultRoot().open(iface) }

func (r root) open(iface string) (*Pins, error) {
	found, err := r.find(iface)
	if err != nil {
		return nil, err
	}
	return openPlace(&found, iface)
}

// OpenAll opens all attached interfaces of the calling thread's network namespace, and
// those that are gone while their pins are left. Those that an agent is attaching are left
// out.
func OpenAll() ([]*Pins, error) { return defaultRoot().openAll() }

func (r root) openAll() (all []*Pins, err error) {
	here, err := r.here()
	if err != nil {
		return nil, err
	}
	for n := range here {
		name, err := here[n].nameNow()
		if err != nil {
			return all, err
		}
		p, err := openPlace(&here[n], name)
		if errors.Is(err, ErrAttaching) {
			continue
		}
		if err != nil {
			return all, err
		}
		all = append(all, p)
	}
	return all, nil
}

func openPlace(found *place, iface string) (*Pins, error) {
	ns, err := netns.Current()
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	p := &Pins{name: iface, dir: found.dir, net: ns}
	if err := p.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("interface %q: %w", iface, err), p.Close())
	}
	return p, nil
}

// open opens the maps and reads what they say about the interface. It may look a second
// time, if the pins were being made when it looked first.
func (p *Pins) open() error {
	err := p.openMaps()
	if err != nil {
		var complete bool
		if err, complete = p.incomplete(err); complete {
			if err = p.openMaps(); err != nil {
				err, _ = p.incomplete(err)
			}
		}
	}
	if err != nil {
		return err
	}
	if err := p.labels.load(p.maps.Labels); err != nil {
		return err
	}
	p.serve(DefaultTimeouts)
	return nil
}

func (p *Pins) openMaps() error {
	for name, m := range pinnedMaps(&p.maps) {
		opened, err := openMap(p.dir, name)
		if err != nil {
			return err
		}
		if *m != nil {
			(*m).Close()
		}
		*m = opened
	}
	if err := p.maps.Interface.Lookup(uint32(0), &p.info); err != nil {
		return fmt.Errorf("read how it is attached: %w", err)
	}
	if p.info.AttachedNs == 0 {
		return errors.New("they do not say how it is attached")
	}
	return nil
}

// incomplete returns the error for pins that could not be opened. While a process holds
// them, it makes or removes them. complete reports that a process has made them meanwhile.
func (p *Pins) incomplete(problem error) (err error, complete bool) {
	live, err := isLocked(p.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNotAttached, false
	case err == nil && live:
		if isEnding(p.dir) {
			return fmt.Errorf("%w: it is being detached", ErrNotAttached), false
		}
		if info, err := readInfo(p.dir); err == nil && info.AttachedNs != 0 && arePinned(p.dir) {
			return problem, true
		}
		return fault.Advise(ErrAttaching, "try again in a moment"), false
	}
	return fault.Advise(fmt.Errorf("the pins are incomplete: %w", problem), "remove them: dpclass detach %s", p.name), false
}

// isEnding reports whether the process that holds the pins is removing them. It removes
// that of its statistics first.
func isEnding(dir string) bool {
	stats, err := agentOf(dir)
	if err == nil {
		return stats.Ending
	}
	info, err := readInfo(dir)
	return err == nil && info.AttachedNs != 0
}

// serve creates the objects that work on the maps. It needs the maps, info and labels.
func (p *Pins) serve(timeouts Timeouts) {
	p.table = &Table{
		iface: p.name, maps: &p.maps, labels: &p.labels, tick: p.info.TickNs, timeouts: p.info.Timeouts,
		keep: timeouts.Ended, bothEnds: bothEnds(&p.info), inbox: inbox{maps: &p.maps}, evidence: newEvidenceTable(p.maps.Evidence),
	}
	p.rules = &Rules{maps: &p.maps, labels: &p.labels, dir: p.dir}
}

// Name returns the name of the interface.
func (p *Pins) Name() string { return p.name }

// Dir returns the directory of the pins. What else is pinned there goes with them.
func (p *Pins) Dir() string { return p.dir }

// Table returns the flows of the interface.
func (p *Pins) Table() *Table { return p.table }

// Rules returns the policy of the interface.
func (p *Pins) Rules() *Rules { return p.rules }

// Labels returns the labels that a verdict of this interface may have, by number.
func (p *Pins) Labels() []string { return p.labels.list() }

// Samples returns how many payload packets of a flow the kernel samples.
func (p *Pins) Samples() int { return int(p.info.Samples) }

// Close closes the maps. The programs stay attached.
func (p *Pins) Close() error {
	var errs []error
	if p.table != nil {
		errs = append(errs, p.table.inbox.close())
	}
	errs = append(errs, p.maps.Close())
	if p.net.IsOpen() {
		errs = append(errs, p.net.Close())
	}
	return errors.Join(errs...)
}

// pinnedMaps returns the maps that are pinned, by name.
func pinnedMaps(maps *bpfMaps) map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		"flows": &maps.Flows, "flows6": &maps.Flows6, "pending": &maps.Pending, "pending6": &maps.Pending6,
		"samples": &maps.Samples, "counters": &maps.Counters, "policy": &maps.Policy, "rules": &maps.Rules,
		"rule_stats": &maps.RuleStats, "buckets": &maps.Buckets, "policy_source": &maps.PolicySource,
		"active_rules": &maps.ActiveRules, "moments": &maps.Moments, "wall": &maps.Wall, "policy_clock": &maps.PolicyClock,
		"host_uses": &maps.HostUses, "protect": &maps.Protect, "protect_ports": &maps.ProtectPorts,
		"protect_flows": &maps.ProtectFlows, "ended": &maps.Ended, "sequence": &maps.Sequence,
		"fragments": &maps.Fragments, "evidence": &maps.Evidence, "enforced": &maps.Enforced, "kept": &maps.Kept, "dns": &maps.Dns,
		"names0": &maps.Names0, "names1": &maps.Names1, "hosts": &maps.Hosts, "ports": &maps.Ports,
		"interface": &maps.Interface, "agent": &maps.Agent, "labels": &maps.Labels,
	}
}

// arePinned reports whether all maps are pinned.
func arePinned(dir string) bool {
	for name := range pinnedMaps(&bpfMaps{}) {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

func openMap(dir, name string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
	if err != nil {
		return nil, fmt.Errorf("pinned map %q: %w", name, err)
	}
	return m, nil
}

// readInfo reads where and how the programs of a pin directory are attached.
func readInfo(dir string) (info bpfInterfaceInfo, err error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "interface"), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return info, err
	}
	defer m.Close()
	err = m.Lookup(uint32(0), &info)
	return info, err
}
