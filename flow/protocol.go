// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"slices"
)

// Protocol is an application protocol, recognised by the first payload packets of a
// flow. [ProtocolUnknown] means that none was recognised. Compare [Proto], the
// transport protocol.
type Protocol uint8

// protocolFacts is a line of protocols.txt.
type protocolFacts struct {
	name, category, app, source string
}

// Protocols returns all protocols, in the order of their numbers.
func Protocols() []Protocol {
	var list []Protocol
	for n := 1; n < len(protocols); n++ {
		list = append(list, Protocol(n))
	}
	return list
}

// String returns the protocol's name, such as "tls". [ProtocolUnknown] is "".
func (p Protocol) String() string {
	switch {
	case p == ProtocolUnknown:
		return ""
	case int(p) < len(protocols):
		return protocols[p].name
	}
	return fmt.Sprintf("protocol-%d", uint8(p))
}

// Category returns the category that the protocol decides, "" if the server name or a
// network decides.
func (p Protocol) Category() string {
	if int(p) < len(protocols) {
		return protocols[p].category
	}
	return ""
}

// App returns the application that the protocol belongs to, "" if it belongs to none or to
// several. Protocols without a category have none.
func (p Protocol) App() string {
	if int(p) < len(protocols) {
		return protocols[p].app
	}
	return ""
}

// ProtocolApps returns the applications that protocols decide, each once, sorted.
func ProtocolApps() []string {
	var apps []string
	for _, p := range protocols {
		if p.app != "" {
			apps = append(apps, p.app)
		}
	}
	slices.Sort(apps)
	return slices.Compact(apps)
}

// Source returns the specification that the recogniser follows.
func (p Protocol) Source() string {
	if int(p) < len(protocols) {
		return protocols[p].source
	}
	return ""
}

// ParseProtocol returns the protocol with the given name.
func ParseProtocol(name string) (p Protocol, ok bool) {
	for n := 1; n < len(protocols); n++ {
		if protocols[n].name == name {
			return Protocol(n), true
		}
	}
	return ProtocolUnknown, false
}
