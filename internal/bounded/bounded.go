// SPDX-License-Identifier: Apache-2.0

// Package bounded reads files that a user names, without trusting that they are what they
// seem to be: a pipe would block, and a device may never end.
package bounded

import (
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ReadFile returns the content of a regular file of at most limit bytes. Its errors do not
// have the name.
func ReadFile(name string, limit int64) ([]byte, error) {
	// Opening a named pipe would wait for a writer.
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, Bare(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, Bare(err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("is %s, want a regular file", kind(info.Mode()))
	}
	if info.Size() > limit {
		return nil, tooLarge(limit)
	}
	data, err := ReadAll(file, limit)
	return data, Bare(err)
}

// ReadAll returns all that a reader has, if that is at most limit bytes.
func ReadAll(from io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = tooLarge(limit)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

func tooLarge(limit int64) error { return fmt.Errorf("is larger than %d bytes", limit) }

// kind says what a file is that is not a regular one.
func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "a special file"
}

// Bare removes the operation and the path from a file error.
func Bare(err error) error {
	if path, ok := err.(*fs.PathError); ok { //nolint:errorlint // the error of os itself
		return path.Err
	}
	return err
}
