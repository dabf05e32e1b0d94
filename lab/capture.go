// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"strings"
)

// Capture starts tcpdump on a device and returns once it captures. Its
// Interrupt ends the capture with the file complete. Whole packets are kept.
func (h *Host) Capture(ctx context.Context, iface, file string, filter ...string) (*Process, error) {
	args := append([]string{"--interface", iface, "-n", "-U", "--immediate-mode", "--snapshot-length", "0", "--buffer-size", "65536", "-Z", "root",
		"-w", file}, filter...)
	p, err := h.Start(ctx, "tcpdump", args...)
	if err != nil {
		return nil, err
	}
	return p, p.WaitOutput(ctx, "listening on")
}

// Packets prints the packets of a capture file as tcpdump does, one a line, with
// the IP header's fields (tos, ttl, length).
func (h *Host) Packets(ctx context.Context, file string, filter ...string) ([]string, error) {
	out, err := h.Run(ctx, "tcpdump", append([]string{"-n", "-v", "-r", file}, filter...)...)
	if err != nil {
		return nil, err
	}
	// -v prints the IPv4 header on a line of its own, the rest indented below.
	var packets []string
	for _, line := range strings.Split(strings.TrimRight(out, "\n"), "\n") {
		switch {
		case line == "":
		case strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
			if len(packets) > 0 {
				packets[len(packets)-1] += " " + strings.TrimSpace(line)
			}
		default:
			packets = append(packets, line)
		}
	}
	return packets, nil
}

// Replay says how tcpreplay sends a capture file.
type Replay struct {
	Iface string
	File  string
	// Mbps is the rate; 0: as fast as it goes. PPS is a rate in packets.
	Mbps, PPS float64
	// Timed keeps the file's own timing, faster by this factor.
	Timed float64
	Loop  int
}

// Replay sends the packets of a capture file (Ethernet) out of a device, to the
// end, and returns tcpreplay's report.
func (h *Host) Replay(ctx context.Context, r Replay) (string, error) {
	args := []string{"--intf1", r.Iface}
	switch {
	case r.Timed > 0:
		args = append(args, fmt.Sprintf("--multiplier=%g", r.Timed))
	case r.PPS > 0:
		args = append(args, fmt.Sprintf("--pps=%g", r.PPS))
	case r.Mbps > 0:
		args = append(args, fmt.Sprintf("--mbps=%g", r.Mbps))
	default:
		args = append(args, "--topspeed")
	}
	if r.Loop > 1 {
		args = append(args, fmt.Sprintf("--loop=%d", r.Loop))
	}
	return h.Run(ctx, "tcpreplay", append(args, r.File)...)
}
