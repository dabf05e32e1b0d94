// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/tui"
	"github.com/dpclass/dpclass/lab"
)

const (
	iface = "eth0" // the router's side towards the client
	width = 100    // columns of the demo's output

	webPort, sshPort, iperfPort, vpnPort = 443, 22, 5201, 1194
	callClient, callServer               = "10.0.1.2:16384", "10.0.2.2:16386"
)

// show is the demo's state.
type show struct {
	lab    *lab.Lab
	binary string
	out    *screen
	errOut io.Writer // of dpclass
	net    *lab.Routed

	kinds  []*kind
	tooFew error // fewer kinds are right than expected

	web    *lab.WebServer
	agent  *lab.Process
	call   *lab.Call
	iperf  *lab.Process // the server, which reports what it received
	stream *lab.Process // the client
	tunnel *lab.Tunnel

	background     sync.WaitGroup
	stopBackground context.CancelFunc

	before, after figures
}

// close ends everything, also after Ctrl-C.
func (s *show) close() error {
	if s.stopBackground != nil {
		s.stopBackground()
	}
	if s.call != nil {
		_, _ = s.call.Stop() // a call that is cut off has failed packets
	}
	var err error
	if s.agent != nil {
		_ = s.agent.Stop()
		// The agent detaches when it ends. This is in case it could not.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err = s.net.Router.Run(ctx, s.binary, "detach", iface)
	}
	err = errors.Join(err, s.lab.Close())
	s.background.Wait()
	return err
}

// dpclass shows and runs a dpclass command on the router. Its output goes to the demo's
// output.
func (s *show) dpclass(ctx context.Context, args ...string) error {
	s.out.command(append([]string{"dpclass"}, args...)...)
	cmd, err := s.net.Router.Command(ctx, s.binary, args...)
	if err != nil {
		return err
	}
	cmd.Env = os.Environ()
	if !s.out.terminal {
		cmd.Env = append(cmd.Env, fmt.Sprint("COLUMNS=", width))
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.lab.Dir(), s.out.out, s.errOut
	p, err := s.net.Router.StartCommand(cmd)
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("dpclass %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// piped is like dpclass, but shows only what a filter, such as "head -n 5", leaves of the
// output.
func (s *show) piped(ctx context.Context, filter string, args ...string) error {
	shown := make([]string, 0, len(args)+1)
	for _, arg := range append([]string{"dpclass"}, args...) {
		shown = append(shown, quote(arg))
	}
	s.out.line(strings.Join(shown, " ") + " | " + filter)
	out, err := s.net.Router.Run(ctx, "sh", append([]string{"-c", `"$0" "$@" | ` + filter, s.binary}, args...)...)
	if err != nil {
		return err
	}
	if strings.TrimSpace(out) == "" { // a shell reports the filter's failure only
		return fmt.Errorf("dpclass %s printed nothing", strings.Join(args, " "))
	}
	s.out.say("%s", strings.TrimRight(out, "\n"))
	return nil
}

// flows reads the flow table as JSON, as a program would.
func (s *show) flows(ctx context.Context) ([]flow.Record, error) {
	out, err := s.net.Router.Run(ctx, s.binary, "flows", iface, "-o", "json")
	if err != nil {
		return nil, err
	}
	var records []flow.Record
	for decoder := json.NewDecoder(strings.NewReader(out)); decoder.More(); {
		record := flow.Record{Live: &flow.Live{}}
		if err := decoder.Decode(&record); err != nil {
			return nil, fmt.Errorf("dpclass flows -o json: %w", err)
		}
		records = append(records, record)
	}
	return records, nil
}

// find returns the newest flow of a protocol to a port.
func find(records []flow.Record, proto string, port uint16) (flow.Record, bool) {
	var found flow.Record
	for _, r := range records {
		if r.Proto == proto && (r.DstPort == port || r.SrcPort == port) && (found.Proto == "" || r.FirstSeen.After(found.FirstSeen)) {
			found = r
		}
	}
	return found, found.Proto != ""
}

func (s *show) network(context.Context) error {
	s.out.step("Three hosts in network namespaces: client -- eth0 router eth1 -- server, IPv4 and IPv6")
	if err := lab.MountBPFFS(); err != nil {
		return err
	}
	var err error
	if s.net, err = s.lab.Router(lab.Topology{}); err != nil {
		return err
	}
	if err := s.net.Server.AddAddrs(iface, videoAddr+"/64", wikiAddr+"/24", chatAddr+"/64", driveAddr+"/24"); err != nil {
		return err
	}
	s.out.say("client %s %s, server %s %s; dpclass will watch the router's %s\n(namespace %s)",
		s.net.ClientAddr4, s.net.ClientAddr6, s.net.ServerAddr4, s.net.ServerAddr6, iface, s.net.Router.Netns())
	return nil
}

// servers starts the servers that more than one kind of flow uses.
func (s *show) servers(ctx context.Context) error {
	var err error
	if s.web, err = s.net.Server.NGINX(ctx, lab.Web{Port: webPort, TLS: true, Write: true, Rate: "1m", Names: []string{videoName, wikiName, chatName, driveName},
		Files: map[string]int64{"page.html": 40 << 10, "film.mp4": 8 << 20}}); err != nil {
		return err
	}
	if s.iperf, err = s.net.Server.Start(ctx, "iperf3", "--server", "--port", fmt.Sprint(iperfPort), "--forceflush"); err != nil {
		return err
	}
	return s.net.Server.WaitTCP(ctx, s.iperf, iperfPort)
}

func (s *show) attach(ctx context.Context) error {
	s.out.step("dpclass attaches to the router's %s", iface)
	s.out.command("dpclass", "attach", iface)
	var err error
	if s.agent, err = s.net.Router.Start(ctx, s.binary, "attach", iface); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = lab.Until(ready, "dpclass to be ready", func() (bool, error) {
		select {
		case <-s.agent.Done():
			return false, fmt.Errorf("dpclass attach ended: %s", s.agent.Output())
		default:
		}
		_, err := s.net.Router.Run(ready, s.binary, "status", iface)
		return err == nil, nil
	})
	s.out.say("%s", strings.TrimRight(s.agent.Output(), "\n"))
	return err
}

func (s *show) status(ctx context.Context) error {
	s.out.step("What the kernel and the classifier have done so far")
	return s.dpclass(ctx, "status", iface)
}

// watch shows the live table while the traffic runs.
func (s *show) watch(ctx context.Context) error {
	s.out.step("The flows, live")
	watching, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	args := []string{"flows", iface, "--watch", "--limit", "16"}
	if !s.out.color { // without a terminal the tables follow one another
		args = append(args, "--interval", "3s")
	}
	if err := s.dpclass(watching, args...); err != nil {
		return err
	}
	if s.out.color { // the live table is gone with its screen
		return s.dpclass(ctx, "flows", iface, "--limit", "16")
	}
	return ctx.Err()
}

// explained is how many lines of an explanation the demo shows. The packets follow them.
const explained = 17

// explain shows why the newest flow of the first kind that has one got its verdict.
func (s *show) explain(ctx context.Context) error {
	records, err := s.flows(ctx)
	if err != nil {
		return err
	}
	for _, k := range s.kinds {
		for _, r := range slices.Backward(records) {
			if k.has(&r) && r.CategoryFinal {
				s.out.step("Why %s?", r.Category)
				return s.piped(ctx, fmt.Sprintf("head -n %d", explained), "explain", iface, r.Key().String())
			}
		}
	}
	return nil // no flow has a verdict, and the score says so
}

// total is what the flows of a category carried.
type total struct {
	category string
	flows    int
	bytes    uint64
}

// totals adds up the flows of each category, most bytes first.
func totals(records []flow.Record) []total {
	of := map[string]total{}
	for _, r := range records {
		category := r.Category
		if category == "" {
			category = "(undecided)"
		}
		of[category] = total{category, of[category].flows + 1, of[category].bytes + r.Bytes}
	}
	return slices.SortedFunc(maps.Values(of), func(a, b total) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.category, b.category))
	})
}

// categories shows the totals of the categories as bars.
func (s *show) categories(ctx context.Context) error {
	s.out.step("Bytes and flows of each category, from dpclass flows -o json")
	records, err := s.flows(ctx)
	if err != nil {
		return err
	}
	all := totals(records)
	bytes, flows := uint64(0), 0
	for _, t := range all {
		bytes, flows = max(bytes, t.bytes), max(flows, t.flows)
	}
	bar := func(n, most float64, columns int) tui.Cell {
		return tui.Cell{Text: tui.Bar(n/max(most, 1), columns), Style: tui.Cyan}
	}
	for _, line := range tui.Table([]tui.Column[total]{
		{Title: "CATEGORY", Cell: func(t total) tui.Cell { return tui.Cell{Text: t.category} }},
		{Title: "BYTES", Right: true, Cell: func(t total) tui.Cell { return tui.Cell{Text: tui.Bytes(t.bytes)} }},
		{Title: "", Cell: func(t total) tui.Cell { return bar(float64(t.bytes), float64(bytes), 36) }},
		{Title: "FLOWS", Right: true, Cell: func(t total) tui.Cell { return tui.Cell{Text: fmt.Sprint(t.flows)} }},
		{Title: "", Cell: func(t total) tui.Cell { return bar(float64(t.flows), float64(flows), 12) }},
	}, all, s.out.color, width) {
		s.out.say("%s", line)
	}
	return nil
}

// shownFields selects the fields of struct flow (bpf/flow.h) that the demo shows.
const shownFields = ".formatted.value | {category, protocol, rule_in, rule_out, packets_in, packets_out}"

// bpftool shows a verdict in the map that the kernel reads.
func (s *show) bpftool(ctx context.Context) error {
	s.out.step("The call's verdict in the kernel's map, as bpftool reads it")
	for _, program := range []string{"bpftool", "jq"} {
		if _, err := lab.FindProgram(program); err != nil {
			s.out.say("!!! SKIPPED: %v", err)
			return nil
		}
	}
	pins, err := filepath.Glob("/sys/fs/bpf/dpclass/v*/" + iface + "@*/flows")
	if err != nil || len(pins) == 0 {
		return fmt.Errorf("no pinned map \"flows\" for %q under /sys/fs/bpf/dpclass (%w)", iface, err)
	}
	key, err := flow.ParseKey(s.call.Flow)
	if err != nil {
		return err
	}
	// Other runs may have an eth0 in their own namespaces: ours has the call.
	for _, pin := range pins {
		text := fmt.Sprintf("bpftool -j map lookup pinned %s \\\n    key hex %s |\n    jq -c '%s'", pin, strings.Join(keyBytes(key), " "), shownFields)
		out, err := s.net.Router.Run(ctx, "bash", "-o", "pipefail", "-c", "PATH=$PATH:/usr/sbin:/sbin; "+text)
		if err != nil {
			continue
		}
		s.out.line(text)
		s.out.say("%s", strings.TrimRight(out, "\n"))
		return nil
	}
	return fmt.Errorf("the voice call %q is in none of %s", key, strings.Join(pins, " "))
}

// keyBytes returns the key of an IPv4 flow as the map has it (struct flow_key of
// bpf/key.h).
func keyBytes(key flow.Key) []string {
	raw := append(key.A.Addr().AsSlice(), key.B.Addr().AsSlice()...)
	raw = binary.BigEndian.AppendUint16(raw, key.A.Port())
	raw = binary.BigEndian.AppendUint16(raw, key.B.Port())
	raw = append(raw, byte(key.Proto), 0, 0, 0)
	return strings.Fields(fmt.Sprintf("% x", raw))
}

// detach ends the agent as Ctrl-C does, and shows that nothing is left.
func (s *show) detach(ctx context.Context) error {
	s.out.step("Ctrl-C on dpclass attach: it detaches")
	if err := s.agent.Interrupt(); err != nil {
		return fmt.Errorf("dpclass attach: %w: %s", err, s.agent.Output())
	}
	s.agent = nil
	if err := lab.Until(ctx, "the programs to go", func() (bool, error) {
		out, err := s.net.Router.Run(ctx, "ip", "-details", "link", "show", "dev", iface)
		return !strings.Contains(out, "xdp"), err
	}); err != nil {
		return err
	}
	s.out.command("ip", "link", "show", "dev", iface)
	out, err := s.net.Router.Run(ctx, "ip", "link", "show", "dev", iface)
	if err != nil {
		return err
	}
	s.out.say("%s", strings.TrimRight(out, "\n"))
	stats := s.call.Stats()
	s.out.say("the call went through it all: %d of %d packets arrived", stats.ReceivedByB+stats.ReceivedByA, stats.SentByA+stats.SentByB)
	return nil
}
