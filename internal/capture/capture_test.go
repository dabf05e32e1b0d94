// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/klauspost/compress/zstd"

	"github.com/dpclass/dpclass/internal/vector/packettest"
)

var packet4 = packettest.Spec{Payload: 100}.Build().Data
var packet6 = packettest.Spec{IPv6: true, Proto: packettest.UDP, Payload: 50}.Build().Data
var began = time.Date(2026, 3, 4, 5, 6, 7, 123456000, time.UTC)

// pcap builds a pcap file with one frame per second.
func pcap(order binary.AppendByteOrder, magic uint32, linkType int, frames ...[]byte) []byte {
	file := order.AppendUint32(nil, magic)
	file = order.AppendUint16(file, 2)
	file = order.AppendUint16(file, 4)
	file = append(file, make([]byte, 8)...)
	file = order.AppendUint32(file, 65535)
	file = order.AppendUint32(file, uint32(linkType))
	fraction := uint32(began.Nanosecond() / 1000)
	if magic == 0xa1b23c4d {
		fraction = uint32(began.Nanosecond())
	}
	for i, frame := range frames {
		file = order.AppendUint32(file, uint32(began.Unix())+uint32(i))
		file = order.AppendUint32(file, fraction)
		file = order.AppendUint32(file, uint32(len(frame)))
		file = order.AppendUint32(file, uint32(len(frame)))
		file = append(file, frame...)
	}
	return file
}

// block builds a pcapng block.
func block(order binary.AppendByteOrder, kind uint32, body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	b := order.AppendUint32(nil, kind)
	b = order.AppendUint32(b, uint32(len(body)+12))
	b = append(b, body...)
	return order.AppendUint32(b, uint32(len(body)+12))
}

func section(order binary.AppendByteOrder) []byte {
	body := order.AppendUint32(nil, byteOrderMagic)
	body = order.AppendUint16(body, 1)
	body = order.AppendUint16(body, 0)
	return block(order, blockSection, append(body, bytes.Repeat([]byte{0xff}, 8)...))
}

func describe(order binary.AppendByteOrder, linkType int, options ...byte) []byte {
	body := order.AppendUint16(nil, uint16(linkType))
	body = order.AppendUint16(body, 0)
	body = order.AppendUint32(body, 65535)
	return block(order, blockInterface, append(body, options...))
}

func enhanced(order binary.AppendByteOrder, id int, stamp uint64, frame []byte) []byte {
	body := order.AppendUint32(nil, uint32(id))
	body = order.AppendUint32(body, uint32(stamp>>32))
	body = order.AppendUint32(body, uint32(stamp))
	body = order.AppendUint32(body, uint32(len(frame)))
	body = order.AppendUint32(body, uint32(len(frame)))
	return block(order, blockEnhanced, append(body, frame...))
}

// read returns the packets of a file, and the error that ended it if not io.EOF.
func read(t testing.TB, file []byte) (packets []Packet, stats Stats, err error) {
	t.Helper()
	r, err := New(bytes.NewReader(file), "test")
	if err != nil {
		return nil, Stats{}, err
	}
	defer r.Close()
	for {
		p, err := r.Next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return packets, r.Stats(), err
		}
		p.Data = bytes.Clone(p.Data)
		packets = append(packets, p)
	}
}

func checkPackets(t *testing.T, name string, file []byte, want ...[]byte) []Packet {
	t.Helper()
	packets, _, err := read(t, file)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(packets) != len(want) {
		t.Fatalf("%s: %d packets, want %d", name, len(packets), len(want))
	}
	for i, p := range packets {
		// Ethernet padding may follow.
		if !bytes.HasPrefix(p.Data, want[i]) || p.Length != len(p.Data) {
			t.Fatalf("%s: packet %d is %x (length %d)\nwant %x", name, i, p.Data, p.Length, want[i])
		}
	}
	return packets
}

func TestPcap(t *testing.T) {
	for name, order := range map[string]binary.AppendByteOrder{"little": binary.LittleEndian, "big": binary.BigEndian} {
		for _, magic := range []uint32{0xa1b2c3d4, 0xa1b23c4d} {
			packets := checkPackets(t, name, pcap(order, magic, linkRaw, packet4, packet6), packet4, packet6)
			if !packets[1].Time.Equal(began.Add(time.Second)) {
				t.Errorf("%s, %x: time %v", name, magic, packets[1].Time)
			}
		}
	}
}

func TestLinkTypes(t *testing.T) {
	head := func(head ...byte) func(packet []byte, kind uint16) []byte {
		return func(packet []byte, _ uint16) []byte { return append(bytes.Clone(head), packet...) }
	}
	cooked := func(packet []byte, kind uint16) []byte {
		return append(binary.BigEndian.AppendUint16(make([]byte, 14), kind), packet...)
	}
	cooked2 := func(packet []byte, kind uint16) []byte {
		return append(append(binary.BigEndian.AppendUint16(nil, kind), make([]byte, 18)...), packet...)
	}
	tagged := func(tags ...uint16) func([]byte, uint16) []byte {
		return func(packet []byte, _ uint16) []byte { return packettest.Ethernet(packet, tags...) }
	}
	shim := func(frame func([]byte) []byte) func([]byte, uint16) []byte {
		return func(packet []byte, _ uint16) []byte { return frame(packet) }
	}
	for _, test := range []struct {
		name     string
		linkType int
		frame    func([]byte, uint16) []byte
		packets  [][]byte
	}{
		{"ethernet", 1, tagged(), [][]byte{packet4, packet6}},
		{"802.1Q", 1, tagged(0x8100), [][]byte{packet4, packet6}},
		{"802.1ad", 1, tagged(0x88a8, 0x8100), [][]byte{packet4, packet6}},
		{"old QinQ", 1, tagged(0x9100, 0x8100), [][]byte{packet4, packet6}},
		{"PPPoE", 1, shim(func(packet []byte) []byte { return packettest.PPPoE(packet) }), [][]byte{packet4, packet6}},
		{"PPPoE with two tags", 1, shim(func(packet []byte) []byte { return packettest.PPPoE(packet, 0x88a8, 0x8100) }), [][]byte{packet4, packet6}},
		{"MPLS", 1, shim(func(packet []byte) []byte { return packettest.MPLS(packet, 1) }), [][]byte{packet4, packet6}},
		{"MPLS of four labels with a tag", 1, shim(func(packet []byte) []byte { return packettest.MPLS(packet, 4, 0x8100) }), [][]byte{packet4, packet6}},
		{"MPLS of five labels", 1, shim(func(packet []byte) []byte { return packettest.MPLS(packet, 5) }), [][]byte{}},
		{"three tags", 1, tagged(0x8100, 0x8100, 0x8100), [][]byte{}},
		{"raw", 101, head(), [][]byte{packet4, packet6}},
		{"raw 12", 12, head(), [][]byte{packet4, packet6}},
		{"raw 14", 14, head(), [][]byte{packet4, packet6}},
		{"ipv4", 228, head(), [][]byte{packet4}},
		{"ipv6", 229, head(), [][]byte{packet6}},
		{"cooked", 113, cooked, [][]byte{packet4, packet6}},
		{"cooked 2", 276, cooked2, [][]byte{packet4, packet6}},
		{"null, little", 0, head(2, 0, 0, 0), [][]byte{packet4}},
		{"null, big", 0, head(0, 0, 0, 2), [][]byte{packet4}},
		{"null, IPv6 of Linux", 0, head(10, 0, 0, 0), [][]byte{packet6}},
		{"null, IPv6 of macOS", 0, head(30, 0, 0, 0), [][]byte{packet6}},
		{"loop", 108, head(0, 0, 0, 24), [][]byte{packet6}},
	} {
		// Each link type gets frames of both IP versions. Some accept only one of them.
		var frames [][]byte
		for _, packet := range [][]byte{packet4, packet6} {
			kind := uint16(0x0800)
			if packet[0]>>4 == 6 {
				kind = 0x86dd
			}
			frames = append(frames, test.frame(packet, kind))
		}
		checkPackets(t, test.name, pcap(binary.LittleEndian, 0xa1b2c3d4, test.linkType, frames...), test.packets...)
		ng := append(section(binary.LittleEndian), describe(binary.LittleEndian, test.linkType)...)
		for _, frame := range frames {
			ng = append(ng, enhanced(binary.LittleEndian, 0, 1, frame)...)
		}
		checkPackets(t, test.name+" in pcapng", ng, test.packets...)
		for i := range frames {
			for cut := range min(len(frames[i]), 24) {
				if _, _, err := read(t, pcap(binary.LittleEndian, 0xa1b2c3d4, test.linkType, frames[i][:cut])); err != nil {
					t.Errorf("%s, frame of %d bytes: %v", test.name, cut, err)
				}
			}
		}
	}
}

func TestLinkTypeNotRead(t *testing.T) {
	_, _, err := read(t, pcap(binary.LittleEndian, 0xa1b2c3d4, 127, packet4))
	if err == nil || !strings.Contains(err.Error(), "link type IEEE 802.11 with radiotap header (127)") {
		t.Errorf("%v", err)
	}
	// If other frames can be read, they are, and this one is counted.
	file := append(section(binary.BigEndian), describe(binary.BigEndian, 127)...)
	file = append(file, describe(binary.BigEndian, linkRaw)...)
	file = append(file, enhanced(binary.BigEndian, 0, 1, packet4)...)
	file = append(file, enhanced(binary.BigEndian, 1, 1, packet6)...)
	packets, stats, err := read(t, file)
	if err != nil || len(packets) != 1 || stats.Unsupported != 1 || stats.Frames != 2 {
		t.Errorf("%d packets, %+v, %v", len(packets), stats, err)
	}
	r, err := New(bytes.NewReader(file), "mixed")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for err == nil {
		_, err = r.Next()
	}
	if says := fmt.Sprint(r.Warnings()); !strings.Contains(says, "1 packets have the link type IEEE 802.11 with radiotap header (127)") {
		t.Errorf("%s", says)
	}
	if names := fmt.Sprint(linkName(105), ", ", linkName(4711)); names != "IEEE 802.11 (105), 4711" {
		t.Errorf("%s", names)
	}
}

// Files of version 2.0 to 2.2 and 543.0 have the lengths the other way round, some of
// version 2.3 too (libpcap's sf-pcap.c).
func TestPcapVersions(t *testing.T) {
	for _, test := range []struct {
		major, minor uint16
		swapped, ok  bool
	}{
		{2, 0, true, true}, {2, 1, true, true}, {2, 2, true, true}, {2, 3, true, true}, {2, 3, false, true},
		{2, 4, false, true}, {543, 0, true, true}, {2, 5, false, false}, {1, 2, false, false}, {3, 0, false, false},
	} {
		for name, order := range map[string]binary.AppendByteOrder{"little": binary.LittleEndian, "big": binary.BigEndian} {
			file := pcap(order, 0xa1b2c3d4, linkRaw, packet4, packet6)
			copy(file[4:], order.AppendUint16(order.AppendUint16(nil, test.major), test.minor))
			// The first packet is cut: its original length is larger.
			at := 24 + 8
			lengths := []uint32{uint32(len(packet4)), uint32(len(packet4)) + 500}
			if test.swapped {
				lengths[0], lengths[1] = lengths[1], lengths[0]
			}
			copy(file[at:], order.AppendUint32(order.AppendUint32(nil, lengths[0]), lengths[1]))
			packets, _, err := read(t, file)
			if !test.ok {
				if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("version %d.%d", test.major, test.minor)) {
					t.Errorf("%+v, %s: %v", test, name, err)
				}
				continue
			}
			if err != nil || len(packets) != 2 || packets[0].Length != len(packet4)+500 || !bytes.Equal(packets[0].Data, packet4) ||
				!bytes.Equal(packets[1].Data, packet6) {
				t.Errorf("%+v, %s: %d packets, %v", test, name, len(packets), err)
			}
		}
	}
}

// A packet whose original length is less than what was captured does not end the file: what
// was captured was on the wire.
func TestCapturedBeyondOriginal(t *testing.T) {
	file := pcap(binary.LittleEndian, 0xa1b2c3d4, linkRaw, packet4, packet6)
	binary.LittleEndian.PutUint32(file[24+12:], 60)
	checkPackets(t, "caplen above len", file, packet4, packet6)
}

// A time that RFC 3339 cannot write becomes the nearest one that it can, and is counted.
func TestFarTimes(t *testing.T) {
	order := binary.LittleEndian
	head := append(section(order), describe(order, linkRaw)...)
	// Time stamps in seconds, and an offset of -2^62 s.
	offset := order.AppendUint64(order.AppendUint16(order.AppendUint16(nil, 14), 8), 3<<62)
	seconds := append(order.AppendUint16(order.AppendUint16(nil, 9), 1), 0, 0, 0, 0)
	for _, test := range []struct {
		name    string
		options []byte
		stamp   uint64
		want    time.Time
		far     int
	}{
		{"good", nil, uint64(began.UnixMicro()), began, 0},
		{"nanoseconds as microseconds", nil, uint64(began.UnixNano()) * 10, latest, 1},
		{"largest", seconds, 1<<64 - 1, latest, 1},
		{"smallest", append(bytes.Clone(seconds), offset...), 0, earliest, 1},
	} {
		file := append(section(order), describe(order, linkRaw, test.options...)...)
		file = append(file, enhanced(order, 0, test.stamp, packet4)...)
		packets, stats, err := read(t, file)
		if err != nil || len(packets) != 1 || !packets[0].Time.Equal(test.want) || stats.FarTimes != test.far {
			t.Errorf("%s: %v, %+v, %v", test.name, packets, stats, err)
			continue
		}
		if _, err := packets[0].Time.MarshalJSON(); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	r, err := New(bytes.NewReader(append(head, enhanced(order, 0, 1<<63, packet4)...)), "far")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if says := fmt.Sprint(r.Warnings()); !strings.Contains(says, `capture "far": the times of 1 packets`) {
		t.Errorf("%s", says)
	}
}

// Interfaces are told apart where a capture may have several.
func TestInterfaces(t *testing.T) {
	order := binary.LittleEndian
	cooked2 := func(index uint32) []byte {
		head := order.AppendUint16(nil, 8) // 0x0800 in network order
		head = binary.BigEndian.AppendUint32(append(head, 0, 0), index)
		return append(append(head, make([]byte, 12)...), packet4...)
	}
	cooked := append(append(make([]byte, 14), 8, 0), packet4...)
	of := func(file []byte) (all []uint64) {
		packets, _, err := read(t, file)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packets {
			all = append(all, p.Interface)
		}
		return all
	}
	one := append(section(order), describe(order, linkRaw)...)
	two := append(bytes.Clone(one), describe(order, linkRaw)...)
	one = append(one, enhanced(order, 0, 1, packet4)...)
	two = append(append(two, enhanced(order, 0, 1, packet4)...), enhanced(order, 1, 1, packet4)...)
	for name, test := range map[string]struct{ got, want []uint64 }{
		"Ethernet":                   {of(pcap(order, 0xa1b2c3d4, linkEthernet, packettest.Ethernet(packet4))), []uint64{0}},
		"cooked":                     {of(pcap(order, 0xa1b2c3d4, linkCooked, cooked)), []uint64{AnyInterface}},
		"cooked v2":                  {of(pcap(order, 0xa1b2c3d4, linkCooked2, cooked2(3), cooked2(2))), []uint64{1<<32 | 3, 1<<32 | 2}},
		"pcapng, one interface":      {of(one), []uint64{0}},
		"pcapng, several interfaces": {of(two), []uint64{1 << 32, 2 << 32}},
	} {
		if !slices.Equal(test.got, test.want) {
			t.Errorf("%s: %x, want %x", name, test.got, test.want)
		}
	}
}

func TestPcapng(t *testing.T) {
	for name, order := range map[string]binary.AppendByteOrder{"little": binary.LittleEndian, "big": binary.BigEndian} {
		file := section(order)
		file = append(file, block(order, 0x0bad, []byte("skip me"))...)
		file = append(file, describe(order, linkEthernet)...)
		// if_tsresol 9: nanoseconds; if_tsoffset 1000.
		offset := append(order.AppendUint16(order.AppendUint16(nil, 14), 8), order.AppendUint64(nil, 1000)...)
		options := append(order.AppendUint16(order.AppendUint16(nil, 9), 1), 9, 0, 0, 0)
		file = append(file, describe(order, linkRaw, append(options, offset...)...)...)
		// 2^-20 s.
		file = append(file, describe(order, linkRaw, append(order.AppendUint16(order.AppendUint16(nil, 9), 1), 0x80|20, 0, 0, 0)...)...)
		file = append(file, enhanced(order, 0, uint64(began.UnixMicro()), packettest.Ethernet(packet4))...)
		file = append(file, enhanced(order, 1, uint64(began.UnixNano()), packet6)...)
		file = append(file, enhanced(order, 2, uint64(began.Unix())<<20|1<<19, packet6)...)
		simple := order.AppendUint32(nil, uint32(len(packettest.Ethernet(packet4))))
		file = append(file, block(order, blockSimple, append(simple, packettest.Ethernet(packet4)...))...)
		old := order.AppendUint16(nil, 1)
		old = order.AppendUint16(old, 0)
		old = append(old, make([]byte, 8)...)
		old = order.AppendUint32(old, uint32(len(packet4)))
		old = order.AppendUint32(old, uint32(len(packet4))+5)
		file = append(file, block(order, blockPacket, append(old, packet4...))...)
		// A second section, in the other byte order, has its own interfaces.
		other := binary.AppendByteOrder(binary.BigEndian)
		if order == binary.AppendByteOrder(binary.BigEndian) {
			other = binary.LittleEndian
		}
		file = append(file, section(other)...)
		file = append(file, describe(other, linkRaw)...)
		file = append(file, enhanced(other, 0, 5, packet6)...)

		packets, _, err := read(t, file)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(packets) != 6 {
			t.Fatalf("%s: %d packets, want 6", name, len(packets))
		}
		for i, want := range []time.Time{
			began, began.Add(1000 * time.Second), began.Truncate(time.Second).Add(time.Second / 2),
			{}, time.Unix(1000, 0), time.UnixMicro(5),
		} {
			if !packets[i].Time.Equal(want) {
				t.Errorf("%s: packet %d at %v, want %v", name, i, packets[i].Time, want)
			}
		}
		if packets[4].Length != len(packet4)+5 {
			t.Errorf("%s: length %d", name, packets[4].Length)
		}
	}
}

// Files that gopacket writes can be read.
func TestPcapngOfGopacket(t *testing.T) {
	var file bytes.Buffer
	w, err := pcapgo.NewNgWriter(&file, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	for _, packet := range [][]byte{packet4, packet6} {
		frame := packettest.Ethernet(packet)
		info := gopacket.CaptureInfo{Timestamp: began, CaptureLength: len(frame), Length: len(frame)}
		if err := w.WritePacket(info, frame); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	packets := checkPackets(t, "gopacket", file.Bytes(), packet4, packet6)
	if !packets[0].Time.Equal(began) {
		t.Errorf("time %v", packets[0].Time)
	}
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCompressed(t *testing.T) {
	plain := pcap(binary.LittleEndian, 0xa1b2c3d4, linkRaw, packet4, packet6)
	checkPackets(t, "gzip", gzipped(t, plain), packet4, packet6)
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	checkPackets(t, "zstd", w.EncodeAll(plain, nil), packet4, packet6)
}

// A capture that is cut anywhere gives every whole packet before the cut, and a
// DamageError unless the cut is between packets.
func TestCutAnywhere(t *testing.T) {
	frames := [][]byte{packet4, packet6, packet4}
	ng := append(section(binary.LittleEndian), describe(binary.LittleEndian, linkRaw)...)
	headNG := len(ng)
	for _, frame := range frames {
		ng = append(ng, enhanced(binary.LittleEndian, 0, 1, frame)...)
	}
	for _, test := range []struct {
		name string
		file []byte
		head int // bytes of the file header
		ends []int
	}{
		{"pcap", pcap(binary.LittleEndian, 0xa1b2c3d4, linkRaw, frames...), 24, nil},
		{"pcapng", ng, len(section(binary.LittleEndian)), []int{headNG}},
	} {
		end := test.head
		if test.ends != nil {
			end = test.ends[0]
		}
		bounds := []int{end}
		for _, frame := range frames {
			if test.name == "pcap" {
				end += 16 + len(frame)
			} else {
				end += len(enhanced(binary.LittleEndian, 0, 1, frame))
			}
			bounds = append(bounds, end)
		}
		for size := test.head; size <= len(test.file); size++ {
			packets, _, err := read(t, test.file[:size])
			whole, clean := 0, size == test.head
			for i, bound := range bounds {
				if size >= bound {
					whole = i
				}
				clean = clean || size == bound
			}
			var damage *DamageError
			if len(packets) != whole || (err == nil) != clean || (err != nil && !errors.As(err, &damage)) {
				t.Fatalf("%s of %d bytes: %d packets, error %v; want %d packets", test.name, size, len(packets), err, whole)
			}
			if damage != nil && (damage.Packets != whole || damage.Offset > int64(size)) {
				t.Fatalf("%s of %d bytes: %+v", test.name, size, damage)
			}
		}
		for size := range test.head {
			if _, _, err := read(t, test.file[:size]); err == nil {
				t.Fatalf("%s of %d bytes: no error", test.name, size)
			}
		}
		// A compressed file that is cut anywhere is an error.
		packed := gzipped(t, test.file)
		for size := 1; size < len(packed); size++ {
			if _, _, err := read(t, packed[:size]); err == nil {
				t.Fatalf("%s.gz of %d bytes: no error", test.name, size)
			}
		}
	}
}

// Wrong lengths cause neither a panic nor a large allocation.
func TestLyingLengths(t *testing.T) {
	good := pcap(binary.LittleEndian, 0xa1b2c3d4, linkRaw, packet4)
	lie := func(at int, value uint32) []byte {
		file := pcap(binary.LittleEndian, 0xa1b2c3d4, linkRaw, packet4, packet4)
		binary.LittleEndian.PutUint32(file[len(good)+at:], value)
		return file
	}
	for _, file := range [][]byte{lie(8, 0xfffffff0), lie(8, 0x7fffffff), lie(8, maxPacket+1), lie(8, uint32(len(packet4))+1)} {
		packets, _, err := read(t, file)
		var damage *DamageError
		if len(packets) != 1 || !errors.As(err, &damage) {
			t.Errorf("%d packets, %v", len(packets), err)
		}
	}
	order := binary.LittleEndian
	head := append(section(order), describe(order, linkRaw)...)
	for name, bad := range map[string][]byte{
		"huge block":           order.AppendUint32(order.AppendUint32(nil, blockEnhanced), 0xffffffff),
		"huge unknown block":   order.AppendUint32(order.AppendUint32(nil, 0x0bad), 0xffffffff),
		"tiny block":           append(order.AppendUint32(order.AppendUint32(nil, blockEnhanced), 8), make([]byte, 8)...),
		"short packet block":   block(order, blockEnhanced, make([]byte, 8)),
		"unknown interface":    enhanced(order, 7, 0, packet4),
		"packet beyond block":  func() []byte { b := enhanced(order, 0, 0, packet4); order.PutUint32(b[20:], 4096); return b }(),
		"bad resolution":       describe(order, linkRaw, 9, 0, 1, 0, 99, 0, 0, 0),
		"bad byte order":       append(order.AppendUint32(order.AppendUint32(nil, blockSection), 28), make([]byte, 24)...),
		"section of version 9": func() []byte { s := section(order); s[12] = 9; return s }(),
	} {
		_, _, err := read(t, append(bytes.Clone(head), bad...))
		var damage *DamageError
		if !errors.As(err, &damage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, says := range map[string]string{
		filepath.Join(dir, "missing"): "no such file",
		dir:                           "is a directory",
		write("empty", nil):           "is empty",
		write("short", []byte{1, 2}):  "has 2 bytes",
		write("text", []byte("hello, this is it")):                   "neither pcap nor pcapng",
		write("head", pcap(binary.LittleEndian, 0xa1b2c3d4, 1)[:20]): "is cut off",
	} {
		_, err := Open(path)
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", path, err, says)
		}
	}
	r, err := Open(write("good", pcap(binary.LittleEndian, 0xa1b2c3d4, linkRaw, packet4)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// FuzzReader checks that no file causes a panic, and that the packets together are no
// longer than the file.
func FuzzReader(f *testing.F) {
	order := binary.LittleEndian
	f.Add(pcap(order, 0xa1b2c3d4, linkRaw, packet4, packet6))
	f.Add(pcap(binary.BigEndian, 0xa1b23c4d, linkEthernet, packettest.Ethernet(packet4, 0x8100)))
	f.Add(append(append(section(order), describe(order, linkRaw)...), enhanced(order, 0, 1, packet6)...))
	f.Add(append(append(section(binary.BigEndian), describe(binary.BigEndian, linkCooked2, 0, 9, 0, 1, 9, 0, 0, 0)...), block(binary.BigEndian, blockSimple, make([]byte, 60))...))
	f.Fuzz(func(t *testing.T, file []byte) {
		if len(file) > 1 && file[0] == 0x1f && file[1] == 0x8b {
			return // decompresses to more than the file
		}
		if bytes.HasPrefix(file, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
			return
		}
		packets, stats, err := read(t, file)
		if len(packets) != stats.Packets || stats.Packets > stats.Frames {
			t.Fatalf("%d packets, %+v", len(packets), stats)
		}
		total := 0
		for _, p := range packets {
			total += len(p.Data)
			if len(p.Data) == 0 || p.Length < len(p.Data) {
				t.Fatalf("a packet of %d bytes, length %d", len(p.Data), p.Length)
			}
		}
		if total > len(file) {
			t.Fatalf("%d bytes of packets in a file of %d (%v)", total, len(file), err)
		}
	})
}
