// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/dpclass/dpclass/lab"
)

var needTor = []Need{{"tor", "tor"}, {"tor-gencert", "tor"}, {"nft", "nftables"}}

// throughTor are the programs that run through Tor.
var throughTor = []string{"curl", "chromium", "firefox", "curl-files", "xmpp", "weechat", "curl-mail", "mbsync", "msmtp", "ssh", "sftp", "rsync"}

// torRelays is the number of relays, half of them exits. A connection has two circuits of
// three relays that share only the exit (Tor's proposal 329).
const torRelays = 6

// torConf is what all instances of Tor of a round have.
const torConf = `TestingTorNetwork 1
DataDirectory %s/tor
DirAuthority authority orport=%d v3ident=%s ipv6=[%s]:%d %s:%d %s
Log notice stdout
CircuitBuildTimeout 30
LearnCircuitBuildTimeout 0
`

// torAuthority makes the first consensus when all relays have had the time to register. On
// a busy machine some are late, and in the next one.
const torAuthority = `AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
DirPort %s:%d
ContactInfo nobody@%s
TestingV3AuthInitialVotingInterval %d
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
TestingV3AuthVotingStartOffset %d
V3AuthVotingInterval 20
V3AuthVoteDelay 4
V3AuthDistDelay 4
TestingDirAuthVoteGuard *
TestingDirAuthVoteExit *
TestingMinExitFlagThreshold 0
AuthDirHasIPv6Connectivity 1
`

const torRelay = `Nickname relay%[1]d
Address %[2]s
Address [%[4]s]
ORPort %[2]s:%[3]d
ORPort [%[4]s]:%[3]d
SocksPort 0
AssumeReachable 1
AssumeReachableIPv6 1
`

// Tor's client takes connections of the kernel, which redirects those to the servers.
const (
	torPort   = 1003
	torClient = `SocksPort 0
TransPort 127.0.0.1:%[1]d
TransPort [::1]:%[1]d
ClientOnly 1
`
	torRules = `table inet lab {
	chain redirected {
		type nat hook output priority -100;
		ip daddr { %[1]s } meta l4proto tcp redirect to :%[3]d
		ip6 daddr { %[2]s } meta l4proto tcp redirect to :%[3]d
	}
	chain refused {
		type filter hook output priority 0;
		ip daddr { %[1]s } reject
		ip6 daddr { %[2]s } reject
	}
}
`
)

// tor runs a Tor network, with an authority and relays on the far side, and a client of it
// on each client.
func tor(ctx context.Context, r *Round, _ inside) error {
	authority, secret := r.gateways()[0], filepath.Join("tor", "keys")
	directory := authority.Port(r.draw)
	ports := make([]int, torRelays)
	for n, host := range r.gateways() {
		ports[n] = host.Port(r.draw)
	}
	keys := filepath.Join(authority.Dir, secret)
	if _, err := authority.Run(ctx, "mkdir", "-p", "-m", "700", keys); err != nil {
		return err
	}
	if _, err := authority.RunInput(ctx, "correct-horse\n", "tor-gencert", "--create-identity-key", "-i", keys+"/authority_identity_key", "-s", keys+"/authority_signing_key",
		"-c", keys+"/authority_certificate", "-m", "1", "-a", fmt.Sprintf("%s:%d", authority.stack.addr4, directory), "--passphrase-fd", "0"); err != nil {
		return err
	}
	certificate, err := authority.Run(ctx, "cat", keys+"/authority_certificate")
	if err != nil {
		return err
	}
	identity := regexp.MustCompile(`(?m)^fingerprint (\w+)$`).FindStringSubmatch(certificate)
	own, err := authority.Write("keys.conf", fmt.Sprintf("DataDirectory %s/tor\nNickname relay0\nORPort 1\nSocksPort 0\n", authority.Dir))
	if err != nil {
		return err
	}
	listed, err := authority.Run(ctx, "tor", "-f", own, "--hush", "--list-fingerprint")
	if err != nil {
		return err
	}
	fingerprint := regexp.MustCompile(`(?m)^relay0 ([0-9A-F ]+)$`).FindStringSubmatch(listed)
	if identity == nil || fingerprint == nil {
		return fmt.Errorf("tor: no fingerprints in %q and %q", certificate, listed)
	}
	start := func(n *Node, conf string) (*lab.Process, error) {
		conf = fmt.Sprintf(torConf, n.Dir, ports[0], identity[1], authority.stack.addr6, ports[0], authority.stack.addr4, directory,
			strings.ReplaceAll(fingerprint[1], " ", "")) + conf
		file, err := n.Write("torrc", conf)
		if err != nil {
			return nil, err
		}
		return n.Start(ctx, "tor", "-f", file)
	}
	// The votes of the first consensus are counted four seconds before it. The interval
	// must divide half an hour.
	const interval, registered = 20, 12
	offset := (time.Now().Unix() + registered) % interval
	var relays []*lab.Process
	for n, host := range r.gateways() {
		conf := fmt.Sprintf(torRelay, n, host.stack.addr4, ports[n], host.stack.addr6)
		if n == 0 {
			conf += fmt.Sprintf(torAuthority, host.stack.addr4, directory, host.Name, interval, offset)
		}
		if n < torRelays/2 {
			conf += "ExitRelay 0\n"
		} else {
			conf += "ExitRelay 1\nIPv6Exit 1\nExitPolicyRejectPrivate 0\nExitPolicy accept *:*\n"
		}
		p, err := start(host, conf)
		if err != nil {
			return err
		}
		relays = append(relays, p)
	}
	for n, host := range r.gateways() {
		if err := host.WaitTCP(ctx, relays[n], ports[n]); err != nil {
			return err
		}
	}
	var four, six []string
	for _, s := range r.Servers {
		four, six = append(four, s.stack.addr4.String()), append(six, s.stack.addr6.String())
	}
	var clients []*lab.Process
	for _, c := range r.Clients {
		rules := fmt.Sprintf(torRules, strings.Join(four, ", "), strings.Join(six, ", "), torPort)
		if _, err := c.RunInput(ctx, rules, "nft", "-f", "-"); err != nil {
			return err
		}
		conf := fmt.Sprintf(torClient, torPort)
		if c.six {
			conf += "ClientUseIPv6 1\nClientUseIPv4 0\n"
		}
		p, err := start(c.Node, conf)
		if err != nil {
			return err
		}
		clients = append(clients, p)
	}
	for _, p := range clients {
		if err := p.WaitOutput(ctx, "Bootstrapped 100%"); err != nil {
			return err
		}
	}
	return nil
}
