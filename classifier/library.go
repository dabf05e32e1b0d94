// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	ort "github.com/yalue/onnxruntime_go"
)

// LibraryVariable is the environment variable that names ONNX Runtime's library.
const LibraryVariable = "DPCLASS_ONNXRUNTIME"

// libraryNames are the names of the library, the versioned one first.
var libraryNames = []string{"libonnxruntime.so.1", "libonnxruntime.so"}

// ErrNoLibrary is wrapped by the error for a library that was found nowhere.
var ErrNoLibrary = errors.New("ONNX Runtime's library was not found")

// minLibrary is the first release that has the API version of the binding.
const minLibrary = "1.24"

// FindLibrary returns the path of ONNX Runtime's library: explicit, else
// DPCLASS_ONNXRUNTIME, else beside the binary (or in ../lib/dpclass of it, where
// an installed binary has it), else in the system's library directories.
func FindLibrary(explicit string) (string, error) {
	for _, named := range []struct{ path, by string }{
		{explicit, "--onnxruntime"}, {os.Getenv(LibraryVariable), LibraryVariable},
	} {
		if named.path == "" {
			continue
		}
		path, err := namedLibrary(named.path)
		if err != nil {
			return "", fmt.Errorf("ONNX Runtime's library %q (%s): %w\ngive the path of %s of release %s or newer",
				named.path, named.by, err, libraryNames[0], minLibrary)
		}
		return path, nil
	}
	beside := besideBinary()
	for _, dir := range append(beside, systemDirs()...) {
		for _, name := range libraryNames {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("%w\nlooked for %s at --onnxruntime, %s, in %s and in the system's library path\n"+
		"run 'make deps' in the source tree, or give --onnxruntime PATH",
		ErrNoLibrary, libraryNames[0], LibraryVariable, strings.Join(beside, ", "))
}

// namedLibrary checks a path that somebody gave; a directory stands for the
// library in it.
func namedLibrary(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		var pathError *fs.PathError
		if errors.As(err, &pathError) {
			err = pathError.Err
		}
		return "", err
	}
	if !info.IsDir() {
		// Without a slash dlopen would search the system's path for it.
		return filepath.Abs(path)
	}
	for _, name := range libraryNames {
		inside, err := filepath.Abs(filepath.Join(path, name))
		if err != nil {
			return "", err
		}
		if info, err := os.Stat(inside); err == nil && info.Mode().IsRegular() {
			return inside, nil
		}
	}
	return "", fmt.Errorf("a directory without %s", strings.Join(libraryNames, " or "))
}

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

// libraryLock guards the opening of the library: ONNX Runtime's environment is
// one for the process (the binding keeps it in a variable of its own).
var libraryLock sync.Mutex

// openLibrary opens ONNX Runtime, once in a process. Every later call returns
// at once, whatever library it names.
func openLibrary(explicit string) error {
	libraryLock.Lock()
	defer libraryLock.Unlock()
	if ort.IsInitialized() {
		return nil
	}
	path, err := FindLibrary(explicit)
	if err != nil {
		return err
	}
	ort.SetSharedLibraryPath(path)
	// The library's own log lines would stand between ours: its errors come
	// back as errors anyway.
	if err := ort.InitializeEnvironment(ort.WithLogLevelFatal()); err != nil {
		if strings.Contains(err.Error(), "ORT API base: 2") {
			return fmt.Errorf("ONNX Runtime's library %q is too old: it lacks the API of release %s\n"+
				"run 'make deps' in the source tree, or give --onnxruntime PATH of a newer one", path, minLibrary)
		}
		return fmt.Errorf("ONNX Runtime's library %q cannot be opened: %s\n"+
			"it must be %s of release %s or newer for this CPU; 'make deps' gets it", path, openReason(err, path), libraryNames[0], minLibrary)
	}
	return nil
}

// openReason cuts the binding's words off the dynamic linker's.
func openReason(err error, path string) string {
	reason := err.Error()
	if i := strings.Index(reason, path+`": `); i >= 0 {
		reason = reason[i+len(path)+3:]
	}
	reason = strings.TrimPrefix(reason, path+": ")
	if strings.TrimSpace(reason) == "" || strings.Contains(reason, "OrtGetApiBase") {
		return "it is a shared library, but not ONNX Runtime (no OrtGetApiBase)"
	}
	return reason
}

// LibraryVersion opens ONNX Runtime and returns its release, as "1.24.3".
func LibraryVersion(explicit string) (string, error) {
	if err := openLibrary(explicit); err != nil {
		return "", err
	}
	return ort.GetVersion(), nil
}
