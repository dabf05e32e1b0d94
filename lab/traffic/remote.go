// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

var _ = register(
	&Program{Name: "telnet", Category: "remote", App: "telnet", Clients: 6,
		Needs: []Need{{"telnetd", "inetutils-telnetd"}, {"inetutils-inetd", "inetutils-inetd"}, {"telnet", "telnet"}}, Start: startTelnet},
	&Program{Name: "mosh", Category: "remote", App: "mosh", Clients: 6, Version: "mosh --version",
		Needs: append([]Need{{"mosh", "mosh"}, {"script", "bsdutils"}}, needSSH...), Start: startMosh},
	&Program{Name: "vnc", Category: "remote", App: "vnc", Clients: 1, Version: "xtigervncviewer --version",
		Needs: []Need{{"Xtigervnc", "tigervnc-standalone-server"}, {"xtigervncviewer", "tigervnc-viewer"}, {"Xvfb", "xvfb"}, {"xdotool", "xdotool"}, {"xterm", "xterm"}},
		Start: startVNC},
	&Program{Name: "rdp", Category: "remote", App: "rdp", Clients: 1, Version: "xfreerdp /version",
		Needs: []Need{{"xrdp", "xrdp"}, {"xfreerdp", "freerdp2-x11"}, {"Xtigervnc", "tigervnc-standalone-server"}, {"Xvfb", "xvfb"}, {"xdotool", "xdotool"}, {"xterm", "xterm"}},
		Start: startRDP},
)

// startTelnet: a client types commands, in clear text.
func startTelnet(ctx context.Context, r *Round) (Session, error) {
	s, port := r.Server(), r.Port()
	shell, err := s.Write("login.sh", "#!/bin/sh\nexec /bin/sh -i\n")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(shell, 0o755); err != nil {
		return nil, err
	}
	conf, err := s.Write("inetd.conf", fmt.Sprintf("%d stream tcp6 nowait root %s telnetd -E %s\n", port, installed("telnetd"), shell)) // and IPv4
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "inetutils-inetd", "-d", conf)
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		return c.Type(ctx, "script", "-qec", fmt.Sprintf("telnet -E %s %d", c.Server(), port), "/dev/null")
	}, nil
}

// startMosh: a client logs in by ssh, and goes on over UDP.
func startMosh(ctx context.Context, r *Round) (Session, error) {
	server, err := r.SSHD(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		family := "-4"
		if c.six {
			family = "-6"
		}
		command := fmt.Sprintf("stty rows 30 cols 100; mosh %s --experimental-remote-ip=local --port=%d --ssh=%q %s -- /bin/sh -i", family, 1024+c.IntN(30000),
			"ssh "+strings.Join(server.options, " "), c.Round.Server().Name)
		return c.Type(ctx, "script", "-qec", command, "/dev/null")
	}, nil
}

// desktop starts an X server that speaks VNC, with a window in which text runs.
func (r *Round) desktop(ctx context.Context, port int, option string) error {
	s := r.Server()
	p, err := s.Start(ctx, "sh", "-c", fmt.Sprintf(`Xtigervnc :2 -rfbport %d %s -SecurityTypes None -geometry 800x600 -AlwaysShared > vnc.log 2>&1 &
until [ -S /tmp/.X11-unix/X2 ]; do sleep .1; done
export DISPLAY=:2
while :; do xterm -geometry 100x40 -e sh -c 'while :; do ls -l /usr/bin | head -$(($$ %% 40 + 20)); sleep $(($$ %% 3 + 1)); read -t 3 line || exec sh -c "while :; do ps aux; sleep 2; done"; done'; done`, port, option))
	if err != nil {
		return err
	}
	return s.WaitTCP(ctx, p, port)
}

// looker lets somebody look at a desktop, type and move the mouse. $1 is the time in
// seconds, the rest the viewer's command.
const looker = xServer + `end=$(($(date +%s) + $1)); shift
"$@" > viewer.log 2>&1 &
viewer=$!
sleep 2
i=$$
while [ "$(date +%s)" -lt "$end" ]; do
	kill -0 $viewer || { cat viewer.log; exit 1; }
	i=$(((i * 1103 + 12345) % 65536))
	xdotool mousemove $((i % 640)) $((i / 7 % 480)); sleep .$((1 + i % 5))
	[ $((i % 4)) = 0 ] || xdotool type --delay $((50 + i % 100)) "$(date +%S) text"
	[ $((i % 5)) = 0 ] || xdotool click 1
	sleep $((i % 2)).$((1 + i / 3 % 4))
done
kill $viewer; wait $viewer; exit 0`

// look runs a viewer for a while.
func (c *Client) look(ctx context.Context, viewer ...string) error {
	seconds := min(c.Between(10, 60), c.Left().Seconds()-1)
	if c.Round.Quick {
		seconds = 4
	}
	_, err := c.Run(ctx, "sh", append([]string{"-c", looker, "sh", fmt.Sprintf("%.0f", seconds)}, viewer...)...)
	return err
}

func startVNC(ctx context.Context, r *Round) (Session, error) {
	port := r.Port()
	if err := r.desktop(ctx, port, ""); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		return c.look(ctx, "xtigervncviewer", "-RemoteResize=0", fmt.Sprintf("-PreferredEncoding=%s", pick(c.draw, "Tight", "ZRLE", "Hextile")),
			strings.Replace(netip.AddrPortFrom(c.Server(), uint16(port)).String(), ":"+fmt.Sprint(port), "::"+fmt.Sprint(port), 1))
	}, nil
}

// startRDP: xrdp shows a desktop that it gets by VNC on its own host.
func startRDP(ctx context.Context, r *Round) (Session, error) {
	const vncPort = 1000
	if err := r.desktop(ctx, vncPort, "-localhost"); err != nil {
		return nil, err
	}
	cert, _, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s, port := r.Server(), r.Port()
	conf, err := s.Write("xrdp.ini", fmt.Sprintf(`[Globals]
ini_version=1
fork=true
port=tcp6://:%[1]d
security_layer=tls
crypt_level=high
certificate=%[2]s
key_file=%[3]s
ssl_protocols=TLSv1.2, TLSv1.3
autorun=desktop
allow_channels=true
max_bpp=24
[Logging]
LogFile=%[4]s/xrdp.log
LogLevel=INFO
[desktop]
name=desktop
lib=libvnc.so
ip=127.0.0.1
port=%[5]d
username=na
password=na
`, port, cert.Cert, cert.Key, s.Dir, vncPort))
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "xrdp", "--nodaemon", "--config", conf)
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		return c.look(ctx, "xfreerdp", "/v:"+s.Name, fmt.Sprintf("/port:%d", port), "/cert:ignore", "/u:na", "/p:na", "/size:640x480", "/sec:tls")
	}, nil
}
