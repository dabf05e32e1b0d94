// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"time"

	"github.com/dpclass/dpclass/lab"
)

var _ = register(&Program{Name: "mumble", Category: "voip", App: "mumble", Clients: 2, Peers: 2, Version: "murmurd -version",
	Needs: []Need{{"murmurd", "mumble-server"}, {"mumble", "mumble"}, {"pulseaudio", "pulseaudio"}, {"paplay", "pulseaudio-utils"}, {"openssl", "openssl"}}, Start: startMumble})

// murmurConfig: the server drops its privileges, so its database is in its own /tmp.
const murmurConfig = `database=/tmp/murmur.sqlite
logfile=
port=%d
sslCert=%s
sslKey=%s
bandwidth=%d
bonjour=False
autobanAttempts=0
`

// mumbleConfig: the client speaks when there is something to hear, and asks nothing.
const mumbleConfig = `[General]
lastupdate=2
[audio]
input=PulseAudio
output=PulseAudio
transmit=%d
quality=%d
frames=%d
noisesupress=0
vadsource=0
vadmin=0.3
vadmax=0.5
[net]
tcponly=%v
[tts]
enable=false
[ui]
disablepubliclist=true
stateintray=false
usage=false
`

// talker runs the client and plays somebody's voice to it. $1 is the voice, $2 the CA's certificate, which
// takes the place of the system's, $3 the URL, $4 the user. The client makes a certificate for the user; it would ask
// questions if there were none.
const talker = `mount --bind "$2" /etc/ssl/certs/ca-certificates.crt
mkdir -p Documents; openssl req -x509 -newkey rsa:2048 -nodes -subj "/CN=$4" -keyout own.key -out own.pem 2> /dev/null
openssl pkcs12 -export -in own.pem -inkey own.key -out Documents/MumbleAutomaticCertificateBackup.p12 -passout pass:
export QT_QPA_PLATFORM=offscreen
pulseaudio -n --daemonize=no --exit-idle-time=-1 -L module-native-protocol-unix -L "module-null-sink sink_name=mouth" -L "module-null-sink sink_name=ear" > pulse.log 2>&1 &
until pactl info > /dev/null 2>&1; do sleep .1; done
pactl set-default-source mouth.monitor; pactl set-default-sink ear
while :; do paplay --device=mouth "$1"; done &
exec mumble --multiple "$3"`

// startMumble: people talk in a room; one of them is on the servers' side. The sound goes over UDP, or, where a
// network lets none through, in the TLS connection.
func startMumble(ctx context.Context, r *Round) (Session, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s, port := r.Server(), r.Port()
	conf, err := s.Write("murmur.ini", fmt.Sprintf(murmurConfig, port, cert.Cert, cert.Key, r.Size(40_000, 130_000)))
	if err != nil {
		return nil, err
	}
	server, err := s.Start(ctx, "murmurd", "-fg", "-ini", conf)
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, server, port); err != nil {
		return nil, err
	}
	talk := func(ctx context.Context, n *Node, d draw) (*lab.Process, error) {
		voice, err := n.Write("voice.wav", d.speech(48000, 1))
		if err != nil {
			return nil, err
		}
		if _, err := n.Write(".config/Mumble/Mumble.conf", fmt.Sprintf(mumbleConfig, pick(d, 0, 1, 1), d.Size(16_000, 96_000), pick(d, 1, 2, 2, 4, 6), d.Chance(.2))); err != nil {
			return nil, err
		}
		user := fmt.Sprintf("%s%d", d.name()[:4], d.IntN(1000))
		return n.Start(ctx, "sh", "-c", talker, "sh", voice, ca, fmt.Sprintf("mumble://%s@%s:%d/", user, s.Name, port), user)
	}
	if _, err := talk(ctx, r.Servers[1], r.draw); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		p, err := talk(ctx, c.Node, c.draw)
		if err != nil {
			return err
		}
		_ = wait(ctx, time.Duration(c.Between(10, 70)*float64(time.Second)))
		select {
		case <-p.Done():
			return fmt.Errorf("mumble ended: %s; the server: %s", p.Output(), server.Output())
		default:
		}
		_ = p.Stop() // it would stay for ever
		return nil
	}, nil
}
