// SPDX-License-Identifier: Apache-2.0

package wire

// reader reads fields of a message that may be cut anywhere. A read beyond the end makes
// it bad; from then on it returns zeros and empty slices.
type reader struct {
	b   []byte
	bad bool
}

// bytes returns the next n bytes.
func (r *reader) bytes(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// uint returns an unsigned integer of n bytes, at most 4, in network byte order.
func (r *reader) uint(n int) int {
	v := 0
	for _, b := range r.bytes(n) {
		v = v<<8 | int(b)
	}
	return v
}

// vector returns a field with its length before it, in n bytes.
func (r *reader) vector(n int) []byte { return r.bytes(r.uint(n)) }

// varint returns an integer of QUIC (RFC 9000, section 16). Values that do not fit into
// an int on any machine are bad: no field that is read here can be that large.
func (r *reader) varint() int {
	first := r.uint(1)
	v := first & 0x3f
	for range 1<<(first>>6) - 1 {
		if v = v<<8 | r.uint(1); v > 1<<30 {
			r.bad = true
			return 0
		}
	}
	return v
}
