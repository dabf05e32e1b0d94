// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

// streamed is a flow of a made-up capture.
type streamed struct {
	key     flow.Key
	client  bool // the client is the key's A
	samples []*flow.Sample
}

// newStreamed returns n flows of random payload packets; some say a protocol or a name.
func newStreamed(t *testing.T, n int) []streamed {
	random := rand.New(rand.NewPCG(1, 2))
	tls := hello(t, "www.netflix.com")
	flows := make([]streamed, n)
	for i := range flows {
		proto := uint8(packettest.TCP)
		if random.IntN(3) == 0 {
			proto = packettest.UDP
		}
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), uint16(1024+random.IntN(60000)))
		dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(9))}), 4433)
		key, fromA := flow.MakeKey(flow.Proto(proto), src, dst, 0)
		flows[i] = streamed{key: key, client: fromA}
		for k := range random.IntN(11) {
			from, to, up := src, dst, random.IntN(2) == 0
			if !up {
				from, to = to, from
			}
			spec := packettest.Spec{Proto: proto, Src: from, Dst: to, Payload: 1 + random.IntN(1300)}
			packet := spec.Build().Data
			p, _ := vector.Parse(packet, len(packet))
			payload := packet[p.Payload:]
			for at := range payload {
				payload[at] = byte(random.Uint32())
			}
			switch random.IntN(6) {
			case 0:
				copy(payload, "SSH-2.0-OpenSSH_9.9\r\n")
			case 1:
				copy(payload, tls)
			case 2:
				copy(payload, payload[:min(2, len(payload))]) // leave it random
				payload[0] = 0x80
			}
			flows[i].samples = append(flows[i].samples, &flow.Sample{
				ID: flow.ID{Key: key}, FromA: up == fromA, Inner: i%5 == 0, Index: k, Time: int64(k+1) * 1e9, Length: len(packet), Packet: packet,
			})
		}
	}
	return flows
}

// A stream says what Decide says when it gets all the packets at once.
func TestStreamIsDecide(t *testing.T) {
	for _, use := range []Evidence{EvidenceAll, EvidenceProtocol, EvidenceModel} {
		for _, samples := range []int{0, 1, 3} {
			t.Run(fmt.Sprintf("%s-%d", use, samples), func(t *testing.T) {
				c := open(t, Options{Evidence: use, Samples: samples, Workers: 1})
				flows := newStreamed(t, 400)
				stream := c.Stream()
				defer stream.Close()
				reading := c.Reading()
				trails, rows := make([]*Trail, len(flows)), make([]Probabilities, len(flows))
				for round := range 11 {
					for i, f := range flows {
						if round >= len(f.samples) {
							continue
						}
						if err := stream.Add(i, f.samples[round]); err != nil {
							t.Fatal(err)
						}
						if trails[i] == nil {
							trails[i] = reading.Flow()
						}
						trails[i].Add(f.samples[round])
						if round < c.Samples() {
							p, err := c.Probabilities([][]byte{Vector(f.samples[round].Packet)})
							if err != nil {
								t.Fatal(err)
							}
							rows[i].Append(p)
						}
					}
				}
				if err := stream.Flush(); err != nil {
					t.Fatal(err)
				}
				var sources [8]int
				for i, f := range flows {
					got, evidence, n := stream.Verdicts(i, &f.key)
					if len(f.samples) == 0 {
						if got != (flow.Verdicts{}) || n != 0 {
							t.Errorf("flow %d has no payload, but %+v", i, got)
						}
						continue
					}
					want, wantEvidence, wantN := c.Decide(&rows[i], trails[i])
					if evidence != wantEvidence || n != wantN {
						t.Errorf("flow %d: %d samples, %+v; want %d, %+v", i, n, evidence, wantN, wantEvidence)
					}
					for task := range got {
						if math.Abs(got[task].Confidence-want[task].Confidence) > 1e-5 {
							t.Errorf("flow %d, %v: confidence %v, want %v", i, flow.Task(task), got[task].Confidence, want[task].Confidence)
						}
						got[task].Confidence = want[task].Confidence
						sources[got[task].Source]++
					}
					if got != want {
						t.Errorf("flow %d of %d samples: %+v, want %+v", i, len(f.samples), got, want)
					}
				}
				t.Logf("verdicts by source: %v", sources)
			})
		}
	}
}

// Places that were freed are used again, and more of them need no more memory.
func TestPages(t *testing.T) {
	p := pages[float32]{size: 3}
	for i := range 2*pagePlaces + 1 {
		place := p.take()
		p.at(place)[2] = float32(i)
	}
	p.give(5)
	if place := p.take(); place != 5 || p.at(5)[2] != 5 || p.at(pagePlaces)[2] != pagePlaces || len(p.all) != 3 {
		t.Errorf("place %d, %d pages", place, len(p.all))
	}
}
