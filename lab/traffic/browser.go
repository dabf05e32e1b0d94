// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

var _ = register(
	// Browsers need much of a CPU, so one of each at a time is enough.
	&Program{Name: "chromium", Category: "web", App: "web", Clients: 1, Version: "chromium --version",
		Needs: []Need{needNGINX, {"chromium", "chromium"}}, Start: startChromium},
	&Program{Name: "firefox", Category: "web", App: "web", Clients: 1, Version: "firefox-esr --version",
		Needs: []Need{needNGINX, {"firefox-esr", "firefox-esr"}, {"certutil", "libnss3-tools"}}, Start: startFirefox},
	&Program{Name: "chromium-video", Category: "streaming", App: "mp4", Clients: 1, Version: "chromium --version",
		Needs: []Need{needNGINX, {"chromium", "chromium"}, {"ffmpeg", "ffmpeg"}}, Start: startChromiumVideo},
	&Program{Name: "chromium-upload", Category: "file-transfer", App: "https", Clients: 1, Version: "chromium --version",
		Needs: []Need{needNGINX, {"chromium", "chromium"}}, Start: startChromiumUpload},
)

// visit lets a browser visit a page and go on from there as the pages say, for a while.
// Browsers do not end by themselves.
func visit(ctx context.Context, c *Client, least, most float64, command ...string) error {
	seconds := c.Between(least, most)
	if c.Round.Quick {
		seconds = 6
	}
	limited, cancel := context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
	defer cancel()
	if _, err := c.Run(limited, command[0], command[1:]...); err != nil && limited.Err() == nil {
		return err
	}
	return nil
}

// chromium returns the command for a new Chromium, with a profile of its own, that shows a
// page.
func chromium(n *Node, profile uint32, url string) []string {
	return []string{"chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--ignore-certificate-errors",
		"--autoplay-policy=no-user-gesture-required", "--mute-audio", "--remote-debugging-port=0", "--user-data-dir=" + filepath.Join(n.Dir, fmt.Sprintf("chromium%d", profile)), url}
}

func startChromium(ctx context.Context, r *Round) (Session, error) {
	site, err := r.Site(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		return visit(ctx, c, 10, 60, chromium(c.Node, c.Uint32(), site.URL+"/"+pick(c.draw, site.pages...).path)...)
	}, nil
}

func startChromiumVideo(ctx context.Context, r *Round) (Session, error) {
	w, err := r.video(ctx, "-movflags", "faststart", "film.mp4")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(w.Root, "film.html"), []byte("<!doctype html><video src=film.mp4 autoplay muted loop></video>"), 0o644); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		return visit(ctx, c, 15, 70, chromium(c.Node, c.Uint32(), w.URL+"/film.html")...)
	}, nil
}

// startChromiumUpload: a page that stores files at the server and fetches files.
func startChromiumUpload(ctx context.Context, r *Round) (Session, error) {
	w, err := r.NGINX(ctx)
	if err != nil {
		return nil, err
	}
	html := fmt.Sprintf(`<!doctype html><script>
const pause = ms => new Promise(r => setTimeout(r, ms*(.2+2*Math.random())));
(async () => {
	for (;;) {
		const name = 'up' + Math.floor(Math.random()*5), data = new Uint8Array(Math.exp(10 + 5*Math.random()));
		for (let i = 0; i < data.length; i += 65536) crypto.getRandomValues(data.subarray(i, i+65536));
		await fetch(name, {method: 'PUT', body: data});
		await pause(%[1]d);
		await (await fetch(name)).blob();
		await pause(%[1]d);
	}
})()</script>`, map[bool]int{false: 3000, true: 400}[r.Quick])
	if err := os.WriteFile(filepath.Join(w.Root, "drive.html"), []byte(html), 0o644); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		return visit(ctx, c, 10, 60, chromium(c.Node, c.Uint32(), w.URL+"/drive.html")...)
	}, nil
}

func startFirefox(ctx context.Context, r *Round) (Session, error) {
	site, err := r.Site(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		profile := fmt.Sprintf("firefox%d", c.Uint32())
		prefs := `user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
`
		path, err := c.Write(profile+"/user.js", prefs)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		if _, err := c.Run(ctx, "certutil", "-A", "-d", "sql:"+dir, "-n", "lab", "-t", "C,,", "-i", site.CA); err != nil {
			return err
		}
		return visit(ctx, c, 15, 60, "firefox-esr", "--headless", "--no-remote", "--profile", dir, site.URL+"/"+pick(c.draw, site.pages...).path)
	}, nil
}
