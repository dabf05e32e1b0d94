// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"time"
)

// Block types of pcapng (draft-ietf-opsawg-pcapng).
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6

	byteOrderMagic = 0x1a2b3c4d

	// maxBlock limits the blocks that are read into memory: a packet, its fixed fields and
	// its options. Other blocks, such as decryption secrets, are skipped.
	maxBlock = maxPacket + 1<<18

	// maxInterfaces limits the interfaces in one section.
	maxInterfaces = 1 << 16
)

// ngInterface holds the useful fields of an interface description block.
type ngInterface struct {
	linkType int
	snap     int
	unit     uint64 // time stamp units per second
	offset   int64  // seconds to add
}

// pcapngFile reads the frames of a pcapng file.
type pcapngFile struct {
	source     *bufio.Reader
	order      binary.ByteOrder
	interfaces []ngInterface
	buffer     []byte
}

func isPcapng(magic []byte) bool { return binary.LittleEndian.Uint32(magic) == blockSection }

func newPcapng(source *bufio.Reader) (*pcapngFile, error) {
	f := &pcapngFile{source: source}
	kind, body, err := f.block()
	if err != nil {
		return nil, fmt.Errorf("section header: %w", cut(err))
	}
	if kind != blockSection {
		return nil, fmt.Errorf("section header: block type %#x", kind)
	}
	return f, f.section(body)
}

// block reads the next block and skips the kinds that are not needed. body lacks the
// block's type and lengths and is valid until the next call. After the last block the
// error is io.EOF.
func (f *pcapngFile) block() (kind uint32, body []byte, err error) {
	for {
		var head [12]byte
		if n, err := io.ReadFull(f.source, head[:8]); err != nil {
			if n == 0 && err == io.EOF {
				return 0, nil, io.EOF
			}
			return 0, nil, cut(err)
		}
		have := 8
		if binary.LittleEndian.Uint32(head[:]) == blockSection {
			// Each section has its own byte order.
			if _, err := io.ReadFull(f.source, head[8:12]); err != nil {
				return 0, nil, cut(err)
			}
			have = 12
			switch uint32(byteOrderMagic) {
			case binary.LittleEndian.Uint32(head[8:]):
				f.order = binary.LittleEndian
			case binary.BigEndian.Uint32(head[8:]):
				f.order = binary.BigEndian
			default:
				return 0, nil, fmt.Errorf("section header with byte-order magic %x", head[8:12])
			}
		}
		if f.order == nil {
			return 0, nil, errors.New("no section header")
		}
		kind = f.order.Uint32(head[:])
		total := int64(f.order.Uint32(head[4:]))
		// Some writers leave the padding out of the length.
		rest := (total+3)&^3 - int64(have) - 4
		if total < 12 || rest < 0 {
			return 0, nil, fmt.Errorf("block of type %#x with length %d", kind, total)
		}
		switch kind {
		case blockSection, blockInterface, blockPacket, blockSimple, blockEnhanced:
		default:
			if _, err := io.CopyN(io.Discard, f.source, rest+4); err != nil {
				return 0, nil, cut(err)
			}
			continue
		}
		if rest > maxBlock {
			return 0, nil, fmt.Errorf("block of type %#x with length %d", kind, total)
		}
		if int64(cap(f.buffer)) < rest+4 {
			f.buffer = make([]byte, rest+4, max(rest+4, 1<<16))
		}
		body = f.buffer[:rest+4]
		if _, err := io.ReadFull(f.source, body); err != nil {
			return 0, nil, cut(err)
		}
		return kind, body[:rest], nil
	}
}

// section reads the section header, without its byte-order magic.
func (f *pcapngFile) section(body []byte) error {
	f.interfaces = f.interfaces[:0]
	if len(body) < 12 {
		return fmt.Errorf("section header of %d bytes", len(body))
	}
	if major := f.order.Uint16(body); major != 1 {
		return fmt.Errorf("pcapng version %d, want 1", major)
	}
	return nil
}

func (f *pcapngFile) describe(body []byte) error {
	if len(body) < 8 {
		return fmt.Errorf("interface description of %d bytes", len(body))
	}
	if len(f.interfaces) == maxInterfaces {
		return fmt.Errorf("more than %d interfaces", maxInterfaces)
	}
	described := ngInterface{
		linkType: int(f.order.Uint16(body)),
		snap:     int(f.order.Uint32(body[4:])),
		unit:     1e6,
	}
	for options := body[8:]; len(options) >= 4; {
		code, length := f.order.Uint16(options), int(f.order.Uint16(options[2:]))
		if code == 0 || length > len(options)-4 {
			break
		}
		value := options[4 : 4+length]
		switch {
		case code == 9 && length >= 1: // if_tsresol
			unit, err := resolution(value[0])
			if err != nil {
				return err
			}
			described.unit = unit
		case code == 14 && length >= 8: // if_tsoffset
			described.offset = int64(f.order.Uint64(value))
		}
		options = options[min(4+(length+3)&^3, len(options)):]
	}
	f.interfaces = append(f.interfaces, described)
	return nil
}

// resolution returns the units per second of an if_tsresol option: a power of 10, or of
// 2 if the highest bit is set.
func resolution(value byte) (uint64, error) {
	exponent := value & 0x7f
	if value&0x80 != 0 {
		if exponent > 63 {
			return 0, fmt.Errorf("time resolution of 2^-%d s", exponent)
		}
		return 1 << exponent, nil
	}
	if exponent > 19 {
		return 0, fmt.Errorf("time resolution of 10^-%d s", exponent)
	}
	unit := uint64(1)
	for range exponent {
		unit *= 10
	}
	return unit, nil
}

func (i *ngInterface) time(high, low uint32) time.Time {
	stamp := uint64(high)<<32 | uint64(low)
	seconds, rest := stamp/i.unit, stamp%i.unit
	carry, product := bits.Mul64(rest, uint64(time.Second))
	nanos, _ := bits.Div64(carry, product, i.unit) // rest < unit, so it fits
	// Both are far beyond any time that can be printed, and their sum cannot overflow.
	const most = 1 << 60
	return time.Unix(int64(min(seconds, most))+min(max(i.offset, -most), most), int64(nanos)).UTC()
}

func (f *pcapngFile) next() (frame, error) {
	for {
		kind, body, err := f.block()
		if err != nil {
			return frame{}, err
		}
		switch kind {
		case blockSection:
			err = f.section(body)
		case blockInterface:
			err = f.describe(body)
		default:
			return f.packet(kind, body)
		}
		if err != nil {
			return frame{}, err
		}
	}
}

func (f *pcapngFile) packet(kind uint32, body []byte) (frame, error) {
	fixed := 20
	if kind == blockSimple {
		fixed = 4
	}
	if len(body) < fixed {
		return frame{}, fmt.Errorf("packet block of %d bytes", len(body))
	}
	var id int
	switch kind {
	case blockEnhanced:
		id = int(f.order.Uint32(body))
	case blockPacket:
		id = int(f.order.Uint16(body))
	}
	if id >= len(f.interfaces) {
		return frame{}, fmt.Errorf("packet of interface %d, but the section has %d", id, len(f.interfaces))
	}
	from := &f.interfaces[id]
	result := frame{linkType: from.linkType, from: id, several: len(f.interfaces) > 1}
	var captured int
	if kind == blockSimple {
		result.length = int(f.order.Uint32(body))
		captured = min(result.length, len(body)-fixed)
		if from.snap != 0 {
			captured = min(captured, from.snap)
		}
	} else {
		result.time = from.time(f.order.Uint32(body[4:]), f.order.Uint32(body[8:]))
		captured, result.length = int(f.order.Uint32(body[12:])), int(f.order.Uint32(body[16:]))
	}
	if captured > len(body)-fixed || captured > maxPacket {
		return frame{}, fmt.Errorf("packet of %d bytes in a block of %d", captured, len(body))
	}
	result.data = body[fixed : fixed+captured]
	return result, nil
}
