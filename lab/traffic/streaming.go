// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
)

var videoNeeds = []Need{needNGINX, {"ffmpeg", "ffmpeg"}}

var _ = register(
	&Program{Name: "ffmpeg-hls", Category: "streaming", App: "hls", Quick: true, Clients: 2, Version: "ffmpeg -version", Needs: videoNeeds,
		Start: startHLS},
	&Program{Name: "ffmpeg-dash", Category: "streaming", App: "mpegdash", Clients: 2, Version: "ffmpeg -version", Needs: videoNeeds, Start: startDASH},
	&Program{Name: "mpv-hls", Category: "streaming", App: "hls", Clients: 2, Version: "mpv --version", Needs: append([]Need{{"mpv", "mpv"}}, videoNeeds...),
		Start: startMPV},
	&Program{Name: "ffmpeg-mp4", Category: "streaming", App: "mp4", Clients: 2, Version: "ffmpeg -version", Needs: videoNeeds, Start: startMP4},
)

// video starts NGINX with a video that ffmpeg has made, in the form of the options.
func (r *Round) video(ctx context.Context, options ...string) (*web, error) {
	w, err := r.NGINX(ctx)
	if err != nil {
		return nil, err
	}
	return w, r.film(ctx, w.Root, options...)
}

// film lets ffmpeg make a video in a directory, in the form of the options.
func (r *Round) film(ctx context.Context, dir string, options ...string) error {
	seconds := 90
	if r.Quick {
		seconds = 16
	}
	// Noise makes the pictures as hard to compress as real ones.
	source := fmt.Sprintf("testsrc2=size=%s:rate=%d,noise=alls=%d:allf=t", pick(r.draw, "320x180", "480x270", "640x360"), pick(r.draw, 12, 15, 24), 4+r.IntN(20))
	args := append([]string{"-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", source, "-f", "lavfi", "-i", "anoisesrc=color=pink:amplitude=.2",
		"-t", fmt.Sprint(seconds), "-c:v", "libx264", "-preset", "ultrafast", "-g", fmt.Sprint(24 + r.IntN(48)), "-b:v", fmt.Sprintf("%dk", r.Size(300, 2500)),
		"-c:a", "aac", "-b:a", pick(r.draw, "64k", "128k")}, options...)
	cmd, err := r.Server().Command(ctx, "ffmpeg", args...)
	if err != nil {
		return err
	}
	cmd.Dir = dir
	p, err := r.Server().StartCommand(cmd)
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("ffmpeg makes a video: %w: %s", err, p.Output())
	}
	return nil
}

// play plays a video at the speed of a person who watches, for a while.
func play(ctx context.Context, c *Client, w *web, file string) error {
	seconds := c.Between(8, 80)
	if c.Round.Quick {
		seconds = 5
	}
	_, err := c.Run(ctx, "ffmpeg", "-hide_banner", "-loglevel", "error", "-re", "-ca_file", w.CA, "-tls_verify", "1", "-i", w.URL+"/"+file,
		"-t", fmt.Sprintf("%.0f", seconds), "-c", "copy", "-f", "null", "-")
	return err
}

func startHLS(ctx context.Context, r *Round) (Session, error) {
	w, err := r.video(ctx, "-f", "hls", "-hls_time", fmt.Sprint(2+r.IntN(5)), "-hls_list_size", "0", "-hls_playlist_type", "vod",
		"-hls_segment_type", pick(r.draw, "mpegts", "fmp4"), "index.m3u8")
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error { return play(ctx, c, w, "index.m3u8") }, nil
}

// startMPV: a player that reads ahead into its buffer.
func startMPV(ctx context.Context, r *Round) (Session, error) {
	w, err := r.video(ctx, "-f", "hls", "-hls_time", fmt.Sprint(2+r.IntN(5)), "-hls_list_size", "0", "-hls_playlist_type", "vod", "index.m3u8")
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		seconds := c.Between(8, 60)
		if c.Round.Quick {
			seconds = 4
		}
		_, err := c.Run(ctx, "mpv", "--no-config", "--vo=null", "--ao=null", "--tls-verify=yes", "--tls-ca-file="+w.CA, fmt.Sprintf("--length=%.0f", seconds),
			fmt.Sprintf("--cache-secs=%d", 5+c.IntN(30)), w.URL+"/index.m3u8")
		return err
	}, nil
}

func startDASH(ctx context.Context, r *Round) (Session, error) {
	w, err := r.video(ctx, "-f", "dash", "-seg_duration", fmt.Sprint(2+r.IntN(5)), "index.mpd")
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error { return play(ctx, c, w, "index.mpd") }, nil
}

// startMP4: one file, which the player reads as fast as it plays.
func startMP4(ctx context.Context, r *Round) (Session, error) {
	w, err := r.video(ctx, "-movflags", "faststart", "film.mp4")
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error { return play(ctx, c, w, "film.mp4") }, nil
}
