// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/gopacket/pcapgo"
)

// Only this file uses gopacket, and only its pcap reader. Its pcapng reader panics on
// wrong option lengths, allocates by the stated packet length, and has 8-bit link types
// (Linux cooked v2 is 276).

// pcapFile reads the frames of a pcap file.
type pcapFile struct {
	records  *records
	reader   *pcapgo.Reader
	order    binary.ByteOrder
	linkType int
	lengths  lengthOrder
}

// lengthOrder is the order of the captured and the original length in the packet headers
// of a file.
type lengthOrder int

// The orders. Version 2.3 swapped the two fields, but some writers of that version did not
// (libpcap's sf-pcap.c).
const (
	capturedFirst lengthOrder = iota
	originalFirst
	largerSecond
)

func isPcap(magic []byte) bool {
	switch binary.LittleEndian.Uint32(magic) {
	case 0xa1b2c3d4, 0xd4c3b2a1, 0xa1b23c4d, 0x4d3cb2a1:
		return true
	}
	return false
}

// lengthOrderOf returns the order of the lengths in files of a version. DG/UX's tcpdump
// wrote version 543.0.
func lengthOrderOf(major, minor uint16) (order lengthOrder, ok bool) {
	switch {
	case major == 2 && minor < 3, major == 543:
		return originalFirst, true
	case major == 2 && minor == 3:
		return largerSecond, true
	case major == 2 && minor == 4:
		return capturedFirst, true
	}
	return 0, false
}

func newPcap(source *bufio.Reader) (*pcapFile, error) {
	f := &pcapFile{records: &records{source: source}, order: binary.LittleEndian}
	head := f.records.room[:24]
	if _, err := io.ReadFull(source, head); err != nil {
		return nil, fmt.Errorf("file header: %w", cut(err))
	}
	f.records.head = head
	if head[0] == 0xa1 {
		f.order = binary.BigEndian
	}
	major, minor := f.order.Uint16(head[4:]), f.order.Uint16(head[6:])
	var ok bool
	if f.lengths, ok = lengthOrderOf(major, minor); !ok {
		return nil, fmt.Errorf("file header: pcap version %d.%d, want 2.0 to 2.4", major, minor)
	}
	f.order.PutUint16(head[4:], 2)
	f.order.PutUint16(head[6:], 4)
	// The upper bits hold the length of the frame check sequence.
	f.linkType = int(f.order.Uint32(head[20:24]) & 0xffff)
	var err error
	if f.reader, err = pcapgo.NewReader(f.records); err != nil {
		return nil, fmt.Errorf("file header: %w", cut(err))
	}
	// Many files have packets longer than the snap length they state.
	f.reader.SetSnaplen(maxPacket)
	return f, nil
}

// records gives gopacket the file as it wants it: as version 2.4, with no packet that has
// more captured bytes than it had on the wire. One call of Read never goes beyond a header
// or a packet, so that gopacket buffers nothing.
type records struct {
	source *bufio.Reader
	head   []byte   // of the file or the next packet, as gopacket gets it
	room   [24]byte // what head is part of
	body   int      // bytes of the packet after that
}

func (r *records) Read(p []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	n, err := r.source.Read(p[:min(len(p), r.body)])
	r.body -= n
	return n, err
}

func (f *pcapFile) next() (frame, error) {
	head := f.records.room[:16]
	if n, err := io.ReadFull(f.records.source, head); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return frame{}, io.EOF
		}
		return frame{}, cut(err)
	}
	captured, length := f.order.Uint32(head[8:]), f.order.Uint32(head[12:])
	if f.lengths == originalFirst || f.lengths == largerSecond && captured > length {
		captured, length = length, captured
	}
	if captured > maxPacket {
		return frame{}, fmt.Errorf("packet of %d bytes claims %d captured bytes", length, captured)
	}
	f.order.PutUint32(head[8:], captured)
	f.order.PutUint32(head[12:], max(captured, length)) // what is there was on the wire
	f.records.head, f.records.body = head, int(captured)
	data, info, err := f.reader.ZeroCopyReadPacketData()
	if err != nil {
		return frame{}, cut(err)
	}
	return frame{time: info.Timestamp, data: data, length: info.Length, linkType: f.linkType}, nil
}
