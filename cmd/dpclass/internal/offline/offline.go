// SPDX-License-Identifier: Apache-2.0

// Package offline runs models over capture files: it gives the flows of a capture
// their verdicts, and scores a model on labelled captures. It neither prints nor
// reads flags.
package offline

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/vector"
)

// chunk is how many vectors go to the classifier at a time.
const chunk = 2048

// Reader runs models over the payload packets of capture files, one file at a time.
type Reader struct {
	classifier *classifier.Classifier

	// DNS lets DNS answers in the captures name flows that have no name of their own.
	DNS bool

	vectors [chunk][]byte
	owners  [chunk]int // number of the flow
	waiting int
}

// Open opens the models of the options. The reader must be closed.
func Open(options classifier.Options) (*Reader, error) {
	c, err := classifier.New(options)
	if err != nil {
		return nil, err
	}
	r := &Reader{classifier: c}
	room := make([]byte, chunk*vector.Size)
	for i := range r.vectors {
		r.vectors[i] = room[i*vector.Size : (i+1)*vector.Size : (i+1)*vector.Size]
	}
	return r, nil
}

// Close frees the models.
func (r *Reader) Close() error { return r.classifier.Close() }

// pass is one run over a capture file.
type pass struct {
	perFlow int // payload packets of a flow that go to the models; 0: all
	// each gets the probabilities of every packet, in order within a flow.
	each func(number int, one classifier.Probabilities)
	// tick gets the number of packets read so far, now and then; may be nil.
	tick func(packets int)
}

// contents is what one run found in a capture file.
type contents struct {
	flows  *dataset.Walker
	stats  capture.Stats
	unread []capture.Unread
	// warnings say what is odd about the capture, and what is damaged after at least one
	// packet.
	warnings []error
}

// run reads one capture file and runs the models over its flows' payload packets.
func (r *Reader) run(ctx context.Context, name string, p pass) (*contents, error) {
	r.waiting = 0
	found, err := r.walk(ctx, name, p.tick, func(step *dataset.Step) error {
		if !step.Sampled || p.perFlow > 0 && step.Flow.Payloads > p.perFlow {
			return nil
		}
		vector.Make((*[vector.Size]byte)(r.vectors[r.waiting]), step.Data, false)
		r.owners[r.waiting] = step.Flow.Number
		if r.waiting++; r.waiting == chunk {
			return r.flush(p)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, r.flush(p)
}

// walk reads one capture file and calls each with every packet that belongs to a flow.
// tick gets the number of packets read so far, now and then; it may be nil.
func (r *Reader) walk(ctx context.Context, name string, tick func(packets int), each func(*dataset.Step) error) (*contents, error) {
	reader, err := capture.Open(name)
	if err != nil {
		return nil, &dataset.Unreadable{Err: err}
	}
	defer reader.Close()
	walker := dataset.NewWalker(reader)
	found := &contents{}
	for packets := 0; ; packets++ {
		if packets%1024 == 0 {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if tick != nil {
				tick(packets)
			}
		}
		step, err := walker.Next()
		var damage *capture.DamageError
		if errors.As(err, &damage) && damage.Packets > 0 {
			found.warnings = append(found.warnings, err)
			break
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, &dataset.Unreadable{Err: err}
		}
		if err := each(&step); err != nil {
			return nil, err
		}
	}
	found.flows, found.stats, found.unread = walker, reader.Stats(), reader.Unread()
	found.warnings = append(walker.Warnings(), found.warnings...)
	return found, nil
}

// flush classifies the waiting vectors.
func (r *Reader) flush(p pass) error {
	if r.waiting == 0 {
		return nil
	}
	rows, err := r.classifier.Probabilities(r.vectors[:r.waiting])
	if err != nil {
		return fmt.Errorf("classify: %w", err)
	}
	for i := range r.waiting {
		p.each(r.owners[i], rows.Slice(i, i+1))
	}
	r.waiting = 0
	return nil
}
