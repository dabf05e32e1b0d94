// SPDX-License-Identifier: Apache-2.0

package flow

// Direction is the way of a packet as the interface sees it.
type Direction uint8

// In is a received packet, Out a sent one.
const (
	In Direction = iota
	Out
)

// String returns "in" or "out".
func (d Direction) String() string {
	if d == Out {
		return "out"
	}
	return "in"
}

// Source tells who gave a verdict.
type Source uint8

// The sources of a verdict.
const (
	SourceNone Source = iota
	SourceModel
	SourceOperator
)

// String returns "", "model" or "operator".
func (s Source) String() string {
	switch s {
	case SourceModel:
		return "model"
	case SourceOperator:
		return "operator"
	}
	return ""
}

// ID names one flow of one interface in one life: a 5-tuple that is used again
// has another Generation. Iface is the agent's number of the interface.
type ID struct {
	Iface      int
	Key        Key
	Generation uint32
}

// The sample budget of a flow: how many of its payload packets are looked at.
const (
	DefaultSamples = 5   // where neither the operator nor the model says otherwise
	MaxSamples     = 255 // a batch of operations counts samples in a byte
)

// Sample is one payload packet of a flow.
type Sample struct {
	ID        ID
	Direction Direction
	Index     int    // payload packets of the flow sampled before this one
	Time      int64  // CLOCK_MONOTONIC, ns
	Length    int    // L3 length on the wire, bytes
	Packet    []byte // from the IP header on, addresses and checksums zeroed, at most 1500 bytes
}

// Verdict is what is known of a flow on one task. Label is "" while undecided or
// where the model lacks the task, and Unknown where the model rejects the flow.
type Verdict struct {
	Label      string
	Confidence float64 // 0 to 1
	Source     Source
	Model      string // name of the model, "" for an operator's verdict
	Final      bool   // it does not change any more, except by an operator
}

// Verdicts are a flow's verdicts, by Task.
type Verdicts [NumTasks]Verdict

// Final reports whether every task that has a verdict has its final one, and at
// least one has.
func (v *Verdicts) Final() bool {
	final := false
	for t := range v {
		if v[t].Source == SourceNone {
			continue
		}
		if !v[t].Final {
			return false
		}
		final = true
	}
	return final
}

// Decision holds the verdicts on one flow, ready to be stored in the kernel.
type Decision struct {
	ID       ID
	Verdicts Verdicts
	Settled  bool  // no task's verdict changes any more: the flow needs no more samples
	Samples  int   // samples that the verdicts rest on
	Time     int64 // CLOCK_MONOTONIC ns of the newest of them; 0 for an operator's verdict
}
