// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"strings"

	"github.com/dpclass/dpclass/lab"
)

var _ = register(
	&Program{Name: "mpv-radio", Category: "streaming", App: "icecast", Version: "mpv --version", Needs: append([]Need{{"mpv", "mpv"}}, radioNeeds...),
		Start: func(ctx context.Context, r *Round) (Session, error) { return r.radio(ctx, listenMPV) }},
	&Program{Name: "ffmpeg-radio", Category: "streaming", App: "icecast", Version: "ffmpeg -version", Needs: radioNeeds,
		Start: func(ctx context.Context, r *Round) (Session, error) { return r.radio(ctx, listenFFmpeg) }},
)

var radioNeeds = []Need{{"icecast2", "icecast2"}, {"ffmpeg", "ffmpeg"}, {"curl", "curl"}}

// stations are what the server sends: the format and rate of each, as ffmpeg names them.
var stations = []struct{ path, codec, rate, format, mime string }{
	{"pop.mp3", "libmp3lame", "128k", "mp3", "audio/mpeg"},
	{"news.mp3", "libmp3lame", "48k", "mp3", "audio/mpeg"},
	{"jazz.ogg", "libvorbis", "160k", "ogg", "application/ogg"},
	{"talk.opus", "libopus", "64k", "ogg", "application/ogg"},
}

// radio starts Icecast, with stations that send live, in the clear or over TLS. People
// listen to one station after the other.
func (r *Round) radio(ctx context.Context, listen func(ctx context.Context, c *Client, ca, url string, seconds float64) error) (Session, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s, port, studio := r.Server(), r.Port(), r.Port()
	secure := r.Chance(.5)
	// Icecast wants the key and the certificate in one file, and not to be root.
	pair, err := s.Run(ctx, "cat", cert.Key, cert.Cert)
	if err != nil {
		return nil, err
	}
	pem, err := s.Write("pair.pem", pair)
	if err != nil {
		return nil, err
	}
	socket := func(address string, port int, ssl bool) string {
		return fmt.Sprintf("<listen-socket><bind-address>%s</bind-address><port>%d</port><ssl>%d</ssl></listen-socket>", address, port, map[bool]int{true: 1}[ssl])
	}
	conf, err := s.Write("icecast.xml", fmt.Sprintf(`<icecast>
<limits><clients>100</clients><sources>9</sources><burst-size>%d</burst-size></limits>
<authentication><source-password>source</source-password><admin-user>admin</admin-user><admin-password>%x</admin-password></authentication>
<hostname>%s</hostname>%s%s%s
<paths><basedir>/usr/share/icecast2</basedir><logdir>/tmp</logdir><webroot>/usr/share/icecast2/web</webroot><adminroot>/usr/share/icecast2/admin</adminroot>
<ssl-certificate>%s</ssl-certificate></paths>
<security><chroot>0</chroot><changeowner><user>nobody</user><group>nogroup</group></changeowner></security>
</icecast>
`, r.Size(20_000, 130_000), r.Uint64(), s.Name, socket("0.0.0.0", port, secure), socket("::", port, secure), socket("127.0.0.1", studio, false), pem))
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "icecast2", "-c", conf)
	if err != nil {
		return nil, err
	}
	for _, port := range []int{port, studio} {
		if err := s.WaitTCP(ctx, p, port); err != nil {
			return nil, err
		}
	}
	if err := r.onAir(ctx, p, studio); err != nil {
		return nil, err
	}
	scheme := map[bool]string{false: "http", true: "https"}[secure]
	return func(ctx context.Context, c *Client) error {
		seconds := c.Between(6, 70)
		if c.Round.Quick {
			seconds = 3
		}
		return listen(ctx, c, ca, fmt.Sprintf("%s://%s:%d/%s", scheme, s.Name, port, pick(c.draw, stations...).path), seconds)
	}, nil
}

// onAir starts the stations' encoders, and returns when Icecast has all their streams.
func (r *Round) onAir(ctx context.Context, icecast *lab.Process, port int) error {
	s := r.Server()
	for _, station := range stations {
		// Noise in which a tone comes and goes: speech and music are no easier to compress.
		source := fmt.Sprintf("anoisesrc=color=pink:amplitude=.3:seed=%d,tremolo=f=%.1f", r.Uint32(), r.Between(.5, 8))
		encoder, err := s.Start(ctx, "ffmpeg", "-hide_banner", "-loglevel", "error", "-re", "-f", "lavfi", "-i", source, "-c:a", station.codec, "-b:a", station.rate,
			"-content_type", station.mime, "-f", station.format, fmt.Sprintf("icecast://source:source@127.0.0.1:%d/%s", port, station.path))
		if err != nil {
			return err
		}
		if err := lab.Until(ctx, "Icecast's station "+station.path, func() (bool, error) {
			select {
			case <-encoder.Done():
				return false, fmt.Errorf("ffmpeg has ended: %s; icecast: %s", encoder.Output(), icecast.Output())
			default:
			}
			list, err := s.Run(ctx, "curl", "--silent", "--show-error", fmt.Sprintf("http://127.0.0.1:%d/status-json.xsl", port))
			return strings.Contains(list, station.path), err
		}); err != nil {
			return err
		}
	}
	return nil
}

func listenMPV(ctx context.Context, c *Client, ca, url string, seconds float64) error {
	_, err := c.Run(ctx, "mpv", "--no-config", "--no-video", "--ao=null", "--tls-verify=yes", "--tls-ca-file="+ca, fmt.Sprintf("--length=%.0f", seconds), url)
	return err
}

func listenFFmpeg(ctx context.Context, c *Client, ca, url string, seconds float64) error {
	args := []string{"-hide_banner", "-loglevel", "error", "-re"}
	if strings.HasPrefix(url, "https:") {
		args = append(args, "-ca_file", ca, "-tls_verify", "1")
	}
	_, err := c.Run(ctx, "ffmpeg", append(args, "-i", url, "-t", fmt.Sprintf("%.0f", seconds), "-c", "copy", "-f", "null", "-")...)
	return err
}
