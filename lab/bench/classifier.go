// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/vector"
)

// ClassifierOptions configures Classifier.
type ClassifierOptions struct {
	Library string        // path of ONNX Runtime's library; "": search for it
	Models  []string      // names or files; empty: every model that is found by name
	Batches []int         // batch sizes; empty: 1, 8 and 32
	Capture string        // capture file to take the packets from; "": made-up packets
	About   time.Duration // rough time for each case; default 2 s
}

// ClassifierResult is one case of `dplab bench classifier`: one model with one batch
// size. Times are CPU time: of one thread for the network alone, of the whole process
// for live packets.
type ClassifierResult struct {
	Model      string  `json:"model"`
	Default    bool    `json:"default"`
	Batch      int     `json:"batch"`
	Threads    int     `json:"threads"`
	PerSecond  float64 `json:"packets_per_s_core"`
	Micros     float64 `json:"us_per_packet"`      // the network alone
	LiveMicros float64 `json:"live_us_per_packet"` // as well as making the vector, the queue and the flow's verdict
	Precision  string  `json:"precision"`
	Library    string  `json:"onnxruntime"`
}

// Classifier measures how long the models take for a packet. It calls each with
// every result. It ends with the context's error when the context ends.
func Classifier(ctx context.Context, o ClassifierOptions, each func(ClassifierResult) error) error {
	if len(o.Models) == 0 {
		o.Models = model.Shipped()
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
	version, err := ort.Version(o.Library)
	if err != nil {
		return err
	}
	for _, name := range o.Models {
		m, err := model.Load(name)
		if err != nil {
			return err
		}
		for _, batch := range o.Batches {
			measured, err := measure(ctx, o.Library, m, packets, batch, o.About)
			if err != nil {
				return fmt.Errorf("model %q, batch %d: %w", name, batch, err)
			}
			err = each(ClassifierResult{
				Model: m.Name, Default: m.Path == "" && m.Name == model.Default, Batch: batch, Threads: 1,
				PerSecond: float64(time.Second) / float64(measured.network), Micros: micros(measured.network),
				LiveMicros: micros(measured.live), Precision: m.Precision, Library: version,
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// capturedPackets reads from a capture at most limit packets that dpclass would sample.
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
