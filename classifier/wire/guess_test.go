// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/dpclass/dpclass/flow"
)

// example is the beginning of a flow, made from the specification of its protocol.
type example struct {
	protocol flow.Protocol
	proto    flow.Proto
	port     uint16   // of B
	payloads []string // from A; from B with "<" in front
}

// x returns the bytes of a hexadecimal text; spaces do not count.
func x(text string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		panic(err)
	}
	return string(b)
}

// nul returns n zero bytes, fill n bytes that look random.
func nul(n int) string { return strings.Repeat("\x00", n) }

func fill(n int) string {
	b := make([]byte, n)
	state := uint32(0x9e3779b9)
	for i := range b {
		state = state*1664525 + 1013904223
		b[i] = byte(state>>24) | 1
	}
	return string(b)
}

// be16s and be32s return a number in network byte order, le16s and le32s in the other one.
func be16s(n int) string { return string(binary.BigEndian.AppendUint16(nil, uint16(n))) }
func be32s(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }
func le16s(n int) string { return string(binary.LittleEndian.AppendUint16(nil, uint16(n))) }
func le32s(n int) string { return string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }

// be16len and be32len put the length of s in front of it.
func be16len(s string) string { return be16s(len(s)) + s }
func be32len(s string) string { return be32s(len(s)) + s }

const (
	tcp  = flow.TCP
	udp  = flow.UDP
	high = 40000 // a port that no protocol has
)

// rtpPacket returns 20 bytes of speech.
func rtpPacket(seq, ssrc int) string {
	return "\x80\x00" + be16s(seq) + be32s(seq*160) + be32s(ssrc) + fill(20)
}

// utpPacket returns a header without extension.
func utpPacket(kind, id, seq, ack int) string {
	return string([]byte{byte(kind<<4 | 1), 0}) + be16s(id) + "\x12\x34\x56\x78\x00\x00\x10\x00" + "\x00\x10\x00\x00" + be16s(seq) + be16s(ack)
}

// oicqPacket is a packet of QQ from one client of a user.
func oicqPacket(command, seq, user int) string {
	return x("02 3b47") + be16s(command) + be16s(seq) + be32s(user) + fill(40) + "\x03"
}

// mmtlsRecord returns a record of WeChat.
func mmtlsRecord(kind string, n int) string { return kind + x("f104") + be16len(fill(n)) }

// stunMessage returns a message whose first attribute has the given type and four bytes.
func stunMessage(kind string, attribute int) string {
	return x(kind) + be16s(8) + x("2112a442") + fill(12) + be16s(attribute) + be16len(fill(4))
}

// encoded is "WORKGROUP" as RFC 1001, section 14.1 writes it.
const encoded = "\x20FHEPFCELEHFCEPFFFACACACACACACAAA\x00"

const raknetMagic = "\x00\xff\xff\x00\xfe\xfe\xfe\xfe\xfd\xfd\xfd\xfd\x12\x34\x56\x78"

// bitTorrentID is the identifier of a node in the examples of BEP 5.
const bitTorrentID = "abcdefghij0123456789"

var examples = []example{
	// Mail.
	{flow.ProtocolSMTP, tcp, high, []string{"<220 mx.example.org ESMTP Postfix\r\n"}},
	{flow.ProtocolSMTP, tcp, high, []string{"EHLO client.example.org\r\n"}},
	{flow.ProtocolSMTP, tcp, high, []string{"<220 mx.example.org ready\r\n", "helo client\r\n"}},
	{flow.ProtocolSMTP, tcp, 25, []string{"<220 mx.example.org\r\n"}},
	{flow.ProtocolSMTP, tcp, high, []string{"<250-mx.example.org\r\n250-PIPELINING\r\n250 SIZE 1000000\r\n"}},
	{flow.ProtocolIMAP, tcp, high, []string{"<* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n"}},
	{flow.ProtocolIMAP, tcp, high, []string{"a001 LOGIN user secret\r\n"}},
	{flow.ProtocolIMAP, tcp, 143, []string{"<* OK ready\r\n"}},
	{flow.ProtocolPOP3, tcp, high, []string{"<+OK POP3 server ready <1896.697170952@dbc.mtview.ca.us>\r\n"}},
	{flow.ProtocolPOP3, tcp, high, []string{"<+OK ready\r\n", "USER mrose\r\n"}},
	{flow.ProtocolPOP3, tcp, 110, []string{"CAPA\r\n"}},
	{flow.ProtocolPOP3, tcp, high, []string{"USER mrose\r\n", "<+OK mrose is a real hoopy frood\r\n"}},
	// Files.
	{flow.ProtocolFTP, tcp, high, []string{"<220 ProFTPD Server ready\r\n"}},
	{flow.ProtocolFTP, tcp, high, []string{"<220 ready\r\n", "USER anonymous\r\n"}},
	{flow.ProtocolFTP, tcp, high, []string{"USER anonymous\r\n", "<331 Password required\r\n"}},
	{flow.ProtocolFTP, tcp, high, []string{"<227 Entering Passive Mode (192,0,2,1,20,21)\r\n"}},
	{flow.ProtocolFTP, tcp, 21, []string{"PASV\r\n"}},
	{flow.ProtocolTFTP, udp, 69, []string{"\x00\x01boot.img\x00octet\x00blksize\x001468\x00"}},
	{flow.ProtocolTFTP, udp, high, []string{"<\x00\x03\x00\x01" + fill(512), "\x00\x04\x00\x01"}},
	{flow.ProtocolTFTP, udp, high, []string{"<\x00\x06tsize\x00512\x00"}},
	{flow.ProtocolSMB, tcp, high, []string{"\x00\x00\x00\x44\xfeSMB\x40\x00" + nul(62)}},
	{flow.ProtocolSMB, tcp, 445, []string{"\x00\x00\x00\x2f\xffSMB\x72" + nul(42)}},
	{flow.ProtocolSMB, tcp, 139, []string{"\x81\x00\x00\x44" + encoded + encoded, "<\x82\x00\x00\x00", "\x00\x00\x00\x2f\xffSMB\x72" + nul(42)}},
	{flow.ProtocolNFS, tcp, high, []string{x("80000028 0000abcd 00000000 00000002 000186a3 00000004 00000000") + nul(16)}},
	{flow.ProtocolNFS, udp, 2049, []string{"<" + x("0000abcd 00000001 00000000 00000000 00000000 00000000")}},
	{flow.ProtocolRsync, tcp, high, []string{"<@RSYNCD: 31.0 sha512 md5\n"}},
	{flow.ProtocolGit, tcp, high, []string{"0033git-upload-pack /project.git\x00host=example.org\x00"}},
	{flow.ProtocolAFP, tcp, 548, []string{x("00 03 0000 00000000 00000000 00000000")}},
	// Remote access.
	{flow.ProtocolSSH, tcp, high, []string{"SSH-2.0-OpenSSH_9.6\r\n"}},
	{flow.ProtocolSSH, tcp, high, []string{"<SSH-1.99-Cisco-1.25\n"}},
	{flow.ProtocolSSH, tcp, high, []string{"\x00\x00\x00\x4c\x06\x14" + fill(16) + be32len("curve25519-sha256,ecdh-sha2-nistp256") + nul(18)}},
	{flow.ProtocolRDP, tcp, high, []string{x("0300002a 25 e0 0000 0000 00") + "Cookie: mstshash=user\r\n" + x("01000800 03000000")}},
	{flow.ProtocolRDP, tcp, high, []string{"<" + x("03000013 0e d0 0000 1234 00 02 1f 0800 02000000")}},
	{flow.ProtocolRDP, udp, high, []string{x("ffffffff 0400 1001 00000001 04d0 04d0") + nul(1216)}},
	{flow.ProtocolVNC, tcp, high, []string{"<RFB 003.008\n"}},
	{flow.ProtocolTelnet, tcp, high, []string{"<" + x("fffd18 fffd20 fffd23 fffd27")}},
	{flow.ProtocolTelnet, tcp, 23, []string{"<" + x("fffd25")}},
	{flow.ProtocolXDMCP, udp, 177, []string{x("0001 0002 0001 00")}},
	{flow.ProtocolRlogin, tcp, high, []string{"\x00bostic\x00kbostic\x00vt100/9600\x00"}},
	// Voice and video.
	{flow.ProtocolSIP, udp, high, []string{"REGISTER sip:example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\n"}},
	{flow.ProtocolSIP, tcp, high, []string{"<SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 192.0.2.1\r\n"}},
	{flow.ProtocolRTP, udp, high, []string{rtpPacket(7, 0xcafe), rtpPacket(8, 0xcafe)}},
	{flow.ProtocolRTP, udp, high, []string{rtpPacket(65535, 0xcafe), "<" + rtpPacket(1, 0xf00d), rtpPacket(0, 0xcafe)}},
	{flow.ProtocolRTP, udp, 3478, []string{x("0001 0000 2112a442") + fill(12), "\x40\x00" + be16len(rtpPacket(7, 0xcafe)), "\x40\x00" + be16len(rtpPacket(9, 0xcafe))}},
	{flow.ProtocolRTCP, udp, high, []string{x("80c80006 0000cafe") + fill(20) + x("81ca0003 0000cafe 01026162 00000000")}},
	{flow.ProtocolRTCP, udp, high, []string{x("81c90007 0000cafe 0000f00d") + fill(20)}},
	{flow.ProtocolSTUN, udp, high, []string{x("0001 0000 2112a442") + fill(12)}},
	{flow.ProtocolSTUN, udp, high, []string{x("0001 0008") + fill(16) + x("00030004 00000000")}},
	{flow.ProtocolSTUN, tcp, high, []string{"\x00\x14" + x("0001 0000 2112a442") + fill(12) + "\x00\x00\x00"}},
	{flow.ProtocolSTUN, udp, high, []string{"\x40\x01" + be16len(fill(30)), "\x40\x01" + be16len(fill(40))}},
	{flow.ProtocolDTLS, udp, high, []string{x("16 fefd 0000 000000000000 0032 01 000026 0000 000000 000026 fefd") + fill(36)}},
	{flow.ProtocolMGCP, udp, high, []string{"RSIP 1200 *@gw.example.org MGCP 1.0\r\nRM: restart\r\n"}},
	{flow.ProtocolIAX2, udp, high, []string{x("8001 0000 00000003 00 00 06 01 0b02 0002 0603") + "101" + x("0a00")}},
	{flow.ProtocolMumble, udp, high, []string{nul(4) + fill(8), "<" + x("00010204") + fill(8) + x("00000002 00000064 00011940")}},
	{flow.ProtocolTeamSpeak, udp, high, []string{"TS3INIT1" + x("0065 0000 88 0a1f4d2b 00") + fill(16)}},
	{flow.ProtocolZoom, udp, high, []string{x("05 0000 00fe5130 00 0c 01") + fill(60), x("05 0001 00fe5130 00 0c 01") + fill(60)}},
	{flow.ProtocolZoom, udp, high, []string{"\x0f" + fill(18) + rtpPacket(3, 0xcafe), "\x0f" + fill(18) + rtpPacket(4, 0xcafe)}},
	{flow.ProtocolDiscordVoice, udp, high, []string{x("0001 0046 0003cfa8") + nul(66)}},
	{flow.ProtocolDiscordVoice, udp, high, []string{x("1337cafe 0e000000")}},
	{flow.ProtocolRTSP, tcp, high, []string{"DESCRIBE rtsp://example.org/live RTSP/1.0\r\nCSeq: 1\r\n\r\n"}},
	{flow.ProtocolRTSP, tcp, high, []string{"<RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"}},
	{flow.ProtocolRTMP, tcp, high, []string{"\x03" + x("00001234 00000000") + fill(1528)}},
	// Tunnels.
	{flow.ProtocolOpenVPN, udp, high, []string{"\x38" + fill(8) + nul(5)}},
	{flow.ProtocolOpenVPN, udp, high, []string{"\x38" + fill(8) + fill(20) + x("00000001 66112233 00 00000000")}},
	{flow.ProtocolOpenVPN, udp, high, []string{"\x38" + fill(8) + x("00000001 66112233") + fill(37)}},
	{flow.ProtocolOpenVPN, udp, high, []string{"\x50" + fill(8) + x("0f000001 66112233") + fill(337)}},
	{flow.ProtocolOpenVPN, tcp, high, []string{be16len("\x38" + fill(8) + nul(5))}},
	{flow.ProtocolOpenVPN, udp, high, []string{"<\x40" + fill(8) + x("01 00000000") + fill(8) + nul(4)}},
	{flow.ProtocolOpenVPN, udp, high, []string{x("48 000003 00000401") + fill(80), x("48 000003 00000402") + fill(90)}},
	{flow.ProtocolOpenVPN, udp, high, []string{"\x20" + fill(8) + x("00 00000003 160301") + fill(80), "\x20" + fill(8) + x("00 00000004") + fill(70)}},
	{flow.ProtocolWireGuard, udp, high, []string{x("01000000 12345678") + fill(124) + nul(16)}},
	{flow.ProtocolWireGuard, udp, high, []string{"<" + x("02000000 12345678 87654321") + fill(64) + nul(16)}},
	{flow.ProtocolWireGuard, udp, high, []string{"<" + x("03000000 12345678") + fill(56)}},
	{flow.ProtocolWireGuard, udp, high, []string{x("04000000 12345678 0500000000000000") + fill(80), x("04000000 12345678 0600000000000000") + fill(16)}},
	{flow.ProtocolWireGuard, udp, high, []string{x("01a1b2c3 12345678") + fill(124) + nul(16)}},
	{flow.ProtocolIKE, udp, high, []string{fill(8) + nul(8) + x("21 20 22 08 00000000 00000040") + fill(36)}},
	{flow.ProtocolIKE, udp, 4500, []string{nul(4) + fill(16) + x("2e 20 23 08 00000001 00000040") + fill(36)}},
	{flow.ProtocolIKE, udp, 500, []string{fill(8) + nul(8) + x("01 10 02 00 00000000 00000040") + fill(36)}},
	{flow.ProtocolIKE, udp, 4500, []string{x("c0ffee01 00000001") + fill(80), x("c0ffee01 00000002") + fill(90)}},
	{flow.ProtocolL2TP, udp, high, []string{x("c802 0014 0000 0000 0000 0000 8008 0000 0000 0001")}},
	{flow.ProtocolPPTP, tcp, high, []string{x("009c 0001 1a2b3c4d 0001 0000 0100 0000") + nul(140)}},
	{flow.ProtocolTailscale, udp, high, []string{"TS\xf0\x9f\x92\xac" + fill(32) + fill(24) + fill(40)}},
	{flow.ProtocolSOCKS, tcp, high, []string{x("05 02 00 02"), "<" + x("05 00")}},
	{flow.ProtocolSOCKS, tcp, high, []string{x("05 01 00 03 0b") + "example.org" + x("01bb")}},
	{flow.ProtocolSOCKS, tcp, high, []string{x("04 01 0050 c0000201") + "user\x00", "<" + x("00 5a 0000 00000000")}},
	{flow.ProtocolTeredo, udp, 3544, []string{x("0001 0000 1122334455667788 00 60000000 0000 3a ff fe80000000000000 0000ffffffffffff ff02000000000000 0000000000000002")}},
	// Peer to peer.
	{flow.ProtocolBitTorrent, tcp, high, []string{"\x13BitTorrent protocol" + nul(8) + fill(40)}},
	{flow.ProtocolBitTorrent, udp, high, []string{"d1:ad2:id20:" + bitTorrentID + "e1:q4:ping1:t2:aa1:y1:qe"}},
	{flow.ProtocolBitTorrent, udp, high, []string{x("0000041727101980 00000000 12345678")}},
	{flow.ProtocolBitTorrent, udp, high, []string{"BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\n"}},
	{flow.ProtocolBitTorrent, udp, high, []string{x("4100 1234 a1b2c3d4 00000000 00100000 0001 0000")}},
	{flow.ProtocolBitTorrent, udp, high, []string{utpPacket(0, 0x1235, 70, 55) + fill(300), "<" + utpPacket(2, 0x1234, 56, 70)}},
	{flow.ProtocolGnutella, tcp, high, []string{"GNUTELLA CONNECT/0.6\r\nUser-Agent: x\r\n"}},
	{flow.ProtocolGnutella, udp, high, []string{fill(16) + "\x00\x01\x00" + le32s(0)}},
	{flow.ProtocolBitcoin, tcp, high, []string{x("f9beb4d9") + "version" + nul(5) + le32s(100) + fill(104)}},
	// Background.
	{flow.ProtocolDNS, udp, high, []string{x("1234 0100 0001 0000 0000 0000 07") + "example\x03org" + x("00 0001 0001")}},
	{flow.ProtocolDNS, tcp, high, []string{be16len(x("1234 0100 0001 0000 0000 0000 07") + "example\x03org" + x("00 001c 0001"))}},
	{flow.ProtocolMDNS, udp, 5353, []string{x("0000 0000 0001 0000 0000 0000 05") + "_http\x04_tcp\x05local" + x("00 000c 0001")}},
	{flow.ProtocolLLMNR, udp, 5355, []string{x("1234 0000 0001 0000 0000 0000 04") + "wpad" + x("00 0001 0001")}},
	{flow.ProtocolNetBIOS, udp, high, []string{x("1234 0110 0001 0000 0000 0000") + encoded + x("0020 0001")}},
	{flow.ProtocolNetBIOS, udp, high, []string{x("110a 1234 c0000201 008a 00bb 0000") + encoded + encoded}},
	{flow.ProtocolNetBIOS, tcp, 139, []string{"\x81\x00\x00\x44" + encoded + encoded}},
	{flow.ProtocolNTP, udp, 123, []string{x("23 00 06 ec") + nul(44)}},
	{flow.ProtocolNTP, udp, high, []string{"<" + x("24 01 06 ec 00000010 00000020 47505300 e5f3a000 00000000") + fill(8) + x("e5f3a123 80000000 e5f3a123 90000000")}},
	{flow.ProtocolSNMP, udp, high, []string{x("3026 020101 0406") + "public" + x("a019 020412345678 020100 020100 300b 3009 06052b06010201 0500")}},
	{flow.ProtocolSNMP, udp, high, []string{x("303e 020103 3011 020412345678 020300ffe3 040104 020103 0410 300e 0400 020100 020100 0400 0400 0400 3014 0400 0400 a00e 020412345678 020100 020100 3000")}},
	{flow.ProtocolSSDP, udp, high, []string{"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\n\r\n"}},
	{flow.ProtocolSSDP, udp, high, []string{"<HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nUSN: uuid:1\r\n\r\n"}},
	{flow.ProtocolDHCP, udp, high, []string{x("01 01 06 00 12345678") + nul(228) + x("63825363 350101 ff")}},
	{flow.ProtocolDHCP, udp, high, []string{x("01 123456 0001 000a 00030001 020000000001 0008 0002 0000")}},
	{flow.ProtocolSyslog, udp, high, []string{"<34>Oct 11 22:14:15 mymachine su: 'su root' failed"}},
	{flow.ProtocolSyslog, tcp, high, []string{"63 <165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 - message"}},
	{flow.ProtocolSyslog, udp, 514, []string{"<13>hello"}},
	{flow.ProtocolRADIUS, udp, high, []string{x("01 00 001b") + fill(16) + "\x01\x07nemo!"}},
	{flow.ProtocolRADIUS, udp, 1812, []string{"<" + x("03 00 0014") + fill(16)}},
	{flow.ProtocolLDAP, tcp, high, []string{x("300c 020101 6007 020103 0400 8000")}},
	{flow.ProtocolLDAP, udp, high, []string{x("3025 020101 6320 0400 0a0100 0a0100 020100 020100 010100 870b") + "objectclass" + x("3000")}},
	{flow.ProtocolKerberos, udp, high, []string{x("6a81a0 30819d a103020105 a20302010a a3819000")}},
	{flow.ProtocolKerberos, tcp, high, []string{x("00000094 6b8191 30818e a003020105 a10302010b")}},
	{flow.ProtocolMQTT, tcp, high, []string{x("10 10 0004") + "MQTT" + x("04 02 003c 0004") + "id01"}},
	{flow.ProtocolMQTT, tcp, 1883, []string{"<" + x("20 02 00 00")}},
	{flow.ProtocolMQTT, tcp, high, []string{x("c000"), "<" + x("d000")}},
	{flow.ProtocolCoAP, udp, high, []string{x("44 01 1234 aabbccdd b4") + "test"}},
	{flow.ProtocolCoAP, udp, 5683, []string{"<" + x("64 45 1234 aabbccdd c0 ff") + "text"}},
	{flow.ProtocolSunRPC, udp, high, []string{x("12345678 00000000 00000002 000186a0 00000002 00000003") + nul(32)}},
	{flow.ProtocolSunRPC, udp, 111, []string{"<" + x("12345678 00000001 00000000 00000000 00000000 00000000 00000801")}},
	{flow.ProtocolDNSCrypt, udp, high, []string{"<r6fnvWj8" + fill(80)}},
	{flow.ProtocolZabbix, tcp, high, []string{"ZBXD\x01" + x("0500000000000000") + "ping\n"}},
	{flow.ProtocolOpenFlow, tcp, 6653, []string{x("04 00 0008 00000001")}},
	{flow.ProtocolDCERPC, tcp, high, []string{x("05 00 0b 03 10000000 4800 0000 01000000") + fill(56)}},
	{flow.ProtocolDCERPC, udp, high, []string{x("04 00 28 00 100000 00") + fill(66) + x("0800 ffff ffff 0000")[:2] + fill(4) + fill(8)}},
	{flow.ProtocolWSDiscovery, udp, high, []string{"<?xml version=\"1.0\"?><s:Envelope xmlns:d=\"http://schemas.xmlsoap.org/ws/2005/04/discovery\">"}},
	{flow.ProtocolSLP, udp, high, []string{x("02 01 00001d 0000 000000 0001 0002") + "en" + x("0000 0000 0000 0000 0000 000000")}},
	{flow.ProtocolNATPMP, udp, 5351, []string{x("0000")}},
	{flow.ProtocolNetFlow, udp, high, []string{x("0005 0001 00001000 60000000 00000000 00000001 00000000") + fill(48)}},
	{flow.ProtocolNetFlow, udp, high, []string{x("000a 0020 60000000 00000001 00000000") + fill(16)}},
	{flow.ProtocolSFlow, udp, high, []string{x("00000005 00000001 c0000201 00000000 00000001 00001000 00000001 00000001 00000010") + fill(16)}},
	{flow.ProtocolDropboxLAN, udp, high, []string{"{\"host_int\": 1234567890, \"version\": [2, 0], \"displayname\": \"\", \"port\": 17500, \"namespaces\": [1]}"}},
	{flow.ProtocolBJNP, udp, high, []string{"BJNP" + x("01 01 0000 0001 0000 00000000")}},
	{flow.ProtocolSpotifyConnect, udp, high, []string{"SpotUdp0" + fill(36)}},
	// Industry.
	{flow.ProtocolModbus, tcp, 502, []string{x("0001 0000 0006 11 03 006b 0003")}},
	{flow.ProtocolModbus, tcp, high, []string{x("0001 0000 0006 11 03 006b 0003"), "<" + x("0001 0000 0005 11 03 02 ae41")}},
	{flow.ProtocolDNP3, tcp, high, []string{x("0564 05c0 0100 0004 e921")}},
	{flow.ProtocolBACnet, udp, high, []string{x("810b 000c 0120 ffff 00ff 1008")}},
	// Data bases and queues.
	{flow.ProtocolMySQL, tcp, high, []string{"<" + x("4a000000 0a") + "8.0.36\x00" + x("08000000") + fill(8) + "\x00" + x("ffff ff 0200 ffdf 15") + nul(10) + fill(12) + "\x00mysql_native_password\x00"}},
	{flow.ProtocolMySQL, tcp, high, []string{x("11000000 03") + "SELECT DATABASE("}},
	{flow.ProtocolMySQL, tcp, high, []string{x("27000001 85a67f00 00000001 21") + nul(23) + "root\x00" + nul(2)}},
	{flow.ProtocolPostgreSQL, tcp, high, []string{x("00000008 04d2162f")}},
	{flow.ProtocolPostgreSQL, tcp, high, []string{x("00000013 00030000") + "user\x00bob\x00\x00\x00"}},
	{flow.ProtocolPostgreSQL, tcp, high, []string{"Q" + x("0000000d") + "SELECT 1\x00"}},
	{flow.ProtocolPostgreSQL, tcp, high, []string{"<R" + x("0000000c 00000005") + fill(4)}},
	{flow.ProtocolRedis, tcp, high, []string{"*2\r\n$4\r\nLLEN\r\n$6\r\nmylist\r\n"}},
	{flow.ProtocolRedis, tcp, high, []string{"PING\r\n"}},
	{flow.ProtocolRedis, tcp, high, []string{"<-NOAUTH Authentication required.\r\n"}},
	{flow.ProtocolMongoDB, tcp, high, []string{le32s(21) + le32s(1) + le32s(0) + le32s(2013) + nul(5)}},
	{flow.ProtocolMemcached, tcp, high, []string{"set key 0 900 4\r\ndata\r\n"}},
	{flow.ProtocolMemcached, tcp, 11211, []string{"get key\r\n"}},
	{flow.ProtocolMemcached, udp, high, []string{x("0001 0000 0001 0000") + "stats\r\n"}},
	{flow.ProtocolAMQP, tcp, high, []string{"AMQP" + x("00 00 09 01")}},
	{flow.ProtocolAMQP, tcp, high, []string{"<" + x("01 0000 0000000c 000a 000a 00 09") + nul(6) + "\xce"}},
	{flow.ProtocolKafka, tcp, high, []string{be32len(x("0012 0003 00000001") + be16len("rdkafka") + x("00 08") + "librdkaf" + x("00"))}},
	{flow.ProtocolTDS, tcp, high, []string{x("12 01 0020 0000 01 00 0000 1a 0006 01 0020 0001 02 0021 0001 ff") + fill(8)}},
	{flow.ProtocolOracle, tcp, high, []string{x("0056 0000 01 00 0000") + fill(50) + "(CONNECT_DATA=(SERVICE_NAME="}},
	{flow.ProtocolCassandra, tcp, high, []string{x("04 00 0000 01 00000016 0001") + be16len("CQL_VERSION") + be16len("3.0.0")}},
	{flow.ProtocolNATS, tcp, high, []string{"<INFO {\"server_id\":\"1\",\"version\":\"2.10\"}\r\n"}},
	{flow.ProtocolSTOMP, tcp, high, []string{"CONNECT\naccept-version:1.2\nhost:example.org\n\n\x00"}},
	{flow.ProtocolAJP, tcp, high, []string{x("1234 000f 02 02") + be16len("HTTP/1.1") + x("00 0000")}},
	// Chat.
	{flow.ProtocolXMPP, tcp, high, []string{"<?xml version='1.0'?><stream:stream to='example.org' xmlns='jabber:client'>"}},
	{flow.ProtocolXMPP, tcp, high, []string{"<presence xml:lang='en' xmlns='jabber:client'/>"}},
	{flow.ProtocolIRC, tcp, high, []string{"NICK Wiz\r\nUSER guest 0 * :Ronnie Reagan\r\n"}},
	{flow.ProtocolIRC, tcp, high, []string{"<:irc.example.org NOTICE * :*** Looking up your hostname\r\n"}},
	{flow.ProtocolOICQ, udp, 8000, []string{oicqPacket(0x81, 0xeba4, 1326899636)}},
	{flow.ProtocolOICQ, udp, high, []string{oicqPacket(0x81, 0xeba4, 1326899636), "<" + oicqPacket(2, 0x1b32, 1326899636)}},
	{flow.ProtocolOICQ, tcp, high, []string{be16s(54) + oicqPacket(0x16, 0xeba4, 1326899636)}},
	{flow.ProtocolMMTLS, tcp, high, []string{mmtlsRecord("\x16", 161)}},
	{flow.ProtocolMMTLS, tcp, high, []string{x("19 f103 0400") + fill(500)}},
	{flow.ProtocolMMTLS, tcp, high, []string{"<" + mmtlsRecord("\x16", 46) + mmtlsRecord("\x16", 55) + mmtlsRecord("\x17", 433) + "\x15"}},
	{flow.ProtocolWhatsApp, tcp, high, []string{"WA" + x("06 03 000024 12220a20") + fill(32)}},
	{flow.ProtocolWhatsApp, tcp, high, []string{"WA" + x("01 05 00001a f80501") + fill(20)}},
	{flow.ProtocolWhatsApp, tcp, high, []string{"ED" + x("0001"), x("000004 08090802") + "WA" + x("0502 00010e12") + fill(20)}},
	{flow.ProtocolWhatsApp, tcp, high, []string{"ED" + x("0001"), x("000004 08090802"), "WA" + x("0502")}},
	{flow.ProtocolWhatsApp, tcp, high, []string{"ED" + x("0001 000004 08090802") + "WA" + x("0502")}},
	{flow.ProtocolMTProto, tcp, high, []string{x("eeeeeeee") + le32s(40) + nul(8) + fill(32)}},
	{flow.ProtocolMTProto, tcp, high, []string{x("dddddddd") + le32s(47) + nul(8) + fill(39)}},
	{flow.ProtocolMTProto, tcp, high, []string{x("ef0a") + nul(8) + fill(8) + le32s(20) + x("f18e7ebe") + fill(16)}},
	{flow.ProtocolTelegramVoice, udp, high, []string{fill(16) + x("ffffffffffffffffffffffff feffffff") + fill(8)}},
	{flow.ProtocolTelegramVoice, udp, high, []string{"<" + fill(16) + x("ffffffffffffffffffffffff c77215c0") + fill(32)}},
	{flow.ProtocolWhatsAppVoice, udp, high, []string{stunMessage("0003", 0x4000)}},
	{flow.ProtocolWhatsAppVoice, udp, high, []string{stunMessage("0001", 6), stunMessage("0800", 0x4001)}},
	// Games.
	{flow.ProtocolSteam, tcp, high, []string{le32s(20) + "VT01" + fill(20)}},
	{flow.ProtocolSteam, udp, high, []string{"VS01" + le16s(4) + x("06 02") + nul(28) + nul(4)}},
	{flow.ProtocolSourceEngine, udp, high, []string{x("ffffffff") + "TSource Engine Query\x00"}},
	{flow.ProtocolSourceEngine, udp, high, []string{"<" + x("ffffffff") + "A" + x("4ba1d522")}},
	{flow.ProtocolMinecraft, tcp, high, []string{x("12 00 fd05 0b") + "example.org" + x("63dd 01")}},
	{flow.ProtocolRakNet, udp, high, []string{"\x01" + fill(8) + raknetMagic + fill(8)}},
	{flow.ProtocolRakNet, udp, high, []string{"\x05" + raknetMagic + "\x0b" + nul(400)}},
	{flow.ProtocolQuake, udp, high, []string{x("ffffffff") + "getstatus\n"}},
	{flow.ProtocolIperf, tcp, high, []string{"abcdefghijklmnopqrstuvwxyz234567abcd\x00"}},
	{flow.ProtocolIperf, udp, high, []string{"9876"}},
}

// others are recognised elsewhere in this package.
var others = []flow.Protocol{flow.ProtocolTLS, flow.ProtocolQUIC, flow.ProtocolHTTP, flow.ProtocolDNSOverTLS}

// packets returns the payload packets of an example.
func (e example) packets() []Packet {
	var list []Packet
	for _, payload := range e.payloads {
		payload, fromB := strings.CutPrefix(payload, "<")
		// Some payloads of clients begin with "<" themselves.
		if fromB && (strings.HasPrefix(payload, "34>") || strings.HasPrefix(payload, "13>") || strings.HasPrefix(payload, "?xml") || strings.HasPrefix(payload, "presence")) {
			payload, fromB = "<"+payload, false
		}
		p := Packet{Proto: e.proto, FromA: !fromB, SrcPort: 50001, DstPort: e.port, Payload: []byte(payload), Length: len(payload)}
		if fromB {
			p.SrcPort, p.DstPort = p.DstPort, p.SrcPort
		}
		list = append(list, p)
	}
	return list
}

// guessOf returns what guess says after the packets.
func guessOf(packets []Packet) guess {
	var g guess
	for i := range packets {
		g.add(&packets[i])
	}
	return g
}

func TestExamples(t *testing.T) {
	for _, e := range examples {
		if g := guessOf(e.packets()); g.protocol != e.protocol {
			t.Errorf("%v on port %d: %.60q is %q", e.protocol, e.port, e.payloads, g.protocol)
		}
	}
}

func TestEveryProtocolHasAnExample(t *testing.T) {
	for _, protocol := range flow.Protocols() {
		has := slices.ContainsFunc(examples, func(e example) bool { return e.protocol == protocol })
		if other := slices.Contains(others, protocol); has == other {
			t.Errorf("%v: example here: %v, recognised elsewhere: %v", protocol, has, other)
		}
	}
}

// TestLastPacketDecides checks that examples of several packets are not recognised before,
// except those where a later packet changes the protocol.
func TestLastPacketDecides(t *testing.T) {
	for _, e := range examples {
		packets := e.packets()
		g := guessOf(packets[:len(packets)-1])
		if g.protocol == e.protocol || (g.protocol != flow.ProtocolUnknown && !provisional(g.protocol)) {
			t.Errorf("%v: %.60q: without the last packet it is %q already", e.protocol, e.payloads, g.protocol)
		}
		if len(packets) > 1 && !g.open {
			t.Errorf("%v: %.60q: closed before the last packet", e.protocol, e.payloads)
		}
	}
}

// TestSides checks that a flow's protocol does not depend on which end is A.
func TestSides(t *testing.T) {
	for _, e := range examples {
		packets := e.packets()
		for i := range packets {
			packets[i].FromA = !packets[i].FromA
		}
		if g := guessOf(packets); g.protocol != e.protocol {
			t.Errorf("%v: %.60q with the ends exchanged is %q", e.protocol, e.payloads, g.protocol)
		}
	}
}

// TestCut cuts each payload at every length, as if it were shorter on the wire, and as if
// the capture had cut it. Neither may panic, nor make another protocol of it that decides a
// category.
func TestCut(t *testing.T) {
	for _, e := range examples {
		packets := e.packets()
		for i, p := range packets {
			for n := range len(p.Payload) {
				for _, length := range []int{n, p.Length} {
					cut := slices.Clone(packets)
					cut[i].Payload, cut[i].Length = p.Payload[:n:n], length
					g := guessOf(cut)
					if provisional(g.protocol) || g.protocol == e.protocol || g.protocol.Category() == e.protocol.Category() {
						continue
					}
					t.Errorf("%v: payload %d cut after %d of %d bytes (%d on the wire) is %v", e.protocol, i, n, len(p.Payload), length, g.protocol)
				}
			}
		}
	}
}

// nearMisses look like a protocol at first sight.
var nearMisses = []example{
	{0, tcp, 25, []string{"<221 bye\r\n"}},
	{0, tcp, high, []string{"<220 ready\r\n", "CONTINUE\r\n"}},
	{0, tcp, high, []string{"USER anonymous\r\n", "<HELLO\r\n"}},
	{0, tcp, high, []string{"EHLO"}},
	{0, tcp, high, []string{"a001 PLEASE\r\n"}},
	{0, tcp, high, []string{"word LOGIN user secret\r\n"}}, // tags have a digit
	{0, tcp, high, []string{"<+OKAY\r\n", "USER mrose\r\n"}},
	{0, tcp, high, []string{"+OK\r\n"}},
	{0, udp, 69, []string{"\x00\x01boot.img\x00binary\x00"}},
	{0, udp, high, []string{"<\x00\x03\x00\x01" + fill(512), "\x00\x04\x00\x02"}}, // another block
	{0, udp, high, []string{"<\x00\x03\x00\x01" + fill(512), "<\x00\x04\x00\x01"}},
	{0, tcp, 445, []string{"\x00\x00\x00\x44\xfeSNB\x40\x00"}},
	{0, tcp, high, []string{x("80000028 0000abcd 00000000 00000003 000186a3 00000004 00000000") + nul(16)}}, // RPC version 3
	{0, udp, high, []string{"<" + x("0000abcd 00000001 00000000 00000000 00000000 00000000")}},              // one reply, any port
	{0, tcp, high, []string{"@RSYNCD: x"}},
	{0, tcp, high, []string{"00zzgit-upload-pack /project.git\x00"}},
	{0, tcp, high, []string{"SSH-3.0-x\r\n"}},
	{0, tcp, high, []string{"\x00\x00\x00\x4b\x06\x14" + fill(16) + be32len("curve25519-sha256,ecdh-sha2-nistp256") + nul(17)}}, // not of 8 bytes
	{0, tcp, 102, []string{x("03000016 11 e0 0000 0001 00 c0010a c1020100 c2020102")}},                                          // S7 over X.224
	{0, udp, 3389, []string{x("ffffffff 0400 1001 00000001 0500 04d0") + nul(1216)}},
	{0, tcp, high, []string{"RFB 003.008"}},
	{0, tcp, high, []string{x("fffd18")}},
	{0, tcp, 23, []string{x("ffd818")}},
	{0, udp, high, []string{"INVITATION sip:x SIP/2.0\r\n"}},
	{0, udp, high, []string{"HELLO sip:x"}},
	{0, udp, high, []string{rtpPacket(7, 0xcafe), rtpPacket(8, 0xbeef)}},  // another source
	{0, udp, high, []string{rtpPacket(7, 0xcafe), rtpPacket(99, 0xcafe)}}, // far away
	{0, udp, high, []string{rtpPacket(7, 0xcafe), rtpPacket(7, 0xcafe)}},
	{0, udp, high, []string{rtpPacket(7, 0xcafe), "<" + rtpPacket(8, 0xcafe)}},
	{0, udp, high, []string{x("80c80006 0000cafe") + fill(8)}},  // longer than the datagram
	{0, udp, high, []string{x("83c90007 0000cafe") + fill(24)}}, // three blocks need more
	{0, udp, high, []string{x("0001 0000 2112a443") + fill(12)}},
	{0, udp, high, []string{x("0001 0008") + fill(16) + x("00030008 00000000")}},
	{0, udp, high, []string{"\x40\x01" + be16len(fill(30)), "\x40\x02" + be16len(fill(40))}}, // another channel
	{0, udp, high, []string{x("16 fefc 0000 000000000000 0010") + fill(16)}},
	{0, udp, high, []string{x("16 fefd 0000 000000000000 0020") + fill(16)}},
	{0, udp, high, []string{x("05 0000 00fe5130 00 0c 01") + fill(60), x("05 0001 00fe5131 00 0c 01") + fill(60)}},
	{0, udp, high, []string{x("0001 0046 0003cfa8") + nul(65)}},
	{0, tcp, high, []string{"OPTIONS * HTTP/1.1\r\n\r\n"}},
	{0, tcp, high, []string{"\x03" + x("00001234 00000100") + fill(1528)}},
	{0, udp, high, []string{"\x38" + fill(8) + x("00 00000001")}}, // not packet 0
	{0, udp, high, []string{"\x39" + fill(8) + nul(5)}},           // key 1
	{0, udp, high, []string{"\x38" + fill(8) + fill(20) + x("00000001 00000005 00 00000000")}},
	{0, udp, high, []string{x("48 000003 00000401") + fill(80), x("48 000004 00000402") + fill(90)}},
	// QUIC's short header with a constant connection ID.
	{0, udp, 443, []string{"\x4a" + fill(8) + "\x01\x02\x03" + fill(80), "\x4a" + fill(8) + "\x05\x09\x03" + fill(90), "\x4a" + fill(8) + "\x71\x12\x03" + fill(90)}},
	{0, udp, high, []string{"\x20" + fill(8) + "\x91\x02\x03" + fill(80), "\x20" + fill(8) + "\x75\x09\x03" + fill(90)}},
	{0, udp, high, []string{x("01000000 12345678") + fill(123) + nul(16)}},
	{0, udp, high, []string{x("01a1b2c3 12345678") + fill(140)}},
	{0, udp, high, []string{x("04000000 12345678 0500000000000000") + fill(80), x("04000000 12345679 0600000000000000") + fill(16)}},
	{0, udp, high, []string{x("04000000 12345678 0500000000000000") + fill(80)}},
	{0, udp, 500, []string{fill(8) + nul(8) + x("21 20 22 08 00000000 00000041") + fill(36)}},
	{0, udp, 500, []string{fill(8) + nul(8) + x("21 30 22 08 00000000 00000040") + fill(36)}},
	{0, udp, high, []string{x("c802 0015 0000 0000 0000 0000 8008 0000 0000 0001")}},
	{0, tcp, 1723, []string{x("009c 0001 1a2b3c4e 0001 0000")}},
	{0, udp, high, []string{"TS\xf0\x9f\x92\xad" + fill(96)}},
	{0, tcp, 1080, []string{x("05 02 00 00"), "<" + x("05 00")}}, // a method twice
	{0, tcp, 1080, []string{x("05 02 00 02")}},
	{0, tcp, high, []string{"\x13BitTorrent protocoL" + nul(48)}},
	{0, udp, high, []string{"d1:xd2:yd20:" + bitTorrentID}},
	{0, udp, high, []string{x("4100 1234 a1b2c3d4 00000001 00100000 0001 0000")}},
	{0, udp, high, []string{utpPacket(0, 0x1235, 70, 55) + fill(300), "<" + utpPacket(2, 0x1239, 56, 70)}},
	{0, udp, high, []string{utpPacket(2, 0x1235, 70, 55), utpPacket(2, 0x1235, 900, 55)}},
	{0, udp, high, []string{fill(16) + "\x00\x01\x00" + le32s(1)}},
	{0, tcp, high, []string{x("f9beb4d9") + "ver\x00sion" + nul(4) + le32s(100) + fill(104)}},
	{0, udp, high, []string{x("1234 0100 0001 0000 0000 0000 07") + "example\x03org" + x("00 0001 0007")}}, // class 7
	{0, udp, high, []string{x("1234 0100 0001 0000 0000 0000 47") + "example\x03org" + x("00 0001 0001")}},
	{0, udp, high, []string{x("23 00 06 ec") + nul(44)}}, // a client's request says nothing on another port
	{0, udp, high, []string{x("3026 020102 0406") + "public" + x("b019 020412345678 020100 020100 300b 3009 06052b06010201 0500")}},
	{0, udp, high, []string{"M-SEARCH /x HTTP/1.1\r\n"}},
	{0, udp, high, []string{x("01 01 06 00 12345678") + nul(228) + x("63825364 350101 ff")}},
	{0, udp, high, []string{x("01 123456 0001 000b 00030001 020000000001 0008 0002 0000")}},
	{0, udp, high, []string{"<13>hello"}},
	{0, udp, 514, []string{"<192>Oct 11 hello"}},
	{0, udp, high, []string{x("01 00 001b") + fill(16) + "\x01\x08nemo!"}},
	{0, udp, high, []string{x("03 00 0014") + fill(16)}},
	{0, tcp, high, []string{x("300c 020101 7f07 020103 0400 8000")}},
	{0, udp, high, []string{x("6a81a0 30819d a103020104 a20302010a a3819000")}}, // Kerberos 4
	{0, tcp, high, []string{x("10 10 0004") + "MQTU" + x("04 02 003c 0004") + "id01"}},
	{0, tcp, high, []string{x("c000"), x("d000")}},
	{0, udp, high, []string{x("44 45 1234 aabbccdd c0 ff") + "text"}},
	{0, tcp, high, []string{"ZBXX\x01" + x("0500000000000000") + "ping\n"}},
	{0, tcp, high, []string{x("04 00 0008 00000001")}},
	{0, tcp, high, []string{x("05 00 0b 03 10000000 4800 0000 01000000") + fill(5)}},
	{0, tcp, high, []string{x("0001 0000 0006 11 03 006b 0003")}},
	{0, tcp, high, []string{x("0001 0000 0006 11 03 006b 0003"), "<" + x("0002 0000 0005 11 03 02 ae41")}},
	{0, tcp, high, []string{x("0564 05c0 0100 0004 e922")}},
	{0, udp, 47808, []string{x("810b 000d 0120 ffff 00ff 1008")}},
	{0, tcp, high, []string{x("4b000000 0a") + "8.0.36\x00" + fill(60)}},
	{0, tcp, high, []string{x("00000009 04d2162f 00")}},
	{0, tcp, high, []string{"Q" + x("0000000e") + "SELECT 1\x00"}},
	{0, tcp, high, []string{"*2\r\nx4\r\nLLEN\r\n"}},
	{0, tcp, high, []string{le32s(22) + le32s(1) + le32s(0) + le32s(2013) + nul(5)}},
	{0, tcp, high, []string{"set the table\r\n"}},
	{0, tcp, high, []string{"get key\r\n"}},
	{0, tcp, high, []string{"AMQX" + x("00 00 09 01")}},
	{0, tcp, high, []string{be32len(x("0012 0003 00000001") + be16len("rd\x01kafka") + x("00"))}},
	{0, tcp, high, []string{"<?xml version='1.0'?><html>"}},
	{0, tcp, high, []string{"NICK Wiz\r\nHELLO\r\n"}},
	{0, udp, high, []string{x("ffffffff") + "TSource Engine Quest"}},
	{0, udp, high, []string{x("ffffffff") + "getstuff\n"}},
	{0, tcp, high, []string{x("12 00 fd05 0b") + "example.org" + x("63dd 07")}},
	{0, udp, high, []string{"\x01" + fill(8) + raknetMagic[1:]}},
	{0, tcp, high, []string{"abcdefghijklmnopqrstuvwxyz134567abcd\x00"}},
	{0, udp, high, []string{"9877"}},
	{0, udp, high, []string{oicqPacket(0x81, 1, 1326899636)}},
	{0, udp, high, []string{oicqPacket(0x81, 1, 1326899636), oicqPacket(0x81, 2, 1326899637)}},
	{0, udp, 8000, []string{oicqPacket(0x81, 1, 9_999)}},
	{0, udp, 8000, []string{oicqPacket(0x81, 1, 1326899636) + "\x04"}},
	{0, tcp, high, []string{be16s(52) + oicqPacket(0x16, 1, 1326899636)}},
	{0, tcp, high, []string{x("16 f105 0004") + fill(4)}},
	{0, tcp, high, []string{x("18 f104 0004") + fill(4)}},
	{0, tcp, high, []string{mmtlsRecord("\x16", 46) + "\x30" + fill(40)}},
	{0, tcp, high, []string{"WA" + x("00 03 000024 12220a20") + fill(32)}},
	{0, tcp, high, []string{"<x", "<" + "WA" + x("06 03 000024 12220a20") + fill(32)}},
	{0, tcp, high, []string{"ED" + x("0001"), x("000005 08090802") + "WA" + x("0502")}},
	{0, tcp, high, []string{x("000004 08090802") + "WA" + x("0502")}},
	{0, tcp, high, []string{x("eeeeeeee") + le32s(41) + nul(8) + fill(32)}},
	{0, tcp, high, []string{x("ef0a") + nul(8) + fill(8) + le32s(20) + x("f18e7ebf") + fill(16)}},
	{0, udp, high, []string{fill(16) + x("ffffffffffffffffffffffff fdffffff") + fill(8)}},
	{0, udp, high, []string{x("8080 059b 0002e0c0 f6bf57e2") + strings.Repeat("\xff", 160)}}, // silence in G.711
	{0, udp, high, []string{x("8080 059b 0002e0c0 f6bf57e2") + strings.Repeat("\xff", 20)}},
	{0, udp, high, []string{x("1337cafe 0000000e")}},
	{0, tcp, high, []string{"WA" + x("0502")}},
}

func TestNearMisses(t *testing.T) {
	for _, e := range nearMisses {
		if g := guessOf(e.packets()); g.protocol != flow.ProtocolUnknown {
			t.Errorf("port %d: %.60q is %q", e.port, e.payloads, g.protocol)
		}
	}
}

// TestRandom measures false positives: payloads of random bytes and lengths, as encrypted
// ones without a header are.
func TestRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	flows := 20_000
	found := map[flow.Protocol]int{}
	buffer := make([]byte, 1400)
	for n := range flows {
		var g guess
		for range guessPackets {
			for i := 0; i < len(buffer); i += 8 {
				binary.LittleEndian.PutUint64(buffer[i:], random.Uint64())
			}
			length := 1 + random.IntN(len(buffer))
			if n%2 == 0 {
				length = 1 + random.IntN(60)
			}
			p := Packet{Proto: udp, FromA: random.IntN(2) == 0, SrcPort: 50001, DstPort: high, Payload: buffer[:length], Length: length}
			if n%4 < 2 {
				p.Proto = tcp
			}
			g.add(&p)
		}
		if g.protocol != flow.ProtocolUnknown {
			found[g.protocol]++
		}
	}
	if len(found) > 0 {
		t.Errorf("of %d flows of random bytes: %v", flows, found)
	}
}

// TestBounded checks that a flow without any signature is closed after eight packets, and
// that nothing is allocated.
func TestBounded(t *testing.T) {
	p := Packet{Proto: udp, FromA: true, SrcPort: 50001, DstPort: high, Payload: []byte("\x40" + fill(99)), Length: 100}
	var g guess
	for n := range guessPackets {
		if g.add(&p); g.open != (n < guessPackets-1) {
			t.Errorf("after %d packets: open is %v", n+1, g.open)
		}
	}
	if size := unsafe.Sizeof(g); size > 64 {
		t.Errorf("%d bytes are kept for each flow", size)
	}
	for _, e := range slices.Concat(examples, nearMisses) {
		packets := e.packets()
		if n := testing.AllocsPerRun(1, func() {
			var g guess
			for i := range packets {
				g.add(&packets[i])
			}
		}); n > 0 {
			t.Errorf("%v: %.60q: %v allocations", e.protocol, e.payloads, n)
		}
	}
}

// FuzzGuess looks for panics, and for results that depend on memory beyond the payload. The
// input is a list of packets, each with its length in front.
func FuzzGuess(f *testing.F) {
	for _, e := range examples {
		var input []byte
		for _, p := range e.packets() {
			head := byte(0)
			if p.FromA {
				head = 1
			}
			input = append(input, head, byte(len(p.Payload)))
			input = append(input, p.Payload[:min(len(p.Payload), 255)]...)
		}
		f.Add(e.proto == tcp, e.port, input)
	}
	f.Fuzz(func(t *testing.T, overTCP bool, port uint16, input []byte) {
		proto := udp
		if overTCP {
			proto = tcp
		}
		var g, again guess
		for len(input) >= 2 {
			head, n := input[0], int(input[1])
			input = input[2:]
			n = min(n, len(input))
			payload := input[:n:n]
			input = input[n:]
			p := Packet{Proto: proto, FromA: head&1 != 0, SrcPort: 50001, DstPort: port, Payload: payload, Length: n + int(head>>1)}
			g.add(&p)
			p.Payload = append(slices.Clone(payload), fill(64)...)[:n]
			again.add(&p)
		}
		if g != again {
			t.Fatalf("%+v, with other bytes after the payload %+v", g, again)
		}
		if g.packets > guessPackets || g.protocol != flow.ProtocolUnknown && g.protocol.String() == "" {
			t.Fatalf("%+v", g)
		}
	})
}

// benchmarkGuess measures a packet of a flow for which nothing was found so far.
func benchmarkGuess(b *testing.B, p Packet) {
	b.ReportAllocs()
	for b.Loop() {
		var g guess
		g.add(&p)
	}
}

// BenchmarkGuessNothing is a packet that fits no signature.
func BenchmarkGuessNothing(b *testing.B) {
	for _, proto := range []flow.Proto{tcp, udp} {
		for name, payload := range map[string]string{"random": fill(1200), "zeros": nul(1200), "text": strings.Repeat("the quick brown fox ", 60)} {
			b.Run(proto.String()+"/"+name, func(b *testing.B) {
				benchmarkGuess(b, Packet{Proto: proto, FromA: true, SrcPort: 50001, DstPort: high, Payload: []byte(payload), Length: len(payload)})
			})
		}
	}
}

// BenchmarkGuess is the last packet of each example.
func BenchmarkGuess(b *testing.B) {
	for _, name := range []flow.Protocol{flow.ProtocolSSH, flow.ProtocolSTUN, flow.ProtocolOpenVPN, flow.ProtocolSMTP, flow.ProtocolBitTorrent} {
		at := slices.IndexFunc(examples, func(e example) bool { return e.protocol == name })
		b.Run(name.String(), func(b *testing.B) { benchmarkGuess(b, examples[at].packets()[0]) })
	}
}
