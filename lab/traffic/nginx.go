// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

var needNGINX = Need{"nginx", "nginx"}

// web is a running web server with a directory of files.
type web struct {
	URL  string // https://NAME:PORT
	Host string // NAME:PORT
	Root string // the directory
	CA   string // the certificate of the CA
	Pin  string // SHA-256 of its key in base64, if it speaks HTTP/3 and nothing else
}

// NGINX starts NGINX with TLS on the round's server. It speaks TLS 1.2 or 1.3 and HTTP/1.1
// or 2, as drawn, and stores what clients PUT.
func (r *Round) NGINX(ctx context.Context) (*web, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s, port := r.Server(), r.Port()
	w, err := s.web(port, ca)
	if err != nil {
		return nil, err
	}
	protocols, http2 := pick(r.draw, "TLSv1.2", "TLSv1.3", "TLSv1.2 TLSv1.3"), pick(r.draw, "", " http2", " http2")
	conf, err := s.Write("nginx.conf", fmt.Sprintf(`daemon off; user root; worker_processes 1; pid %[1]s/pid; error_log stderr;
events { worker_connections 1024; }
http {
  access_log off; sendfile on; keepalive_timeout 20;
  types { text/html html; text/css css; application/javascript js; image/jpeg jpg; video/mp4 mp4; application/dash+xml mpd;
    application/vnd.apple.mpegurl m3u8; video/mp2t ts; }
  default_type application/octet-stream;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server {
    listen %[2]d ssl%[3]s; listen [::]:%[2]d ssl%[3]s; server_name %[4]s; root %[5]s;
    ssl_certificate %[6]s; ssl_certificate_key %[7]s; ssl_protocols %[8]s;
    client_max_body_size 1g;
    location / { dav_methods PUT; create_full_put_path on; if ($request_method = POST) { return 204; } }
  }
}
`, s.Dir, port, http2, s.Name, w.Root, cert.Cert, cert.Key, protocols))
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "nginx", "-p", s.Dir, "-e", "stderr", "-c", conf)
	if err != nil {
		return nil, err
	}
	return w, s.WaitTCP(ctx, p, port)
}

// web returns the addresses and the directory of a web server that is going to run.
func (n *Node) web(port int, ca string) (*web, error) {
	host := fmt.Sprintf("%s:%d", n.Name, port)
	w := &web{URL: "https://" + host, Host: host, Root: filepath.Join(n.Dir, "www"), CA: ca}
	return w, os.MkdirAll(w.Root, 0o755)
}

// write adds a file to the server's directory.
func (w *web) write(name, content string) error {
	return os.WriteFile(filepath.Join(w.Root, name), []byte(content), 0o644)
}

// Curl runs curl against the server, with more arguments.
func (w *web) Curl(ctx context.Context, c *Client, args ...string) error {
	_, err := c.Run(ctx, "curl", append([]string{"--silent", "--show-error", "--fail", "--cacert", w.CA}, args...)...)
	return err
}

// site is a set of pages with what they load.
type site struct {
	*web
	pages []page
}

type page struct {
	path   string
	assets []string
}

// Site starts NGINX with a generated site.
func (r *Round) Site(ctx context.Context) (*site, error) {
	w, err := r.NGINX(ctx)
	if err != nil {
		return nil, err
	}
	return r.siteOn(w)
}

// siteOn writes a site for a server: pages of text with style sheets, scripts and
// pictures, some of which all pages share. In a browser, each page leads to another one
// after a while.
func (r *Round) siteOn(w *web) (*site, error) {
	s := &site{web: w}
	write := func(path string, content []byte) error {
		return os.WriteFile(filepath.Join(w.Root, path), content, 0o644)
	}
	asset := func(path string) error {
		switch filepath.Ext(path) {
		case ".jpg":
			return write(path, r.picture(r.Size(2_000, 400_000)))
		case ".css":
			return write(path, []byte("/* "+r.Text(r.Size(500, 60_000))+" */"))
		}
		return write(path, []byte("/* "+r.Text(r.Size(500, 200_000))+" */"))
	}
	shared := []string{"site.css", "site.js", "logo.jpg"}
	for _, path := range shared {
		if err := asset(path); err != nil {
			return nil, err
		}
	}
	count := 5 + r.IntN(12)
	pause := 8000
	if r.Quick {
		pause = 1500
	}
	for i := range count {
		p := page{path: fmt.Sprintf("page%d.html", i), assets: shared}
		var body strings.Builder
		for n := range r.IntN(25) {
			path := fmt.Sprintf("%d-%d%s", i, n, pick(r.draw, ".jpg", ".jpg", ".jpg", ".js", ".css"))
			if err := asset(path); err != nil {
				return nil, err
			}
			p.assets = append(p.assets, path)
		}
		for _, path := range p.assets {
			switch filepath.Ext(path) {
			case ".jpg":
				fmt.Fprintf(&body, "<p>%s<img src=%s>", r.Text(r.Size(50, 2000)), path)
			case ".css":
				fmt.Fprintf(&body, "<link rel=stylesheet href=%s>", path)
			default:
				fmt.Fprintf(&body, "<script src=%s></script>", path)
			}
		}
		html := fmt.Sprintf(`<!doctype html><title>%s</title>%s
<script>onload = () => setTimeout(() => location = 'page' + Math.floor(Math.random()*%d) + '.html', %d*(.2+2*Math.random()))</script>`,
			r.Text(20), body.String(), count, pause)
		if err := write(p.path, []byte(html)); err != nil {
			return nil, err
		}
		s.pages = append(s.pages, p)
	}
	return s, nil
}

// picture returns a file that begins as a JPEG picture does, and does not compress.
func (d draw) picture(size int) []byte {
	return append([]byte{0xff, 0xd8, 0xff, 0xe0, 0, 16, 'J', 'F', 'I', 'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0}, d.Bytes(size)...)
}
