// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/dpclass/dpclass/lab"
)

var needSSH = []Need{{"sshd", "openssh-server"}, {"ssh", "openssh-client"}, {"sftp", "openssh-client"}}

var _ = register(
	&Program{Name: "sftp", Category: "file-transfer", App: "sftp", Needs: needSSH, Version: "ssh -V", Quick: true, Start: startSFTP},
	&Program{Name: "scp", Category: "file-transfer", App: "scp", Needs: needSSH, Version: "ssh -V", Start: startSCP},
	&Program{Name: "rsync", Category: "file-transfer", App: "rsync", Version: "rsync --version",
		Needs: append([]Need{{"rsync", "rsync"}}, needSSH...), Start: startRsync},
	&Program{Name: "ssh", Category: "remote", App: "ssh", Needs: needSSH, Version: "ssh -V", Quick: true, Clients: 8, Start: startShell},
)

// sshServer is a running OpenSSH server.
type sshServer struct {
	Port    int
	Files   []string // paths of files on it
	options []string // of ssh, sftp and scp
}

// SSHD starts an OpenSSH server with some files.
func (r *Round) SSHD(ctx context.Context) (*sshServer, error) {
	s := r.Server()
	server := &sshServer{Port: r.Port()}
	files := map[string]int64{}
	for i := range 6 + r.IntN(6) {
		name := fmt.Sprintf("file%d", i)
		files[name] = int64(r.Size(20_000, 8_000_000))
		server.Files = append(server.Files, filepath.Join(s.Dir, "files", name))
	}
	if err := lab.WriteFiles(filepath.Join(s.Dir, "files"), files); err != nil {
		return nil, err
	}
	kind := pick(r.draw, "ed25519", "ecdsa", "rsa")
	for _, key := range []string{"host", "client"} {
		if _, err := s.Run(ctx, "ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "lab", "-f", filepath.Join(s.Dir, key)); err != nil {
			return nil, err
		}
	}
	// If root's password is locked, sshd accepts root only with PAM.
	conf, err := s.Write("sshd_config", fmt.Sprintf(`Port %d
HostKey %[2]s/host
AuthorizedKeysFile %[2]s/client.pub
PidFile none
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM yes
UseDNS no
PrintMotd no
MaxStartups 100
Subsystem sftp internal-sftp -d %[2]s/files
`, server.Port, s.Dir))
	if err != nil {
		return nil, err
	}
	server.options = []string{"-F", "none", "-i", filepath.Join(s.Dir, "client"), "-o", "IdentitiesOnly=yes", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "User=root", "-o", fmt.Sprintf("Port=%d", server.Port),
		"-o", "Ciphers=" + pick(r.draw, "aes128-ctr", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"),
		"-o", "Compression=" + pick(r.draw, "no", "no", "yes")}
	p, err := s.Start(ctx, installed("sshd"), "-D", "-e", "-f", conf)
	if err != nil {
		return nil, err
	}
	return server, s.WaitTCP(ctx, p, server.Port)
}

// startSFTP: a client looks around, and gets and puts files.
func startSFTP(ctx context.Context, r *Round) (Session, error) {
	server, err := r.SSHD(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		commands := []string{"ls -l", "get " + server.Files[0] + " down"}
		for range 1 + c.IntN(4) {
			file := pick(c.draw, server.Files...)
			commands = append(commands, pick(c.draw, "get "+file+" down", "get "+file+" down", "put down", "ls -l", "ls -l "+file),
				fmt.Sprintf("!sleep %.2f", c.Between(.05, 2)))
		}
		commands = append(commands, "put down", "bye")
		_, err := c.RunInput(ctx, strings.Join(commands, "\n")+"\n", "sftp", append(server.options, "-b", "-", c.Round.Server().Name)...)
		return err
	}, nil
}

// startSCP: each copy is a connection.
func startSCP(ctx context.Context, r *Round) (Session, error) {
	server, err := r.SSHD(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		args := append([]string{"-q"}, server.options...)
		if c.Chance(.5) {
			args = append(args, "-O") // the old protocol
		}
		remote, local := c.Round.Server().Name+":", filepath.Join(c.Dir, "copy")
		if _, err := c.Run(ctx, "scp", append(args, remote+pick(c.draw, server.Files...), local)...); err != nil {
			return err
		}
		if c.Chance(.5) {
			return nil
		}
		_, err := c.Run(ctx, "scp", append(args, local, remote+fmt.Sprintf("up%d", c.Number))...)
		return err
	}, nil
}

// startRsync: a client keeps a copy of a directory that changes.
func startRsync(ctx context.Context, r *Round) (Session, error) {
	server, err := r.SSHD(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		name := filepath.Base(pick(c.draw, server.Files...))
		changed := map[string]int64{name: int64(c.Size(20_000, 4_000_000))}
		if err := lab.WriteFiles(filepath.Join(c.Dir, "copy"), changed); err != nil {
			return err
		}
		shell, there := "ssh "+strings.Join(server.options, " "), c.Round.Server().Name+":"+filepath.Dir(server.Files[0])+"/"
		from, to := there, filepath.Join(c.Dir, "copy")+"/"
		if c.Chance(.4) {
			from, to = to, there+fmt.Sprintf("backup%d/", c.Number)
		}
		_, err := c.Run(ctx, "rsync", append(pick(c.draw, []string{"-a"}, []string{"-az"}, []string{"-ac"}), "-e", shell, "--exclude=backup*", from, to)...)
		return err
	}, nil
}

// startShell: a client logs in and types commands, key by key.
func startShell(ctx context.Context, r *Round) (Session, error) {
	server, err := r.SSHD(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		args := append([]string{"-tt"}, server.options...)
		return c.Type(ctx, append(append([]string{"ssh"}, args...), c.Round.Server().Name, "/bin/sh -i")...)
	}, nil
}

// Type starts a command that gives a shell on another host, types commands there as a
// person does, and logs out.
func (c *Client) Type(ctx context.Context, command ...string) error {
	cmd, err := c.Command(ctx, command[0], command[1:]...)
	if err != nil {
		return err
	}
	keys, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	p, err := c.StartCommand(cmd)
	if err != nil {
		return err
	}
	lines := []string{"ls -l", "ls -lR /usr/share/doc | head -200", "ps aux", "cat /etc/services", "cd /usr; pwd", "df -h", "uname -a", "date; uptime",
		"head -c 3000 /usr/share/common-licenses/GPL-2", "grep -c the /usr/share/common-licenses/*", "for i in 1 2 3 4 5; do date; sleep .4; done"}
	for n := 1 + c.IntN(8); n >= 0; n-- {
		line := pick(c.draw, lines...)
		if n == 0 {
			line = "exit"
		}
		for _, key := range []byte(line + "\r") {
			if err := c.Think(ctx, 150*time.Millisecond); err != nil {
				return err
			}
			if _, err := keys.Write([]byte{key}); err != nil {
				return fmt.Errorf("%s: %w: %s", command[0], err, p.Output())
			}
		}
		if err := c.Think(ctx, 1500*time.Millisecond); err != nil {
			return err
		}
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", command[0], err, p.Output())
	}
	return nil
}
