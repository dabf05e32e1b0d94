// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// linkNames are the names of link types (tcpdump.org/linktypes.html), to say what a file
// holds that is not read.
var linkNames = map[int]string{
	linkNull: "BSD loopback", linkEthernet: "Ethernet", 3: "AX.25", 6: "Token Ring", 7: "ARCNET", 8: "SLIP", 9: "PPP", 10: "FDDI",
	linkRaw12: "raw IP", linkRaw14: "raw IP", 50: "PPP in HDLC framing", 51: "PPPoE session", 100: "ATM RFC 1483",
	linkRaw: "raw IP", 104: "Cisco HDLC", 105: "IEEE 802.11", 107: "Frame Relay", linkLoop: "OpenBSD loopback",
	linkCooked: "Linux cooked", 114: "LocalTalk", 117: "OpenBSD pflog", 119: "IEEE 802.11 with Prism header",
	122: "IP over Fibre Channel", 123: "SunATM", 127: "IEEE 802.11 with radiotap header", 138: "IP over IEEE 1394",
	139: "MTP2 with pseudo-header", 140: "MTP2", 141: "MTP3", 142: "SCCP", 143: "DOCSIS", 144: "IrDA",
	163: "IEEE 802.11 with AVS header", 165: "BACnet MS/TP", 166: "PPP of pppd", 169: "GPRS LLC", 187: "Bluetooth HCI",
	189: "USB of Linux", 192: "per-packet information (PPI)", 195: "IEEE 802.15.4", 197: "ERF", 201: "Bluetooth HCI with pseudo-header",
	202: "AX.25 KISS", 203: "LAPD", 204: "PPP with direction", 205: "Cisco HDLC with direction", 206: "Frame Relay with direction",
	215: "IEEE 802.15.4", 220: "USB of Linux", 224: "Fibre Channel", 226: "Solaris ipnet", 227: "CAN bus", linkIPv4: "IPv4", linkIPv6: "IPv6",
	230: "IEEE 802.15.4", 231: "D-Bus", 239: "netfilter log (NFLOG)", 240: "netANALYZER", 242: "IP over InfiniBand", 243: "MPEG-2 transport stream",
	247: "InfiniBand", 248: "SCTP", 249: "USBPcap", 251: "Bluetooth LE", 252: "Wireshark upper PDU", 253: "Linux netlink",
	254: "Bluetooth of Linux", 255: "Bluetooth BR/EDR", 256: "Bluetooth LE with pseudo-header", 258: "Apple pktap", 259: "EPON",
	264: "ISO 14443", 266: "USB of macOS", 270: "LoRaTap", 271: "vsock", 272: "nRF Bluetooth LE sniffer", 274: "Ethernet mPackets",
	linkCooked2: "Linux cooked v2", 280: "VPP", 281: "Broadcom DSA tags", 282: "Broadcom DSA tags", 283: "IEEE 802.15.4 TAP",
	284: "Marvell DSA tags", 285: "Marvell EDSA tags", 288: "USB 2.0", 290: "Windows ETW",
}

// linkName returns the name and the number of a link type.
func linkName(linkType int) string {
	if name, known := linkNames[linkType]; known {
		return fmt.Sprintf("%s (%d)", name, linkType)
	}
	return fmt.Sprint(linkType)
}

// Unread is a link type that is not read, and how many frames of a capture have it.
type Unread struct {
	Link   string // such as "IEEE 802.11 (105)"
	Frames int
}

// Unread returns the link types that were not read so far, the most frequent first.
func (r *Reader) Unread() []Unread {
	var all []Unread
	for linkType, frames := range r.unread {
		all = append(all, Unread{linkName(linkType), frames})
	}
	slices.SortFunc(all, func(a, b Unread) int { return cmp.Or(b.Frames-a.Frames, cmp.Compare(a.Link, b.Link)) })
	return all
}

// AnyInterface is the Interface of a packet that may come from any of several interfaces,
// without the capture saying from which.
const AnyInterface = ^uint64(0)

// origin returns the Interface of a packet.
func (f *frame) origin() uint64 {
	const first = 1 << 32 // so that no interface is 0
	switch {
	case f.linkType == linkCooked2 && len(f.data) >= 20:
		// The interface's index (tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html).
		return uint64(f.from+1)*first | uint64(binary.BigEndian.Uint32(f.data[4:]))
	case f.linkType == linkCooked:
		return AnyInterface
	case f.several:
		return uint64(f.from+1) * first
	}
	return 0
}
