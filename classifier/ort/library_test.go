// SPDX-License-Identifier: Apache-2.0

package ort

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/dpclass/dpclass/internal/fault/faulttest"
)

func TestFindOrder(t *testing.T) {
	dir := t.TempDir()
	explicit, variable := filepath.Join(dir, "a.so"), filepath.Join(dir, libraryNames[1])
	for _, path := range []string{explicit, variable} {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(LibraryVariable, variable)
	if path, err := Find(explicit); path != explicit || err != nil {
		t.Errorf("explicit: %q, %v", path, err)
	}
	if path, err := Find(""); path != variable || err != nil {
		t.Errorf("variable: %q, %v", path, err)
	}
	t.Setenv(LibraryVariable, dir)
	if path, err := Find(""); path != variable || err != nil {
		t.Errorf("a directory: %q, %v", path, err)
	}
	_, err := Find(filepath.Join(dir, "none.so"))
	faulttest.Want(t, err, "none.so", "--onnxruntime", "no such file")
	t.Setenv(LibraryVariable, t.TempDir())
	_, err = Find("")
	faulttest.Want(t, err, LibraryVariable, libraryNames[0])
}

func TestFindNowhere(t *testing.T) {
	t.Setenv(LibraryVariable, "")
	path, err := Find("")
	if err == nil {
		t.Skipf("SKIPPED: the system has ONNX Runtime in %s", path)
	}
	faulttest.Want(t, err, "make deps", "--onnxruntime", LibraryVariable, filepath.Dir(os.Args[0]))
	if !errors.Is(err, ErrNoLibrary) {
		t.Errorf("%v does not wrap ErrNoLibrary", err)
	}
}

// The library is opened once in a process: each wrong one is tried in another.
func TestWrongLibrary(t *testing.T) {
	if path := os.Getenv("TEST_WRONG_LIBRARY"); path != "" {
		faulttest.Want(t, Open(path), path)
		return
	}
	text := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(text, []byte("not a library"), 0o644); err != nil {
		t.Fatal(err)
	}
	paths := []string{text}
	if libraries, err := filepath.Glob("/lib/*/libm.so.6"); err == nil {
		paths = append(paths, libraries...)
	}
	for _, path := range paths {
		test := exec.Command(os.Args[0], "-test.run=^TestWrongLibrary$", "-test.v")
		test.Env = append(os.Environ(), "TEST_WRONG_LIBRARY="+path)
		out, err := test.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
		t.Logf("%s", out)
	}
}
