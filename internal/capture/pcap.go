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
	source   *bufio.Reader
	reader   *pcapgo.Reader
	order    binary.ByteOrder
	linkType int
}

func isPcap(magic []byte) bool {
	switch binary.LittleEndian.Uint32(magic) {
	case 0xa1b2c3d4, 0xd4c3b2a1, 0xa1b23c4d, 0x4d3cb2a1:
		return true
	}
	return false
}

func newPcap(source *bufio.Reader) (*pcapFile, error) {
	head, err := source.Peek(24)
	if err != nil {
		return nil, fmt.Errorf("file header: %w", cut(err))
	}
	f := &pcapFile{source: source, order: binary.LittleEndian}
	if head[0] == 0xa1 {
		f.order = binary.BigEndian
	}
	// The upper bits hold the length of the frame check sequence.
	f.linkType = int(f.order.Uint32(head[20:24]) & 0xffff)
	// gopacket adds no buffer of its own, since this one is large enough. So Peek below sees
	// the same bytes.
	if f.reader, err = pcapgo.NewReader(source); err != nil {
		return nil, fmt.Errorf("file header: %w", cut(err))
	}
	// Many files have packets longer than the snap length they state.
	f.reader.SetSnaplen(maxPacket)
	return f, nil
}

func (f *pcapFile) next() (frame, error) {
	head, err := f.source.Peek(16)
	if len(head) == 0 && errors.Is(err, io.EOF) {
		return frame{}, io.EOF
	}
	if err != nil {
		return frame{}, cut(err)
	}
	captured, length := f.order.Uint32(head[8:]), f.order.Uint32(head[12:])
	if captured > maxPacket || captured > length {
		return frame{}, fmt.Errorf("packet of %d bytes claims %d captured bytes", length, captured)
	}
	data, info, err := f.reader.ZeroCopyReadPacketData()
	if err != nil {
		return frame{}, cut(err)
	}
	return frame{time: info.Timestamp, data: data, length: info.Length, linkType: f.linkType}, nil
}
