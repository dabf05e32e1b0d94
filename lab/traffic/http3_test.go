// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/fault"
)

// quicStart says what a UDP payload is, as the first one of a flow: "initial" for an
// Initial packet of QUIC version 1 (RFC 9000, 17.2.2) of the size that a client must send
// (14.1), "short" for a packet with a short header (17.3), as a connection has when its
// client has moved to another port, and "" for neither.
func quicStart(payload []byte) string {
	switch {
	case len(payload) >= 1200 && payload[0]&0xf0 == 0xc0 && binary.BigEndian.Uint32(payload[1:]) == 1:
		return "initial"
	case len(payload) > 20 && payload[0]&0xc0 == 0x40:
		return "short"
	}
	return ""
}

// checkQUIC reads a capture in which all must be QUIC.
func checkQUIC(t *testing.T, dir string, c *Capture) {
	t.Helper()
	reader, err := capture.Open(filepath.Join(dir, c.Path))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	walker := dataset.NewWalker(reader)
	starts := map[string]int{}
	for {
		step, err := walker.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if step.Packet.Proto != 17 {
			t.Fatalf("%s: a packet of protocol %d, want UDP alone", c.Path, step.Packet.Proto)
		}
		if step.Sampled && step.Flow.Payloads == 1 {
			starts[quicStart(step.Data[step.Packet.Payload:])]++
		}
	}
	if starts["initial"] == 0 || starts[""] > 0 {
		t.Errorf("%s: flows begin with %v, want QUIC's Initial packets", c.Path, starts)
	}
}

// TestHTTP3 makes traffic with the programs that speak HTTP/3, alone and in a tunnel. It
// must be QUIC. A browser may be too slow to show anything in a quick round on a busy
// machine, so there are some.
func TestHTTP3(t *testing.T) {
	needRoot(t)
	for name, least := range map[string]int{"quic-go": 50_000, "chromium-h3": 2_000, "chromium-h3-dash": 30_000} {
		t.Run(name, func(t *testing.T) {
			p := Programs()[slices.IndexFunc(Programs(), func(p *Program) bool { return p.Name == name })]
			if err := p.Missing(); err != nil {
				t.Skipf("SKIPPED: %v; %s", err, strings.Join(fault.Advice(err), "; "))
			}
			var mu sync.Mutex
			var problems []error
			for seed := range uint64(4) {
				out := filepath.Join(t.TempDir(), "traffic")
				result, err := Run(t.Context(), Options{Out: out, Quick: true, Seed: seed, Programs: []string{name}, Log: func(e Event) {
					mu.Lock()
					defer mu.Unlock()
					if e.Err != nil && !e.Skipped {
						problems = append(problems, e.Err)
					}
				}})
				problems = append(problems, err)
				bytes := 0
				for _, c := range result.Captures {
					checkCapture(t, out, c)
					if c.Program != name {
						continue // the tunnel
					}
					checkQUIC(t, out, c)
					info, err := os.Stat(filepath.Join(out, c.Path))
					if err != nil {
						t.Fatal(err)
					}
					bytes += int(info.Size())
				}
				if bytes >= least {
					t.Run("nDPI", func(t *testing.T) { checkNDPI(t, out, result.Captures) })
					return
				}
			}
			t.Errorf("less than %d bytes of %s: %v", least, name, errors.Join(problems...))
		})
	}
}

func TestQUICStart(t *testing.T) {
	initial := append([]byte{0xc3, 0, 0, 0, 1, 8}, make([]byte, 1200)...)
	for want, payload := range map[string][]byte{"initial": initial, "short": append([]byte{0x41}, make([]byte, 30)...), "": []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")} {
		if got := quicStart(payload); got != want {
			t.Errorf("%.10q is %q, want %q", payload, got, want)
		}
	}
	if got := quicStart(initial[:1000]); got != "" {
		t.Errorf("a small Initial packet is %q", got)
	}
}

func TestStorage(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	server := httptest.NewServer(storage(root))
	defer server.Close()
	do := func(method, path, body string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		content, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(content)
	}
	if code, _ := do(http.MethodGet, "/up1", ""); code != http.StatusNotFound {
		t.Errorf("a file that is not there: %d", code)
	}
	if code, text := do(http.MethodPut, "/up1", "first"); code != http.StatusCreated {
		t.Errorf("PUT: %d %s", code, text)
	}
	if code, text := do(http.MethodPut, "/up1", "second"); code != http.StatusCreated {
		t.Errorf("PUT again: %d %s", code, text)
	}
	if code, text := do(http.MethodGet, "/up1", ""); code != http.StatusOK || text != "second" {
		t.Errorf("GET: %d %q", code, text)
	}
	if code, _ := do(http.MethodPut, "/", "x"); code != http.StatusInternalServerError {
		t.Errorf("PUT of the root: %d", code)
	}
	entries, err := os.ReadDir(root.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "up1" {
			t.Errorf("left behind: %q", e.Name())
		}
	}
}
