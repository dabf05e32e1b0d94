// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	// segment is the largest payload of a captured packet, rounded up.
	segment = 1472

	// before is the room for segments that arrive after a later one: two, because a hello
	// has at most three.
	before = 2 * segment

	// windowSize is the number of bytes that are kept of a message in several packets.
	windowSize = before + 3*segment

	// maxWindows is the number of windows that all flows together may hold: 34 MB. Beyond
	// it a message in several packets is read as far as its first packet goes.
	maxWindows = 4096

	// crowded is the number of windows from which on those held longest go to new flows, so
	// that somebody who opens many flows with unfinished hellos wins little.
	crowded = maxWindows * 7 / 8
)

// Crowded reports whether so many flows hold a buffer that those that have held one
// longest should be told to [Flow.GiveUp].
func Crowded() bool { return windowsHeld.Load() > crowded }

// window puts the pieces of a message together, at any order and with overlaps. Of bytes
// that arrive twice, the first ones count.
type window struct {
	have [(windowSize + 63) / 64]uint64 // bit set: the byte is there
	data [windowSize]byte

	base  uint32 // TCP: sequence number of data[0]
	start int    // offset of the message's first byte, if known
	fromA bool   // direction of the pieces
	keys  initialKeys
	cid   connectionID // QUIC: the keys' connection id
}

var (
	windows     = sync.Pool{New: func() any { return new(window) }}
	windowsHeld atomic.Int32
)

// takeWindow returns an empty window, nil if too many are in use.
func takeWindow() *window {
	if windowsHeld.Add(1) > maxWindows {
		windowsHeld.Add(-1)
		return nil
	}
	w := windows.Get().(*window)
	w.reset()
	return w
}

// free gives the window back.
func (w *window) free() {
	w.keys = initialKeys{}
	windowsHeld.Add(-1)
	windows.Put(w)
}

// reset forgets all pieces. The data stays, but nobody reads bytes whose bit is not set.
func (w *window) reset() {
	clear(w.have[:])
	w.base, w.start, w.fromA, w.cid = 0, 0, false, connectionID{}
	w.keys = initialKeys{}
}

// put adds a piece at an offset, which may be outside of the window. It reports whether
// the window has changed.
func (w *window) put(offset int, piece []byte) bool {
	if offset < 0 {
		if -offset >= len(piece) {
			return false
		}
		offset, piece = 0, piece[-offset:]
	}
	if offset >= windowSize {
		return false
	}
	piece = piece[:min(len(piece), windowSize-offset)]
	changed := false
	for len(piece) > 0 {
		// One word of the bit set at a time; mostly all its bytes are new.
		bit := offset % 64
		n := min(64-bit, len(piece))
		mask := ^uint64(0) >> (64 - n) << bit
		word := &w.have[offset/64]
		switch *word & mask {
		case 0:
			copy(w.data[offset:], piece[:n])
			changed = true
		case mask:
		default:
			for i := range n {
				if *word>>(bit+i)&1 == 0 {
					w.data[offset+i] = piece[i]
				}
			}
			changed = true
		}
		*word |= mask
		offset, piece = offset+n, piece[n:]
	}
	return changed
}

// from returns the bytes from an offset on that are there without a gap.
func (w *window) from(offset int) []byte {
	end := offset
	for end < windowSize {
		run := bits.TrailingZeros64(^(w.have[end/64] >> (end % 64)))
		end += min(run, 64-end%64)
		if end%64 != 0 || run == 0 {
			break
		}
	}
	return w.data[offset:min(end, windowSize)]
}
