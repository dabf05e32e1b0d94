// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

func TestHTTP(t *testing.T) {
	const http, unknown = flow.ProtocolHTTP, flow.ProtocolUnknown
	for text, test := range map[string]struct {
		want flow.Protocol
		name string
	}{
		"GET / HTTP/1.1\r\nHost: WWW.example.org\r\n\r\n":                                {http, "www.example.org"},
		"GET / HTTP/1.1\r\nUser-Agent: x\r\nhOST:\t www.example.org:8080 \r\n\r\n":       {http, "www.example.org"},
		"GET / HTTP/1.0\nHost: www.example.org\n\n":                                      {http, "www.example.org"},
		"GET / HTTP/1.0\r\n\r\n":                                                         {http, ""},
		"GET http://user@www.example.org:80/x?y HTTP/1.1\r\nHost: other.example\r\n\r\n": {http, "www.example.org"},
		"GET http://www.example.org HTTP/1.1\r\n\r\n":                                    {http, "www.example.org"},
		"CONNECT www.example.org:443 HTTP/1.1\r\n\r\n":                                   {http, "www.example.org"},
		"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n":                                     {http, ""},
		"PROPFIND /dav/ HTTP/1.1\r\nHost: dav.example.org\r\n\r\n":                       {http, "dav.example.org"},
		"OPTIONS * HTTP/1.1\r\nHost: www.example.org\r\n\r\n":                            {http, "www.example.org"},
		"POST / HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n":                                  {http, ""},
		"POST / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n":                              {http, ""},
		"POST / HTTP/1.1\r\nHost: a\x1b[31mb.example\r\n\r\n":                            {http, ""},
		"POST / HTTP/1.1\r\nX: Host: a.example\r\n\r\nHost: b.example\r\n":               {http, ""},
		"GET /" + strings.Repeat("x", 1300):                                              {http, ""},
		"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n":                                           {http, ""},
		"POST /mmtls/00003aee HTTP/1.1\r\nHost: a.example\r\n\r\n":                       {flow.ProtocolMMTLS, "a.example"},
		"POST /mmtls/00003aee HTTP/1.1\r\nHost: 192.0.2.1\r\nUpgrade: mmtls\r\n\r\n":     {flow.ProtocolMMTLS, ""},
		"POST /mmtls/index.html HTTP/1.1\r\nHost: a.example\r\n\r\n":                     {http, "a.example"},
		"GET /mmtls/00003aee HTTP/1.1\r\nHost: a.example\r\n\r\n":                        {http, "a.example"},
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":                                               {http, ""},
		"M-SEARCH * HTTP/1.1\r\nHost: 239.255.255.250:1900\r\n\r\n":                      {unknown, ""},
		"OPTIONS rtsp://a.example/ RTSP/1.0\r\nCSeq: 1\r\n\r\n":                          {flow.ProtocolRTSP, ""},
		"OPTIONS sip:a@a.example SIP/2.0\r\n\r\n":                                        {flow.ProtocolSIP, ""},
		"RTSP/1.0 200 OK\r\n\r\n":                                                        {flow.ProtocolRTSP, ""},
		"ICAP/1.0 200 OK\r\n\r\n":                                                        {unknown, ""},
		"GETTING / HTTP/1.1\r\nHost: a.example\r\n\r\n":                                  {unknown, ""},
		"get / HTTP/1.1\r\nHost: a.example\r\n\r\n":                                      {unknown, ""},
		"GET / HTTP/2.0\r\nHost: a.example\r\n\r\n":                                      {unknown, ""},
		"GET \x00\x01\x02 HTTP/1.1":                                                      {unknown, ""},
		"SEARCH something else":                                                          {unknown, ""},
		"VERSION-CONTROL ":                                                               {unknown, ""},
	} {
		f := feed(t, tcpPacket(1, []byte(text)))
		if e := f.Evidence(); e.Protocol != test.want || e.Name != test.name {
			t.Errorf("%.60q: %+v, want %v %q", text, e, test.want, test.name)
		}
		for cut := 1; cut < min(len(text), 100); cut++ { // never panics, never something else
			if e := feed(t, tcpPacket(1, []byte(text[:cut]))).Evidence(); e.Protocol != unknown && e.Protocol != test.want && (test.want != flow.ProtocolMMTLS || e.Protocol != http) {
				t.Errorf("%.60q: %+v, want %v", text[:cut], e, test.want)
			}
		}
	}
	f := feed(t, udpPacket([]byte("GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n")))
	want(t, f, unknown, "")
}

func TestRequestInTwoSegments(t *testing.T) {
	const text = "GET /" + "0123456789" + " HTTP/1.1\r\nAccept: */*\r\nHost: www.example.org\r\n\r\n"
	for cut := 3; cut < len(text)-2; cut++ {
		one, two := tcpPacket(9, []byte(text[:cut])), tcpPacket(9+uint32(cut), []byte(text[cut:]))
		want(t, feed(t, one, two), flow.ProtocolHTTP, "www.example.org")
		want(t, feed(t, one, fromServer(tcpPacket(77, []byte("x"))), one, two), flow.ProtocolHTTP, "www.example.org")
	}
	// On a connection whose beginning was not seen, the next request has the name.
	f := feed(t, fromServer(tcpPacket(1, []byte("HTTP/1.1 200 OK\r\n\r\n"))), tcpPacket(1, []byte(text)))
	want(t, f, flow.ProtocolHTTP, "www.example.org")
}
