// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"path/filepath"
)

var _ = register(&Program{Name: "ffmpeg-rtsp", Category: "streaming", App: "rtsp", Version: "ffmpeg -version",
	Needs: []Need{{"ffmpeg", "ffmpeg"}, {"/usr/bin/python3", "python3"}, {"/usr/lib/python3/dist-packages/gi", "python3-gi"},
		{"/usr/lib/*/girepository-1.0/GstRtspServer-1.0.typelib", "gir1.2-gst-rtsp-server-1.0"},
		{"/usr/lib/*/gstreamer-1.0/libgstrtp.so", "gstreamer1.0-plugins-good"}, {"/usr/lib/*/gstreamer-1.0/libgstapp.so", "gstreamer1.0-plugins-base"}},
	Start: startRTSP})

// rtspServer is GStreamer's server, as cameras have it. It plays a film to each client
// from the beginning.
const rtspServer = `
import sys, gi
gi.require_version('Gst', '1.0')
gi.require_version('GstRtspServer', '1.0')
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
port, film, mtu, sound = sys.argv[1:5]
tracks = '( filesrc location=%s ! qtdemux name=film film.video_0 ! queue ! rtph264pay name=pay0 pt=96 config-interval=1 mtu=%s' % (film, mtu)
if sound == 'sound':
    tracks += ' film.audio_0 ! queue ! rtpmp4gpay name=pay1 pt=97 mtu=%s' % mtu
server = GstRtspServer.RTSPServer(address='::', service=port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(tracks + ' )')
server.get_mount_points().add_factory('/live', factory)
server.attach(None)
GLib.MainLoop().run()
`

// startRTSP: people watch a camera for a while, over UDP or in the RTSP connection.
func startRTSP(ctx context.Context, r *Round) (Session, error) {
	s, port := r.Server(), r.Port()
	if err := r.film(ctx, s.Dir, "-movflags", "faststart", "film.mp4"); err != nil {
		return nil, err
	}
	script, err := s.Write("camera.py", rtspServer)
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "/usr/bin/python3", script, fmt.Sprint(port), filepath.Join(s.Dir, "film.mp4"), fmt.Sprint(1000+r.IntN(300)), pick(r.draw, "sound", "silent"))
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		seconds := c.Between(8, 80)
		if c.Round.Quick {
			seconds = 4
		}
		_, err := c.Run(ctx, "ffmpeg", "-hide_banner", "-loglevel", "error", "-rtsp_transport", pick(c.draw, "udp", "tcp"),
			"-i", fmt.Sprintf("rtsp://%s:%d/live", s.Name, port), "-t", fmt.Sprintf("%.0f", seconds), "-c", "copy", "-f", "null", "-")
		return err
	}, nil
}
