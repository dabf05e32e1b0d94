// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"testing"

	"github.com/dpclass/dpclass/flow"
)

// dialogue makes packets of what two sides say in turn, the client's sequence numbers
// counted. Texts of the server begin with "S:".
func dialogue(client ...string) (packets []*Packet, seq uint32) {
	seq = 1000
	for _, text := range client {
		if len(text) > 2 && text[:2] == "S:" {
			packets = append(packets, fromServer(tcpPacket(1, []byte(text[2:]))))
			continue
		}
		packets = append(packets, tcpPacket(seq, []byte(text)))
		seq += uint32(len(text))
	}
	return packets, seq
}

func TestStartTLS(t *testing.T) {
	b := records(simpleHello("mail.example.org", 0), 1<<14)
	for _, test := range []struct {
		want  flow.Protocol
		lines []string
	}{
		{flow.ProtocolSMTP, []string{"S:220 mail.example.org ESMTP\r\n", "EHLO me\r\n", "S:250-mail\r\n250 STARTTLS\r\n", "STARTTLS\r\n", "S:220 go\r\n"}},
		{flow.ProtocolIMAP, []string{"S:* OK ready\r\n", "a1 STARTTLS\r\n", "S:a1 OK go\r\n"}},
		{flow.ProtocolPOP3, []string{"S:+OK ready\r\n", "STLS\r\n", "S:+OK go\r\n"}},
		{flow.ProtocolFTP, []string{"S:220 ready\r\n", "auth tls\r\n", "S:234 go\r\n"}},
		{flow.ProtocolXMPP, []string{
			"<?xml version='1.0'?><stream:stream to='mail.example.org' xmlns='jabber:client' version='1.0'>",
			"S:<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>",
			"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "S:<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
		}},
		{flow.ProtocolPostgreSQL, []string{"\x00\x00\x00\x08\x04\xd2\x16\x2f", "S:S"}},
	} {
		packets, seq := dialogue(test.lines...)
		f := feed(t, append(packets, tcpPacket(seq, b))...)
		want(t, f, test.want, "mail.example.org")
		if f.Evidence().JA4 == "" || f.Pending() {
			t.Errorf("%v: %+v, pending %v", test.want, f.Evidence(), f.Pending())
		}
		// In two segments, in both orders.
		one, two := tcpPacket(seq, b[:70]), tcpPacket(seq+70, b[70:])
		want(t, feed(t, append(packets, one, two)...), test.want, "mail.example.org")
		want(t, feed(t, append(packets, two, one)...), test.want, "mail.example.org")
		if f := feed(t, packets...); !f.Pending() {
			t.Errorf("%v: not pending before the hello", test.want)
		}
	}
}
