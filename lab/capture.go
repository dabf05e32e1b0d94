// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// snapshot is the most bytes of a packet that are captured: the largest packet with its Ethernet header.
// On devices without such headers tcpdump keeps room for so much for each packet. With its default of
// 256 KiB its buffer would hold 256 packets, which a busy machine loses.
const snapshot = 65600

// Capture starts tcpdump on a device and returns when it is capturing. It records
// whole packets. Interrupt the process to end the capture with a complete file.
func (h *Host) Capture(ctx context.Context, iface, file string, filter ...string) (*Process, error) {
	return h.CaptureFrames(ctx, iface, file, snapshot, filter...)
}

// CaptureFrames is like Capture for a device whose frames have at most the given number of
// bytes. In immediate mode, the kernel's buffer has a slot of that size for each packet, so
// where no offload makes super-packets, it holds a hundred times more of them.
func (h *Host) CaptureFrames(ctx context.Context, iface, file string, size int, filter ...string) (*Process, error) {
	args := append([]string{"--interface", iface, "-n", "-U", "--immediate-mode", "--snapshot-length", strconv.Itoa(size), "--buffer-size", "65536", "-Z", "root",
		"-w", file}, filter...)
	p, err := h.Start(ctx, "tcpdump", args...)
	if err != nil {
		return nil, err
	}
	return p, p.WaitOutput(ctx, "listening on")
}

// Packets returns the packets of a capture file as tcpdump prints them, one string per
// packet, including the fields of the IP header (tos, ttl, length).
func (h *Host) Packets(ctx context.Context, file string, filter ...string) ([]string, error) {
	out, err := h.Run(ctx, "tcpdump", append([]string{"-n", "-v", "-r", file}, filter...)...)
	if err != nil {
		return nil, err
	}
	// With -v tcpdump prints the IPv4 header on one line and the rest indented below it.
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

// Replay says how to send a capture file with tcpreplay.
type Replay struct {
	Iface string
	File  string
	PPS   float64 // packets per second; 0: as fast as possible
}

// Replay sends the packets of an Ethernet capture file out of a device. It waits until
// all are sent and returns tcpreplay's report.
func (h *Host) Replay(ctx context.Context, r Replay) (string, error) {
	args := []string{"--intf1", r.Iface}
	if r.PPS > 0 {
		args = append(args, fmt.Sprintf("--pps=%g", r.PPS))
	} else {
		args = append(args, "--topspeed")
	}
	return h.Run(ctx, "tcpreplay", append(args, r.File)...)
}
