// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"testing"
	"time"
)

func TestMeasure(t *testing.T) {
	path := library(t)
	m, err := LoadModel(DefaultModel)
	if err != nil {
		t.Fatal(err)
	}
	var packets [][]byte
	for n := range 50 {
		packets = append(packets, sample(n, 0).Packet)
	}
	got, err := Measure(path, m, packets, 8, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if got.Inference <= 0 || got.Live <= 0 {
		t.Errorf("measured %+v", got)
	}
	if _, err := Measure(path, m, nil, 8, time.Millisecond); err == nil {
		t.Error("no packets are no error")
	}
}
