// SPDX-License-Identifier: Apache-2.0

package packettest

// Specs returns one Spec for each combination of headers that the parsers distinguish,
// each with the given number of payload bytes.
func Specs(payload int) []Spec {
	var networks []Spec
	for _, options := range []int{0, 1, 10} {
		networks = append(networks, Spec{Options: options})
	}
	for _, chain := range [][]uint8{
		nil,
		{HopByHop}, {Routing}, {FragmentExt}, {Auth}, {DestOptions}, {Mobility}, {HIP}, {Shim6},
		{HopByHop, Routing, DestOptions},
		{HopByHop, Routing, FragmentExt, Auth, DestOptions, Mobility, HIP, Shim6},
		{DestOptions, DestOptions, DestOptions, DestOptions, DestOptions, DestOptions, DestOptions, DestOptions, DestOptions},
	} {
		networks = append(networks, Spec{IPv6: true, Extensions: chain})
	}
	networks = append(networks,
		Spec{IPv6: true, Extensions: []uint8{HopByHop, Auth}, ExtWords: 2},
		Spec{IPv6: true, Extensions: []uint8{DestOptions}, ExtWords: 178},
		Spec{IPv6: true, Extensions: []uint8{DestOptions}, ExtWords: 255},
	)
	var specs []Spec
	for _, network := range networks {
		for _, fragment := range []Fragmentation{Whole, First, Later} {
			for _, transport := range []Spec{
				{Proto: TCP}, {Proto: TCP, TCPOptions: 3}, {Proto: TCP, TCPOptions: 10}, {Proto: TCP, TCPFlags: 0x12},
				{Proto: UDP}, {Proto: 1}, {Proto: ICMP6}, {Proto: 47}, {Proto: 132}, {Proto: NoNext},
			} {
				s := network
				s.Fragment, s.Payload = fragment, payload
				s.Proto, s.TCPOptions, s.TCPFlags = transport.Proto, transport.TCPOptions, transport.TCPFlags
				specs = append(specs, s)
			}
		}
	}
	return specs
}
