// SPDX-License-Identifier: Apache-2.0

// Package loader loads the BPF programs, attaches them to an interface and
// gives typed access to what they keep: samples, flows, verdicts, the policy
// and counters.
//
// Everything is pinned under a directory of its own for each interface, so that
// [Open] works without the process that attached. Maps, policy and counters are
// per interface.
package loader

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/dpclass/dpclass/internal/netns"
)

// Errors that callers tell apart.
var (
	ErrNotAttached = errors.New("dpclass is not attached")
	ErrNoFlow      = errors.New("no such flow")
	ErrBusy        = errors.New("another agent is attached")
	ErrForeignXDP  = errors.New("another XDP program is attached")
)

// Mode is how the ingress program is attached.
type Mode string

// Auto is native XDP where the driver takes it, else TC. Native is XDP in the
// driver. TC is a tc program in XDP's place: every device has it. Generic XDP
// is never used: it sees linearised super-packets without their segment count.
const (
	Auto   Mode = "auto"
	Native Mode = "native"
	TC     Mode = "tc"
)

// ParseMode reads the name of a mode.
func ParseMode(name string) (Mode, error) {
	switch mode := Mode(name); mode {
	case Auto, Native, TC:
		return mode, nil
	}
	return "", fmt.Errorf("mode %q: want auto, native or tc", name)
}

// Timeouts end flows: without a packet for so long a flow has ended ("idle").
// An ended flow stays visible for Ended.
type Timeouts struct {
	TCPOpening     time.Duration // packets of one direction only
	TCPEstablished time.Duration
	UDPSingle      time.Duration // packets of one direction only
	UDPStream      time.Duration
	Ended          time.Duration
}

// DefaultTimeouts are near those of nf_conntrack for what is short, and shorter
// for idle connections: a verdict is soon found again.
var DefaultTimeouts = Timeouts{
	TCPOpening:     30 * time.Second,
	TCPEstablished: 300 * time.Second,
	UDPSingle:      30 * time.Second,
	UDPStream:      120 * time.Second,
	Ended:          30 * time.Second,
}

// Config is how to attach. Zero values are the defaults.
type Config struct {
	Mode       Mode
	Ingress    bool // neither Ingress nor Egress: both
	Egress     bool
	Samples    int    // budget of a flow; default 5; negative: none
	VLAN       bool   // VLAN ids are part of the 5-tuple
	MaxFlows   uint32 // decided flows, for IPv4 and IPv6 each; default 65536
	MaxPending uint32 // flows without a final verdict, likewise
	RingBytes  uint32 // of the sample ring, a power of two; default 4 MiB
	Timeouts   Timeouts
	Labels     []string // names beyond flow.Vocabulary that the model uses
	Clsact     bool     // clsact filters even where the kernel has tcx
}

// DefaultSamples is the sample budget of a flow.
const DefaultSamples = 5

func (c *Config) setDefaults() error {
	if c.Mode == "" {
		c.Mode = Auto
	}
	if !c.Ingress && !c.Egress {
		c.Ingress, c.Egress = true, true
	}
	if c.Samples == 0 {
		c.Samples = DefaultSamples
	}
	c.Samples = max(c.Samples, 0)
	if c.Samples > 255 {
		return fmt.Errorf("%d samples a flow: want 1 to 255", c.Samples)
	}
	if c.MaxFlows == 0 {
		c.MaxFlows = 1 << 16
	}
	if c.MaxPending == 0 {
		c.MaxPending = 1 << 16
	}
	if c.RingBytes == 0 {
		c.RingBytes = 4 << 20
	}
	if c.RingBytes < uint32(os.Getpagesize()) || c.RingBytes&(c.RingBytes-1) != 0 {
		return fmt.Errorf("sample ring of %d bytes: want a power of two of at least a page", c.RingBytes)
	}
	if c.Timeouts == (Timeouts{}) {
		c.Timeouts = DefaultTimeouts
	}
	return nil
}

// Interface is an interface that dpclass is attached to. Its methods may be
// called from several goroutines.
type Interface struct {
	name string
	dir  string // of the pins
	net  netns.Handle
	maps bpfMaps
	info bpfInterfaceInfo
	log  *slog.Logger

	// Of the process that attached; nil after Open.
	lock       *os.File
	collection *ebpf.Collection
	links      []link.Link
	keep       time.Duration // an ended flow stays visible

	inbox inbox
	names nameTable

	sweepMu   sync.Mutex
	endsSeen  uint64
	ringMu    sync.Mutex
	ringUsed  uint64
	ringBytes uint64
}

// Name returns the name of the interface.
func (i *Interface) Name() string { return i.name }

// Close lets go of the interface. What is attached stays attached, and pinned.
func (i *Interface) Close() error {
	errs := []error{i.inbox.close()}
	if i.lock != nil && i.maps.Agent != nil {
		// The next agent takes the lock before it says anything: nothing here may be taken for its word.
		errs = append(errs, i.maps.Agent.Put(uint32(0), &bpfAgentStats{}))
	}
	for _, l := range i.links {
		errs = append(errs, l.Close())
	}
	i.links = nil
	if i.collection != nil {
		i.collection.Close()
		i.collection = nil
	} else {
		errs = append(errs, i.maps.Close())
	}
	if i.lock != nil {
		errs = append(errs, i.lock.Close())
		i.lock = nil
	}
	if i.net.IsOpen() {
		errs = append(errs, i.net.Close())
	}
	return errors.Join(errs...)
}
