// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"
)

// What is written is read again, packet by packet, for every length of padding.
func TestWritten(t *testing.T) {
	at := time.Date(2026, 11, 27, 11, 45, 18, 123456789, time.UTC)
	file := AppendHeader(nil, "a program", "eth0", LinkRaw, 0)
	var want [][]byte
	for n := range 9 {
		packet := make([]byte, 20+n)
		packet[0], packet[3], packet[len(packet)-1] = 0x45, byte(20+n), byte(n)
		want = append(want, packet)
		file = AppendPacket(file, at.Add(time.Duration(n)), packet, len(packet)+100)
	}
	reader, err := New(bytes.NewReader(file), "written")
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for n, data := range want {
		p, err := reader.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.Data, data) || p.Length != len(data)+100 || !p.Time.Equal(at.Add(time.Duration(n))) || !p.Raw {
			t.Errorf("packet %d: %+v", n, p)
		}
	}
	if _, err := reader.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last packet: %v", err)
	}
}
