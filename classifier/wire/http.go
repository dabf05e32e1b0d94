// SPDX-License-Identifier: Apache-2.0

package wire

import "bytes"

// methods are those of HTTP (RFC 9110, section 9.3; RFC 5789) and WebDAV (RFC 4918,
// section 9; RFC 3253; RFC 3744; RFC 5323; RFC 4791, section 5.3.1), with the space after
// them.
var methods = [...]string{
	"GET ", "POST ", "HEAD ", "PUT ", "OPTIONS ", "CONNECT ", "DELETE ", "TRACE ", "PATCH ",
	"PROPFIND ", "PROPPATCH ", "MKCOL ", "COPY ", "MOVE ", "LOCK ", "UNLOCK ",
	"REPORT ", "CHECKOUT ", "MERGE ", "VERSION-CONTROL ", "MKACTIVITY ", "ACL ", "SEARCH ", "MKCALENDAR ",
}

const (
	// prefaceHTTP2 is the first line of every HTTP/2 connection (RFC 9113, section 3.4).
	prefaceHTTP2 = "PRI * HTTP/2.0\r\n"

	// minTarget is the number of bytes of a request without its end from which it counts
	// as one: enough for a method and a few bytes of path.
	minTarget = 16
)

// methodOf returns the length of the method at the beginning of a request, 0 if there is
// none.
func methodOf(b []byte) int {
	if len(b) == 0 || b[0] < 'A' || b[0] > 'V' {
		return 0
	}
	for _, method := range methods {
		if len(b) >= len(method) && string(b[:len(method)]) == method {
			return len(method)
		}
	}
	return 0
}

// isRequest says whether a stream begins with a request of HTTP/1 (RFC 9112, section 3).
// The requests of RTSP, SIP and SSDP look alike, but have other versions.
func isRequest(b []byte) match {
	n := methodOf(b)
	if n == 0 {
		// The method alone may be in the first segment.
		if len(b) >= 3 && len(b) < len("VERSION-CONTROL ") && b[0] >= 'A' && b[0] <= 'V' {
			for _, method := range methods {
				if len(b) < len(method) && method[:len(b)] == string(b) {
					return maybe
				}
			}
		}
		return no
	}
	line := b[n:]
	end := bytes.IndexByte(line, '\n')
	if end >= 0 {
		line = bytes.TrimSuffix(line[:end], []byte("\r"))
		space := bytes.LastIndexByte(line, ' ')
		if space <= 0 || len(line)-space != len(" HTTP/1.1") || string(line[space:space+8]) != " HTTP/1." {
			return no
		}
		return yes
	}
	for _, c := range line {
		if c < ' ' || c == 0x7f {
			if c == '\r' { // the line's end is cut
				break
			}
			return no
		}
	}
	if len(line) == 0 {
		return maybe
	}
	if line[0] != '/' && line[0] != '*' && !prefixes(line, "http://") && !prefixes(line, "https://") &&
		string(b[:n]) != "CONNECT " {
		return no
	}
	if len(b) < minTarget || line[0] != '/' {
		return maybe
	}
	return yes
}

// prefixes reports whether one of the two begins with the other, in any case.
func prefixes(b []byte, lower string) bool {
	return hasPrefixFold(b, lower[:min(len(b), len(lower))])
}

// isResponse reports whether a stream begins with a response of HTTP/1 (RFC 9112, section
// 4).
func isResponse(b []byte) bool {
	return len(b) >= 12 && string(b[:7]) == "HTTP/1." && b[7] >= '0' && b[7] <= '9' && b[8] == ' ' &&
		b[9] >= '1' && b[9] <= '5' && b[10] >= '0' && b[10] <= '9' && b[11] >= '0' && b[11] <= '9'
}

// isHTTP2 reports whether a stream begins with the preface of HTTP/2 without TLS.
func isHTTP2(b []byte) bool {
	return len(b) >= len(prefaceHTTP2) && string(b[:len(prefaceHTTP2)]) == prefaceHTTP2
}

// requestHost returns the host that a request is for: that of an absolute target, or the
// Host field (RFC 9112, section 3.2.2). done: the request has no other host, even if more
// of it comes.
func requestHost(b []byte) (host []byte, done bool) {
	n := methodOf(b)
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return nil, false
	}
	target, _, _ := bytes.Cut(b[n:end], []byte(" "))
	switch {
	case string(b[:n]) == "CONNECT ":
		return withoutPort(target), true
	case hasPrefixFold(target, "http://"):
		return withoutPort(authority(target[len("http://"):])), true
	case hasPrefixFold(target, "https://"):
		return withoutPort(authority(target[len("https://"):])), true
	}
	for b = b[end+1:]; ; b = b[end+1:] {
		end = bytes.IndexByte(b, '\n')
		if end < 0 {
			return nil, false
		}
		line := bytes.TrimSuffix(b[:end], []byte("\r"))
		if len(line) == 0 {
			return nil, true
		}
		if hasPrefixFold(line, "host:") {
			return withoutPort(bytes.Trim(line[len("host:"):], " \t")), true
		}
	}
}

// authority cuts a URL without its scheme after the host and port.
func authority(url []byte) []byte {
	if end := bytes.IndexAny(url, "/?#"); end >= 0 {
		url = url[:end]
	}
	return url[bytes.LastIndexByte(url, '@')+1:]
}

// withoutPort cuts a port off. An IPv6 address in brackets stays as it is: no host name.
func withoutPort(host []byte) []byte {
	if len(host) > 0 && host[0] == '[' {
		return host
	}
	if colon := bytes.IndexByte(host, ':'); colon >= 0 {
		host = host[:colon]
	}
	return host
}
