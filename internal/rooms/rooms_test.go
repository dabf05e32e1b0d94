// SPDX-License-Identifier: Apache-2.0

// Package rooms holds no code. Its test checks that the packages of this module
// import each other in one direction only.
package rooms

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dpclass/dpclass"

// A room is a folder with the packages below it. The most specific folder of the
// table decides for a package.
type room struct {
	folder string
	may    []string // folders of this module that it may import
	tests  []string // folders that its tests may import as well
}

// A package may always import packages of its own room.
var rooms = []room{
	{"flow", nil, nil},
	{"models", nil, nil},
	{"loader", []string{"flow", "internal"}, []string{"lab"}},
	{"loader/owner", []string{"flow", "internal"}, []string{"lab"}},
	{"classifier", []string{"classifier/wire", "flow", "models", "internal"}, nil},
	{"classifier/wire", []string{"flow", "internal"}, []string{"lab"}},
	{"policy", []string{"flow", "internal"}, nil},
	{"agent", []string{"loader", "classifier", "policy", "flow", "internal"}, []string{"lab"}},
	{"internal", []string{"flow"}, nil},
	{"lab", []string{"flow", "models", "loader", "classifier", "policy", "agent", "internal"}, nil},
	{"cmd/dpclass", []string{"flow", "models", "loader", "loader/owner", "classifier", "classifier/wire", "policy", "agent",
		"internal"}, []string{"lab"}},
	{"cmd/dplab", []string{"flow", "models", "loader", "classifier", "policy", "agent",
		"internal", "lab"}, nil},
	{"scripts", nil, nil},
	{"docs/examples", nil, nil},
}

// kept says which packages of other modules stay inside some folders.
var kept = map[string][]string{
	"github.com/yalue/onnxruntime_go": {"classifier/ort"}, // the only cgo
	"github.com/google/gopacket":      {"internal/capture"},
	"github.com/landlock-lsm":         {"internal/confine"},
	"github.com/coder/websocket":      {"lab/traffic"},
	"github.com/quic-go/quic-go":      {"classifier/wire", "lab/traffic"}, // in tests, and as a peer in the lab
}

// goPackage is what "go list -json" prints for a package.
type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// goList runs "go list" in the module's root.
func goList(t *testing.T, args ...string) []byte {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		tool = filepath.Join(runtime.GOROOT(), "bin", "go")
	}
	list := exec.Command(tool, append([]string{"list", "-buildvcs=false"}, args...)...)
	list.Dir = "../.."
	out, err := list.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		t.Fatalf("go list: %v: %s", err, failed.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// within reports whether a path is the folder or below it.
func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

// roomOf finds the room of a folder of this module.
func roomOf(folder string) (room, bool) {
	var found room
	for _, r := range rooms {
		if within(folder, r.folder) && len(r.folder) > len(found.folder) {
			found = r
		}
	}
	return found, found.folder != ""
}

// forbidden says why a folder of this module must not import a package, or "".
func forbidden(from room, folder, imported string, inTest bool) string {
	to, ours := strings.CutPrefix(imported, module+"/")
	if !ours {
		for other, homes := range kept {
			if within(imported, other) && !slices.ContainsFunc(homes, func(home string) bool { return within(folder, home) }) {
				return "only " + strings.Join(homes, " and ") + " may import it"
			}
		}
		if first, _, _ := strings.Cut(imported, "/"); from.folder == "flow" && strings.Contains(first, ".") {
			return "flow imports the standard library only"
		}
		return ""
	}
	may := slices.Concat(from.may, []string{from.folder})
	if inTest {
		may = slices.Concat(may, from.tests)
	}
	target, _ := roomOf(to)
	// Rooms are compared, not paths: a room inside another one needs a mention of its own.
	if slices.Contains(may, target.folder) {
		return ""
	}
	return from.folder + " may import " + strings.Join(may, ", ")
}

func TestImportsRunOneWay(t *testing.T) {
	packages := json.NewDecoder(bytes.NewReader(goList(t, "-json=ImportPath,Imports,TestImports,XTestImports", "./...")))
	count := 0
	for ; ; count++ {
		var p goPackage
		if err := packages.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		folder := strings.TrimPrefix(p.ImportPath, module+"/")
		from, ok := roomOf(folder)
		if !ok {
			t.Errorf("%s is in no room: add its folder to the table of this test", folder)
			continue
		}
		for _, imported := range p.Imports {
			if why := forbidden(from, folder, imported, false); why != "" {
				t.Errorf("%s -> %s: %s", folder, imported, why)
			}
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			if why := forbidden(from, folder, imported, true); why != "" {
				t.Errorf("tests of %s -> %s: %s", folder, imported, why)
			}
		}
	}
	if count < len(rooms) {
		t.Errorf("go list printed %d packages, want at least one for each of %d rooms", count, len(rooms))
	}
}

// The daemon runs as root on other people's machines: no lab in it, however indirect.
func TestDaemonHasNoLab(t *testing.T) {
	deps := strings.Fields(string(goList(t, "-deps", "./cmd/dpclass")))
	if !slices.Contains(deps, module+"/loader") {
		t.Fatalf("dpclass does not contain the loader: %d packages", len(deps))
	}
	for _, dep := range deps {
		if within(dep, module+"/lab") {
			t.Errorf("dpclass contains %s", dep)
		}
	}
}

// The table of this test is code too: an arrow that must not be is refused.
func TestForbidden(t *testing.T) {
	for _, test := range []struct {
		folder, imported string
		inTest, refused  bool
	}{
		{"flow", "net/netip", false, false},
		{"flow", "github.com/cilium/ebpf", false, true},
		{"loader", module + "/internal/netns", false, false},
		{"loader", module + "/cmd/dpclass/internal/offline", false, true},
		{"loader", module + "/classifier", false, true},
		{"loader", module + "/lab", false, true},
		{"loader", module + "/lab", true, false},
		{"classifier/model", module + "/lab", true, true},
		{"classifier/wire", module + "/lab", true, false},
		{"classifier/wire", module + "/lab", false, true},
		{"classifier/wire", module + "/classifier/model", false, true},
		{"internal/vector", module + "/loader", false, true},
		{"internal/capture", module + "/classifier", false, true},
		{"classifier/ort", "github.com/yalue/onnxruntime_go", false, false},
		{"classifier", "github.com/yalue/onnxruntime_go", false, true},
		{"cmd/dpclass", module + "/cmd/dpclass/internal/offline", false, false},
		{"cmd/dpclass", module + "/lab/bench", false, true},
	} {
		from, _ := roomOf(test.folder)
		if why := forbidden(from, test.folder, test.imported, test.inTest); (why != "") != test.refused {
			t.Errorf("%s -> %s: %q, refused: want %v", test.folder, test.imported, why, test.refused)
		}
	}
}
