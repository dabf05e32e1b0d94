// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/netip"
	"time"
)

// Limits of a policy.
const (
	MaxRules          = 64
	MaxProtected      = 1024     // prefixes, and as many ports, that it protects
	MaxProtectedFlows = 64       // flows that it protects
	MaxSource         = 64 << 10 // bytes of its text, which the kernel keeps in a map
	MaxMatches        = 1024     // names, and as many hosts, that all of its rules match
)

// Scope says which packets share a token bucket.
type Scope uint8

// With ScopeClass there is one bucket for each rule, interface and direction. With
// ScopeFlow there is one for each flow and direction, with ScopeHost one for each host and
// direction. With ScopeFair, hosts share the bucket of the rule fairly: each gets the rate
// divided by the number of hosts, and what the others leave of theirs.
const (
	ScopeClass Scope = iota
	ScopeFlow
	ScopeHost
	ScopeFair
)

// Action is what a rule does with the packets of a flow. Drop excludes all else; the others
// can be combined. Action{DSCP: -1} passes packets unchanged.
type Action struct {
	Drop       bool
	DSCP       int    // 0 to 63; -1: do not change it
	KeepMarked bool   // leave a DSCP that is not 0
	Rate       uint64 // bits per second; 0: not policed
	Burst      uint64 // bytes; set if Rate is
	Scope      Scope
	Mark       uint32 // skb mark of sent packets; 0: do not change it
	ClassID    uint32 // class of a classful qdisc for sent packets, major << 16 | minor; 0: do not change it
	Quota      uint64 // IP bytes of a host in a day, both directions; 0: no quota
	Over       Over   // what to do beyond the quota, instead of all else
	Near       bool   // the host is the end on this side of the wire, not the far one
	Prefix6    int    // bits of an IPv6 address that make a host; 0: all
}

// Over is what a rule does with the packets of a host beyond its quota.
type Over struct {
	Drop  bool
	DSCP  int    // 0 to 63; -1: do not change it
	Rate  uint64 // of the host, in bits per second; 0: not policed
	Burst uint64 // bytes; set if Rate is
}

// Schedule says when a rule is active, by the clock on the wall in the policy's time zone.
type Schedule struct {
	Days  [7]bool // that the hours begin on, from Sunday (time.Weekday)
	Hours []Hours // nil: all day
}

// Hours is a part of a day, in minutes from midnight. If To is not after From, it ends on the
// next day.
type Hours struct{ From, To int }

// Active reports whether the schedule is active at a time, in the time's zone. When clocks are
// set forward, what begins in the hour that is left out begins at its end. When they are set
// back, what lies in the hour that comes twice is active twice.
func (s *Schedule) Active(t time.Time) bool {
	minute, today := t.Hour()*60+t.Minute(), t.Weekday()
	yesterday := (today + 6) % 7
	if s.Hours == nil {
		return s.Days[today]
	}
	for _, h := range s.Hours {
		switch {
		case h.From < h.To:
			if s.Days[today] && minute >= h.From && minute < h.To {
				return true
			}
		case s.Days[today] && minute >= h.From, s.Days[yesterday] && minute < h.To:
			return true
		}
	}
	return false
}

// Rule is one compiled rule. A "vpn:" match of the policy file has become a list of
// categories. A flow matches if it fits every field that is set. A rule that sets
// Protocols, Names, Hosts or Ports, and no field about verdicts, also acts on flows
// without a verdict.
type Rule struct {
	Categories    []string       // nil: any
	Apps          []string       // nil: any
	Sources       []Source       // of the category's verdict, or of the app's if the rule names apps only; nil: any
	Protocols     []Protocol     // nil: any
	Names         []string       // suffixes of the server name, on whole labels, in lower case; nil: any
	Hosts         []netip.Prefix // address of either endpoint; nil: any
	Ports         []PortRange    // port of either endpoint; nil: any
	Directions    []Direction    // of the packets that the rule acts on; nil: both
	MinConfidence float64        // 0 to 1; for each task that the rule names, or for the better one if it names none
	Provisional   bool           // act on provisional verdicts too ("final: false")
	Midstream     bool           // let a drop act on TCP flows whose SYN dpclass did not see
	OneSided      bool           // let a drop act on TCP flows before both ends have sent packets
	Schedule      *Schedule      // nil: always
	Action        Action
}

// NeedsVerdict reports whether the rule acts only on flows with a verdict.
func (r *Rule) NeedsVerdict() bool {
	return r.Categories != nil || r.Apps != nil || r.Sources != nil || r.MinConfidence > 0 ||
		r.Protocols == nil && r.Names == nil && r.Hosts == nil && r.Ports == nil
}

// PortRange is a range of ports, at either end of a flow.
type PortRange struct {
	Proto       Proto // 0: any
	First, Last uint16
}

// PortProtect is a protected port at either end of a flow.
type PortProtect struct {
	Proto Proto
	Port  uint16
}

// Policy is a compiled policy. For each flow the first rule that matches applies. Flows
// that match no rule pass.
type Policy struct {
	Rules        []Rule
	DropUnparsed bool           // drop TCP and UDP packets that the kernel's parser cannot read
	Prefixes     []netip.Prefix // never dropped or policed
	Ports        []PortProtect  // never dropped or policed
	Flows        []Key          // never dropped or policed: the SSH connection that applied the policy
	Zone         *time.Location // of schedules, and of the days of quotas; nil: time.Local
	DryRun       bool           // count what the rules would do, and do nothing
	Source       []byte         // text of the policy file, for "policy show"
	Applied      time.Time
}
