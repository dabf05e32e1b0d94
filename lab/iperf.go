// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// IperfServer starts an iperf3 server and waits until it listens.
func (h *Host) IperfServer(ctx context.Context, port int) (*Process, error) {
	p, err := h.Start(ctx, "iperf3", "--server", "--port", strconv.Itoa(port))
	if err != nil {
		return nil, err
	}
	return p, h.WaitTCP(ctx, p, port)
}

// Iperf says what an iperf3 client should do.
type Iperf struct {
	Server  string // address of the server
	Port    int
	UDP     bool
	Rate    string // as iperf3 --bitrate takes it, for example 50M; "": no limit for TCP, 1M for UDP
	Time    time.Duration
	Reverse bool // the server sends
	Streams int  // 0: 1
	Length  int  // bytes in a UDP payload or a TCP write; 0: iperf3's choice
	// ClientPort is the client's port of the data flow, not of the control connection.
	// 0: any port.
	ClientPort int
	Bind       string // local address of the client; "": the system's choice
	CPUs       string // CPU of the client and of the server, as in "1,0"; "": the scheduler's choice
}

// IperfResult is what iperf3 measured.
type IperfResult struct {
	SentBits, ReceivedBits float64 // bits per second of payload
	SentBytes, Received    uint64
	Packets, Lost          uint64 // UDP only
	Retransmits            uint64 // TCP only
}

// Args returns the arguments for iperf3, for callers that start it themselves.
func (i Iperf) Args() []string {
	args := []string{"--client", i.Server, "--port", strconv.Itoa(i.Port), "--time", fmt.Sprintf("%.0f", max(1, i.Time.Seconds()))}
	if i.UDP {
		args = append(args, "--udp")
	}
	if i.Rate != "" {
		args = append(args, "--bitrate", i.Rate)
	}
	if i.Reverse {
		args = append(args, "--reverse")
	}
	if i.Streams > 1 {
		args = append(args, "--parallel", strconv.Itoa(i.Streams))
	}
	if i.Length > 0 {
		args = append(args, "--length", strconv.Itoa(i.Length))
	}
	if i.CPUs != "" {
		args = append(args, "--affinity", i.CPUs)
	}
	if i.Bind != "" {
		args = append(args, "--bind", i.Bind)
	}
	if i.ClientPort > 0 {
		args = append(args, "--cport", strconv.Itoa(i.ClientPort))
	}
	return args
}

// Iperf runs an iperf3 client and waits for its result.
func (h *Host) Iperf(ctx context.Context, i Iperf) (IperfResult, error) {
	out, err := h.Run(ctx, "iperf3", append(i.Args(), "--json")...)
	var report struct {
		Error string
		End   struct {
			SumSent     iperfSum `json:"sum_sent"`
			SumReceived iperfSum `json:"sum_received"`
			Sum         iperfSum
		}
	}
	if jsonErr := json.Unmarshal([]byte(out), &report); err == nil {
		err = jsonErr
	}
	if report.Error != "" {
		return IperfResult{}, fmt.Errorf("host %q: iperf3 to %s port %d: %s", h.name, i.Server, i.Port, report.Error)
	}
	if err != nil {
		return IperfResult{}, err
	}
	sent, received := report.End.SumSent, report.End.SumReceived
	result := IperfResult{SentBits: sent.BitsPerSecond, ReceivedBits: received.BitsPerSecond,
		SentBytes: uint64(sent.Bytes), Received: uint64(received.Bytes), Retransmits: sent.Retransmits}
	if i.UDP {
		result.Packets, result.Lost = uint64(report.End.Sum.Packets), uint64(report.End.Sum.LostPackets)
		// Before 3.17 iperf3 reports one sum for both ends: derive what was received from the loss.
		if received.BitsPerSecond == 0 || received == sent {
			sum := report.End.Sum
			got := 0.0
			if sum.Packets > 0 {
				got = max(0, 1-float64(sum.LostPackets)/float64(sum.Packets))
			}
			result.SentBits, result.SentBytes = sum.BitsPerSecond, uint64(sum.Bytes)
			result.ReceivedBits, result.Received = sum.BitsPerSecond*got, uint64(sum.Bytes*got)
		}
	}
	return result, nil
}

type iperfSum struct {
	Bytes         float64
	BitsPerSecond float64 `json:"bits_per_second"`
	Retransmits   uint64
	Packets       int64
	LostPackets   int64 `json:"lost_packets"`
}
