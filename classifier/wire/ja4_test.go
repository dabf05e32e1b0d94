// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// fromRaw builds a hello of the parts that a raw fingerprint (JA4_r) lists, with GREASE
// in each list and in another order, which must not matter.
func fromRaw(t *testing.T, raw, alpn string) helloSpec {
	t.Helper()
	list := func(text string) (values []int) {
		for _, digits := range strings.Split(text, ",") {
			v, err := strconv.ParseUint(digits, 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, int(v))
		}
		return values
	}
	parts := strings.Split(raw, "_")
	s := helloSpec{ciphers: list(parts[1])}
	slices.Reverse(s.ciphers)
	s.ciphers = append([]int{0x3a3a}, s.ciphers...)
	var signatures []int
	if len(parts) > 3 {
		signatures = append([]int{0x5a5a}, list(parts[3])...)
	}
	s.extensions = [][]byte{extension(0x1a1a, nil)}
	if parts[0][3] == 'd' {
		s.extensions = append(s.extensions, extensionName("example.org"))
	}
	for _, ext := range slices.Backward(list(parts[2])) {
		switch ext {
		case extSignatures:
			s.extensions = append(s.extensions, extension(ext, vec(2, u16(signatures...))))
		case extSupportedVersions:
			s.extensions = append(s.extensions, extension(ext, vec(1, u16(0xfafa, 0x0304, 0x0303))))
		default:
			s.extensions = append(s.extensions, extension(ext, nil))
		}
	}
	if alpn != "" {
		s.extensions = append(s.extensions, extensionALPN(alpn, "http/1.1"))
	}
	return s
}

// The pairs are FoxIO's: the first from the description of the method, the others from
// the expected results of its tests.
func TestJA4(t *testing.T) {
	for raw, wanted := range map[string]string{
		"t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_" +
			"0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_0403,0804,0401,0503,0805,0501,0806,0601": "t13d1516h2_8daaf6152771_e5627efa2ab1",
		"t13d1517h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_" +
			"0005,000a,000b,000d,0012,0017,001b,0023,002b,002d,0033,44cd,ca34,fe0d,ff01_0904,0905,0906,0403,0804,0401,0503,0805,0501,0806,0601": "t13d1517h2_8daaf6152771_cb7bf5808d99",
	} {
		f := feed(t, tcpPacket(1, records(fromRaw(t, raw, "h2").message(), 1<<14)))
		if got := f.Evidence().JA4; got != wanted {
			t.Errorf("JA4 %q, want %q", got, wanted)
		}
	}
}

func TestJA4Parts(t *testing.T) {
	many := make([]int, 150)
	for i := range many {
		many[i] = 0xc001 + i
	}
	versions := func(v ...int) [][]byte { return [][]byte{extension(extSupportedVersions, vec(1, u16(v...)))} }
	for name, test := range map[string]struct {
		hello helloSpec
		kind  helloKind
		want  string // beginning
	}{
		"no extensions":         {helloSpec{version: 0x0300, ciphers: []int{5, 4}}, helloTLS, "ts3i020000_"},
		"no ciphers":            {helloSpec{ciphers: []int{}}, helloTLS, "t12i000000_000000000000_000000000000"},
		"150 ciphers":           {helloSpec{ciphers: many}, helloTLS, "t12i990000_"},
		"one letter":            {helloSpec{extensions: [][]byte{extensionALPN("a")}}, helloTLS, "t12i0101aa_"},
		"bytes":                 {helloSpec{extensions: [][]byte{extensionALPN("\xab\xcd")}}, helloTLS, "t12i0101ad_"},
		"one byte":              {helloSpec{extensions: [][]byte{extensionALPN("\xab")}}, helloTLS, "t12i0101ab_"},
		"byte at the end":       {helloSpec{extensions: [][]byte{extensionALPN("a\x19")}}, helloTLS, "t12i010169_"},
		"highest version":       {helloSpec{extensions: versions(0x0302, 0x0304, 0x7a7a, 0x0303)}, helloTLS, "t13i010100_"},
		"lower than legacy":     {helloSpec{extensions: versions(0x0302)}, helloTLS, "t11i010100_"},
		"unknown version":       {helloSpec{version: 0x0909}, helloTLS, "t00i010000_"},
		"quic":                  {helloSpec{extensions: versions(0x0304)}, helloQUIC, "q13i010100_"},
		"dtls":                  {helloSpec{version: 0xfefd, cookie: []byte{}}, helloDTLS, "dd2i010000_"},
		"dtls 1.3 and 1.2":      {helloSpec{version: 0xfefd, cookie: []byte{}, extensions: versions(0xfefc, 0xfefd)}, helloDTLS, "dd3i010100_"},
		"more than can be kept": {helloSpec{ciphers: slices.Concat(many, many, many)}, helloTLS, ""},
	} {
		var h hello
		body := test.hello.message()[handshakeHeader:]
		h.parse(body, len(body), test.kind)
		if got := h.ja4(test.kind); !strings.HasPrefix(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%s: JA4 %q, want %q...", name, got, test.want)
		}
	}
}
