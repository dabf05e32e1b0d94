// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
)

// EvidenceOptions configures Evidence.
type EvidenceOptions struct {
	Library  string   // path of ONNX Runtime's library; "": search for it
	Captures []string // capture files whose flows are classified; at least one
}

// EvidenceResult is one case of `dplab bench evidence`: all flows of the captures, on one
// worker. Times are CPU time of the process.
type EvidenceResult struct {
	Evidence   classifier.Evidence `json:"evidence"`
	Flows      int                 `json:"flows"`   // with payload
	Samples    int                 `json:"samples"` // that the kernel would have queued
	Skipped    int                 `json:"skipped"` // of those, samples that needed no network
	Settled    int                 `json:"settled"` // flows with their last verdict
	PerSecond  float64             `json:"samples_per_s_core"`
	FlowsPerS  float64             `json:"flows_per_s_core"`
	MeanNeeded float64             `json:"samples_per_flow"`
}

// Evidence measures what the flows of captures cost when names and protocols decide first,
// and when the networks decide everything. It calls each with both results.
func Evidence(ctx context.Context, o EvidenceOptions, each func(EvidenceResult) error) error {
	var flows [][]flow.Sample
	for _, file := range o.Captures {
		more, err := flowsOf(file, len(flows))
		if err != nil {
			return err
		}
		flows = append(flows, more...)
	}
	if len(flows) == 0 {
		return errors.New("the captures have no packet with TCP or UDP payload")
	}
	for _, use := range []classifier.Evidence{classifier.EvidenceModel, classifier.EvidenceAll} {
		result, err := measureEvidence(ctx, o.Library, use, flows)
		if err != nil {
			return fmt.Errorf("evidence %s: %w", use, err)
		}
		if err := each(result); err != nil {
			return err
		}
	}
	return nil
}

// flowsOf reads the first payload packets of each flow of a capture. first is the number of
// the first flow.
func flowsOf(file string, first int) ([][]flow.Sample, error) {
	reader, err := capture.Open(file)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	walker := dataset.NewWalker(reader)
	at := map[int]int{} // by number of the flow
	var flows [][]flow.Sample
	for {
		step, err := walker.Next()
		var damage *capture.DamageError
		if errors.Is(err, io.EOF) || errors.As(err, &damage) && damage.Packets > 0 {
			return flows, nil
		}
		if err != nil {
			return nil, err
		}
		if !step.Sampled || step.Flow.Payloads > flow.MaxSamples {
			continue
		}
		i, known := at[step.Flow.Number]
		if !known {
			i = len(flows)
			at[step.Flow.Number] = i
			flows = append(flows, nil)
		}
		flows[i] = append(flows[i], flow.Sample{
			ID:    flow.ID{Key: step.Flow.Key, Generation: uint32(first + i + 1)},
			FromA: step.FromA, TwoWay: true, Inner: step.Raw, Index: len(flows[i]), Time: step.Time.UnixNano(),
			Length: step.Packet.Length, Packet: slices.Clone(step.Data[:min(len(step.Data), 1500)]),
		})
	}
}

// measureEvidence classifies flows as a live classifier does: in each round the next
// sample of every flow that is not settled, as far as the budget goes.
func measureEvidence(ctx context.Context, library string, use classifier.Evidence, flows [][]flow.Sample) (result EvidenceResult, err error) {
	models, err := model.LoadAll(nil)
	if err != nil {
		return result, err
	}
	c, err := classifier.New(classifier.Options{
		Library: library, Models: models, Evidence: use, Workers: 1, Delay: 100 * time.Microsecond, Queue: 16384, Flows: len(flows) + 1,
	})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	settled := make([]bool, len(flows))
	number := map[uint32]int{}
	for i, samples := range flows {
		number[samples[0].ID.Generation] = i
	}
	result = EvidenceResult{Evidence: use, Flows: len(flows)}
	running, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	// A marker is a flow of one sample that a network decides: everything before it has
	// been classified when it has a decision.
	const marks = 1 << 30
	reached := make(chan struct{})
	go func() {
		done <- c.Run(running, func(decisions []flow.Decision) {
			for i := range decisions {
				if decisions[i].ID.Generation >= marks {
					reached <- struct{}{}
				} else if decisions[i].Settled {
					settled[number[decisions[i].ID.Generation]] = true
				}
			}
		})
	}()
	marker := flows[0][0]
	marker.ID.Generation = marks
	begin, err := cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID)
	if err != nil {
		return result, err
	}
	for round := range c.Budget() {
		waiting := 0
		flush := func() error {
			marker.ID.Generation++
			if !c.Submit(&marker) {
				return errors.New("the queue is full")
			}
			waiting = 0
			select {
			case <-reached:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for i, samples := range flows {
			if settled[i] || round >= len(samples) {
				continue
			}
			if !c.Submit(&samples[round]) {
				return result, errors.New("the queue is full")
			}
			result.Samples++
			if waiting++; waiting == 2048 {
				if err := flush(); err != nil {
					return result, err
				}
			}
		}
		if err := flush(); err != nil {
			return result, err
		}
	}
	end, err := cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID)
	if err != nil {
		return result, err
	}
	result.Skipped = int(c.Stats().Skipped)
	stop()
	if err := <-done; err != nil {
		return result, err
	}
	for _, s := range settled {
		if s {
			result.Settled++
		}
	}
	used := (end - begin).Seconds()
	result.PerSecond, result.FlowsPerS = float64(result.Samples)/used, float64(result.Flows)/used
	result.MeanNeeded = float64(result.Samples) / float64(result.Flows)
	return result, nil
}
