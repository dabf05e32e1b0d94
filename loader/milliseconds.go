// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/json"
	"time"
)

// Milliseconds is a duration that is a number of milliseconds in JSON.
type Milliseconds time.Duration

// Float returns the number of milliseconds.
func (m Milliseconds) Float() float64 { return float64(m) / float64(time.Millisecond) }

// MarshalJSON writes the number of milliseconds.
func (m Milliseconds) MarshalJSON() ([]byte, error) { return json.Marshal(m.Float()) }

// UnmarshalJSON reads a number of milliseconds.
func (m *Milliseconds) UnmarshalJSON(text []byte) error {
	var value float64
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	*m = Milliseconds(value * float64(time.Millisecond))
	return nil
}
