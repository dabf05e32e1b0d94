// SPDX-License-Identifier: Apache-2.0

// Package flowlist is the list of flows that a person reads: the filter expression,
// the orders, rates from two reads, the columns of the table and the view of it.
package flowlist

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/near"
)

// FilterHelp documents the filter expression for --help.
const FilterHelp = `A filter is a list of words; a flow must match all of them. A comma gives
alternatives, and ! in front of a word negates it:
  port:443 sport:443 dport:53,853      ports (port: either end)
  host:10.0.0.0/8 src:10.0.0.2 dst:fd00::/8
                                       addresses or prefixes (host: either end)
  proto:tcp  iface:eth0                transport protocol, interface
  protocol:tls,ssh                     application protocol (none: not recognised)
  name:netflix.com                     server name: this one and all below it
  process:firefox                      process on this machine (none: not known)
  category:voip,chat  app:youtube      verdicts (none: undecided)
  vpn:true final:true midstream:false  properties
  source:operator  model:default       what decided the category or the app: name, protocol,
                                       model, operator
  ended:fin,rst,idle                   how the flow ended (none: it has not)
  skype                                any other word: part of an address, name, process or label`

// Filter reports whether to show a flow.
type Filter func(*flow.Record) bool

// filterKeys are the words that a filter may have before the colon.
var filterKeys = map[string]func(value string) (Filter, error){
	"port":      portFilter(true, true),
	"sport":     portFilter(true, false),
	"dport":     portFilter(false, true),
	"host":      hostFilter(true, true),
	"src":       hostFilter(true, false),
	"dst":       hostFilter(false, true),
	"proto":     wordFilter(func(r *flow.Record) string { return r.Proto }, "tcp", "udp"),
	"iface":     wordFilter(func(r *flow.Record) string { return r.Iface }),
	"protocol":  protocolFilter,
	"name":      nameFilter,
	"process":   wordFilter(func(r *flow.Record) string { return r.Process }),
	"category":  wordFilter(func(r *flow.Record) string { return r.Category }),
	"app":       wordFilter(func(r *flow.Record) string { return r.App }),
	"source":    sourceFilter,
	"model":     wordFilter(func(r *flow.Record) string { return live(r).Model }),
	"ended":     wordFilter(func(r *flow.Record) string { return live(r).Ended }, "fin", "rst", "idle", "none"),
	"vpn":       boolFilter(func(r *flow.Record) bool { return flow.IsVPN(r.Category) }),
	"final":     boolFilter(func(r *flow.Record) bool { return r.Final }),
	"midstream": boolFilter(func(r *flow.Record) bool { return live(r).Midstream }),
}

// live returns the fields that only a live flow has, or the empty value.
func live(r *flow.Record) flow.Live {
	if r.Live == nil {
		return flow.Live{}
	}
	return *r.Live
}

// ParseFilter reads a filter expression. An empty one matches every flow. A category or an
// app that is not among the labels is an error, unless labels is nil.
func ParseFilter(expr string, labels []string) (Filter, error) {
	var all []Filter
	for _, word := range strings.Fields(expr) {
		one, err := parseFilterWord(word, labels)
		if err != nil {
			return nil, fmt.Errorf("filter %q: %w", expr, err)
		}
		all = append(all, one)
	}
	return func(r *flow.Record) bool {
		for _, one := range all {
			if !one(r) {
				return false
			}
		}
		return true
	}, nil
}

// operators are words of other filter languages, which would match as text.
var operators = []string{"or", "and", "not", "||", "&&", "|", "&", "(", ")"}

func parseFilterWord(word string, labels []string) (Filter, error) {
	if slices.Contains(operators, strings.ToLower(word)) {
		return nil, fault.Advise(fmt.Errorf("%q has no meaning here", word),
			"all words must match; a comma gives alternatives, as in category:voip,chat, and ! negates")
	}
	if rest, not := strings.CutPrefix(word, "!"); not {
		inner, err := parseFilterWord(rest, labels)
		if err != nil {
			return nil, err
		}
		return func(r *flow.Record) bool { return !inner(r) }, nil
	}
	key, values, ok := strings.Cut(word, ":")
	if !ok {
		if word == "" {
			return nil, errors.New("! has no word after it")
		}
		if i := strings.IndexAny(word, "=<>~"); i >= 0 {
			bad, value := fmt.Errorf("%q: a word has a colon between its parts", word), strings.TrimLeft(word[i:], "=<>~")
			key, not := strings.CutSuffix(word[:i], "!")
			if _, known := filterKeys[strings.ToLower(key)]; !known {
				return nil, fault.Advise(bad, "known words: %s", strings.Join(FilterWords(), ", "))
			}
			if not {
				key = "!" + key
			}
			return nil, fault.Advise(bad, "write %s:%s", key, value)
		}
		return textFilter(word), nil
	}
	make, ok := filterKeys[strings.ToLower(key)]
	if !ok {
		known := FilterWords()
		return nil, fault.Advise(fmt.Errorf("unknown word %q%s", key, near.Hint(key, known)), "known words: %s", strings.Join(known, ", "))
	}
	var any []Filter
	for value := range strings.SplitSeq(values, ",") {
		if value == "" {
			return nil, fmt.Errorf("no value after %q", key+":")
		}
		one, err := make(strings.ToLower(value))
		if key := strings.ToLower(key); err == nil && labels != nil && (key == "category" || key == "app") {
			err = checkLabel(value, labels)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%s: %w", key, value, err)
		}
		any = append(any, one)
	}
	return func(r *flow.Record) bool {
		return slices.ContainsFunc(any, func(one Filter) bool { return one(r) })
	}, nil
}

// checkLabel makes sure that a flow can have a label.
func checkLabel(value string, labels []string) error {
	if strings.EqualFold(value, "none") || strings.EqualFold(value, flow.Unknown) || slices.ContainsFunc(labels, func(l string) bool { return strings.EqualFold(l, value) }) {
		return nil
	}
	return fault.Advise(fmt.Errorf("no flow can have this label%s", near.Hint(value, labels)),
		"a word without a colon finds a part of a label: %s", value)
}

// FilterWords returns the words that a filter may have before the colon, sorted.
func FilterWords() []string {
	var words []string
	for word := range filterKeys {
		words = append(words, word)
	}
	slices.Sort(words)
	return words
}

func portFilter(src, dst bool) func(string) (Filter, error) {
	return func(value string) (Filter, error) {
		port, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return nil, errors.New("want a port from 0 to 65535")
		}
		return func(r *flow.Record) bool {
			return src && r.SrcPort == uint16(port) || dst && r.DstPort == uint16(port)
		}, nil
	}
}

func hostFilter(src, dst bool) func(string) (Filter, error) {
	return func(value string) (Filter, error) {
		prefix, err := netip.ParsePrefix(value)
		if err != nil {
			addr, addrErr := netip.ParseAddr(strings.Trim(value, "[]"))
			if addrErr != nil {
				return nil, errors.New("want an address or a prefix, such as 10.0.0.2, 10.0.0.0/8 or fd00::/8")
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		return func(r *flow.Record) bool {
			return src && prefix.Contains(r.Src) || dst && prefix.Contains(r.Dst)
		}, nil
	}
}

// sourceFilter compares who decided the category and the app: one match is enough, and
// "none" means that both are undecided.
func sourceFilter(value string) (Filter, error) {
	switch value {
	case "none":
		return func(r *flow.Record) bool { return r.CategorySource == "" && r.AppSource == "" }, nil
	}
	if _, ok := flow.ParseSource(value); !ok {
		return nil, fmt.Errorf("want %s, %s, %s, %s, none", flow.SourceName, flow.SourceProtocol, flow.SourceModel, flow.SourceOperator)
	}
	return func(r *flow.Record) bool { return r.CategorySource == value || r.AppSource == value }, nil
}

// protocolFilter compares the application protocol.
func protocolFilter(value string) (Filter, error) {
	var known []string
	for _, p := range flow.Protocols() {
		known = append(known, p.String())
	}
	if value == "none" {
		value = ""
	} else if _, ok := flow.ParseProtocol(value); !ok {
		return nil, fmt.Errorf("no such protocol%s", near.Hint(value, known))
	}
	return func(r *flow.Record) bool { return r.Protocol == value }, nil
}

// nameFilter compares the end of the server name, on whole labels; "none" means an
// unknown name.
func nameFilter(value string) (Filter, error) {
	if value == "none" {
		return func(r *flow.Record) bool { return r.Name == "" }, nil
	}
	value = strings.TrimPrefix(strings.TrimPrefix(value, "*"), ".")
	return func(r *flow.Record) bool { return r.Name == value || strings.HasSuffix(r.Name, "."+value) }, nil
}

// wordFilter compares a whole property; "none" stands for an empty one. If words are
// given, the value must be one of them.
func wordFilter(of func(*flow.Record) string, words ...string) func(string) (Filter, error) {
	return func(value string) (Filter, error) {
		if len(words) > 0 && !slices.Contains(words, value) {
			return nil, fmt.Errorf("want %s", strings.Join(words, ", "))
		}
		if value == "none" {
			value = ""
		}
		return func(r *flow.Record) bool { return strings.EqualFold(of(r), value) }, nil
	}
}

func boolFilter(of func(*flow.Record) bool) func(string) (Filter, error) {
	return func(value string) (Filter, error) {
		want, err := strconv.ParseBool(value)
		if err != nil {
			return nil, errors.New("want true or false")
		}
		return func(r *flow.Record) bool { return of(r) == want }, nil
	}
}

// textFilter looks for a part of an address, a name, a process or a label.
func textFilter(part string) Filter {
	part = strings.ToLower(part)
	return func(r *flow.Record) bool {
		for _, text := range []string{r.Src.String(), r.Dst.String(), r.Category, r.App, r.Proto, r.Protocol, r.Name, strings.ToLower(r.Process)} {
			if strings.Contains(text, part) {
				return true
			}
		}
		return false
	}
}
