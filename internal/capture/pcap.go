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

// This is the one file that knows gopacket. Its pcap reader is used; its pcapng
// reader is not: it panics on lying option lengths, takes memory for any stated
// packet length, and its link types have 8 bits (Linux cooked v2 is 276).

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
		return nil, fmt.Errorf("the file header: %w", cut(err))
	}
	f := &pcapFile{source: source, order: binary.LittleEndian}
	if head[0] == 0xa1 {
		f.order = binary.BigEndian
	}
	// The upper bits tell the length of a frame check sequence.
	f.linkType = int(f.order.Uint32(head[20:24]) & 0xffff)
	// gopacket uses this buffered reader itself, as it is large enough.
	if f.reader, err = pcapgo.NewReader(source); err != nil {
		return nil, fmt.Errorf("the file header: %w", cut(err))
	}
	// Many writers exceed the snap length they state.
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
		return frame{}, fmt.Errorf("a packet of %d bytes of which %d are there", length, captured)
	}
	data, info, err := f.reader.ZeroCopyReadPacketData()
	if err != nil {
		return frame{}, cut(err)
	}
	return frame{time: info.Timestamp, data: data, length: info.Length, linkType: f.linkType}, nil
}
