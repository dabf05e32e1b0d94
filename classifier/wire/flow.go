// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"github.com/dpclass/dpclass/flow"
)

// Budget is the number of payload packets of a flow that are looked at. The longest
// dialogue that leads to a name is that of SMTP: greeting, EHLO, its answer, STARTTLS,
// its answer, and a hello in three segments.
const Budget = 8

// early is the number of packets among which the client's first one is, even if others
// overtook it on another path or CPU.
const early = 4

// dotPort is the port of DNS over TLS (RFC 7858, section 3.1).
const dotPort = 853

// Flow collects the evidence of one flow. The zero value is ready. It is not safe for
// concurrent use.
type Flow struct {
	guess  guess
	window *window // pieces of a message in several packets; mostly nil

	name, alpn, ja4 string

	protocol  flow.Protocol // recognised in this file's part of the package; compare guess
	upgrade   flow.Protocol // whose client has asked for TLS
	source    flow.NameSource
	signature signature
	head      head
	seen      uint8 // packets
	upgradeA  bool  // direction of the client that asked for TLS
	finished  bool  // nothing more can come
}

// head says what begins at the start of the window.
type head uint8

const (
	headNone    head = iota
	headHello        // a TLS client hello
	headRequest      // an HTTP request
)

// Add looks at the flow's next payload packet. After [Flow.Pending] returns false it does
// nothing.
func (f *Flow) Add(p *Packet) {
	if len(p.Payload) == 0 || !f.Pending() {
		return
	}
	f.seen++
	if p.Proto == flow.TCP {
		f.addTCP(p)
	} else {
		f.addUDP(p)
	}
	if !f.Pending() {
		f.Release()
	}
}

// Pending reports whether further packets may still give a protocol, a name or a
// fingerprint. It is false after [Budget] packets at the latest.
func (f *Flow) Pending() bool {
	switch {
	case f.finished || f.seen >= Budget:
		return false
	case f.head != headNone || f.upgrade != flow.ProtocolUnknown:
		return true
	}
	switch f.protocol {
	case flow.ProtocolUnknown:
		return f.guess.open || upgrades(f.guess.protocol) ||
			f.guess.protocol == flow.ProtocolUnknown && f.seen < early
	case flow.ProtocolTLS, flow.ProtocolDNSOverTLS:
		return f.seen < early
	case flow.ProtocolDTLS:
		return f.ja4 == "" || f.guess.open
	}
	return true
}

// Sure reports whether the protocol is known and will not change.
func (f *Flow) Sure() bool {
	if f.protocol != flow.ProtocolUnknown && f.protocol != flow.ProtocolDTLS {
		return true
	}
	return f.guess.protocol != flow.ProtocolUnknown && !f.guess.open
}

// Evidence returns what is known by now. A later packet may add to it; a protocol or a
// name that decides is not taken back.
func (f *Flow) Evidence() flow.Evidence {
	return flow.Evidence{Protocol: f.decided(), Name: f.name, NameSource: f.source, ALPN: f.alpn, JA4: f.ja4}
}

func (f *Flow) decided() flow.Protocol {
	guessed := f.guess.protocol
	switch {
	case f.protocol == flow.ProtocolDTLS && guessed != flow.ProtocolUnknown && guessed != flow.ProtocolSTUN:
		return guessed // a call: its keys come from DTLS, its packets are RTP
	case f.protocol != flow.ProtocolUnknown:
		return f.protocol
	case guessed != flow.ProtocolUnknown:
		return guessed
	}
	return f.upgrade
}

// Release returns the flow's buffers to a pool. Call it when the flow ends; the evidence
// stays.
func (f *Flow) Release() {
	if f.window != nil {
		f.window.free()
		f.window = nil
	}
	f.head = headNone
}

// Holds reports whether the flow holds a buffer, because a message is not complete.
func (f *Flow) Holds() bool { return f.window != nil }

// GiveUp ends the wait for the rest of a message, and returns the buffer to the pool.
func (f *Flow) GiveUp() {
	f.Release()
	f.finished = f.finished || f.protocol != flow.ProtocolUnknown
}

// open returns the window, a new one if need be, nil if there are too many.
func (f *Flow) open(fromA bool) *window {
	if f.window == nil {
		if f.window = takeWindow(); f.window != nil {
			f.window.fromA = fromA
		}
	}
	return f.window
}

// addTCP looks at a segment.
func (f *Flow) addTCP(p *Packet) {
	if f.head != headNone {
		if w := f.window; p.FromA == w.fromA && w.put(int(int32(p.Seq-w.base)), p.Payload) {
			f.read(w.from(w.start), p, false)
		}
		f.other(p)
		return
	}
	hello := isClientHello(p.Payload)
	if hello != no {
		f.begin(headHello, p)
		f.other(p)
		return
	}
	if f.upgrade == flow.ProtocolUnknown {
		if isRequest(p.Payload) != no {
			f.begin(headRequest, p)
			f.other(p)
			return
		}
		switch {
		case isResponse(p.Payload):
			f.decide(flow.ProtocolHTTP, sigResponse)
		case isHTTP2(p.Payload):
			f.decide(flow.ProtocolHTTP, sigHTTP2)
			f.finished = true
		case isRecords(p.Payload):
			f.decideTLS(p, sigRecords)
		}
	}
	if f.upgrade != flow.ProtocolUnknown {
		if p.FromA == f.upgradeA {
			f.stash(p)
		}
		return
	}
	if f.other(p); f.upgrade != flow.ProtocolUnknown {
		f.Release() // what comes next is a hello
	} else if f.seen < early && f.decided() == flow.ProtocolUnknown {
		f.stash(p)
	}
}

// other looks for the other protocols, as long as none is found.
func (f *Flow) other(p *Packet) {
	if f.protocol != flow.ProtocolUnknown || f.finished || f.head != headNone && f.decided() != flow.ProtocolUnknown {
		return
	}
	f.guess.add(p)
	if p.Proto == flow.TCP && f.upgrade == flow.ProtocolUnknown {
		f.upgrade, f.upgradeA = upgrade(p.Payload), p.FromA
	}
}

// stash keeps a segment that says nothing by itself: it may be the second segment of a
// hello, and the first may come later.
func (f *Flow) stash(p *Packet) {
	if f.window == nil {
		if windowsHeld.Load() >= maxWindows/2 {
			return // the rest is for hellos that have begun
		}
		w := f.open(p.FromA)
		if w == nil {
			return
		}
		w.base = p.Seq - before
	}
	if w := f.window; w.fromA == p.FromA {
		w.put(int(int32(p.Seq-w.base)), p.Payload)
	}
}

// begin reads a message that begins with this segment.
func (f *Flow) begin(kind head, p *Packet) {
	f.head = kind
	first := true // the segment comes before all others of its direction, as far as is known
	if w := f.window; w != nil {
		if offset := int(int32(p.Seq - w.base)); w.fromA == p.FromA && offset >= 0 && offset <= before {
			first = offset < before
			w.start = offset
			w.put(offset, p.Payload)
		} else {
			w.reset()
			w.base, w.fromA = p.Seq, p.FromA
			w.put(0, p.Payload)
		}
		f.read(w.from(w.start), p, first)
		return
	}
	// Mostly the message is in one segment, and needs no memory.
	if f.read(p.Payload, p, false); f.head == headNone {
		return
	}
	if p.Length > len(p.Payload) || f.open(p.FromA) == nil {
		f.head, f.finished = headNone, f.protocol != flow.ProtocolUnknown
		return
	}
	f.window.base = p.Seq
	f.window.put(0, p.Payload)
}

// read reads the message as far as it is there: b. It sets head to headNone when nothing
// is missing, or when it is something else.
func (f *Flow) read(b []byte, p *Packet, first bool) {
	m := no
	switch f.head {
	case headHello:
		if m = isClientHello(b); m == yes {
			f.readHello(b, p, first)
		}
	case headRequest:
		if m = isRequest(b); m == yes {
			f.readRequest(b)
		}
	}
	if m == no {
		f.Release()
	}
}

// readHello reads a client hello in TLS records.
func (f *Flow) readHello(b []byte, p *Packet, first bool) {
	// After the beginning of another protocol it is that protocol with TLS inside.
	if f.upgrade == flow.ProtocolUnknown && (first || f.guess.protocol == flow.ProtocolUnknown) {
		f.decideTLS(p, sigClientHello)
	}
	body, size, broken := clientHello(b, nil)
	var scratch *window
	if _, length, _ := record(b); len(body) < size && len(b) > recordHeader+length {
		scratch = windows.Get().(*window)
		body, size, broken = clientHello(b, scratch)
	}
	f.hello(body, size, helloTLS, flow.NameTLS)
	if scratch != nil {
		windows.Put(scratch)
	}
	if f.alpn == "dot" && f.protocol == flow.ProtocolTLS {
		f.decide(flow.ProtocolDNSOverTLS, sigDNSOverTLS)
	}
	if len(body) == size || broken {
		f.Release()
		f.finished = true
	}
}

// hello takes over what a client hello of size bytes says. The body may be cut.
func (f *Flow) hello(body []byte, size int, kind helloKind, source flow.NameSource) {
	var h hello
	h.parse(body, size, kind)
	switch {
	case h.hidden:
		f.name, f.source = flow.HiddenName, source
	case f.name == "":
		if f.name = hostName(h.name); f.name != "" {
			f.source = source
		}
	}
	if f.alpn == "" {
		f.alpn = alpnName(h.alpnShown)
	}
	f.ja4 = h.ja4(kind)
}

// readRequest reads a request of HTTP/1.
func (f *Flow) readRequest(b []byte) {
	f.decide(flow.ProtocolHTTP, sigRequest)
	if isMMTLSRequest(b) {
		f.decide(flow.ProtocolMMTLS, sigMMTLSRequest)
	}
	host, done := requestHost(b)
	if !done {
		return
	}
	if f.name = hostName(host); f.name != "" {
		f.source = flow.NameHTTP
	}
	f.Release()
	f.finished = true
}

// decideTLS sets the protocol of TLS: DNS over TLS has a port of its own.
func (f *Flow) decideTLS(p *Packet, s signature) {
	if f.protocol != flow.ProtocolUnknown {
		if s == sigClientHello && f.signature == sigRecords {
			f.signature = s
		}
		return
	}
	if p.SrcPort == dotPort || p.DstPort == dotPort {
		f.decide(flow.ProtocolDNSOverTLS, sigDNSOverTLSPort)
		return
	}
	f.decide(flow.ProtocolTLS, s)
}

func (f *Flow) decide(p flow.Protocol, s signature) { f.protocol, f.signature = p, s }

// addUDP looks at a datagram.
func (f *Flow) addUDP(p *Packet) {
	switch {
	case f.protocol == flow.ProtocolQUIC:
		if !f.addQUIC(p) {
			f.addGoogleQUIC(p)
		}
	case f.addQUIC(p), f.addGoogleQUIC(p):
	case isDTLS(p.Payload, p.Length):
		f.addDTLS(p)
	case f.protocol == flow.ProtocolDTLS:
		f.guess.add(p) // the packets of a call come after the exchange of keys
	default:
		f.other(p)
	}
}

// addQUIC looks at the long header packets of a datagram, and reports whether it has any.
func (f *Flow) addQUIC(p *Packet) bool {
	b, onWire := p.Payload, p.Length
	derive := true // keys once for each datagram, however many packets it has
	for count := 0; ; count++ {
		h, ok := parseLong(b, onWire)
		if !ok {
			return count > 0
		}
		if f.protocol != flow.ProtocolQUIC {
			f.decide(flow.ProtocolQUIC, sigQUIC)
		}
		switch {
		case h.version == nil:
			return true
		case h.kind == quicInitial && h.captured:
			if f.initial(b, &h, p, derive) {
				return true
			}
			derive = false
		case h.kind == quicRetry:
			// The client starts again, with a connection id of the server's.
			if w := f.window; w != nil && w.fromA != p.FromA {
				f.Release()
			}
		}
		if h.end >= len(b) {
			return true
		}
		b, onWire = b[h.end:], onWire-h.end
	}
}

// addGoogleQUIC looks at a datagram of QUIC before the IETF's, and reports whether it is
// one.
func (f *Flow) addGoogleQUIC(p *Packet) bool {
	if !isGoogleQUIC(p.Payload) {
		return false
	}
	f.decide(flow.ProtocolQUIC, sigGoogleQUIC)
	name, done := googleName(p.Payload)
	if name := hostName(name); name != "" {
		f.name, f.source = name, flow.NameQUIC
	}
	f.finished = done
	return true
}

// initial reads an Initial packet of a client. It reports whether the hello is complete.
func (f *Flow) initial(b []byte, h *longHeader, p *Packet, derive bool) (complete bool) {
	w := f.window
	if w != nil && w.fromA != p.FromA {
		return false // from the server
	}
	scratch := windows.Get().(*window)
	defer windows.Put(scratch)
	var frames []byte
	ok := false
	if w != nil {
		frames, ok = w.keys.open(b, h, scratch)
	}
	if !ok {
		id := makeCID(h.dcid)
		if !derive || len(h.dcid) < minFirstCID || w != nil && w.cid == id {
			return false
		}
		var keys initialKeys
		if !keys.set(h.version, h.dcid) {
			return false
		}
		if frames, ok = keys.open(b, h, scratch); !ok {
			return false
		}
		if w != nil {
			w.reset() // a new attempt of the client
			w.fromA = p.FromA
		} else if w = f.open(p.FromA); w == nil {
			return false
		}
		w.keys, w.cid = keys, id
	}
	f.signature = sigInitial
	w.crypto(frames)
	message := w.from(0)
	if len(message) < handshakeHeader || message[0] != messageClientHello {
		return false
	}
	size := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
	body := message[handshakeHeader:min(len(message), handshakeHeader+size)]
	if f.hello(body, size, helloQUIC, flow.NameQUIC); len(body) < size {
		return false
	}
	f.Release()
	f.finished = true
	return true
}

// addDTLS looks at the records of a datagram.
func (f *Flow) addDTLS(p *Packet) {
	if f.protocol == flow.ProtocolUnknown {
		f.decide(flow.ProtocolDTLS, sigDTLS)
	}
	for b, onWire := p.Payload, p.Length; isDTLS(b, onWire) && f.ja4 == ""; {
		if part, offset, size, ok := dtlsHello(b); ok {
			f.signature = sigDTLSHello
			f.dtlsHello(part, offset, size, p.FromA)
		}
		n := dtlsRecordHeader + int(b[11])<<8 + int(b[12])
		if n >= len(b) {
			return
		}
		b, onWire = b[n:], onWire-n
	}
}

// dtlsHello reads a fragment of a client hello in DTLS.
func (f *Flow) dtlsHello(part []byte, offset, size int, fromA bool) {
	if offset > 0 || len(part) < size {
		w := f.open(fromA)
		if w == nil || w.fromA != fromA {
			return
		}
		if offset == 0 && len(w.from(0)) > 0 {
			w.reset() // once more, with a cookie
			w.fromA = fromA
		}
		w.put(offset, part)
		part = w.from(0)
		part = part[:min(len(part), size)]
	}
	if f.hello(part, size, helloDTLS, flow.NameTLS); len(part) == size {
		f.Release()
	}
}
