// SPDX-License-Identifier: Apache-2.0

package bounded

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	pipe, socket, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "socket"), filepath.Join(dir, "file")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := os.WriteFile(file, []byte("eight by"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		limit int64
		says  string
	}{
		{file, 8, ""},
		{file, 7, "is larger than 7 bytes"},
		{dir, 8, "is a directory"},
		{pipe, 8, "is a named pipe"},
		{"/dev/zero", 8, "is a device"},
		{socket, 8, "no such device or address"},
	} {
		data, err := ReadFile(test.name, test.limit)
		if test.says == "" {
			if err != nil || string(data) != "eight by" {
				t.Errorf("%s: %q, %v", test.name, data, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), dir) || data != nil {
			t.Errorf("%s: %q, %v; want %q", test.name, data, err, test.says)
		}
	}
	if _, err := ReadFile(filepath.Join(dir, "none"), 8); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
