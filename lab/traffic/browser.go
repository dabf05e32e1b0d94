// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
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

// failed is how a page says in the browser's console that it does not work.
const failed = "lab page: "

// pageProblem matches that, and what the browser says about a script that is no JavaScript.
var pageProblem = regexp.MustCompile(failed + ".*|Uncaught (Syntax|Reference|Type)Error.*")

// visit lets a browser visit a page and go on from there as the pages say, for a while.
// Browsers do not end by themselves.
func visit(ctx context.Context, c *Client, least, most float64, command ...string) error {
	seconds := c.Between(least, most)
	if c.Round.Quick {
		seconds = 6
	}
	limited, cancel := context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
	defer cancel()
	p, err := c.Start(ctx, command[0], command[1:]...)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
		return fmt.Errorf("%s has ended: %s", command[0], p.Output())
	case <-limited.Done():
	}
	output := p.Output() // before the page notices that the browser ends
	_ = p.Stop()
	if problem := pageProblem.FindString(output); problem != "" {
		return fmt.Errorf("the page in %s: %s", command[0], problem)
	}
	return nil
}

// chromium returns the command for a new Chromium, with a profile of its own, that shows a
// page.
func chromium(n *Node, profile uint32, url string) []string {
	return []string{"chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--ignore-certificate-errors",
		"--autoplay-policy=no-user-gesture-required", "--mute-audio", "--enable-logging=stderr", "--remote-debugging-port=0", "--user-data-dir=" + filepath.Join(n.Dir, fmt.Sprintf("chromium%d", profile)), url}
}

func startChromium(ctx context.Context, r *Round) (Session, error) {
	site, err := r.Site(ctx)
	if err != nil {
		return nil, err
	}
	return site.browse, nil
}

// browse visits the site with Chromium.
func (s *site) browse(ctx context.Context, c *Client) error {
	return s.visit(ctx, c, 10, 60, pick(c.draw, s.pages...).path)
}

// visit visits a page of the server with Chromium, over QUIC if the server speaks nothing
// else.
func (w *web) visit(ctx context.Context, c *Client, least, most float64, page string) error {
	command := chromium(c.Node, c.Uint32(), w.URL+"/"+page)
	if w.Pin != "" {
		// Over QUIC, Chromium ignores the errors of listed certificates only.
		command = append(command, "--origin-to-force-quic-on="+w.Host, "--ignore-certificate-errors-spki-list="+w.Pin)
	}
	return visit(ctx, c, least, most, command...)
}

func startChromiumVideo(ctx context.Context, r *Round) (Session, error) {
	w, err := r.video(ctx, "-movflags", "faststart", "film.mp4")
	if err != nil {
		return nil, err
	}
	if err := w.write("film.html", "<!doctype html><video src=film.mp4 autoplay muted loop></video>"); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		return w.visit(ctx, c, 15, 70, "film.html")
	}, nil
}

func startChromiumUpload(ctx context.Context, r *Round) (Session, error) {
	w, err := r.NGINX(ctx)
	if err != nil {
		return nil, err
	}
	return r.drive(w)
}

// drive is the session with a page that stores files at the server and fetches files.
func (r *Round) drive(w *web) (Session, error) {
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
})().catch(e => console.error('%[2]s' + e))</script>`, map[bool]int{false: 3000, true: 400}[r.Quick], failed)
	if err := w.write("drive.html", html); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		return w.visit(ctx, c, 10, 60, "drive.html")
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
