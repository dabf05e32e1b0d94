// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/lab"
	"github.com/dpclass/dpclass/loader"
)

// The package example works as a program of another module: it attaches to an
// interface, prints verdicts on real traffic, detaches and leaves no pins.
func TestModule(t *testing.T) {
	l := lab.ForTest(t)
	if err := lab.MountBPFFS(); err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	library, err := ort.Find("")
	if err != nil {
		if library, err = ort.Find(filepath.Join(root, "bin")); err != nil {
			t.Skipf("SKIPPED, no ONNX Runtime: %v", err)
		}
	}
	program := buildExample(t, root)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := l.Router(lab.Topology{})
	if err != nil {
		t.Fatal(err)
	}
	web, err := r.Server.NGINX(ctx, lab.Web{Port: 443, TLS: true, Files: map[string]int64{"page": 100 << 10}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // in case the program did not: pins outlive the namespace
		if err := r.Router.Do(func() error { _, err := loader.Detach(context.Background(), "eth0"); return err }); err != nil {
			t.Error(err)
		}
	})
	cmd, err := r.Router.Command(ctx, program)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), ort.LibraryVariable+"="+library)
	p, err := r.Router.StartCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	err = lab.Until(ctx, "the program is ready", func() (bool, error) {
		select {
		case <-p.Done():
			return false, fmt.Errorf("it ended: %v: %s", p.Wait(), p.Output())
		default:
		}
		ready := false
		err := r.Router.Do(func() error {
			i, err := loader.Open("eth0")
			if err != nil {
				return nil // not yet
			}
			defer i.Close()
			status, err := i.Status()
			ready = status.Ready
			return err
		})
		return ready, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := r.Client.Run(ctx, "curl", web.CurlArgs(r.ServerAddr4, "page")...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := attachedTo(t, r.Router); !slices.Equal(got, []string{"eth0"}) {
		t.Errorf("attached to %q, want eth0", got)
	}
	if err := p.WaitOutput(ctx, r.ServerAddr4+":443 is "); err != nil {
		t.Error(err)
	}
	if err := p.Interrupt(); err != nil {
		t.Errorf("the end: %v: %s", err, p.Output())
	}
	if got := attachedTo(t, r.Router); len(got) > 0 {
		t.Errorf("pins are left of %q", got)
	}
	verdict := regexp.MustCompile(`(?m)^tcp .*:443 is (.+)$`).FindStringSubmatch(p.Output())
	if verdict == nil || !slices.Contains(flow.Vocabulary, verdict[1]) {
		t.Errorf("no verdict in %q", p.Output())
	}
}

// attachedTo returns the interfaces of a host that have pins.
func attachedTo(t *testing.T, h *lab.Host) (names []string) {
	t.Helper()
	err := h.Do(func() (err error) {
		names, err = loader.List()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// buildExample builds the package example as the main package of a module of its
// own. It needs nothing that this module does not need, so nothing is fetched.
func buildExample(t *testing.T, root string) string {
	t.Helper()
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	source := strings.NewReplacer("package agent_test", "package main", "func Example()", "func main()").Replace(string(example))
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	const module = `module watch

go 1.25.0

require github.com/dpclass/dpclass v0.0.0

replace github.com/dpclass/dpclass => %q
`
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": source, "go.mod": fmt.Sprintf(module, root), "go.sum": string(sums)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		tool = filepath.Join(runtime.GOROOT(), "bin", "go")
	}
	program := filepath.Join(dir, "watch")
	// -trimpath, as make has it: what it has built is in the cache.
	build := exec.Command(tool, "build", "-trimpath", "-mod=mod", "-o", program, ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOPROXY=off", "GOWORK=off", "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	return program
}
