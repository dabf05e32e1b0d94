// SPDX-License-Identifier: Apache-2.0

// Package traffic makes labelled captures of today's programs, on one machine and without
// the Internet.
//
// A [Program] is a real client and its server. The lab runs it in rounds: a round has
// network namespaces of its own, in which nothing but the program runs. So every packet
// of the round's addresses is the program's, and the label is right by construction.
//
//	clients --- access --- router --- far --- servers, VPN gateways
//
// All rounds share the three routers in the middle. What a model must not learn from
// (addresses, ports, TTL, MSS, TCP options, names, link types, rates) is drawn for each
// round from the seed, in the same way for every program.
//
// docs/lab.md says how to use it and how to add a program.
package traffic
