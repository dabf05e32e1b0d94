// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindLibraryOrder(t *testing.T) {
	dir := t.TempDir()
	explicit, variable := filepath.Join(dir, "a.so"), filepath.Join(dir, libraryNames[1])
	for _, path := range []string{explicit, variable} {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(LibraryVariable, variable)
	if path, err := FindLibrary(explicit); path != explicit || err != nil {
		t.Errorf("explicit: %q, %v", path, err)
	}
	if path, err := FindLibrary(""); path != variable || err != nil {
		t.Errorf("variable: %q, %v", path, err)
	}
	t.Setenv(LibraryVariable, dir)
	if path, err := FindLibrary(""); path != variable || err != nil {
		t.Errorf("a directory: %q, %v", path, err)
	}
	_, err := FindLibrary(filepath.Join(dir, "none.so"))
	wantRefusal(t, err, "none.so", "--onnxruntime", "no such file")
	t.Setenv(LibraryVariable, t.TempDir())
	_, err = FindLibrary("")
	wantRefusal(t, err, LibraryVariable, libraryNames[0])
}

func TestFindLibraryNowhere(t *testing.T) {
	t.Setenv(LibraryVariable, "")
	path, err := FindLibrary("")
	if err == nil {
		t.Skipf("SKIPPED: the system has ONNX Runtime at %s", path)
	}
	wantRefusal(t, err, "make deps", "--onnxruntime", LibraryVariable, filepath.Dir(os.Args[0]))
	if !errors.Is(err, ErrNoLibrary) {
		t.Errorf("%v is no ErrNoLibrary", err)
	}
}

// The library is opened once in a process: each wrong one is tried in another.
func TestWrongLibrary(t *testing.T) {
	if path := os.Getenv("TEST_WRONG_LIBRARY"); path != "" {
		wantRefusal(t, openLibrary(path), path)
		return
	}
	text := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(text, []byte("this is no library"), 0o644); err != nil {
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
		if strings.Contains(string(out), "no error") {
			t.Errorf("%s was opened", path)
		}
		t.Logf("%s", out)
	}
}
