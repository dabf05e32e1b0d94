// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestProtocols(t *testing.T) {
	files, err := generateProtocols([]byte("# comment\n\n0\tunknown\t-\t-\tnone\n1\ttls\t-\t-\tRFC 8446\n2\tdns-over-tls\tweb\tdoh\tRFC 7858\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		protocolHeader: {"\tprotocol_unknown,\n\tprotocol_tls,\n\tprotocol_dns_over_tls,\n}", "#define MAX_PROTOCOLS 128\n"},
		protocolGoFile: {"Protocol = iota // none\n", "ProtocolDNSOverTLS", `{"dns-over-tls", "web", "doh", "RFC 7858"}`, `{"tls", "", "", "RFC 8446"}`},
	} {
		for _, part := range want {
			if !strings.Contains(string(files[name]), part) {
				t.Errorf("%s: no %q in\n%s", name, part, files[name])
			}
		}
	}
}

func TestRefusedProtocols(t *testing.T) {
	const good = "0\tunknown\t-\t-\tnone\n1\ttls\t-\t-\tRFC 8446\n"
	var many strings.Builder
	for n := range maxProtocols + 1 {
		fmt.Fprintf(&many, "%d\tprotocol-%d\t-\t-\tx\n", n, n)
	}
	for lines, want := range map[string]string{
		good + "2 ssh - RFC":                 "line 3: 1 columns",
		good + "3\tssh\t-\t-\tRFC 4253":      `number "3", want 2`,
		good + "1\tssh\t-\t-\tRFC 4253":      `number "1", want 2`,
		good + "two\tssh\t-\t-\tRFC 4253":    `number "two"`,
		good + "2\ttls\t-\t-\tRFC 8446":      `name "tls": want a new one`,
		good + "2\tSSH\t-\t-\tRFC 4253":      `name "SSH"`,
		good + "2\tssh\tRemote\t-\tRFC 4253": `category "Remote"`,
		good + "2\tssh\t\t-\tRFC 4253":       `category ""`,
		good + "2\tssh\tremote\t\tRFC 4253":  `application ""`,
		good + "2\tssh\t-\tssh\tRFC 4253":    `application "ssh" of category ""`,
		many.String():                        `number "128", want 128, below 128`,
	} {
		if _, err := parseProtocols([]byte(lines)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", lines, err, want)
		}
	}
}
