// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
)

// npyHead is the length of the header. It has room for any number of rows and is a
// multiple of 64, as the format wants it for memory mapping.
const npyHead = 128

// npyFile writes a .npy file (format 1.0) row by row. It writes the header last, because
// the header contains the number of rows.
type npyFile struct {
	file  *os.File
	out   *bufio.Writer
	kind  string // NumPy type, for example "<i2"
	width int    // elements in a row; 0: a row is one number
	rows  int
}

func createNpy(name, kind string, width int) (*npyFile, error) {
	file, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	f := &npyFile{file: file, out: bufio.NewWriterSize(file, 1<<18), kind: kind, width: width}
	_, err = f.out.Write(make([]byte, npyHead))
	return f, err
}

// row writes one row, given as bytes in little-endian order.
func (f *npyFile) row(row []byte) error {
	f.rows++
	_, err := f.out.Write(row)
	return err
}

// number writes a row that is one integer.
func (f *npyFile) number(value int) error {
	var buffer [8]byte
	binary.LittleEndian.PutUint64(buffer[:], uint64(value))
	size := int(f.kind[2] - '0')
	return f.row(buffer[:size])
}

// close writes the header and closes the file.
func (f *npyFile) close() error {
	err := f.out.Flush()
	if err == nil {
		_, err = f.file.WriteAt(npyHeader(f.kind, f.rows, f.width), 0)
	}
	if closeErr := f.file.Close(); err == nil {
		err = closeErr
	}
	return err
}

func npyHeader(kind string, rows, width int) []byte {
	shape := fmt.Sprintf("(%d,)", rows)
	if width != 0 {
		shape = fmt.Sprintf("(%d, %d)", rows, width)
	}
	text := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': %s, }", kind, shape)
	const fixed = 10 // magic, version, length
	text += strings.Repeat(" ", npyHead-fixed-len(text)-1) + "\n"
	head := []byte("\x93NUMPY\x01\x00")
	head = binary.LittleEndian.AppendUint16(head, npyHead-fixed)
	return append(head, text...)
}
