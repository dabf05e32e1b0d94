// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
)

// lined returns the table entry of a decided flow that has lines, without what they have counted.
func (k *kernel) lined(c conn) bpfFlow {
	k.t.Helper()
	f, decided := k.rawEntry(c.key())
	if !decided || f.Line == 0 {
		k.t.Fatalf("flow %q: decided %v, place %d: want lines", c.key(), decided, f.Line)
	}
	return f
}

func skipGeneral(t *testing.T) {
	t.Helper()
	if noFastPath {
		t.Skip("SKIPPED: DPCLASS_NO_FAST_PATH is set")
	}
}

// TestLineCounts: packets of decided flows are counted in their lines, the flow shows all of them, the sweep moves them to its
// entry, and its record has them.
func TestLineCounts(t *testing.T) {
	skipGeneral(t)
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	for n, in := range []string{progXDP, progIn} {
		for _, c := range []conn{tcp(n), tcp6(n), udp(n), udp6(n)} {
			k.begun(c, "chat", 1, true)
			k.pass(in, c.sent(ack, 10))
			k.pass(progOut, c.answer(ack, 10)) // the lines have their rules now
			before, seen := k.lined(c), k.flow(c.key())
			for range 5 {
				k.pass(in, c.sent(ack|psh, 100))
				k.pass(progOut, c.answer(ack, 30))
			}
			if f := k.lined(c); f.PacketsIn != before.PacketsIn || f.PacketsOut != before.PacketsOut {
				t.Errorf("%v, %s: %d and %d packets took the general way", c.key(), in, f.PacketsIn-before.PacketsIn, f.PacketsOut-before.PacketsOut)
			}
			header := uint64(len(c.spec(ack, 0).Build().Data))
			r := k.flow(c.key())
			if r.PacketsIn != seen.PacketsIn+5 || r.BytesIn != seen.BytesIn+5*(header+100) ||
				r.PacketsOut != seen.PacketsOut+5 || r.BytesOut != seen.BytesOut+5*(header+30) {
				t.Errorf("%v, %s: before %+v, after %+v", c.key(), in, seen.Live, r.Live)
			}
			k.sweep()
			if f := k.lined(c); f.PacketsIn != r.PacketsIn || f.BytesIn != r.BytesIn || f.PacketsOut != r.PacketsOut || f.BytesOut != r.BytesOut {
				t.Errorf("%v, %s: after a sweep the entry has %+v, want %+v", c.key(), in, f, r.Live)
			}
			if again := k.flow(c.key()); *again.Live != *r.Live {
				t.Errorf("%v, %s: the sweep changed %+v to %+v", c.key(), in, r.Live, again.Live)
			}
			k.pass(in, c.sent(ack, 100))
			k.age(c.key(), 10*time.Minute)
			ended := k.sweep()
			if len(ended) != 1 || ended[0].Packets != r.Packets+1 || ended[0].Ended != "idle" {
				t.Errorf("%v, %s: records %+v, want one of %d packets", c.key(), in, ended, r.Packets+1)
			}
			if f, _ := k.rawEntry(c.key()); f.Line != 0 {
				t.Errorf("%v, %s: ended, and still has place %d", c.key(), in, f.Line)
			}
		}
	}
}

// TestLinesOfTagged: with Config.VLAN, flows of tagged frames have lines too.
func TestLinesOfTagged(t *testing.T) {
	skipGeneral(t)
	t.Parallel()
	k := newKernel(t, Config{VLAN: true, Samples: -1}, ethernet)
	for _, c := range []conn{udp(1), udp6(1)} {
		for _, ids := range [][]uint16{{7}, {8}, {7, 9}} {
			frame := c.sent(0, 50)
			for n := len(ids) - 1; n >= 0; n-- {
				tag := []byte{0x81, 0, byte(ids[n] >> 8), byte(ids[n])}
				frame = append(append(append([]byte{}, frame[:12]...), tag...), frame[12:]...)
			}
			key := c.key()
			for _, id := range ids {
				key.VLAN = key.VLAN<<12 | uint32(id)
			}
			k.pass(progXDP, frame)
			k.decide(k.id(key), "chat", 1, true)
			k.pass(progXDP, frame)
			before, _ := k.rawEntry(key)
			k.pass(progXDP, frame, frame)
			if f, _ := k.rawEntry(key); f.Line == 0 || f.PacketsIn != before.PacketsIn {
				t.Errorf("%v: place %d, %d packets took the general way", key, f.Line, f.PacketsIn-before.PacketsIn)
			}
			if r := k.flow(key); r.Packets != 4 {
				t.Errorf("%v: %d packets, want 4", key, r.Packets)
			}
		}
	}
}

// TestFullLines: flows beyond the last place take the general way and lack nothing. They get a place as soon as one is free.
func TestFullLines(t *testing.T) {
	skipGeneral(t)
	t.Parallel()
	const flows = 64
	k := newKernel(t, Config{MaxFlows: flows, Samples: -1, Timeouts: Timeouts{Ended: 1}}, ethernet)
	k.policy(flow.Rule{Categories: []string{"chat"}, Action: flow.Action{Drop: true, DSCP: -1}})
	var without []conn
	for n := range flows {
		c := k.begun(udp(n), "chat", 1, true)
		if f, _ := k.rawEntry(c.key()); f.Line == 0 {
			without = append(without, c)
		}
		for range 3 {
			if verdict, _ := k.run(progXDP, c.sent(0, 10)); verdict != xdpDrop {
				t.Errorf("%v was not dropped", c.key())
			}
		}
		if r := k.flow(c.key()); r.Packets != 4 || r.Dropped != 3 {
			t.Errorf("%v: %+v", c.key(), r.Live)
		}
	}
	if len(without) != flows/16 {
		t.Errorf("%d of %d flows have no lines, want %d", len(without), flows, flows/16)
	}
	for n := range 2 * len(without) {
		k.age(udp(n).key(), 10*time.Minute)
	}
	for range 4 {
		k.sweep()
	}
	for _, c := range without {
		before := k.lined(c)
		k.pass(progOut, k.begun(tcp(1000), "voip", 1, true).answer(ack, 0))
		const packets = 3000
		for range packets {
			if verdict, _ := k.run(progXDP, c.sent(0, 10)); verdict != xdpDrop {
				t.Fatalf("%v was not dropped", c.key())
			}
		}
		f, r := k.lined(c), k.flow(c.key())
		if r.PacketsIn != before.PacketsIn+packets || r.Dropped != before.Dropped+packets || r.DroppedBytes != 38*r.Dropped {
			t.Errorf("%v: before %+v, %d packets later %+v", c.key(), before, packets, r.Live)
		}
		var line bpfLine4
		if err := k.maps.LinesIn.Lookup(f.Line, &line); err != nil || line.Head.Count>>linePacketsShift < 100 {
			t.Errorf("%v: the line has counted %d of %d packets: %v", c.key(), line.Head.Count>>linePacketsShift, packets, err)
		}
	}
}

// TestLineFollowsVerdict: each change of a verdict or of the policy acts from the next packet on, also after the last
// version of a line.
func TestLineFollowsVerdict(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	drop := func(category string) {
		k.policy(flow.Rule{Categories: []string{category}, Action: flow.Action{Drop: true, DSCP: -1}})
	}
	set := func(c conn, category string, times int) {
		t.Helper()
		decisions := make([]flow.Decision, times)
		for n := range decisions {
			decisions[n] = flow.Decision{ID: flow.ID{Key: c.key()}, Settled: true, Verdicts: flow.Verdicts{
				flow.Category: {Label: category, Confidence: 1, Source: flow.SourceOperator, Final: true}}}
		}
		if stale, err := k.table.Apply(decisions); err != nil || stale != 0 {
			t.Fatal(stale, err)
		}
	}
	for _, c := range []conn{tcp(1), udp6(1)} {
		k.begun(c, "chat", 1, true)
		check := func(what string, want uint32) {
			t.Helper()
			for range 3 {
				if verdict, _ := k.run(progXDP, c.sent(ack, 10)); verdict != want {
					t.Fatalf("%v: after %s %d, want %d", c.key(), what, verdict, want)
				}
			}
		}
		drop("voip")
		check("the policy", xdpPass)
		set(c, "voip", 1)
		check("the verdict", xdpDrop)
		drop("chat")
		check("another policy", xdpPass)
		set(c, "chat", 1)
		check("another verdict", xdpDrop)
		set(c, "voip", 1<<16) // more than there are versions
		check("the last version", xdpPass)
		k.sweep()
		k.sweep()
		if !noFastPath {
			k.lined(c)
		}
		check("a new line", xdpPass)
		set(c, "chat", 1)
		check("a verdict on the new line", xdpDrop)
	}
}

// TestLineOneHook: where one hook sees both ends, a connection of which each end has sent a lot ends with their FINs.
func TestLineOneHook(t *testing.T) {
	t.Parallel()
	numbers := func(frame []byte, seq, acked uint32) []byte {
		const tcp = 14 + 20
		frame = bytes.Clone(frame)
		binary.BigEndian.PutUint32(frame[tcp+4:], seq)
		binary.BigEndian.PutUint32(frame[tcp+8:], acked)
		return frame
	}
	k := newKernel(t, Config{Samples: -1, Ingress: true}, ethernet)
	c := tcp(1)
	client, server := uint32(1001), uint32(5001)
	k.pass(progXDP, numbers(c.sent(syn, 0), client-1, 0))
	k.pass(progXDP, numbers(c.answer(syn|ack, 0), server-1, client))
	k.pass(progXDP, numbers(c.sent(ack, 0), client, server))
	k.decide(k.id(c.key()), "chat", 1, true)
	for range 200 {
		k.pass(progXDP, numbers(c.answer(ack|psh, 1000), server, client))
		server += 1000
		k.pass(progXDP, numbers(c.sent(ack, 0), client, server))
	}
	if !noFastPath {
		k.lined(c)
	}
	k.pass(progXDP, numbers(c.answer(fin|ack, 0), server, client))
	k.pass(progXDP, numbers(c.sent(fin|ack, 0), client, server+1))
	if r := k.flow(c.key()); r.Ended != "fin" {
		t.Errorf("ended %q", r.Ended)
	}
}
