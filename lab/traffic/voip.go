// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/dpclass/dpclass/lab"
)

var _ = register(
	&Program{Name: "baresip", Category: "voip", App: "sip", Quick: true, Clients: 4, Version: "baresip -h",
		Needs: []Need{{"baresip", "baresip-core"}}, Start: startBaresip},
	&Program{Name: "rtp", Category: "voip", App: "rtp", Clients: 6, Start: startRTP},
)

// baresipConfig: sound comes from a file and goes nowhere. There are no files for ring tones: one would
// keep the bridge that the call needs.
const baresipConfig = `sip_listen %[1]s
sip_certificate %[2]s
sip_cafile %[3]s
call_max_calls 8
module_path %[4]s
module g711.so
module opus.so
module aufile.so
module aubridge.so
module srtp.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
audio_source aufile,%[5]s
audio_path /nonexistent
audio_player aubridge,sink
audio_alert aubridge,alert
rtp_ports %[6]d-%[7]d
`

// speech returns a WAV file with somebody who talks and pauses.
func (d draw) speech(rate, channels int) string {
	const seconds = 20
	var data []byte
	talks, next := true, 0.
	for i := range seconds * rate {
		t := float64(i) / float64(rate)
		if t >= next {
			talks, next = !talks, t+d.Between(.3, 3)
		}
		value := 0.
		if talks {
			value = lab.Voice(t)
		}
		for range channels {
			data = binary.LittleEndian.AppendUint16(data, uint16(int16(value*20000)))
		}
	}
	head := []byte("RIFF....WAVEfmt ")
	binary.LittleEndian.PutUint32(head[4:], uint32(36+len(data)))
	head = binary.LittleEndian.AppendUint32(head, 16)
	for _, field := range []int{1, channels} { // PCM
		head = binary.LittleEndian.AppendUint16(head, uint16(field))
	}
	for _, field := range []int{rate, rate * channels * 2} {
		head = binary.LittleEndian.AppendUint32(head, uint32(field))
	}
	for _, field := range []int{channels * 2, 16} {
		head = binary.LittleEndian.AppendUint16(head, uint16(field))
	}
	head = binary.LittleEndian.AppendUint32(append(head, "data"...), uint32(len(data)))
	return string(head) + string(data)
}

// phone configures a baresip and returns its process.
func (r *Round) phone(ctx context.Context, n *Node, config, account string, more ...string) (*lab.Process, error) {
	for name, text := range map[string]string{"config": config, "accounts": account + "\n", "contacts": ""} {
		if _, err := n.Write("baresip/"+name, text); err != nil {
			return nil, err
		}
	}
	return n.Start(ctx, "baresip", append([]string{"-f", n.Dir + "/baresip"}, more...)...)
}

// startBaresip: people call each other, over UDP, TCP or TLS, with or without SRTP.
func startBaresip(ctx context.Context, r *Round) (Session, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s := r.Server()
	both, err := s.Run(ctx, "cat", cert.Key, cert.Cert)
	if err != nil {
		return nil, err
	}
	pem, err := s.Write("sip.pem", both)
	if err != nil {
		return nil, err
	}
	port, transport, media := r.Port(), pick(r.draw, "udp", "tcp", "tls", "tls"), pick(r.draw, "", ";mediaenc=srtp-mand")
	codecs, rate, channels := pick(r.draw, "pcmu", "pcma"), 8000, 1
	if r.Chance(.5) {
		codecs, rate, channels = "opus/48000/2", 48000, 2
	}
	sound, err := s.Write("voice.wav", r.speech(rate, channels))
	if err != nil {
		return nil, err
	}
	modules := strings.TrimSuffix(installed("/usr/lib*/baresip/modules/menu.so"), "/menu.so")
	if modules == "" {
		modules = strings.TrimSuffix(installed("/usr/lib/*/baresip/modules/menu.so"), "/menu.so")
	}
	config := func(listen netip.AddrPort, rtp int) string {
		return fmt.Sprintf(baresipConfig, listen, pem, ca, modules, sound, rtp, rtp+40)
	}
	account := func(user string, address netip.Addr) string {
		return fmt.Sprintf("<sip:%s@%s;transport=%s>;regint=0;answermode=auto;audio_codecs=%s%s", user, address, transport, codecs, media)
	}
	// One phone for each family: baresip offers addresses of one.
	peers, phones := map[bool]netip.AddrPort{}, map[bool]*lab.Process{}
	for _, c := range r.Clients {
		if _, ok := peers[c.six]; ok {
			continue
		}
		address := c.Server()
		listen := port // of SIP over UDP and TCP; baresip listens for TLS on the port after it
		if transport == "tls" {
			listen = port - 1
		}
		peers[c.six] = netip.AddrPortFrom(address, uint16(port))
		p, err := r.phone(ctx, s, config(netip.AddrPortFrom(address, uint16(listen)), 1024+2*r.IntN(15000)), account("bob", address))
		if err != nil {
			return nil, err
		}
		phones[c.six] = p
		// The other phone may have the port in the other family.
		if err := p.WaitOutput(ctx, "baresip is ready"); err != nil {
			return nil, err
		}
		wait := s.WaitTCP
		if transport == "udp" {
			wait = s.WaitUDP
		}
		if err := wait(ctx, p, port); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, c *Client) error {
		seconds := c.Between(5, 40)
		if c.Round.Quick {
			seconds = 4
		}
		seconds = min(seconds, c.Left().Seconds())
		p, err := c.Round.phone(ctx, c.Node, config(netip.AddrPortFrom(c.Self(), 0), 1024+2*c.IntN(15000)), account("ann", c.Self()),
			"-t", fmt.Sprintf("%.0f", seconds+1), "-e", "/dial sip:bob@"+peers[c.six].String()+";transport="+transport)
		if err != nil {
			return err
		}
		if err := p.WaitOutput(ctx, "Call established"); err != nil {
			return fmt.Errorf("%w; the other phone: %s", err, phones[c.six].Output())
		}
		return p.Wait()
	}, nil
}

// startRTP: calls without signalling, as a router sees those that were set up elsewhere.
func startRTP(_ context.Context, r *Round) (Session, error) {
	return func(ctx context.Context, c *Client) error {
		end := func(a netip.Addr) string { return netip.AddrPortFrom(a, uint16(1024+2*c.IntN(15000))).String() }
		call, err := lab.StartCall(ctx, c.Host, end(c.Self()), c.Round.Server().Host, end(c.Server()))
		if err != nil {
			return err
		}
		seconds := c.Between(5, 40)
		if c.Round.Quick {
			seconds = 3
		}
		_ = wait(ctx, time.Duration(seconds*float64(time.Second)))
		_, err = call.Stop()
		return err
	}, nil
}
