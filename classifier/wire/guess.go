// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"

	"github.com/dpclass/dpclass/flow"
)

// guess recognises the protocols that need no reassembly. It is what is kept of a flow
// between its packets; the zero value is ready.
//
// A signature looks at one packet, from either side, and does not need the first packet of
// the flow. Most are long enough to decide alone. The others leave a mark and decide when a
// second packet fits it.
type guess struct {
	protocol flow.Protocol
	open     bool // the next packets may still change the protocol, or recognise one

	packets uint8 // that add has seen
	sides   uint8 // that have sent one before this packet: 1 for A, 2 for the other
	next    uint8 // mark that is overwritten next
	marks   [4]mark
}

// guessPackets is the number of payload packets of a flow that are looked at.
const guessPackets = 8

// mark is what a signature remembers of a packet for the next ones.
type mark struct {
	id       uint32 // such as RTP's SSRC
	seq      uint16
	protocol flow.Protocol
	fromA    bool
}

// add looks at the next packet.
func (g *guess) add(p *Packet) {
	if g.packets == guessPackets || len(p.Payload) == 0 || (g.packets > 0 && !g.open) {
		return
	}
	g.packets++
	var found flow.Protocol
	switch p.Proto {
	case flow.UDP:
		found = g.udp(p)
	case flow.TCP:
		found = g.tcp(p)
	}
	g.sides |= side(p)
	if found != flow.ProtocolUnknown && outranks(found, g.protocol) {
		g.protocol = found
	}
	g.open = g.packets < guessPackets && provisional(g.protocol)
}

// side returns the bit of the sender.
func side(p *Packet) uint8 {
	if p.FromA {
		return 1
	}
	return 2
}

// first reports whether the packet is the first of its side.
func (g *guess) first(p *Packet) bool { return g.sides&side(p) == 0 }

// provisional reports whether a later packet may recognise a more telling protocol.
func provisional(protocol flow.Protocol) bool {
	switch protocol {
	case flow.ProtocolUnknown,
		flow.ProtocolSTUN, flow.ProtocolDTLS, flow.ProtocolRTCP, // media may follow on the same ports
		flow.ProtocolNetBIOS: // its sessions carry SMB
		return true
	}
	return false
}

// outranks reports whether a protocol replaces an earlier one of the same flow. WebRTC sends
// STUN, DTLS, RTCP and RTP on the same ports (RFC 7983).
func outranks(found, earlier flow.Protocol) bool {
	rank := func(p flow.Protocol) int {
		switch p {
		case flow.ProtocolUnknown:
			return 0
		case flow.ProtocolSTUN:
			return 1
		case flow.ProtocolDTLS:
			return 2
		case flow.ProtocolRTCP:
			return 3
		}
		return 4
	}
	return rank(found) > rank(earlier) || (earlier == flow.ProtocolNetBIOS && found == flow.ProtocolSMB)
}

// recall returns the sequence number of the last mark with the same protocol, side and
// identifier.
func (g *guess) recall(protocol flow.Protocol, fromA bool, id uint32) (seq uint16, ok bool) {
	for i := range g.marks {
		if m := &g.marks[i]; m.protocol == protocol && m.fromA == fromA && m.id == id {
			return m.seq, true
		}
	}
	return 0, false
}

// keep leaves a mark. It replaces one with the same protocol, side and identifier, or else
// the oldest.
func (g *guess) keep(protocol flow.Protocol, fromA bool, id uint32, seq uint16) {
	for i := range g.marks {
		if m := &g.marks[i]; m.protocol == protocol && m.fromA == fromA && m.id == id {
			m.seq = seq
			return
		}
	}
	g.marks[g.next] = mark{id: id, seq: seq, protocol: protocol, fromA: fromA}
	g.next = (g.next + 1) % uint8(len(g.marks))
}

// twice reports whether an earlier packet of the same side had the same identifier and a
// sequence number up to 8 before this one's. It keeps the new number.
func (g *guess) twice(protocol flow.Protocol, p *Packet, id uint32, seq uint16) bool {
	before, seen := g.recall(protocol, p.FromA, id)
	g.keep(protocol, p.FromA, id, seq)
	step := seq - before
	return seen && step >= 1 && step <= 8
}

// answered reports whether the other side sent the same identifier before. If not, it keeps
// the identifier.
func (g *guess) answered(protocol flow.Protocol, p *Packet, id uint32) bool {
	if _, ok := g.recall(protocol, !p.FromA, id); ok {
		return true
	}
	g.keep(protocol, p.FromA, id, 0)
	return false
}

// port reports whether one end of the flow has one of the ports.
func (p *Packet) port(ports ...uint16) bool {
	for _, port := range ports {
		if p.SrcPort == port || p.DstPort == port {
			return true
		}
	}
	return false
}

var (
	be = binary.BigEndian
	le = binary.LittleEndian
)

// starts reports whether b begins with s.
func starts(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

// startsFold is starts without regard to the case of ASCII letters. s is in upper case.
func startsFold(b []byte, s string) bool {
	if len(b) < len(s) {
		return false
	}
	for i := range len(s) {
		c := b[i]
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

// startsAny reports whether b begins with one of the strings.
func startsAny(b []byte, list ...string) bool {
	for _, s := range list {
		if starts(b, s) {
			return true
		}
	}
	return false
}

// startsAnyFold is startsAny without regard to the case of ASCII letters.
func startsAnyFold(b []byte, list ...string) bool {
	for _, s := range list {
		if startsFold(b, s) {
			return true
		}
	}
	return false
}

// has reports whether s occurs in b at the given offset.
func has(b []byte, at int, s string) bool { return at <= len(b) && starts(b[at:], s) }

// contains reports whether s occurs in the first 512 bytes of b.
func contains(b []byte, s string) bool { return find(b, s) >= 0 }

// find returns where s occurs in the first 512 bytes of b, or -1.
func find(b []byte, s string) int {
	b = b[:min(len(b), 512)]
	for i := 0; i+len(s) <= len(b); i++ {
		next := bytes.IndexByte(b[i:], s[0])
		if next < 0 {
			break
		}
		i += next
		if starts(b[i:], s) {
			return i
		}
	}
	return -1
}

// containsFold is contains without regard to the case of ASCII letters. s is in upper case.
func containsFold(b []byte, s string) bool {
	b = b[:min(len(b), 512)]
	for i := 0; i+len(s) <= len(b); i++ {
		if startsFold(b[i:], s) {
			return true
		}
	}
	return false
}

// line returns the first line without its end, and whether it has an end. A line is at most
// 512 bytes long.
func line(b []byte) (text []byte, ended bool) {
	b = b[:min(len(b), 512)]
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return b, false
	}
	if end > 0 && b[end-1] == '\r' {
		return b[:end-1], true
	}
	return b[:end], true
}

// printable reports whether b is a non-empty text of printable ASCII characters.
func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return len(b) > 0
}

// looksLikeText reports whether the first four bytes are printable.
func looksLikeText(b []byte) bool {
	for _, c := range b[:min(len(b), 4)] {
		if (c < ' ' || c > '~') && c != '\r' && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// zeros reports whether all bytes are zero.
func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// digits returns the length of the decimal number at the start of b.
func digits(b []byte) int {
	n := 0
	for n < len(b) && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	return n
}

// udp returns the protocol of a datagram. The first byte tells which signatures may fit.
func (g *guess) udp(p *Packet) flow.Protocol {
	b := p.Payload
	if telegramVoice(p) { // begins with any byte
		return flow.ProtocolTelegramVoice
	}
	switch c := b[0]; {
	case c >= 0x80 && c <= 0xbf:
		switch found := g.media(p, b, p.Length); {
		case found != flow.ProtocolUnknown:
			return found
		case iax2(p):
			return flow.ProtocolIAX2
		case bacnet(p):
			return flow.ProtocolBACnet
		}
	case c == 0xff:
		switch {
		case sourceEngine(p):
			return flow.ProtocolSourceEngine
		case quake(p):
			return flow.ProtocolQuake
		case steam(p):
			return flow.ProtocolSteam
		case rdpUDP(p):
			return flow.ProtocolRDP
		}
	case c >= 20 && c <= 26:
		if dtls(p) {
			return flow.ProtocolDTLS
		}
	case c == 'T' && tailscale(p):
		return flow.ProtocolTailscale
	case c >= 'A' && c <= 'Z' && looksLikeText(b):
		switch {
		case sip(p):
			return flow.ProtocolSIP
		case ssdp(p):
			return flow.ProtocolSSDP
		case rtsp(p):
			return flow.ProtocolRTSP
		case mgcp(p):
			return flow.ProtocolMGCP
		case teamspeak(p):
			return flow.ProtocolTeamSpeak
		case steam(p):
			return flow.ProtocolSteam
		case bjnp(p):
			return flow.ProtocolBJNP
		case spotify(p):
			return flow.ProtocolSpotifyConnect
		}
	}
	switch c := b[0]; {
	case c < 0x40 && whatsappVoice(p):
		return flow.ProtocolWhatsAppVoice
	case c < 0x40 && stun(p):
		return flow.ProtocolSTUN
	case c >= 1 && c <= 4 && g.wireguard(p):
		return flow.ProtocolWireGuard
	case c == 0x30 && snmp(p):
		return flow.ProtocolSNMP
	case c == 0x30 && ldap(p):
		return flow.ProtocolLDAP
	case c >= 0x60 && c < 0x80 && kerberos(p):
		return flow.ProtocolKerberos
	case c == '<' && syslog(p):
		return flow.ProtocolSyslog
	case c == '<' && wsDiscovery(p):
		return flow.ProtocolWSDiscovery
	case c >= '1' && c <= '9' && mgcp(p):
		return flow.ProtocolMGCP
	case c == '{' && dropbox(p):
		return flow.ProtocolDropboxLAN
	case c == 'r' && dnscrypt(p):
		return flow.ProtocolDNSCrypt
	case (c == 5 || c == 13 || c == 15 || c == 16) && g.zoom(p):
		return flow.ProtocolZoom
	case (c == 0 || c == 0x13) && discord(p):
		return flow.ProtocolDiscordVoice
	case c == 4 && dcerpcUDP(p):
		return flow.ProtocolDCERPC
	case c == 2 && slp(p):
		return flow.ProtocolSLP
	case c == 2 && g.oicq(p):
		return flow.ProtocolOICQ
	case c == 0 && netflow(p):
		return flow.ProtocolNetFlow
	case c == 0 && sflow(p):
		return flow.ProtocolSFlow
	case c == 0 && xdmcp(p):
		return flow.ProtocolXDMCP
	case c <= 2 && natPMP(p):
		return flow.ProtocolNATPMP
	}
	switch {
	case ntp(p):
		return flow.ProtocolNTP
	case dhcp(p):
		return flow.ProtocolDHCP
	case netbios(p):
		return flow.ProtocolNetBIOS
	}
	if found := dns(p); found != flow.ProtocolUnknown {
		return found
	}
	if found := g.rpc(p); found != flow.ProtocolUnknown {
		return found
	}
	switch {
	case g.ike(p):
		return flow.ProtocolIKE
	case radius(p):
		return flow.ProtocolRADIUS
	case raknet(p):
		return flow.ProtocolRakNet
	case l2tp(p):
		return flow.ProtocolL2TP
	case g.bittorrentUDP(p):
		return flow.ProtocolBitTorrent
	case g.openvpn(p):
		return flow.ProtocolOpenVPN
	case g.tftp(p):
		return flow.ProtocolTFTP
	case g.mumble(p):
		return flow.ProtocolMumble
	case coap(p):
		return flow.ProtocolCoAP
	case teredo(p):
		return flow.ProtocolTeredo
	case memcached(p):
		return flow.ProtocolMemcached
	case gnutella(p):
		return flow.ProtocolGnutella
	case iperf(p):
		return flow.ProtocolIperf
	}
	return g.channel(p)
}

// tcp returns the protocol of a segment. The first byte tells which signatures may fit.
func (g *guess) tcp(p *Packet) flow.Protocol {
	b := p.Payload
	if looksLikeText(b) {
		if found := g.text(p); found != flow.ProtocolUnknown {
			return found
		}
	}
	switch c := b[0]; {
	case c == 0:
		switch {
		case smb(p):
			return flow.ProtocolSMB
		case ssh(p):
			return flow.ProtocolSSH
		case pptp(p):
			return flow.ProtocolPPTP
		case kerberos(p):
			return flow.ProtocolKerberos
		case postgresql(p):
			return flow.ProtocolPostgreSQL
		case kafka(p):
			return flow.ProtocolKafka
		case ldap(p):
			return flow.ProtocolLDAP
		case tns(p):
			return flow.ProtocolOracle
		case g.first(p) && rlogin(p):
			return flow.ProtocolRlogin
		case afp(p):
			return flow.ProtocolAFP
		}
	case (c == 'Q' || c == 'R' || c == 'E') && postgresql(p):
		return flow.ProtocolPostgreSQL
	case c == 0x30 && ldap(p):
		return flow.ProtocolLDAP
	case c >= 0x15 && c <= 0x19 && mmtls(p):
		return flow.ProtocolMMTLS
	case (c == 'W' || c == 'E') && g.whatsapp(p):
		return flow.ProtocolWhatsApp
	case c >= 0xdd && g.mtproto(p):
		return flow.ProtocolMTProto
	case c == 0x13 && bittorrentTCP(p):
		return flow.ProtocolBitTorrent
	case c == 3 && rdp(p):
		return flow.ProtocolRDP
	case c == 3 && g.rtmp(p):
		return flow.ProtocolRTMP
	case c == 5 && dcerpc(p):
		return flow.ProtocolDCERPC
	case c == 5 && dnp3(p):
		return flow.ProtocolDNP3
	case c == 0xff && telnet(p):
		return flow.ProtocolTelnet
	case c >= 0x80 && c <= 0x82 && netbios(p):
		return flow.ProtocolNetBIOS
	case c == 1 && amqp(p):
		return flow.ProtocolAMQP
	case c <= 6 && openflow(p):
		return flow.ProtocolOpenFlow
	case c&0x7f >= 3 && c&0x7f <= 5 && cassandra(p):
		return flow.ProtocolCassandra
	case (c == 1 || c == 3 || c == 4 || c == 0x10 || c == 0x12) && tds(p):
		return flow.ProtocolTDS
	case c == 0x12 && ajp(p):
		return flow.ProtocolAJP
	case c == 1 && afp(p):
		return flow.ProtocolAFP
	}
	if found := g.rpc(p); found != flow.ProtocolUnknown {
		return found
	}
	switch {
	case mongodb(p):
		return flow.ProtocolMongoDB
	case mysql(p):
		return flow.ProtocolMySQL
	case g.mqtt(p):
		return flow.ProtocolMQTT
	case g.socks(p):
		return flow.ProtocolSOCKS
	case g.openvpn(p):
		return flow.ProtocolOpenVPN
	case g.ike(p):
		return flow.ProtocolIKE
	case bitcoin(p):
		return flow.ProtocolBitcoin
	case minecraft(p):
		return flow.ProtocolMinecraft
	case steam(p):
		return flow.ProtocolSteam
	case g.modbus(p):
		return flow.ProtocolModbus
	case stun(p):
		return flow.ProtocolSTUN
	case memcached(p):
		return flow.ProtocolMemcached
	case g.oicq(p):
		return flow.ProtocolOICQ
	case b[0] == 0 && g.whatsapp(p):
		return flow.ProtocolWhatsApp
	}
	return dns(p)
}

// text returns the protocol of a segment that begins with a printable character.
func (g *guess) text(p *Packet) flow.Protocol {
	c := p.Payload[0]
	switch {
	case c == 'S' && ssh(p):
		return flow.ProtocolSSH
	case c == 'R' && vnc(p):
		return flow.ProtocolVNC
	case c == '@' && rsync(p):
		return flow.ProtocolRsync
	case c == '0' && git(p):
		return flow.ProtocolGit
	case c == 'A' && amqp(p):
		return flow.ProtocolAMQP
	case c == 'A' && ajp(p):
		return flow.ProtocolAJP
	case c == 'G' && gnutella(p):
		return flow.ProtocolGnutella
	case c == 'Z' && zabbix(p):
		return flow.ProtocolZabbix
	case c == '<' && xmpp(p):
		return flow.ProtocolXMPP
	case (c == '<' || c >= '1' && c <= '9') && syslog(p):
		return flow.ProtocolSyslog
	case (c == '*' || c == '-' || c == '+' || c == 'P') && g.redis(p):
		return flow.ProtocolRedis
	case (c == 'I' || c == 'C') && nats(p):
		return flow.ProtocolNATS
	case (c == 'C' || c == 'S') && stomp(p):
		return flow.ProtocolSTOMP
	case c >= 'A' && c <= 'Z' && sip(p):
		return flow.ProtocolSIP
	case c >= 'A' && c <= 'Z' && rtsp(p):
		return flow.ProtocolRTSP
	case (c >= 'A' && c <= 'Z' || c == ':') && irc(p):
		return flow.ProtocolIRC
	}
	if found := g.greeting(p); found != flow.ProtocolUnknown {
		return found
	}
	switch {
	case g.pop3(p):
		return flow.ProtocolPOP3
	case imap(p):
		return flow.ProtocolIMAP
	case memcached(p):
		return flow.ProtocolMemcached
	case iperf(p):
		return flow.ProtocolIperf
	}
	return flow.ProtocolUnknown
}
