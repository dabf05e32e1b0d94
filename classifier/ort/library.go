// SPDX-License-Identifier: Apache-2.0

package ort

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	onnx "github.com/yalue/onnxruntime_go"

	"github.com/dpclass/dpclass/internal/fault"
)

// LibraryVariable is the environment variable with the path of ONNX Runtime's library.
const LibraryVariable = "DPCLASS_ONNXRUNTIME"

// libraryNames are the names of the library, the versioned one first.
var libraryNames = []string{"libonnxruntime.so.1", "libonnxruntime.so"}

// ErrNoLibrary is wrapped by the error if no library was found.
var ErrNoLibrary = errors.New("ONNX Runtime's library was not found")

// minRelease is the first release with the API version of the binding.
const minRelease = "1.24"

// Find returns the path of ONNX Runtime's library: explicit, else the one that
// DPCLASS_ONNXRUNTIME names, else the one in the directory of the binary (or in its
// ../lib/dpclass, where an installed binary has it), else the one in the system's
// library directories. A directory may be given for the library in it. The error wraps
// [ErrNoLibrary] if no library is named and none is found.
func Find(explicit string) (string, error) {
	for _, named := range []struct{ path, by string }{
		{explicit, "--onnxruntime"}, {os.Getenv(LibraryVariable), LibraryVariable},
	} {
		if named.path == "" {
			continue
		}
		path, err := namedLibrary(named.path)
		if err != nil {
			return "", fault.Advise(fmt.Errorf("ONNX Runtime's library %q (%s): %w", named.path, named.by, err),
				"give the path of %s of release %s or newer", libraryNames[0], minRelease)
		}
		return path, nil
	}
	beside := besideBinary()
	for _, dir := range append(beside, systemDirs()...) {
		for _, name := range libraryNames {
			path := filepath.Join(dir, name)
			if isRegular(path) {
				return path, nil
			}
		}
	}
	return "", fault.Advise(
		fmt.Errorf("%w: no %s in %s or in the system's library directories", ErrNoLibrary, libraryNames[0], strings.Join(beside, ", ")),
		"run 'make deps' in the source tree, give --onnxruntime PATH, or set %s", LibraryVariable)
}

func isRegular(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// namedLibrary checks a path that the user gave.
func namedLibrary(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		var pathError *fs.PathError
		if errors.As(err, &pathError) {
			err = pathError.Err
		}
		return "", err
	}
	// Without a slash dlopen would search the system's directories for it.
	absolute, err := filepath.Abs(path)
	if err != nil || !info.IsDir() {
		return absolute, err
	}
	for _, name := range libraryNames {
		if inside := filepath.Join(absolute, name); isRegular(inside) {
			return inside, nil
		}
	}
	return "", fmt.Errorf("a directory without %s", strings.Join(libraryNames, " or "))
}

// besideBinary returns the directories that belong to the binary.
func besideBinary() []string {
	binary, err := os.Executable()
	if err != nil {
		return nil
	}
	if real, err := filepath.EvalSymlinks(binary); err == nil {
		binary = real
	}
	dir := filepath.Dir(binary)
	return []string{dir, filepath.Join(filepath.Dir(dir), "lib", "dpclass")}
}

// systemDirs are the directories that the dynamic linker searches: those of
// LD_LIBRARY_PATH, those that ld.so.conf names, and its own.
func systemDirs() []string {
	dirs := filepath.SplitList(os.Getenv("LD_LIBRARY_PATH"))
	files, _ := filepath.Glob("/etc/ld.so.conf.d/*.conf") // the pattern is well-formed
	for _, file := range append([]string{"/etc/ld.so.conf"}, files...) {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "/") {
				dirs = append(dirs, line)
			}
		}
	}
	return append(dirs, "/usr/local/lib", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
}

// lock guards the opening of the library. The binding holds one ONNX Runtime for the
// whole process.
var lock sync.Mutex

// Open opens the ONNX Runtime library that [Find] returns. A process opens it once:
// later calls return at once, whatever library they name.
func Open(explicit string) error {
	lock.Lock()
	defer lock.Unlock()
	if onnx.IsInitialized() {
		return nil
	}
	path, err := Find(explicit)
	if err != nil {
		return err
	}
	onnx.SetSharedLibraryPath(path)
	// ONNX Runtime would print its errors in addition to returning them.
	if err := onnx.InitializeEnvironment(onnx.WithLogLevelFatal()); err != nil {
		if strings.Contains(err.Error(), "ORT API base: 2") {
			return fault.Advise(fmt.Errorf("ONNX Runtime's library %q is too old: it lacks the API of release %s", path, minRelease),
				"run 'make deps' in the source tree, or give --onnxruntime PATH of a newer one")
		}
		return fault.Advise(fmt.Errorf("ONNX Runtime's library %q cannot be opened: %s", path, openReason(err, path)),
			"it must be %s of release %s or newer for this CPU; 'make deps' downloads it", libraryNames[0], minRelease)
	}
	return nil
}

// openReason removes the binding's text in front of the dynamic linker's.
func openReason(err error, path string) string {
	reason := err.Error()
	if i := strings.Index(reason, path+`": `); i >= 0 {
		reason = reason[i+len(path)+3:]
	}
	reason = strings.TrimPrefix(reason, path+": ")
	if strings.TrimSpace(reason) == "" || strings.Contains(reason, "OrtGetApiBase") {
		return "it is a shared library, but not ONNX Runtime (no OrtGetApiBase)"
	}
	return oneLine(reason)
}

// Version opens ONNX Runtime, see [Open], and returns its release, such as "1.24.3".
func Version(explicit string) (string, error) {
	if err := Open(explicit); err != nil {
		return "", err
	}
	return onnx.GetVersion(), nil
}
