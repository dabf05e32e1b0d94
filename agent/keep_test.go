// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dpclass/dpclass/flow"
)

// The first samples of flows are kept, and no more of them than the budget.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		r.start()
		p := r.ports[0]
		time.Sleep(keepEvery * 5 / 2) // between two ticks
		packet := []byte{0x45, 1, 2, 3}
		for n := range 3 * keepPerTick {
			packet[1] = byte(n)
			p.samples <- flow.Sample{ID: id(0, n), Packet: packet}
			synctest.Wait()
		}
		time.Sleep(keepEvery)
		synctest.Wait()
		kept := get(&p.mu, &p.kept)
		if len(kept) != keepPerTick {
			t.Fatalf("%d samples are kept, want %d", len(kept), keepPerTick)
		}
		for n, s := range kept {
			if s.ID.Key != id(0, n).Key || s.Packet[1] != byte(n) {
				t.Errorf("sample %d is %+v", n, s)
			}
		}
		p.with(func() { p.keepErr = errTest })
		p.samples <- flow.Sample{ID: id(0, 1), Packet: packet}
		time.Sleep(publishEvery)
		synctest.Wait()
		if s := p.last(); !strings.Contains(s.LastError, errTest.Error()) {
			t.Errorf("after a failed Keep: %+v", s)
		}
		r.end()
	})
}

// Samples that are taken again after a change of the models do not replace the first ones
// of their flow, which have its name.
func TestKeepAfterReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		r.classifier.models = Models{Tasks: flow.Tasks[:], Use: func() error { return nil }}
		r.start()
		p := r.ports[0]
		const rounds = 4
		for range rounds {
			p.samples <- flow.Sample{ID: id(0, 1), Index: 0, Packet: []byte{0x45}}
			time.Sleep(keepEvery)
			synctest.Wait()
			r.reload <- struct{}{}
			synctest.Wait()
		}
		places := map[int]bool{}
		for _, s := range get(&p.mu, &p.kept) {
			places[s.Index] = true
			if s.Index < 0 || s.Index >= flow.MaxSamples {
				t.Errorf("a sample is kept at place %d of %d", s.Index, flow.MaxSamples)
			}
		}
		if len(places) != rounds {
			t.Errorf("%d samples in %d places", rounds, len(places))
		}
		r.end()
	})
}

// Samples of flows that begin with the agent are kept too.
func TestKeepBeforeTheFirstTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		r.start()
		p := r.ports[0]
		p.samples <- flow.Sample{ID: id(0, 1), Packet: []byte{0x45}}
		synctest.Wait() // the sample is read; no time has passed
		time.Sleep(keepEvery)
		synctest.Wait()
		if kept := get(&p.mu, &p.kept); len(kept) != 1 {
			t.Errorf("%d samples are kept, want 1", len(kept))
		}
		r.end()
	})
}

func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0", "eth1")
		r.ports[1].answers = []flow.DNSAnswer{{Time: 7, Message: []byte("answer")}}
		r.start()
		synctest.Wait()
		if got := get(&r.classifier.mu, &r.classifier.answers); len(got) != 1 || got[0].Time != 7 {
			t.Errorf("the classifier got %+v", got)
		}
		r.end()
	})
}
