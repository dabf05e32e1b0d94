// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"slices"
	"strings"
	"testing"
)

// TestLabelNumbers freezes the numbers: they are stored in pinned maps. Labels may be
// added after these; none may change.
func TestLabelNumbers(t *testing.T) {
	frozen := []string{
		"", "unknown", "chat", "email", "file-transfer", "streaming", "torrent", "voip", "vpn-chat", "vpn-email",
		"vpn-file-transfer", "vpn-streaming", "vpn-torrent", "vpn-voip", "vpn-tunnel", "aim", "facebook", "ftps", "gmail",
		"hangouts", "icq", "netflix", "scp", "sftp", "skype", "spotify", "tor", "voipbuster", "vimeo", "youtube",
		"web", "game", "remote", "background",
	}
	if len(Vocabulary) < len(frozen) || !slices.Equal(Vocabulary[:len(frozen)], frozen) {
		t.Errorf("the vocabulary is %q, want %q first", Vocabulary, frozen)
	}
}

// TestLabelOrder freezes the order of each task's labels: datasets number their classes by it.
func TestLabelOrder(t *testing.T) {
	for task, frozen := range map[Task][]string{
		Category: {"chat", "email", "file-transfer", "streaming", "torrent", "voip", "vpn-chat", "vpn-email",
			"vpn-file-transfer", "vpn-streaming", "vpn-torrent", "vpn-voip", "vpn-tunnel", "web", "game", "remote", "background"},
		App: {"aim", "email", "facebook", "ftps", "gmail", "hangouts", "icq", "netflix", "scp", "sftp", "skype", "spotify",
			"torrent", "tor", "voipbuster", "vimeo", "youtube"},
	} {
		if got := task.Labels(); len(got) < len(frozen) || !slices.Equal(got[:len(frozen)], frozen) {
			t.Errorf("labels of %v are %q, want %q first", task, got, frozen)
		}
	}
}

func TestLabelsAreValid(t *testing.T) {
	for _, name := range slices.Concat(Categories, Apps, []string{Unknown}) {
		if !ValidName(name) {
			t.Errorf("label %q: want %s", name, NameRule)
		}
	}
}

// TestProtocolNumbers freezes the numbers: they are stored in pinned maps. Protocols may be
// added after these; none may change.
func TestProtocolNumbers(t *testing.T) {
	frozen := strings.Fields(`unknown tls quic http dtls stun dns-over-tls dns ssh rdp vnc telnet smtp imap pop3 ftp tftp smb
		nfs rsync git bittorrent sip rtp rtcp mgcp iax2 mumble teamspeak rtsp rtmp openvpn wireguard ike l2tp pptp tailscale ntp
		snmp mdns llmnr netbios ssdp dhcp syslog radius ldap kerberos mqtt coap sunrpc mysql postgresql redis mongodb memcached
		amqp kafka socks xmpp irc steam source-engine minecraft raknet quake iperf modbus bitcoin
		zoom discord-voice gnutella teredo dnscrypt zabbix openflow dnp3 ajp dcerpc ws-discovery slp nat-pmp
		netflow sflow dropbox-lan bjnp tds oracle cassandra nats stomp xdmcp rlogin afp bacnet spotify-connect
		oicq mmtls whatsapp mtproto telegram-voice whatsapp-voice`)
	for n, name := range frozen {
		if n >= len(protocols) || protocols[n].name != name {
			t.Errorf("protocol %d is not %q", n, name)
		}
	}
	for _, p := range Protocols() {
		if c := p.Category(); c != "" && !slices.Contains(Categories, c) {
			t.Errorf("protocol %v decides category %q, which does not exist", p, c)
		}
	}
}
