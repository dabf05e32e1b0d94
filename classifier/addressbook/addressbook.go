// SPDX-License-Identifier: Apache-2.0

// Package addressbook remembers the names of server addresses: from DNS answers, and from
// earlier flows that had a server name of their own.
//
// What it knows is a conclusion and may be wrong, by accident or because somebody forged
// an answer. So a name of the flow's own always comes first, and where the names of an
// address disagree about the service, the book has no answer.
package addressbook

import (
	"container/list"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/dpclass/dpclass/flow"
)

// Limits of what a book keeps.
const (
	MaxPairs  = 65536            // of address and name; the least recently used goes first
	MinTTL    = time.Minute      // a DNS answer with a shorter life is kept this long
	MaxTTL    = 24 * time.Hour   // and one with a longer life this long
	ServerTTL = 10 * time.Minute // a name of an earlier flow

	maxNames   = 16 // of one address: more say nothing
	maxAnswers = 64 // records of a message that are read
)

// Service says which service a name belongs to, for the comparison of names. Names whose
// service is not listed give "".
type Service func(name string) string

// Book holds the names of addresses. Its methods may be called concurrently.
type Book struct {
	service Service

	mu      sync.Mutex
	dns     shelf[netip.Addr]
	servers shelf[server]
}

// server is an endpoint that earlier flows had as their server.
type server struct {
	addr  netip.AddrPort
	proto flow.Proto
}

// New returns an empty book. Service compares names.
func New(service Service) *Book {
	return &Book{service: service, dns: newShelf[netip.Addr](), servers: newShelf[server]()}
}

// ErrNoAnswer says that a message is no answer that names an address: a query, an error,
// or records of other types.
var ErrNoAnswer = errors.New("no answer with addresses")

// Answer reads a DNS answer (RFC 1035, section 4.1), without the length prefix of TCP. The
// addresses get the name that was asked for, also at the end of a chain of aliases. The
// pairs live for the records' TTL, at least MinTTL and at most MaxTTL. Answer returns the
// number of pairs. A message that is cut gives the pairs up to there.
func (b *Book) Answer(message []byte, now time.Time) (pairs int, err error) {
	var p dnsmessage.Parser
	header, err := p.Start(message)
	if err != nil {
		return 0, fmt.Errorf("DNS answer: %w", err)
	}
	if !header.Response || header.RCode != dnsmessage.RCodeSuccess {
		return 0, ErrNoAnswer
	}
	question, err := p.Question()
	if err != nil {
		return 0, fmt.Errorf("DNS answer: %w", err)
	}
	if err := p.SkipAllQuestions(); err != nil {
		return 0, fmt.Errorf("DNS answer: %w", err)
	}
	name, ok := hostName(question.Name.String())
	if !ok {
		return 0, ErrNoAnswer
	}
	listed := b.service(name) != ""
	for range maxAnswers {
		record, err := p.AnswerHeader()
		if err != nil {
			break // the end, or the message is cut
		}
		var addr netip.Addr
		switch record.Type {
		case dnsmessage.TypeA:
			body, err := p.AResource()
			if err != nil {
				return pairs, fmt.Errorf("DNS answer: %w", err)
			}
			addr = netip.AddrFrom4(body.A)
		case dnsmessage.TypeAAAA:
			body, err := p.AAAAResource()
			if err != nil {
				return pairs, fmt.Errorf("DNS answer: %w", err)
			}
			addr = netip.AddrFrom16(body.AAAA).Unmap()
		default:
			if err := p.SkipAnswer(); err != nil {
				return pairs, fmt.Errorf("DNS answer: %w", err)
			}
			continue
		}
		if !plausible(addr, listed) {
			continue
		}
		ttl := min(max(time.Duration(record.TTL)*time.Second, MinTTL), MaxTTL)
		b.mu.Lock()
		b.dns.put(addr, name, now.Add(ttl), now)
		b.mu.Unlock()
		pairs++
	}
	if pairs == 0 {
		return 0, ErrNoAnswer
	}
	return pairs, nil
}

// plausible reports whether a name may have this address. A public service is not on a
// private address: such an answer is forged or comes from a filter.
func plausible(addr netip.Addr, listed bool) bool {
	if addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() {
		return false
	}
	return !listed || !addr.IsPrivate() && !addr.IsLinkLocalUnicast()
}

// hostName returns a name of a DNS message in lower case, without the dot at its end. It
// refuses names that are no host names: they would go to terminals and logs.
func hostName(name string) (string, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" || len(name) > flow.MaxName {
		return "", false
	}
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return "", false
		}
	}
	return name, true
}

// Saw notes the server name of a flow's own.
func (b *Book) Saw(addr netip.AddrPort, proto flow.Proto, name string, now time.Time) {
	if name == "" || name == flow.HiddenName {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.servers.put(server{addr, proto}, name, now.Add(ServerTTL), now)
}

// Lookup returns the name of a server and where it comes from: the DNS answers for its
// address, else earlier flows to the same address, port and transport. It returns
// [flow.NameNone] if it knows none, or if the names belong to different services.
func (b *Book) Lookup(addr netip.AddrPort, proto flow.Proto, now time.Time) (string, flow.NameSource) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if names := b.dns.get(addr.Addr(), now); len(names) > 0 {
		if name := b.agreed(names); name != "" {
			return name, flow.NameDNS
		}
		return "", flow.NameNone
	}
	if name := b.agreed(b.servers.get(server{addr, proto}, now)); name != "" {
		return name, flow.NameServer
	}
	return "", flow.NameNone
}

// agreed returns the newest of the names if there is only one, or if all of them belong
// to the same listed service. Otherwise it returns "".
func (b *Book) agreed(names []named) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return names[0].name
	}
	service := b.service(names[0].name)
	if service == "" {
		return ""
	}
	for _, other := range names[1:] {
		if b.service(other.name) != service {
			return ""
		}
	}
	return names[len(names)-1].name
}

// named is a name of an address.
type named struct {
	name string
	ends time.Time
}

// entry is an address with its names, the newest last.
type entry[K comparable] struct {
	key   K
	names []named
}

// shelf holds up to MaxPairs pairs of a key and a name.
type shelf[K comparable] struct {
	at     map[K]*list.Element
	recent *list.List // of *entry[K], the most recently used first
	pairs  int
}

func newShelf[K comparable]() shelf[K] {
	return shelf[K]{at: map[K]*list.Element{}, recent: list.New()}
}

// put adds a pair, or renews it.
func (s *shelf[K]) put(key K, name string, ends, now time.Time) {
	at, known := s.at[key]
	if !known {
		at = s.recent.PushFront(&entry[K]{key: key})
		s.at[key] = at
	}
	s.recent.MoveToFront(at)
	e := at.Value.(*entry[K])
	s.expire(e, now)
	for i := range e.names {
		if e.names[i].name == name {
			if e.names[i].ends.After(ends) {
				ends = e.names[i].ends
			}
			e.names = append(e.names[:i], e.names[i+1:]...)
			s.pairs--
			break
		}
	}
	if len(e.names) == maxNames {
		e.names = append(e.names[:0], e.names[1:]...)
		s.pairs--
	}
	e.names = append(e.names, named{name, ends})
	s.pairs++
	for s.pairs > MaxPairs {
		s.remove(s.recent.Back())
	}
}

// get returns the names of a key.
func (s *shelf[K]) get(key K, now time.Time) []named {
	at, known := s.at[key]
	if !known {
		return nil
	}
	e := at.Value.(*entry[K])
	if s.expire(e, now); len(e.names) == 0 {
		s.remove(at)
		return nil
	}
	s.recent.MoveToFront(at)
	return e.names
}

// expire drops the names of an entry whose time is over.
func (s *shelf[K]) expire(e *entry[K], now time.Time) {
	kept := e.names[:0]
	for _, n := range e.names {
		if n.ends.After(now) {
			kept = append(kept, n)
		}
	}
	s.pairs -= len(e.names) - len(kept)
	clear(e.names[len(kept):])
	e.names = kept
}

func (s *shelf[K]) remove(at *list.Element) {
	e := s.recent.Remove(at).(*entry[K])
	delete(s.at, e.key)
	s.pairs -= len(e.names)
}
