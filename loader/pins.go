// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
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
// error wraps ErrNotAttached if no interface of that name is attached.
func Open(iface string) (*Pins, error) { return defaultRoot().open(iface) }

func (r root) open(iface string) (*Pins, error) {
	dir, err := r.find(iface)
	if err != nil {
		return nil, err
	}
	ns, err := netns.Current()
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	p := &Pins{name: iface, dir: dir, net: ns}
	if err := p.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("interface %q: %w", iface, err), p.Close())
	}
	return p, nil
}

// open opens the maps and reads what they say about the interface.
func (p *Pins) open() (err error) {
	for name, m := range pinnedMaps(&p.maps) {
		if *m, err = openMap(p.dir, name); err != nil {
			return fault.Advise(fmt.Errorf("the pins are incomplete: %w", err), "remove them: dpclass detach %s", p.name)
		}
	}
	if err := p.maps.Interface.Lookup(uint32(0), &p.info); err != nil {
		return fmt.Errorf("read how it is attached: %w", err)
	}
	if err := p.labels.load(p.maps.Labels); err != nil {
		return err
	}
	p.serve(DefaultTimeouts)
	return nil
}

// serve creates the objects that work on the maps. It needs the maps, info and labels.
func (p *Pins) serve(timeouts Timeouts) {
	p.table = &Table{
		iface: p.name, maps: &p.maps, labels: &p.labels, tick: p.info.TickNs, timeouts: p.info.Timeouts,
		keep: timeouts.Ended, inbox: inbox{maps: &p.maps}, evidence: newEvidenceTable(p.maps.Evidence),
	}
	p.rules = &Rules{maps: &p.maps, labels: &p.labels}
}

// Name returns the name of the interface.
func (p *Pins) Name() string { return p.name }

// Table returns the flows of the interface.
func (p *Pins) Table() *Table { return p.table }

// Rules returns the policy of the interface.
func (p *Pins) Rules() *Rules { return p.rules }

// Labels returns the labels that a verdict of this interface may have, by number.
func (p *Pins) Labels() []string { return p.labels.list() }

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
		"protect": &maps.Protect, "protect6": &maps.Protect6, "protect_ports": &maps.ProtectPorts,
		"protect_flows": &maps.ProtectFlows, "ended": &maps.Ended, "sequence": &maps.Sequence,
		"evidence": &maps.Evidence, "enforced": &maps.Enforced, "kept": &maps.Kept, "dns": &maps.Dns,
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
