// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"time"

	"github.com/dpclass/dpclass/classifier/wire"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector"
)

// Stream gives verdicts on the flows of one capture while it is read: the same as
// [Classifier.Decide] on all of a flow's packets, but in about 250 bytes for a flow that is
// open and 40 for one that is settled. A capture may have millions of flows.
//
// Two sums of log-probabilities are kept as float32 between the packets of a flow, so a
// confidence may differ from that of Decide in the seventh digit.
type Stream struct {
	c       *Classifier
	reading *Reading
	judge   *judge
	width   [flow.NumTasks]int

	places []place // by number of the flow
	opens  pages[openFlow]
	sums   pages[float32]
	done   pages[result]
	newest [maxWindows]int // numbers + 1 of the flows that began last
	begun  int

	labels   []string
	numbers  map[string]uint16
	evidence []flow.Evidence
	known    map[flow.Evidence]uint32

	vectors [][]byte
	waiting []arrival
	queued  int // vectors in use
	scratch *aggregate
}

const (
	// streamVectors is how many vectors go to the networks at a time.
	streamVectors = 2048
	// streamArrivals bounds the packets that wait for that.
	streamArrivals = 4 * streamVectors
	// maxWindows is how many flows may hold the beginning of a message. A capture may have
	// many whose rest is missing.
	maxWindows = 2048
)

// place says what is known of a flow.
type place struct {
	kind  placeKind
	index uint32
}

type placeKind uint8

const (
	placeNone placeKind = iota // no payload packet yet
	placeOpen
	placeDone
)

// openFlow is what is kept of a flow whose verdict may still change. The rest of its clues
// follows from it.
type openFlow struct {
	wire    wire.Flow
	name    string // that it has from elsewhere
	sums    uint32 // place of its sums + 1; 0: no network was asked yet
	final   uint32 // result that has the final verdicts of some tasks + 1; 0: none
	packets uint8  // payload packets that were looked at
	asked   uint8  // those of them that networks read
	judged  uint8  // those of them whose outputs have been seen
	seen    uint8
	source  flow.NameSource // of name
	inner   bool
	sure    bool
	wait    bool
	server  side
}

// side is an endpoint of a flow's key.
type side uint8

const (
	sideNone side = iota
	sideA
	sideB
)

// result is the verdicts on a flow, without pointers.
type result struct {
	confidence [flow.NumTasks]float64
	evidence   uint32
	label      [flow.NumTasks]uint16
	source     [flow.NumTasks]flow.Source
	final      [flow.NumTasks]bool
	samples    uint8
}

// arrival is a payload packet whose flow is judged once the networks have read it.
type arrival struct {
	flow   int
	vector int // -1: no network reads it
	known  clues
}

// Stream returns a Stream of a capture.
func (c *Classifier) Stream() *Stream {
	reading := c.Reading()
	s := &Stream{c: c, reading: reading, judge: reading.judge, numbers: map[string]uint16{}, known: map[flow.Evidence]uint32{}}
	width := 0
	for t, h := range s.judge.heads {
		if h != nil {
			s.width[t] = len(h.labels)
			width += len(h.labels)
		}
	}
	s.opens.size, s.done.size, s.sums.size = 1, 1, width
	s.scratch = s.judge.newAggregate()
	room := make([]byte, streamVectors*vector.Size)
	for i := range streamVectors {
		s.vectors = append(s.vectors, room[i*vector.Size:(i+1)*vector.Size:(i+1)*vector.Size])
	}
	return s
}

// Answer reads a DNS answer of the capture, as [Classifier.Answer] does.
func (s *Stream) Answer(message []byte, now time.Time) error { return s.reading.Answer(message, now) }

// Add reads the next payload packet of a flow. Flows are numbered from 0.
func (s *Stream) Add(number int, sample *flow.Sample) error {
	for len(s.places) <= number {
		s.places = append(s.places, place{})
	}
	at := &s.places[number]
	switch at.kind {
	case placeDone:
		return nil
	case placeNone:
		at.kind, at.index = placeOpen, s.opens.take()
		s.keepOpen(number)
	}
	open := &s.opens.at(at.index)[0]
	if int(open.packets) >= s.judge.budget {
		return nil
	}
	known := s.clues(open, &sample.ID.Key)
	s.judge.add(&known, sample)
	open.packets++
	s.keepClues(open, &known, &sample.ID.Key)
	known.seen = int(open.packets)
	next := arrival{flow: number, vector: -1, known: known}
	if s.judge.asksNetwork(&known) && int(open.packets) <= s.judge.samples {
		next.vector = s.queued
		s.queued++
		open.asked++
		vector.Make((*[vector.Size]byte)(s.vectors[next.vector]), sample.Packet, false)
	}
	s.waiting = append(s.waiting, next)
	if s.queued == streamVectors || len(s.waiting) == streamArrivals {
		return s.Flush()
	}
	return nil
}

// clues returns the clues of an open flow.
func (s *Stream) clues(open *openFlow, key *flow.Key) clues {
	c := clues{wire: open.wire, evidence: open.wire.Evidence(), seen: int(open.seen), inner: open.inner}
	if open.source != flow.NameNone {
		c.evidence.Name, c.evidence.NameSource = open.name, open.source
	} else if s.judge.use != EvidenceAll {
		c.evidence.Name, c.evidence.NameSource = "", flow.NameNone
	}
	switch open.server {
	case sideA:
		c.server = key.A
	case sideB:
		c.server = key.B
	}
	return c
}

// keepClues keeps the clues of an open flow.
func (s *Stream) keepClues(open *openFlow, c *clues, key *flow.Key) {
	open.wire, open.seen, open.inner = c.wire, uint8(c.seen), c.inner
	open.name, open.source = "", flow.NameNone
	if c.evidence.NameSource >= flow.NameDNS {
		open.name, open.source = c.evidence.Name, c.evidence.NameSource
	}
	switch c.server {
	case key.A:
		open.server = sideA
	case key.B:
		open.server = sideB
	}
	open.sure, open.wait = c.found.sure, c.found.waiting
}

// keepOpen bounds the flows that hold the beginning of a message.
func (s *Stream) keepOpen(number int) {
	oldest := &s.newest[s.begun%maxWindows]
	s.release(*oldest)
	*oldest = number + 1
	s.begun++
}

// release frees what the flow of a number + 1 holds of a message.
func (s *Stream) release(flow int) {
	if flow > 0 && s.places[flow-1].kind == placeOpen {
		s.opens.at(s.places[flow-1].index)[0].wire.GiveUp()
	}
}

// Flush judges all packets that wait.
func (s *Stream) Flush() error {
	rows, err := s.c.Probabilities(s.vectors[:s.queued])
	if err != nil {
		return err
	}
	for i := range s.waiting {
		s.arrive(&s.waiting[i], &rows)
	}
	clear(s.waiting)
	s.waiting, s.queued = s.waiting[:0], 0
	return nil
}

// arrive judges a flow after one more of its packets.
func (s *Stream) arrive(a *arrival, rows *Probabilities) {
	at := &s.places[a.flow]
	if at.kind == placeDone {
		return
	}
	open := &s.opens.at(at.index)[0]
	if a.vector >= 0 {
		s.load(open)
		row := rows.row(a.vector)
		s.judge.decider.add(s.scratch, row)
		open.judged++
		s.store(open, row)
	}
	var sums *aggregate
	if open.sums != 0 {
		if a.vector < 0 {
			s.load(open)
		}
		sums = s.scratch
	}
	verdicts, settled := s.judge.verdicts(sums, &a.known, false)
	if !settled {
		s.keepFinal(open, sums)
		return
	}
	at.kind, at.index = placeDone, s.settle(open, at.index, &verdicts, &a.known)
}

// load puts the sums of an open flow into the scratch aggregate.
func (s *Stream) load(open *openFlow) {
	a := s.scratch
	a.reset()
	if open.sums == 0 {
		return
	}
	kept := s.sums.at(open.sums - 1)
	if open.judged == 1 { // the probabilities themselves
		var row [flow.NumTasks][]float32
		for t, width := range s.width {
			if width > 0 {
				row[t], kept = kept[:width], kept[width:]
			}
		}
		s.judge.decider.add(a, row)
	} else {
		for t, width := range s.width {
			for i := range width {
				a.sums[t][i] = float64(kept[i])
			}
			kept = kept[width:]
		}
		a.n = int(open.judged)
	}
	if open.final != 0 {
		final := &s.done.at(open.final - 1)[0]
		for t := range final.label {
			if final.final[t] {
				a.final[t] = s.verdict(final, flow.Task(t))
			}
		}
	}
}

// store keeps the sums in the scratch aggregate. row is what was added last.
func (s *Stream) store(open *openFlow, row [flow.NumTasks][]float32) {
	if open.sums == 0 {
		open.sums = s.sums.take() + 1
	}
	kept := s.sums.at(open.sums - 1)
	for t, width := range s.width {
		for i := range width {
			if open.judged == 1 {
				kept[i] = row[t][i]
			} else {
				kept[i] = float32(s.scratch.sums[t][i])
			}
		}
		kept = kept[width:]
	}
}

// keepFinal keeps the verdicts on single tasks that have become final.
func (s *Stream) keepFinal(open *openFlow, sums *aggregate) {
	if sums == nil || sums.final == (flow.Verdicts{}) {
		return
	}
	if open.final == 0 {
		open.final = s.done.take() + 1
	}
	s.fill(&s.done.at(open.final - 1)[0], &sums.final)
}

// settle keeps the verdicts on a flow and frees what was known of it. It returns the place
// of the result.
func (s *Stream) settle(open *openFlow, index uint32, verdicts *flow.Verdicts, known *clues) uint32 {
	if open.final == 0 {
		open.final = s.done.take() + 1
	}
	at := open.final - 1
	kept := &s.done.at(at)[0]
	*kept = result{samples: s.samples(open, verdicts, known.seen), evidence: s.evidenceNumber(&known.evidence)}
	s.fill(kept, verdicts)
	if open.sums != 0 {
		s.sums.give(open.sums - 1)
	}
	open.wire.Release()
	*open = openFlow{}
	s.opens.give(index)
	return at
}

// samples returns how many packets a verdict rests on.
func (s *Stream) samples(open *openFlow, verdicts *flow.Verdicts, seen int) uint8 {
	if open.sums != 0 && (verdicts[flow.Category].Source == flow.SourceModel || s.judge.use == EvidenceModel) {
		return open.judged
	}
	return uint8(seen)
}

func (s *Stream) fill(to *result, verdicts *flow.Verdicts) {
	for t := range verdicts {
		v := &verdicts[t]
		to.label[t], to.confidence[t], to.source[t], to.final[t] = s.labelNumber(v.Label), v.Confidence, v.Source, v.Final
	}
}

// verdict returns a kept verdict.
func (s *Stream) verdict(from *result, t flow.Task) flow.Verdict {
	v := flow.Verdict{Label: s.labels[from.label[t]], Confidence: from.confidence[t], Source: from.source[t], Final: from.final[t]}
	if h := s.judge.heads[t]; h != nil && v.Source == flow.SourceModel {
		v.Model = h.model
	}
	return v
}

func (s *Stream) labelNumber(label string) uint16 {
	number, known := s.numbers[label]
	if !known {
		number = uint16(len(s.labels))
		s.numbers[label] = number
		s.labels = append(s.labels, label)
	}
	return number
}

func (s *Stream) evidenceNumber(e *flow.Evidence) uint32 {
	number, known := s.known[*e]
	if !known {
		number = uint32(len(s.evidence))
		s.known[*e] = number
		s.evidence = append(s.evidence, *e)
	}
	return number
}

// Verdicts returns the verdicts on a flow after all that [Stream.Add] and [Stream.Flush]
// have read. samples is how many packets were looked at, 0 if the flow has no payload.
func (s *Stream) Verdicts(number int, key *flow.Key) (verdicts flow.Verdicts, evidence flow.Evidence, samples int) {
	if number >= len(s.places) || s.places[number].kind == placeNone {
		return verdicts, evidence, 0
	}
	at := s.places[number]
	if at.kind == placeDone {
		kept := &s.done.at(at.index)[0]
		for t := range verdicts {
			verdicts[t] = s.verdict(kept, flow.Task(t))
		}
		return verdicts, s.evidence[kept.evidence], int(kept.samples)
	}
	open := &s.opens.at(at.index)[0]
	known := s.clues(open, key)
	known.seen = int(open.packets)
	if s.judge.use != EvidenceModel {
		known.found = s.judge.conclude(&known)
		known.found.sure, known.found.waiting = open.sure, open.wait
	}
	var sums *aggregate
	if open.sums != 0 {
		s.load(open)
		sums = s.scratch
	}
	verdicts, _ = s.judge.verdicts(sums, &known, false)
	return verdicts, known.evidence, int(s.samples(open, &verdicts, known.seen))
}

// Close frees what the open flows hold.
func (s *Stream) Close() {
	for _, flow := range s.newest {
		s.release(flow)
	}
}

// pages is memory for many places of the same size. Nothing moves when it grows.
type pages[T any] struct {
	size int // values of a place
	all  [][]T
	used uint32
	free []uint32
}

const pagePlaces = 1024

// take returns a place, whose values are those of the one before it.
func (p *pages[T]) take() uint32 {
	if n := len(p.free); n > 0 {
		place := p.free[n-1]
		p.free = p.free[:n-1]
		return place
	}
	if p.used%pagePlaces == 0 {
		p.all = append(p.all, make([]T, pagePlaces*p.size))
	}
	p.used++
	return p.used - 1
}

// give frees a place.
func (p *pages[T]) give(place uint32) { p.free = append(p.free, place) }

// at returns the values of a place.
func (p *pages[T]) at(place uint32) []T {
	begin := int(place%pagePlaces) * p.size
	return p.all[place/pagePlaces][begin : begin+p.size : begin+p.size]
}
