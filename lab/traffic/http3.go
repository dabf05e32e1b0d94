// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/dpclass/dpclass/lab"
)

var _ = register(
	&Program{Name: "chromium-h3", Category: "web", App: "web", Clients: 1, Version: "chromium --version",
		Needs: []Need{{"chromium", "chromium"}}, Start: startChromiumH3},
	&Program{Name: "chromium-h3-upload", Category: "file-transfer", App: "https", Clients: 1, Version: "chromium --version",
		Needs: []Need{{"chromium", "chromium"}}, Start: startChromiumUploadH3},
	&Program{Name: "quic-go", Category: "file-transfer", App: "https", Version: "module github.com/quic-go/quic-go", Start: startQUICFiles},
)

// HTTPS starts a web server of Go's on the round's server, and returns its URL without a
// slash at the end.
func (r *Round) HTTPS(ctx context.Context, handler http.Handler) (string, error) {
	pair, _, err := r.keyPair()
	if err != nil {
		return "", err
	}
	s, port := r.Server(), r.Port()
	listener, err := s.Listen(ctx, fmt.Sprintf("[::]:%d", port))
	if err != nil {
		return "", err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: handler, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return fmt.Sprintf("https://%s:%d", s.Name, port), nil
}

// HTTP3 starts a web server for files on the round's server. It stores what clients PUT.
// Nothing listens on TCP, so a client that cannot speak QUIC fails.
func (r *Round) HTTP3(ctx context.Context) (*web, error) {
	pair, ca, err := r.keyPair()
	if err != nil {
		return nil, err
	}
	s, port := r.Server(), r.Port()
	w, err := s.web(port, ca)
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256(pair.Leaf.RawSubjectPublicKeyInfo)
	w.Pin = base64.StdEncoding.EncodeToString(key[:])
	root, err := os.OpenRoot(w.Root)
	if err != nil {
		return nil, err
	}
	conn, err := s.ListenUDP(ctx, fmt.Sprintf("[::]:%d", port))
	if err != nil {
		return nil, err
	}
	server := &http3.Server{Handler: storage(root), TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}, QUICConfig: r.quicConfig()}
	go func() { _ = server.Serve(conn) }()
	context.AfterFunc(ctx, func() {
		_ = server.Close()
		_ = conn.Close()
		_ = root.Close()
	})
	return w, nil
}

// keyPair returns the server's certificate and key, and the path of the CA's certificate.
func (r *Round) keyPair() (tls.Certificate, string, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return tls.Certificate{}, "", err
	}
	pair, err := tls.LoadX509KeyPair(cert.Cert, cert.Key)
	return pair, ca, err
}

// quicConfig draws the size of the first packets. Every tunnel has room for it.
func (d draw) quicConfig() *quic.Config {
	return &quic.Config{InitialPacketSize: uint16(1200 + d.IntN(81))}
}

// storage returns files, and stores what clients PUT. A file is complete before anybody
// reads it.
func storage(root *os.Root) http.Handler {
	files := http.FileServerFS(root.FS())
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.Method != http.MethodPut {
			files.ServeHTTP(w, request)
			return
		}
		name := filepath.Base(request.URL.Path)
		part := fmt.Sprintf("%s.%p", name, request) // each upload has its own
		file, err := root.Create(part)
		if err == nil {
			_, err = io.Copy(file, request.Body)
			if closeErr := file.Close(); err == nil {
				err = closeErr
			}
		}
		if err == nil {
			err = root.Rename(part, name)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
}

func startChromiumH3(ctx context.Context, r *Round) (Session, error) {
	w, err := r.HTTP3(ctx)
	if err != nil {
		return nil, err
	}
	site, err := r.siteOn(w)
	if err != nil {
		return nil, err
	}
	return site.browse, nil
}

func startChromiumUploadH3(ctx context.Context, r *Round) (Session, error) {
	w, err := r.HTTP3(ctx)
	if err != nil {
		return nil, err
	}
	return r.drive(w)
}

// startQUICFiles: a client downloads and uploads files in one connection, one after the
// other or two at a time.
func startQUICFiles(ctx context.Context, r *Round) (Session, error) {
	w, err := r.HTTP3(ctx)
	if err != nil {
		return nil, err
	}
	files := map[string]int64{}
	for i := range 6 {
		files[fmt.Sprintf("file%d", i)] = int64(r.Size(50_000, 6_000_000))
	}
	if err := lab.WriteFiles(w.Root, files); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(w.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return func(ctx context.Context, c *Client) error {
		browser, end := c.quicClient(ctx, roots)
		defer end()
		for range 1 + c.IntN(3) {
			errs := make(chan error)
			transfers := 1 + c.IntN(2)
			for n := range transfers {
				method, url, body := http.MethodGet, fmt.Sprintf("%s/file%d", w.URL, c.IntN(6)), []byte(nil)
				if c.Chance(.4) {
					method, url, body = http.MethodPut, fmt.Sprintf("%s/up%d-%d", w.URL, c.Number, n), c.Bytes(c.Size(20_000, 4_000_000))
				}
				go func() { errs <- transfer(ctx, browser, method, url, body) }()
			}
			var err error
			for range transfers {
				if e := <-errs; e != nil {
					err = e
				}
			}
			if err != nil {
				return err
			}
			if err := c.Think(ctx, 2*time.Second); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// quicClient returns an HTTP/3 client of Go's that runs on the client's host. end closes
// its connections. The sockets stay open until the context ends, or the host would answer
// the server's last packets with ICMP.
func (c *Client) quicClient(ctx context.Context, roots *x509.CertPool) (browser *http.Client, end func()) {
	transport := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, QUICConfig: c.quicConfig()}
	transport.Dial = func(dialing context.Context, address string, config *tls.Config, quicConfig *quic.Config) (*quic.Conn, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		server, err := netip.ParseAddrPort(net.JoinHostPort(c.Server().String(), port))
		if err != nil {
			return nil, err
		}
		socket, err := c.ListenUDP(ctx, net.JoinHostPort(c.Self().String(), "0"))
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = socket.Close() })
		return quic.Dial(dialing, socket, net.UDPAddrFromAddrPort(server), config, quicConfig)
	}
	return &http.Client{Transport: transport}, func() { _ = transport.Close() }
}

// transfer sends a request with a body and reads the answer.
func transfer(ctx context.Context, browser *http.Client, method, url string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := browser.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s", method, url, answer.Status)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}
