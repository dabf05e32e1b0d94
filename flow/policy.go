// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/netip"
	"time"
)

// MaxRules is the number of rules that a policy may have.
const MaxRules = 64

// Scope tells what shares one token bucket.
type Scope uint8

// ScopeClass is one bucket for a rule, interface and direction; ScopeFlow is one
// for each flow and direction.
const (
	ScopeClass Scope = iota
	ScopeFlow
)

// Action is what a rule does with the packets of a flow. The zero value passes
// them. Drop excludes the others; Rate and DSCP may stand together.
type Action struct {
	Drop  bool
	DSCP  int    // 0 to 63; -1: leave it as it is
	Rate  uint64 // bits per second; 0: not policed
	Burst uint64 // bytes; set where Rate is
	Scope Scope
}

// Rule is one compiled rule: labels are written out (a vpn: match has become
// the list of the categories that it covers).
type Rule struct {
	Categories    []string // nil: any
	Apps          []string // nil: any
	MinConfidence float64  // of each task that the rule names, of the surer one where it names none
	Provisional   bool     // final: false, act on provisional verdicts too
	Midstream     bool     // let a drop act on TCP flows whose SYN was not seen
	Action        Action
}

// PortProtect is a protected port, on either end of a flow.
type PortProtect struct {
	Proto Proto
	Port  uint16
}

// Policy is a compiled policy. The first rule that matches wins; flows that
// none matches are passed.
type Policy struct {
	Rules    []Rule
	Prefixes []netip.Prefix // never dropped or policed
	Ports    []PortProtect  // likewise
	Flows    []Key          // likewise: the SSH connection that applied the policy
	Source   []byte         // the policy file, for policy show
	Applied  time.Time
}
