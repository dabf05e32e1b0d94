// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/lab"
)

// dump is one capture of a round, as tcpdump writes it.
type dump struct {
	process *lab.Process
	file    string
	tunnel  *tunnel      // nil: none
	inside  bool         // seen inside the tunnel
	clients []netip.Addr // that are on the clients' side
}

// Capture is a finished capture: a row of the manifest.
type Capture struct {
	Path                    string // relative to the manifest
	Category                string
	App                     string
	VPN                     bool   // packets of or in a tunnel
	Name                    string // the captures of one round share the beginning, and those of its clients in a tunnel the whole
	LinkType                int
	Packets, Payload, Flows int
	Program, Version        string
	Seed                    uint64
}

// columns are the corpus's, and three more.
var columns = []string{"path", "set", "category", "app", "vpn", "capture", "linktype", "packets", "payload_packets", "truncated_payload_packets",
	"flows", "licence", "source", "label_how", "use", "program", "version", "seed"}

// row returns the fields of columns.
func (c *Capture) row() []string {
	vpn := "0"
	if c.VPN {
		vpn = "1"
	}
	return []string{c.Path, "lab", c.Category, c.App, vpn, c.Name, fmt.Sprint(c.LinkType), fmt.Sprint(c.Packets), fmt.Sprint(c.Payload), "0",
		fmt.Sprint(c.Flows), "none needed (generated)", "dplab traffic", "program that opened the socket", "train", c.Program, c.Version, fmt.Sprint(c.Seed)}
}

// manifest is a manifest.csv that grows by complete rows.
type manifest struct {
	mu   sync.Mutex
	file *os.File
	csv  *csv.Writer
}

func newManifest(dir string) (*manifest, error) {
	file, err := os.OpenFile(filepath.Join(dir, "manifest.csv"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	m := &manifest{file: file, csv: csv.NewWriter(file)}
	return m, m.write(columns)
}

func (m *manifest) write(row []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.csv.Write(row); err != nil {
		return err
	}
	m.csv.Flush()
	return m.csv.Error()
}

// Link types of the captures (https://www.tcpdump.org/linktypes.html).
const (
	linkEthernet = 1
	linkRaw      = 101
)

// finish copies a capture to its place, with a link layer that is drawn, and removes the
// original. It fills in the counts. A capture without payload is not written: ok is false.
func (d *dump) finish(ctx context.Context, dir string, c *Capture, choice draw) (ok bool, err error) {
	defer os.Remove(d.file)
	in, err := capture.Open(d.file)
	if err != nil {
		return false, err
	}
	defer in.Close()
	name := filepath.Join(dir, filepath.FromSlash(c.Path))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return false, err
	}
	// A name that no manifest lists, until it is complete.
	part := name + ".part"
	out, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return false, err
	}
	c.LinkType = pick(choice, linkEthernet, linkEthernet, linkRaw)
	err = d.copy(ctx, in, out, c, choice)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		c.Flows, c.Payload, err = dataset.Count(ctx, part)
	}
	if err != nil || c.Flows == 0 {
		return false, errors.Join(err, os.Remove(part))
	}
	return true, os.Rename(part, name)
}

// pcapHeader returns the header of a pcap file (draft-ietf-opsawg-pcap) with microseconds.
func pcapHeader(linkType int) []byte {
	head := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	head = binary.LittleEndian.AppendUint16(head, 2)
	head = binary.LittleEndian.AppendUint16(head, 4)
	head = append(head, make([]byte, 8)...)
	head = binary.LittleEndian.AppendUint32(head, 262144)
	return binary.LittleEndian.AppendUint32(head, uint32(linkType))
}

// pcapRecord returns the header of a packet.
func pcapRecord(at time.Time, captured, length int) []byte {
	record := binary.LittleEndian.AppendUint32(nil, uint32(at.Unix()))
	record = binary.LittleEndian.AppendUint32(record, uint32(at.Nanosecond()/int(time.Microsecond)))
	record = binary.LittleEndian.AppendUint32(record, uint32(captured))
	return binary.LittleEndian.AppendUint32(record, uint32(length))
}

// copy writes a pcap file.
func (d *dump) copy(ctx context.Context, in *capture.Reader, file io.Writer, c *Capture, choice draw) error {
	out := bufio.NewWriter(file)
	if _, err := out.Write(pcapHeader(c.LinkType)); err != nil {
		return err
	}
	near, away := choice.mac(), choice.mac()
	for ; ; c.Packets++ {
		if c.Packets%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		packet, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out.Flush()
		}
		if err != nil {
			return err
		}
		var ethernet []byte
		if c.LinkType == linkEthernet {
			from, to := away, near
			if parsed, reason := vector.Parse(packet.Data, packet.Length); reason == vector.OK && slices.Contains(d.clients, parsed.Src.Addr()) {
				from, to = near, away
			}
			kind := []byte{0x08, 0x00}
			if packet.Data[0]>>4 == 6 {
				kind = []byte{0x86, 0xdd}
			}
			ethernet = slices.Concat(to, from, kind)
		}
		record := pcapRecord(packet.Time, len(ethernet)+len(packet.Data), len(ethernet)+packet.Length)
		for _, part := range [][]byte{record, ethernet, packet.Data} {
			if _, err := out.Write(part); err != nil {
				return err
			}
		}
	}
}

// describe returns the manifest's row of a capture, without what finish fills in.
func (j job) describe(d *dump, seed uint64, number int, version string) *Capture {
	id := j.id()
	c := &Capture{Category: j.category(), App: j.program.App, VPN: d.tunnel != nil, Name: fmt.Sprintf("lab-%d-%s", seed, id), Program: j.program.Name,
		Version: version, Seed: seed}
	file := id
	switch {
	case d.tunnel != nil && !d.inside:
		c.Category, c.App, c.Program = tunnelCategory, d.tunnel.app, d.tunnel.name
		c.Name += "-outside"
	case d.inside:
		file += fmt.Sprintf("-%d", number)
	}
	c.Path = path.Join(c.Category, file+".pcap")
	return c
}
