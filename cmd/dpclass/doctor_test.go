// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"testing"

	"github.com/dpclass/dpclass/cmd/dpclass/internal/doctor"
	"github.com/dpclass/dpclass/internal/cli"
)

func TestFindings(t *testing.T) {
	var out bytes.Buffer
	err := printFindings(&out, false, []doctor.Finding{
		{Check: "kernel", State: doctor.OK, Found: "6.18"},
		{Check: "tcx", State: doctor.Warn, Found: "missing", Advice: "update"},
		{Check: "XDP", State: doctor.Fail, Found: "missing", Advice: "update"},
	})
	if !cli.IsQuiet(err) {
		t.Errorf("error %v", err)
	}
	const want = `ok   kernel         6.18
warn tcx            missing
                    -> update
fail XDP            missing
                    -> update
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}
