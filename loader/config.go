// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"os"
	"time"

	"github.com/dpclass/dpclass/flow"
)

// Mode is how the ingress program is attached.
type Mode string

// Native is XDP in the driver. TC is a tc program instead of XDP, which works on every
// device. Auto is Native if the driver supports it, else TC. Generic XDP is never
// used: it sees linearised super-packets without their segment count.
const (
	Auto   Mode = "auto"
	Native Mode = "native"
	TC     Mode = "tc"
)

// ParseMode returns the mode with the given name, or an error if there is none.
func ParseMode(name string) (Mode, error) {
	switch mode := Mode(name); mode {
	case Auto, Native, TC:
		return mode, nil
	}
	return "", fmt.Errorf("mode %q: want auto, native or tc", name)
}

// Timeouts say how long a flow may be without a packet before it ends ("idle"). Zero
// values mean the defaults.
type Timeouts struct {
	TCPOpening     time.Duration // packets of one direction only
	TCPEstablished time.Duration
	UDPSingle      time.Duration // packets of one direction only
	UDPStream      time.Duration
	Ended          time.Duration // how long an ended flow stays visible
	Held           time.Duration // how long a rule acts by the verdict of an earlier flow of the same 5-tuple
}

// DefaultTimeouts are similar to nf_conntrack's short ones. Those for idle connections
// are shorter than nf_conntrack's, because a flow soon has a verdict again.
var DefaultTimeouts = Timeouts{
	TCPOpening:     30 * time.Second,
	TCPEstablished: 300 * time.Second,
	UDPSingle:      30 * time.Second,
	UDPStream:      120 * time.Second,
	Ended:          30 * time.Second,
	Held:           5 * time.Minute,
}

func (t *Timeouts) setDefaults() {
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&t.TCPOpening, DefaultTimeouts.TCPOpening}, {&t.TCPEstablished, DefaultTimeouts.TCPEstablished},
		{&t.UDPSingle, DefaultTimeouts.UDPSingle}, {&t.UDPStream, DefaultTimeouts.UDPStream},
		{&t.Ended, DefaultTimeouts.Ended}, {&t.Held, DefaultTimeouts.Held},
	} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
	}
}

// Config says how to attach. Zero values mean the defaults.
type Config struct {
	Mode       Mode
	Ingress    bool // neither Ingress nor Egress: both; Ingress alone on a loopback device, where every packet passes both
	Egress     bool
	Persist    bool   // programs and policy outlive the process; else the kernel takes them off when it ends, however it does
	Samples    int    // payload packets sampled of each flow, at most flow.MaxSamples; default flow.DefaultSamples; negative: none
	DNS        bool   // copy DNS answers, for Attachment.DNS
	VLAN       bool   // VLAN ids are part of the 5-tuple
	MaxFlows   uint32 // decided flows, for IPv4 and IPv6 each; default 65536
	MaxPending uint32 // flows without a final verdict, for IPv4 and IPv6 each; default 65536
	RingBytes  uint32 // size of the sample ring, a power of two; default 4 MiB
	Delays     bool   // for tests of races: hold some packets up where others may come between
	NoFastPath bool   // decided flows too are looked up in the tables: see bpf/line.h
	Timeouts   Timeouts
	Labels     []string // names beyond flow.Vocabulary that the model uses
	Clsact     bool     // use clsact filters even if the kernel has tcx
}

// chooseDirections sets the default of Ingress and Egress.
func (c *Config) chooseDirections(loopback bool) {
	if !c.Ingress && !c.Egress {
		c.Ingress, c.Egress = true, !loopback
	}
}

func (c *Config) setDefaults() error {
	if c.Mode == "" {
		c.Mode = Auto
	}
	if c.Samples == 0 {
		c.Samples = flow.DefaultSamples
	}
	c.Samples = max(c.Samples, 0)
	if c.Samples > flow.MaxSamples {
		return fmt.Errorf("%d samples per flow: want 1 to %d", c.Samples, flow.MaxSamples)
	}
	if c.MaxFlows == 0 {
		c.MaxFlows = 1 << 16
	}
	if c.MaxPending == 0 {
		c.MaxPending = 1 << 16
	}
	if c.MaxFlows > maxFlows || c.MaxPending > maxFlows {
		return fmt.Errorf("tables of %d and %d flows: at most %d", c.MaxFlows, c.MaxPending, maxFlows)
	}
	if c.RingBytes == 0 {
		c.RingBytes = 4 << 20
	}
	if c.RingBytes < uint32(os.Getpagesize()) || c.RingBytes&(c.RingBytes-1) != 0 {
		return fmt.Errorf("sample ring of %d bytes: want a power of two of at least a page", c.RingBytes)
	}
	c.Timeouts.setDefaults()
	return nil
}
