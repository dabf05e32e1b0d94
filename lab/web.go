// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Web says what an NGINX server serves.
type Web struct {
	Port  int
	TLS   bool
	Name  string           // name in the certificate; "": web.example
	Names []string         // more names that the server answers for
	Rate  string           // limit of each connection, as NGINX takes it ("1m": 1 MiB/s); "": none
	Write bool             // PUT stores files; POST is answered with 204
	Files map[string]int64 // name and size in bytes; the content is random, so it does not compress
}

// WebServer is a running NGINX server.
type WebServer struct {
	*Process
	Web
	CA string // path of the CA certificate; "" without TLS
}

// NGINX starts NGINX on all addresses of the host and waits until it listens.
func (h *Host) NGINX(ctx context.Context, web Web) (*WebServer, error) {
	if web.Name == "" {
		web.Name = "web.example"
	}
	dir, err := h.mkdir("nginx")
	if err != nil {
		return nil, err
	}
	if err := WriteFiles(filepath.Join(dir, "www"), web.Files); err != nil {
		return nil, err
	}
	server := &WebServer{Web: web}
	listen := fmt.Sprintf("listen %d; listen [::]:%d;", web.Port, web.Port)
	if web.TLS {
		ca, err := NewAuthority(dir)
		if err != nil {
			return nil, err
		}
		cert, err := ca.Issue(web.Name, web.Names...)
		if err != nil {
			return nil, err
		}
		server.CA = ca.File
		listen = fmt.Sprintf("listen %d ssl; listen [::]:%d ssl; ssl_certificate %s; ssl_certificate_key %s;",
			web.Port, web.Port, cert.Cert, cert.Key)
	}
	more := ""
	if web.Rate != "" {
		more = "limit_rate " + web.Rate + "; "
	}
	if web.Write {
		more += "client_max_body_size 1g; location / { dav_methods PUT; if ($request_method = POST) { return 204; } }"
	}
	// NGINX stays root, because the files belong to root.
	conf := fmt.Sprintf(`daemon off; user root; worker_processes 1; pid %[1]s/pid; error_log stderr;
events { worker_connections 1024; }
http {
  access_log off; sendfile on; default_type application/octet-stream;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server { %[2]s server_name %[3]s; root %[1]s/www; %[4]s }
}
`, dir, listen, strings.Join(append([]string{web.Name}, web.Names...), " "), more)
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	if server.Process, err = h.Start(ctx, "nginx", "-p", dir, "-e", "stderr", "-c", path); err != nil {
		return nil, err
	}
	return server, h.WaitTCP(ctx, server.Process, web.Port)
}

// URL returns the URL of a file, at the given address of the host.
func (w *WebServer) URL(addr, file string) string {
	scheme := "http"
	if w.TLS {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s:%d/%s", scheme, bracket(addr), w.Port, file)
}

// bracket puts an IPv6 address into brackets, as URLs and sftp want it.
func bracket(addr string) string {
	if ip, err := netip.ParseAddr(addr); err == nil && ip.Is6() {
		return "[" + addr + "]"
	}
	return addr
}

// CurlArgs returns the arguments for curl to fetch a file by the server's name and to
// check its certificate: Run(ctx, "curl", web.CurlArgs(addr, "big")...).
func (w *WebServer) CurlArgs(addr, file string) []string { return w.CurlArgsAs(w.Name, addr, file) }

// CurlArgsAs is like CurlArgs, but asks for one of the server's names.
func (w *WebServer) CurlArgsAs(name, addr, file string) []string {
	args := []string{"--silent", "--show-error", "--fail", "--output", "/dev/null",
		"--resolve", fmt.Sprintf("%s:%d:%s", name, w.Port, bracket(addr)), w.URL(name, file)}
	if w.TLS {
		args = append(args, "--cacert", w.CA)
	}
	return args
}

// WriteFiles creates a directory with files of random bytes. files maps names to sizes
// in bytes.
func WriteFiles(dir string, files map[string]int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, size := range files {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		_, err = io.CopyN(file, rand.Reader, size)
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return fmt.Errorf("file %q: %w", name, err)
		}
	}
	return nil
}
