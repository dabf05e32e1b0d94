// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
)

// draw is a source of random choices. The same seed and words give the same choices,
// whatever runs at the same time.
type draw struct{ *rand.Rand }

func newDraw(seed uint64, words ...string) draw {
	hash := fnv.New64a()
	for _, word := range words {
		_, _ = hash.Write(append([]byte(word), 0)) // never fails
	}
	return draw{rand.New(rand.NewPCG(seed, hash.Sum64()))}
}

// Chance returns true with the probability p.
func (d draw) Chance(p float64) bool { return d.Float64() < p }

// Between returns a number from low to high; small ones are as likely as large ones by
// their logarithm, as sizes of files and times of people are.
func (d draw) Between(low, high float64) float64 {
	return low * math.Exp(d.Float64()*math.Log(high/low))
}

// Size is Between for bytes.
func (d draw) Size(low, high int) int { return int(d.Between(float64(low), float64(high))) }

// pick returns one of the values.
func pick[T any](d draw, values ...T) T { return values[d.IntN(len(values))] }

// Text returns words of about n bytes, as people write them.
func (d draw) Text(n int) string {
	n = max(n, 1)
	text := make([]byte, 0, n+12)
	for len(text) < n {
		for range 2 + d.IntN(8) {
			text = append(text, "etaoinshrdlucmfwypvbgk"[min(d.IntN(22), d.IntN(22))])
		}
		text = append(text, ' ')
	}
	return string(text[:len(text)-1])
}

// Bytes returns n random bytes.
func (d draw) Bytes(n int) []byte {
	data := make([]byte, n+7)
	for i := 0; i < n; i += 8 {
		binary.NativeEndian.PutUint64(data[i:], d.Uint64())
	}
	return data[:n]
}

// addr4 draws a unicast address: private ones as often as public ones. The lab has no way
// out, so any address will do.
func (d draw) addr4() netip.Addr {
	for {
		a := binary.BigEndian.AppendUint32(nil, d.Uint32())
		a[3] = byte(1 + d.IntN(254))
		switch d.IntN(6) {
		case 0:
			a[0], a[1] = 192, 168
		case 1:
			a[0] = 10
		case 2:
			a[0], a[1] = 172, 16+a[1]%16
		}
		addr := netip.AddrFrom4([4]byte(a))
		if a[0] > 0 && a[0] < 224 && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() && !linkPrefix.Contains(addr) {
			return addr
		}
	}
}

// addr6 draws an address of 2000::/3 or of fd00::/8.
func (d draw) addr6() netip.Addr {
	a := [16]byte(d.Bytes(16))
	a[0] = a[0]&0x1f | 0x20
	if d.Chance(.3) {
		a[0] = 0xfd
	}
	return netip.AddrFrom16(a)
}

// port draws a server's port. All programs listen on ports of one distribution.
func (d draw) port() int {
	if d.Chance(.4) {
		return 443
	}
	return 1024 + d.IntN(31000) // below the ports that clients get
}

// name draws a host name.
func (d draw) name() string {
	words := []string{"amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "jade", "kite", "lark", "maple", "north",
		"ocean", "pearl", "quartz", "river", "stone", "tulip", "umber", "vale", "willow", "zinc"}
	name := pick(d, words...) + pick(d, "", "-") + pick(d, words...)
	if d.Chance(.5) {
		name = pick(d, "www", "a", "node", "eu1", "srv", "edge") + "." + name
	}
	return name + pick(d, ".example", ".test", ".example.net", ".example.org")
}

// mac draws the address of a network card.
func (d draw) mac() net.HardwareAddr {
	mac := d.Bytes(6)
	mac[0] &^= 1 // not multicast
	return mac
}

// stack holds the settings of one host's network stack that differ between operating systems and
// networks, and that say nothing about the program.
type stack struct {
	addr4, addr6             netip.Addr
	ttl                      int
	mss                      int
	timestamps, sack, window int
	ecn, flowLabels          int
	firstPort, lastPort      int
	rate                     int // kbit/s
	delay                    int // ms
}

func (d draw) newStack() stack {
	first := pick(d, 32768, 49152, 33000+d.IntN(20000))
	return stack{
		addr4: d.addr4(), addr6: d.addr6(),
		ttl:        pick(d, 64, 64, 128, 255) - d.IntN(24),            // as if the host were some hops away
		mss:        pick(d, 1380, 1360, 1340, 1320, 1300, 1280, 1240), // what every tunnel leaves room for
		timestamps: pick(d, 0, 1, 1), sack: pick(d, 0, 1, 1, 1), window: pick(d, 0, 1, 1, 1, 1),
		ecn: pick(d, 0, 1, 2), flowLabels: pick(d, 0, 1),
		firstPort: first, lastPort: min(65535, first+8000+d.IntN(8000)),
		rate: int(d.Between(8_000, 200_000)), delay: int(d.Between(2, 60)),
	}
}

// sysctls returns the kernel settings of a stack.
func (s stack) sysctls() map[string]string {
	return map[string]string{
		"net/ipv4/ip_default_ttl":             fmt.Sprint(s.ttl),
		"net/ipv6/conf/all/hop_limit":         fmt.Sprint(s.ttl),
		"net/ipv6/conf/eth0/hop_limit":        fmt.Sprint(s.ttl),
		"net/ipv4/tcp_timestamps":             fmt.Sprint(s.timestamps),
		"net/ipv4/tcp_sack":                   fmt.Sprint(s.sack),
		"net/ipv4/tcp_window_scaling":         fmt.Sprint(s.window),
		"net/ipv4/tcp_ecn":                    fmt.Sprint(s.ecn),
		"net/ipv6/auto_flowlabels":            fmt.Sprint(s.flowLabels),
		"net/ipv4/ip_local_port_range":        fmt.Sprintf("%d %d", s.firstPort, s.lastPort),
		"net/ipv4/tcp_no_metrics_save":        "1",
		"net/ipv4/ip_unprivileged_port_start": "0",
	}
}
