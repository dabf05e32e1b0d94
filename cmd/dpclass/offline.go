// SPDX-License-Identifier: Apache-2.0

package main

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

// offlineChunk is how many vectors go to the classifier at a time.
const offlineChunk = 2048

// errInterrupted ends a verb that the user stopped.
var errInterrupted = errors.New("interrupted")

// offline runs the models over the payload packets of capture files.
type offline struct {
	classifier *classifier.Classifier
	perFlow    int // payload packets of a flow; 0: all
	// each is told of every packet's rows, those of one flow in their order.
	each func(f *dataset.Flow, rows classifier.Probabilities)
	// tick is told now and then how many packets of flows were read.
	tick func(packets int)

	vectors [offlineChunk][]byte
	owners  [offlineChunk]*dataset.Flow
	waiting int
}

// newOffline opens the models; it is to be closed.
func newOffline(g *globals, names []string, options classifier.Options) (*offline, error) {
	loaded, err := loadModels(names)
	if err != nil {
		return nil, err
	}
	options.Library, options.Models = g.onnxruntime, loaded
	c, err := classifier.New(options)
	if err != nil {
		return nil, err
	}
	o := &offline{classifier: c}
	room := make([]byte, offlineChunk*vector.Size)
	for i := range o.vectors {
		o.vectors[i] = room[i*vector.Size : (i+1)*vector.Size : (i+1)*vector.Size]
	}
	return o, nil
}

// Close frees the models.
func (o *offline) Close() error { return o.classifier.Close() }

// offlineFile is what was read of a capture file.
type offlineFile struct {
	flows   []*dataset.Flow
	stats   capture.Stats
	passed  [vector.Reasons]int
	warning error // the capture is cut behind at least one packet
}

// run reads one capture file.
func (o *offline) run(ctx context.Context, name string) (*offlineFile, error) {
	reader, err := capture.Open(name)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	walker := dataset.NewWalker(reader)
	file := &offlineFile{}
	for packets := 0; ; packets++ {
		if packets%1024 == 0 {
			if ctx.Err() != nil {
				return nil, errInterrupted
			}
			if o.tick != nil {
				o.tick(packets)
			}
		}
		step, err := walker.Next()
		var damage *capture.DamageError
		if errors.As(err, &damage) && damage.Packets > 0 {
			file.warning = err
			break
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if !step.Sampled || (o.perFlow > 0 && step.Flow.Payloads > o.perFlow) {
			continue
		}
		vector.Make((*[vector.Size]byte)(o.vectors[o.waiting]), step.Data, false)
		o.owners[o.waiting] = step.Flow
		if o.waiting++; o.waiting == offlineChunk {
			if err := o.flush(); err != nil {
				return nil, err
			}
		}
	}
	if err := o.flush(); err != nil {
		return nil, err
	}
	file.flows, file.stats = walker.Flows(), reader.Stats()
	for reason := range vector.Reasons {
		file.passed[reason] = walker.Passed(reason)
	}
	return file, nil
}

// flush classifies the vectors that wait.
func (o *offline) flush() error {
	if o.waiting == 0 {
		return nil
	}
	rows, err := o.classifier.Probabilities(o.vectors[:o.waiting])
	if err != nil {
		return fmt.Errorf("classify: %w", err)
	}
	for i := range o.waiting {
		o.each(o.owners[i], rows.Slice(i, i+1))
		o.owners[i] = nil
	}
	o.waiting = 0
	return nil
}
