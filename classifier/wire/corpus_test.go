// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
)

// meant lists the labels of captures that name a protocol in other words.
var meant = map[flow.Protocol][]string{
	flow.ProtocolXMPP:          {"jabber"},
	flow.ProtocolNetBIOS:       {"nbns", "nbdgm"},
	flow.ProtocolMySQL:         {"database"},
	flow.ProtocolPostgreSQL:    {"database"},
	flow.ProtocolMongoDB:       {"database"},
	flow.ProtocolTDS:           {"mssql-tds", "database"},
	flow.ProtocolSTUN:          {"stun-ice", "turn"},
	flow.ProtocolSNMP:          {"netmgmt"},
	flow.ProtocolModbus:        {"industrial"},
	flow.ProtocolBACnet:        {"industrial"},
	flow.ProtocolSSH:           {"sftp", "scp"},
	flow.ProtocolRedis:         {"resp"},
	flow.ProtocolDiscordVoice:  {"discord"},
	flow.ProtocolTelegramVoice: {"telegram"},
}

// agrees reports whether a protocol fits a capture's label: it is the label, or it decides
// the label's category.
func agrees(protocol flow.Protocol, category, app string) bool {
	if app == protocol.String() || slices.Contains(meant[protocol], app) {
		return true
	}
	decides := protocol.Category()
	return decides != "" && (category == decides || category == "vpn-"+decides)
}

// protocolLabel is a protocol with the label of the capture.
type protocolLabel struct {
	protocol flow.Protocol
	label    string // category/app
}

// disagreements reads testdata/disagreements.txt.
func disagreements(t *testing.T) map[protocolLabel]int {
	t.Helper()
	const name = "testdata/disagreements.txt"
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	list := map[protocolLabel]int{}
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		if line := lines.Text(); line != "" && line[0] != '#' {
			columns := strings.Split(line, "\t")
			if len(columns) != 4 || columns[3] == "" {
				t.Fatalf("%s, line %d: want protocol, label, flows and explanation", name, n)
			}
			protocol, ok := flow.ParseProtocol(columns[0])
			flows, err := strconv.Atoi(columns[2])
			if !ok || err != nil {
				t.Fatalf("%s, line %d: protocol %q, %v flows", name, n, columns[0], columns[2])
			}
			list[protocolLabel{protocol, columns[1]}] = flows
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestDisagreementsAreExplained checks the list without the captures.
func TestDisagreementsAreExplained(t *testing.T) {
	list := disagreements(t)
	if len(list) == 0 {
		t.Error("the list is empty")
	}
	for pair := range list {
		if category, app, ok := strings.Cut(pair.label, "/"); !ok || agrees(pair.protocol, category, app) {
			t.Errorf("%v and %s agree", pair.protocol, pair.label)
		}
	}
}

// TestCorpusLabels compares the protocols of labelled captures with the labels. Pairs that
// disagree, and the reason for each, are listed in testdata/disagreements.txt. DPCLASS_CORPUS
// names the directory with the captures and their manifest.
func TestCorpusLabels(t *testing.T) {
	root := os.Getenv("DPCLASS_CORPUS")
	if root == "" {
		t.Skip("SKIPPED, DPCLASS_CORPUS is not set: no labelled captures to compare with")
	}
	captures, err := dataset.ReadManifest(filepath.Join(root, "manifest.csv"), "")
	if err != nil {
		t.Fatal(err)
	}
	found := map[protocolLabel]int{}
	example := map[protocolLabel]string{}
	agree := map[flow.Protocol]int{}
	flows, recognised := 0, 0
	for _, file := range captures {
		for _, guessed := range guessCapture(t, file) {
			flows++
			if guessed.protocol == flow.ProtocolUnknown {
				continue
			}
			recognised++
			if agrees(guessed.protocol, file.Category, file.App) {
				agree[guessed.protocol]++
				continue
			}
			pair := protocolLabel{guessed.protocol, file.Category + "/" + file.App}
			found[pair]++
			example[pair] = file.Path
		}
	}
	listed := disagreements(t)
	for pair, n := range found {
		if listed[pair] != n {
			t.Errorf("%v in captures labelled %s: %d flows, listed are %d; one is in %s", pair.protocol, pair.label, n, listed[pair], example[pair])
		}
	}
	for pair, n := range listed {
		if found[pair] == 0 {
			t.Errorf("%v in captures labelled %s: no flows, listed are %d", pair.protocol, pair.label, n)
		}
	}
	t.Logf("%d of %d flows recognised", recognised, flows)
	for _, protocol := range slices.Sorted(maps.Keys(agree)) {
		other := 0
		for pair, n := range found {
			if pair.protocol == protocol {
				other += n
			}
		}
		t.Logf("%-16v %4d as labelled, %3d otherwise", protocol, agree[protocol], other)
	}
}

// guessCapture returns what guess says of each flow of a capture that has payload.
func guessCapture(t *testing.T, file dataset.Capture) []guess {
	t.Helper()
	reader, err := capture.Open(file.File)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	walker := dataset.NewWalker(reader)
	place := map[int]int{} // by number of the flow
	var list []guess
	for {
		step, err := walker.Next()
		var damage *capture.DamageError
		if errors.Is(err, io.EOF) || errors.As(err, &damage) {
			return list
		}
		if err != nil {
			t.Fatal(fmt.Errorf("%s: %w", file.Path, err))
		}
		if !step.Sampled {
			continue
		}
		at, ok := place[step.Flow.Number]
		if !ok {
			at = len(list)
			place[step.Flow.Number] = at
			list = append(list, guess{})
		}
		packet := packetOf(step)
		list[at].add(&packet)
	}
}

// packetOf returns a packet of a capture as guess reads it. A is the sender of the flow's
// first packet.
func packetOf(step dataset.Step) Packet {
	p := step.Packet
	packet := Packet{
		Proto: flow.Proto(p.Proto), FromA: p.Src == step.Flow.Src, SrcPort: p.Src.Port(), DstPort: p.Dst.Port(),
		Payload: step.Data[p.Payload : p.Payload+p.Captured], Length: max(p.Length-p.Payload, p.Captured),
	}
	if packet.Proto == flow.TCP {
		packet.Seq = be.Uint32(step.Data[p.L4+4:])
	}
	return packet
}
