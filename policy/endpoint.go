// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/near"
)

// endpoints reads the keys of a match that are about a flow's protocol, server name,
// addresses, ports and direction.
func (p *parsing) endpoints(rule *flow.Rule, entries map[string]entry) {
	if e, ok := entries["protocol"]; ok {
		rule.Protocols = p.protocols(e.value)
	}
	if e, ok := entries["name"]; ok {
		rule.Names = p.serverNames(e.value)
		p.count(e.value, "names", len(rule.Names))
	}
	if e, ok := entries["host"]; ok {
		rule.Hosts = p.hosts(e.value)
		p.count(e.value, "hosts", len(rule.Hosts))
	}
	if e, ok := entries["port"]; ok {
		rule.Ports = p.ports(e.value)
		p.count(e.value, "ports", len(rule.Ports))
	}
	if e, ok := entries["direction"]; ok {
		rule.Directions = p.directions(e.value)
	}
}

// count checks how many names, hosts or ports all rules match, and notes the first excess.
func (p *parsing) count(node ast.Node, what string, n int) {
	before := p.matches[what]
	p.matches[what] = before + n
	if before <= flow.MaxMatches && before+n > flow.MaxMatches {
		p.addf(node, "the rules up to here match %d %s; at most %d are allowed in a policy", before+n, what, flow.MaxMatches).
			advise("use shorter suffixes, prefixes or ranges that cover several of them")
	}
}

func (p *parsing) protocols(node ast.Node) []flow.Protocol {
	var protocols []flow.Protocol
	p.words(node, "protocol", func(item ast.Node, text string) {
		protocol, ok := flow.ParseProtocol(text)
		if ok {
			protocols = add(p, protocols, protocol, item, "protocol", text)
			return
		}
		known := protocolNames(flow.Protocols())
		if _, transport := flow.ParseProto(text); transport {
			p.addf(item, "unknown protocol %q; it is a transport", text).advise("write port: %s/1-65535", strings.ToLower(text))
		} else if slices.Contains(flow.Categories, text) {
			p.addf(item, "unknown protocol %q; it is a category", text).advise("write category: %s", text)
		} else {
			p.addf(item, "unknown protocol %q%s", text, near.Hint(text, known)).advise("known: %s", strings.Join(known, ", "))
		}
	})
	return protocols
}

func protocolNames(protocols []flow.Protocol) []string {
	names := make([]string, len(protocols))
	for i, protocol := range protocols {
		names[i] = protocol.String()
	}
	return names
}

func (p *parsing) directions(node ast.Node) []flow.Direction {
	var directions []flow.Direction
	p.words(node, "direction", func(item ast.Node, text string) {
		switch text {
		case "in":
			directions = add(p, directions, flow.In, item, "direction", text)
		case "out":
			directions = add(p, directions, flow.Out, item, "direction", text)
		default:
			p.addf(item, "direction %q; want in or out", text).
				advise("in is for packets that the interface receives, out for those that it sends; leave direction out for both")
		}
	})
	if len(directions) == 2 {
		return nil
	}
	return directions
}

// serverNames reads suffixes of server names.
func (p *parsing) serverNames(node ast.Node) []string {
	if _, alias := node.(*ast.AliasNode); alias {
		p.addf(node, "name begins with *, which means something else in YAML").advise(`write it without "*.", or in quotes`)
		return nil
	}
	var names []string
	p.words(node, "name", func(item ast.Node, text string) {
		name, err := parseServerName(text)
		if err != nil {
			p.addError(item, err)
			return
		}
		for _, other := range names {
			if short, long := byLength(name, other); short != long && nameWithin(long, short) {
				p.warnf(item, "name %q is not needed: the rule matches %q too", long, short)
				break
			}
		}
		names = add(p, names, name, item, "name", text)
	})
	return names
}

func byLength(a, b string) (short, long string) {
	if len(a) > len(b) {
		return b, a
	}
	return a, b
}

// parseServerName reads a suffix of server names, with or without a leading "*." or "."
// and a final dot, and returns it in lower case without them.
func parseServerName(text string) (string, error) {
	fail := func(advice, format string, args ...any) (string, error) {
		return "", fault.New(fmt.Sprintf("name %q ", text)+fmt.Sprintf(format, args...), advice)
	}
	if text == flow.HiddenName {
		return fail("leave it out: a hidden name says nothing about the service", "is what dpclass shows for an encrypted name")
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c > 0x7e }) {
		return fail("write each such label in ASCII, as servers do: it begins with xn-- (RFC 5890, section 2.3.2.1); idn2(1) prints it",
			"is not ASCII")
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return fail("write host: "+prefix.String(), "is a prefix")
	}
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return fail("write host: "+addr.String(), "is an address")
	}
	if strings.ContainsAny(text, ":/") {
		return fail("write the name alone, such as example.org; port: matches the port", "has a scheme, port or path")
	}
	name := strings.ToLower(text)
	if rest, star := strings.CutPrefix(name, "*."); star {
		name = rest
	} else {
		name = strings.TrimPrefix(name, ".")
	}
	name = strings.TrimSuffix(name, ".")
	switch {
	case name == "" || name == "*":
		return fail("write a suffix such as example.org", "names nothing")
	case strings.Contains(name, "*"):
		return fail("a suffix matches every name that ends with it: leave the part up to the * out", `has "*" inside; only a leading "*." is allowed`)
	case len(name) > flow.MaxName:
		return fail("", "has %d bytes; at most %d are allowed (RFC 1035, section 2.3.4)", len(name), flow.MaxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		bad := strings.IndexFunc(label, func(c rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_", c) })
		switch {
		case label == "":
			return fail("write it with one dot between two labels", "has an empty label")
		case len(label) > 63:
			return fail("", "has a label of %d bytes; at most 63 are allowed (RFC 1035, section 2.3.4)", len(label))
		case bad >= 0:
			return fail("a server name has letters, digits, - and _, and a dot between two labels", "has the character %q", label[bad])
		case label[0] == '-' || label[len(label)-1] == '-':
			return fail("", "has a label that begins or ends with -")
		}
	}
	return name, nil
}

// nameWithin reports whether a name is the suffix, or below it: whole labels count.
func nameWithin(name, suffix string) bool {
	rest, ok := strings.CutSuffix(name, suffix)
	return ok && (rest == "" || strings.HasSuffix(rest, "."))
}

func (p *parsing) hosts(node ast.Node) []netip.Prefix {
	var hosts []netip.Prefix
	p.words(node, "host", func(item ast.Node, text string) {
		advice := "write it as 10.0.0.1, 10.0.0.0/24 or fd00::/8"
		if name, err := parseServerName(text); err == nil && strings.Contains(name, ".") {
			advice = "write name: " + name
		}
		if prefix, ok := p.prefix(item, "host", text, "an address or a prefix", advice); ok {
			hosts = add(p, hosts, prefix, item, "host", text)
		}
	})
	return hosts
}

func (p *parsing) ports(node ast.Node) []flow.PortRange {
	var ports []flow.PortRange
	p.words(node, "port", func(item ast.Node, text string) {
		r, err := parsePortRange(text)
		if err != nil {
			p.addError(item, err)
			return
		}
		ports = add(p, ports, r, item, "port", text)
	})
	return ports
}

// parsePortRange reads 443, 5000-5100, udp/51820 or tcp/8000-8100.
func parsePortRange(text string) (flow.PortRange, error) {
	var r flow.PortRange
	numbers := text
	if before, after, slash := strings.Cut(text, "/"); slash {
		proto, ok := flow.ParseProto(before)
		if !ok {
			return r, fault.New(fmt.Sprintf("port %q: unknown transport %q", text, before), "write tcp/443 or udp/443, or 443 for both")
		}
		r.Proto, numbers = proto, after
	}
	first, last, isRange := strings.Cut(numbers, "-")
	if !isRange {
		last = first
	}
	for _, end := range []struct {
		text string
		port *uint16
	}{{first, &r.First}, {last, &r.Last}} {
		number, err := strconv.ParseUint(end.text, 10, 16)
		if err != nil || number == 0 {
			return r, fault.New(fmt.Sprintf("port %q; want numbers from 1 to 65535", text), "write it as 443, 5000-5100, udp/51820 or tcp/8000-8100")
		}
		*end.port = uint16(number)
	}
	if r.First > r.Last {
		return r, fault.New(fmt.Sprintf("port %q ends before it begins", text), "write the lower port first: "+formatPort(flow.PortRange{
			Proto: r.Proto, First: r.Last, Last: r.First,
		}))
	}
	return r, nil
}

// formatPort writes a range of ports as parsePortRange reads it.
func formatPort(r flow.PortRange) string {
	text := strconv.Itoa(int(r.First))
	if r.Last != r.First {
		text += "-" + strconv.Itoa(int(r.Last))
	}
	if r.Proto != 0 {
		text = r.Proto.String() + "/" + text
	}
	return text
}

// portsProtected reports whether all ports are protected.
func portsProtected(ports []flow.PortRange, protected []flow.PortProtect) bool {
	known := make(map[flow.PortProtect]bool, len(protected))
	for _, port := range protected {
		known[port] = true
	}
	return each(ports, func(r flow.PortRange) bool {
		for _, proto := range []flow.Proto{flow.TCP, flow.UDP} {
			if r.Proto != 0 && r.Proto != proto {
				continue
			}
			for port := int(r.First); port <= int(r.Last); port++ {
				if !known[flow.PortProtect{Proto: proto, Port: uint16(port)}] {
					return false
				}
			}
		}
		return true
	})
}

// each reports whether all items pass the test.
func each[T any](items []T, test func(T) bool) bool {
	return !slices.ContainsFunc(items, func(item T) bool { return !test(item) })
}
