// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"testing"

	"github.com/dpclass/dpclass/classifier/addressbook"
	"github.com/dpclass/dpclass/classifier/names"
	"github.com/dpclass/dpclass/flow"
)

// What wire keeps of unfinished hellos is bounded for all classifiers together. Flows that
// end, and classifiers that are closed, must give it back, or names are lost later.
func TestUnfinishedHellosAreFreed(t *testing.T) {
	const many = 10_000 // more than wire may keep at once
	half := hello(t, streamingName)[:60]
	for _, end := range []func(*Classifier, *flow.Sample){
		func(c *Classifier, s *flow.Sample) { c.Forget(s.ID) },
		func(c *Classifier, _ *flow.Sample) {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		},
	} {
		var c *Classifier
		for n := range many {
			if c == nil {
				c = &Classifier{options: Options{Evidence: EvidenceAll}, engine: &engine{decider: testDecider(false)}}
				c.engine.users.Store(1)
				c.options.Names, c.book = names.Default(), addressbook.New(func(string) string { return "" })
				s, err := newShard(64, 4, 10, 0, c.judge(c.engine), nil)
				if err != nil {
					t.Fatal(err)
				}
				c.shards = []*shard{s}
			}
			sample := newTCPFlow(n, "192.0.2.1:443").sample(true, half)
			st := c.shards[0].table.get(sample.ID, 0)
			c.shards[0].table.judge.add(&st.clues, sample)
			if end(c, sample); c.engine == nil {
				c = nil
			}
		}
	}
	c := open(t, Options{})
	for n := range many {
		trail := c.Reading().Flow()
		trail.Add(newTCPFlow(n, "192.0.2.1:443").sample(true, half))
		trail.Close()
	}
	f := newTCPFlow(1, "192.0.2.9:443")
	trail := c.Reading().Flow()
	defer trail.Close()
	trail.Add(f.sample(true, half))
	trail.Add(f.sample(true, hello(t, streamingName)[60:]))
	if name := trail.clues.evidence.Name; name != streamingName {
		t.Errorf("after many unfinished hellos the name of a hello in two segments is %q", name)
	}
}

// Somebody who opens many flows with unfinished hellos and keeps them open must not hide
// the names of others.
func TestOldUnfinishedHellosGiveWay(t *testing.T) {
	const many = 10_000
	c := &Classifier{options: Options{Evidence: EvidenceAll}, engine: &engine{decider: testDecider(false)}}
	c.options.Names, c.book = names.Default(), addressbook.New(func(string) string { return "" })
	s, err := newShard(many, 4, 2*many, 0, c.judge(c.engine), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.table.clear()
	add := func(sample *flow.Sample) *state {
		st := s.table.get(sample.ID, sample.Index)
		s.table.judge.add(&st.clues, sample)
		s.table.bound(st)
		return st
	}
	whole := hello(t, streamingName)
	for n := range many {
		add(newTCPFlow(n, "192.0.2.1:443").sample(true, whole[:60]))
	}
	f := newTCPFlow(many, "192.0.2.9:443")
	add(f.sample(true, whole[:60]))
	st := add(f.sample(true, whole[60:]))
	if name := st.clues.evidence.Name; name != streamingName {
		t.Errorf("with %d unfinished hellos, the name of a hello in two segments is %q", many, name)
	}
	if held := s.table.holders.Len(); held == 0 || held > many/2 {
		t.Errorf("%d of %d flows hold a buffer", held, many)
	}
}
