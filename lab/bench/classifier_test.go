// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/ort"
)

func TestClassifier(t *testing.T) {
	options := ClassifierOptions{Models: []string{model.Default}, Batches: []int{1, 8}, About: 20 * time.Millisecond}
	for _, candidate := range []string{"", "../../bin"} {
		if _, err := ort.Find(candidate); err == nil {
			options.Library = candidate
			break
		} else if candidate != "" {
			t.Skipf("SKIPPED, no ONNX Runtime: run 'make deps' or set %s", ort.LibraryVariable)
		}
	}
	var batches []int
	err := Classifier(t.Context(), options, func(r ClassifierResult) error {
		batches = append(batches, r.Batch)
		if !r.Default || r.Micros <= 0 || r.LiveMicros <= 0 || r.PerSecond <= 0 || r.Library == "" {
			t.Errorf("%+v", r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(batches) != 2 || batches[0] != 1 || batches[1] != 8 {
		t.Errorf("batches %v were measured", batches)
	}

	// The context ends it in the middle of a case.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	options.About = time.Hour
	err = Classifier(ctx, options, func(r ClassifierResult) error {
		t.Errorf("a result: %+v", r)
		return nil
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}
