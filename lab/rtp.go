// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Call is a voice call between two hosts, A and B, over real UDP sockets: RTP (RFC 3550)
// with G.711 audio in both directions, one packet every 20 ms.
type Call struct {
	Flow string // FLOW expression of the call

	cancel   context.CancelFunc
	wait     sync.WaitGroup
	sent     [2]atomic.Uint64 // by A, by B
	received [2]atomic.Uint64
	failure  atomic.Pointer[error]
}

// CallStats counts the packets of a call in both directions.
type CallStats struct{ SentByA, ReceivedByB, SentByB, ReceivedByA uint64 }

// StartCall starts a call between two ADDR:PORT. It runs until Stop is called or the
// context ends.
func StartCall(ctx context.Context, a *Host, addrA string, b *Host, addrB string) (*Call, error) {
	endA, err := netip.ParseAddrPort(addrA)
	if err != nil {
		return nil, fmt.Errorf("call from %q: %w", addrA, err)
	}
	endB, err := netip.ParseAddrPort(addrB)
	if err != nil {
		return nil, fmt.Errorf("call to %q: %w", addrB, err)
	}
	connA, err := a.ListenUDP(ctx, addrA)
	if err != nil {
		return nil, fmt.Errorf("call from %q: %w", addrA, err)
	}
	connB, err := b.ListenUDP(ctx, addrB)
	if err != nil {
		_ = connA.Close()
		return nil, fmt.Errorf("call to %q: %w", addrB, err)
	}
	c := &Call{Flow: fmt.Sprintf("udp %s %s", endA, endB)}
	ctx, c.cancel = context.WithCancel(ctx)
	for i, conn := range []*net.UDPConn{connA, connB} {
		peer := []netip.AddrPort{endB, endA}[i]
		c.wait.Add(2)
		go func() {
			defer c.wait.Done()
			c.talk(ctx, conn, peer, &c.sent[i])
		}()
		go func() {
			defer c.wait.Done()
			c.listen(conn, &c.received[i])
		}()
	}
	context.AfterFunc(ctx, func() {
		_ = connA.Close()
		_ = connB.Close()
	})
	return c, nil
}

// talk sends a packet every 20 ms.
func (c *Call) talk(ctx context.Context, conn *net.UDPConn, peer netip.AddrPort, sent *atomic.Uint64) {
	packet := make([]byte, 12+160)
	packet[0] = 0x80 // version 2
	sequence, stamp, source := uint16(rand.Uint32()), rand.Uint32(), rand.Uint32()
	binary.BigEndian.PutUint32(packet[8:], source)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for sample := 0; ; {
		binary.BigEndian.PutUint16(packet[2:], sequence)
		binary.BigEndian.PutUint32(packet[4:], stamp)
		for i := range packet[12:] {
			packet[12+i] = muLaw(Voice(float64(sample) / 8000))
			sample++
		}
		if _, err := conn.WriteToUDPAddrPort(packet, peer); err == nil {
			sent.Add(1)
		} else if ctx.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			c.failure.CompareAndSwap(nil, &err)
		}
		sequence++
		stamp += 160
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Voice returns a voice-like sound at the time t, in seconds, as a value in -1..1: some
// harmonics that rise and fall, and some noise.
func Voice(t float64) float64 {
	loud := 0.5 + 0.5*math.Sin(2*math.Pi*2.3*t)
	voice := 0.0
	for harmonic := 1.0; harmonic <= 5; harmonic++ {
		voice += math.Sin(2*math.Pi*137*harmonic*t) / harmonic
	}
	return loud*voice/3 + 0.02*rand.Float64()
}

// muLaw encodes a sample in -1..1 as G.711 mu-law.
func muLaw(value float64) byte {
	const bias, clip = 0x84, 32635
	sample := int(value * 32767)
	sign := byte(0)
	if sample < 0 {
		sign, sample = 0x80, -sample
	}
	sample = min(sample, clip) + bias
	exponent := 7
	for mask := 0x4000; exponent > 0 && sample&mask == 0; mask >>= 1 {
		exponent--
	}
	mantissa := byte(sample>>(exponent+3)) & 0x0f
	return ^(sign | byte(exponent)<<4 | mantissa)
}

func (c *Call) listen(conn *net.UDPConn, received *atomic.Uint64) {
	packet := make([]byte, 1500)
	for {
		if _, err := conn.Read(packet); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		received.Add(1)
	}
}

// Stats returns the packets so far.
func (c *Call) Stats() CallStats {
	return CallStats{SentByA: c.sent[0].Load(), ReceivedByB: c.received[1].Load(), SentByB: c.sent[1].Load(), ReceivedByA: c.received[0].Load()}
}

// Stop ends the call. It returns an error if a packet could not be sent.
func (c *Call) Stop() (CallStats, error) {
	c.cancel()
	c.wait.Wait()
	stats := c.Stats()
	if failure := c.failure.Load(); failure != nil {
		return stats, fmt.Errorf("call %q: %w", c.Flow, *failure)
	}
	return stats, nil
}
