// SPDX-License-Identifier: Apache-2.0

// Package capture reads IP packets from capture files: pcap and pcapng, plain or
// compressed with gzip or zstd, with the usual link types that carry IP.
package capture

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/dpclass/dpclass/internal/fault"
)

// maxPacket is the largest packet that is read, in bytes (libpcap's MAXIMUM_SNAPLEN). Do
// not allocate by a length field from an untrusted file.
const maxPacket = 262144

// Stdin is the file name that means standard input.
const Stdin = "-"

// Packet is one IP packet of a capture.
type Packet struct {
	Time   time.Time // in UTC; the zero time if the capture has none
	Data   []byte    // captured bytes from the IP header on; valid until the next call of Next
	Length int       // bytes of the frame on the wire, from the IP header on
	Raw    bool      // the frame has no link layer, as on a tun device
	// Interface tells the interfaces of a capture apart: the same packet may be in it once
	// for each. 0: the capture has only one; AnyInterface: it does not say.
	Interface uint64
}

// Stats counts what a Reader has read.
type Stats struct {
	Frames      int // frames in the file
	Packets     int // IP packets among them
	Unsupported int // frames with an unsupported link type
	FarTimes    int // frames whose time is outside the years 1678 to 2262
}

// DamageError says that a capture is damaged or cut off at some point. All complete
// packets before that point have been read.
type DamageError struct {
	Name    string
	Packets int   // complete frames before that point
	Offset  int64 // byte offset of that point, after decompression
	Err     error
}

func (e *DamageError) Error() string {
	if e.Packets == 0 {
		return fmt.Sprintf("capture %q: no complete packet: %v at byte %d", e.Name, e.Err, e.Offset)
	}
	return fmt.Sprintf("capture %q: %v at byte %d; only the %d packets before it are used", e.Name, e.Err, e.Offset, e.Packets)
}

func (e *DamageError) Unwrap() error { return e.Err }

// errCut is the error of most damaged captures.
var errCut = errors.New("the file is cut off")

// frame is one record of a capture file, including its link layer.
type frame struct {
	time     time.Time
	data     []byte
	length   int // on the wire
	linkType int
	from     int  // interface of a pcapng section
	several  bool // the section has other interfaces too
}

// frameReader reads one file format. next returns io.EOF after the last frame.
type frameReader interface {
	next() (frame, error)
}

// Reader reads the IP packets of one capture.
type Reader struct {
	name   string
	frames frameReader
	plain  *plainReader
	closer []func() error
	stats  Stats
	unread map[int]int // frames by unsupported link type
}

// Open opens a capture file; "-" is standard input.
func Open(name string) (*Reader, error) {
	if name == Stdin {
		return New(os.Stdin, "standard input")
	}
	file, err := os.Open(name)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return nil, fmt.Errorf("capture %q: %w", name, err)
	}
	if info, err := file.Stat(); err == nil && info.IsDir() {
		return nil, errors.Join(fmt.Errorf("capture %q: is a directory, want a pcap or pcapng file", name), file.Close())
	}
	r, err := New(file, name)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	r.closer = append(r.closer, file.Close)
	return r, nil
}

// New reads a capture from source. Errors call it name.
func New(source io.Reader, name string) (*Reader, error) {
	r := &Reader{name: name}
	plain, err := decompress(&countReader{source: source})
	if err != nil {
		return nil, fmt.Errorf("capture %q: %w", name, err)
	}
	r.plain = plain
	r.closer = append(r.closer, plain.close)
	if err := r.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("capture %q: %w", name, err), r.Close())
	}
	return r, nil
}

// open detects the format and reads the file header.
func (r *Reader) open() error {
	magic, err := r.plain.Peek(4)
	if len(magic) < 4 {
		switch {
		case !errors.Is(err, io.EOF):
			return cut(err)
		case len(magic) == 0:
			return errors.New("the file is empty, want a pcap or pcapng file")
		}
		return fmt.Errorf("the file has %d bytes, want a pcap or pcapng file", len(magic))
	}
	switch {
	case isPcap(magic):
		r.frames, err = newPcap(r.plain.Reader)
	case isPcapng(magic):
		r.frames, err = newPcapng(r.plain.Reader)
	default:
		err = fmt.Errorf("the file begins with %x: neither pcap nor pcapng, plain or compressed with gzip or zstd", magic)
	}
	return err
}

// Close closes the file that Open opened.
func (r *Reader) Close() error {
	var failed error
	for _, close := range r.closer {
		failed = errors.Join(failed, close())
	}
	r.closer = nil
	return failed
}

// Name returns the name that errors call the capture.
func (r *Reader) Name() string { return r.name }

// Stats returns the counts so far.
func (r *Reader) Stats() Stats { return r.stats }

// The times that fit into ns since 1970, years 1678 to 2262. RFC 3339 could write those up
// to the year 9999. A time outside them comes from a writer that stated a wrong resolution.
var (
	earliest = time.Unix(0, math.MinInt64+1).UTC()
	latest   = time.Unix(0, math.MaxInt64).UTC()
)

// Warnings says what is wrong with the frames read so far.
func (r *Reader) Warnings() []error {
	var all []error
	if n := r.stats.FarTimes; n > 0 {
		all = append(all, fmt.Errorf("capture %q: the times of %d packets are outside the years 1678 to 2262, so the nearest one is used: "+
			"its writer stated a wrong time resolution", r.name, n))
	}
	for _, unread := range r.Unread() {
		all = append(all, fmt.Errorf("capture %q: %d packets have the link type %s, which is not read", r.name, unread.Frames, unread.Link))
	}
	return all
}

// Next returns the next IP packet and skips all other frames. At the end it returns
// io.EOF, or an error if no frame had a supported link type. If the file is damaged or
// cut off, it returns a *DamageError.
func (r *Reader) Next() (Packet, error) {
	for {
		f, err := r.frames.next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				if r.stats.Unsupported > 0 && r.stats.Unsupported == r.stats.Frames {
					return Packet{}, fmt.Errorf("capture %q: link type %s is not supported, want Ethernet (1), raw IP (101, 228, 229), Linux cooked (113, 276), null (0) or loop (108)", r.name, r.Unread()[0].Link)
				}
				return Packet{}, io.EOF
			}
			damage := &DamageError{Name: r.name, Packets: r.stats.Frames, Offset: r.plain.offset(), Err: err}
			if damage.Packets == 0 {
				return Packet{}, fault.Advise(damage, "copy the file again from where it was recorded")
			}
			return Packet{}, damage
		}
		r.stats.Frames++
		offset, ok, known := findIP(f.linkType, f.data)
		if !known {
			r.stats.Unsupported++
			if r.unread == nil {
				r.unread = map[int]int{}
			}
			r.unread[f.linkType]++
			continue
		}
		if !ok {
			continue
		}
		r.stats.Packets++
		if !f.time.IsZero() && (f.time.Before(earliest) || f.time.After(latest)) {
			r.stats.FarTimes++
			if f.time.Before(earliest) {
				f.time = earliest
			} else {
				f.time = latest
			}
		}
		return Packet{
			Time: f.time, Data: f.data[offset:], Length: max(f.length, len(f.data)) - offset, Raw: offset == 0, Interface: f.origin(),
		}, nil
	}
}

// countReader counts the bytes read, for the offset in errors.
type countReader struct {
	source io.Reader
	n      int64
}

func (r *countReader) Read(p []byte) (int, error) {
	n, err := r.source.Read(p)
	r.n += int64(n)
	return n, err
}

// cut turns the end of the file inside a record into errCut.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}
