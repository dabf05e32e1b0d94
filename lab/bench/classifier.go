// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/vector"
)

// ClassifierOptions configures Classifier.
type ClassifierOptions struct {
	Library string        // ONNX Runtime's library; "": see classifier.FindLibrary
	Models  []string      // names or files; none: every shipped model
	Batches []int         // none: 1, 8 and 32
	Capture string        // file to take the payload packets of; "": packets made up
	About   time.Duration // for each case; default 2 s
}

// ClassifierResult is one case of `dpclass bench classifier`. The figures are
// CPU time of one thread.
type ClassifierResult struct {
	Model      string  `json:"model"`
	Default    bool    `json:"default"`
	Batch      int     `json:"batch"`
	Threads    int     `json:"threads"`
	PerSecond  float64 `json:"packets_per_s_core"`
	Micros     float64 `json:"us_per_packet"`      // the network
	LiveMicros float64 `json:"live_us_per_packet"` // with making the vector, queue, and the flow's verdict
	Precision  string  `json:"precision"`
	Library    string  `json:"onnxruntime"`
}

// Classifier measures what the models cost a packet, and calls each for every
// result.
func Classifier(o ClassifierOptions, each func(ClassifierResult) error) error {
	if len(o.Models) == 0 {
		o.Models = classifier.Shipped()
	}
	if len(o.Batches) == 0 {
		o.Batches = []int{1, 8, 32}
	}
	if o.About <= 0 {
		o.About = 2 * time.Second
	}
	packets := madeUpPackets(4096)
	if o.Capture != "" {
		var err error
		if packets, err = capturedPackets(o.Capture, 8192); err != nil {
			return err
		}
	}
	version, err := classifier.LibraryVersion(o.Library)
	if err != nil {
		return err
	}
	for _, name := range o.Models {
		m, err := classifier.LoadModel(name)
		if err != nil {
			return err
		}
		for _, batch := range o.Batches {
			measured, err := classifier.Measure(o.Library, m, packets, batch, o.About)
			if err != nil {
				return fmt.Errorf("model %q, batch %d: %w", name, batch, err)
			}
			err = each(ClassifierResult{
				Model: m.Name, Default: m.Path == "" && m.Name == classifier.DefaultModel, Batch: batch, Threads: 1,
				PerSecond: float64(time.Second) / float64(measured.Inference), Micros: micros(measured.Inference),
				LiveMicros: micros(measured.Live), Precision: m.Precision, Library: version,
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// capturedPackets reads the packets of a capture that would be sampled, at most limit.
func capturedPackets(file string, limit int) ([][]byte, error) {
	reader, err := capture.Open(file)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	var packets [][]byte
	for len(packets) < limit {
		packet, err := reader.Next()
		var damage *capture.DamageError
		if errors.Is(err, io.EOF) || errors.As(err, &damage) {
			break
		}
		if err != nil {
			return nil, err
		}
		if parsed, reason := vector.Parse(packet.Data, packet.Length); reason == vector.OK && parsed.Sampled() {
			packets = append(packets, append([]byte(nil), packet.Data...))
		}
	}
	if len(packets) == 0 {
		return nil, fmt.Errorf("capture %q has no packet with TCP or UDP payload", file)
	}
	return packets, nil
}
