// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// maxWindow limits the memory that a zstd file can claim. "zstd -19" needs 8 MiB,
// "zstd --long" 128 MiB.
const maxWindow = 128 << 20

// plainReader reads the decompressed bytes of a capture file.
type plainReader struct {
	*bufio.Reader
	count *countReader
	close func() error
}

// offset returns how many decompressed bytes have been consumed.
func (r *plainReader) offset() int64 { return r.count.n - int64(r.Buffered()) }

// decompress detects the compression and returns a reader of the plain bytes.
func decompress(source *countReader) (*plainReader, error) {
	packed := bufio.NewReaderSize(source, 1<<16)
	magic, _ := packed.Peek(4)
	plain := &plainReader{close: func() error { return nil }}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		reader, err := gzip.NewReader(packed)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", cut(err))
		}
		plain.count = &countReader{source: reader}
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		reader, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		plain.count = &countReader{source: reader}
		plain.close = func() error { reader.Close(); return nil }
	default:
		plain.Reader, plain.count = packed, source
		return plain, nil
	}
	plain.Reader = bufio.NewReaderSize(plain.count, 1<<16)
	return plain, nil
}
