// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
)

// SSHServer is a running OpenSSH server. It accepts one key, which [Host.SSHD] creates
// and [Host.SSH] and [Host.SFTP] use.
type SSHServer struct {
	*Process
	Port  int
	Files string // start directory of SFTP

	user, key, known string
}

// SSHD starts an OpenSSH server on all addresses of the host. SFTP clients find the given
// files (name and size in bytes).
func (h *Host) SSHD(ctx context.Context, port int, files map[string]int64) (*SSHServer, error) {
	dir, err := h.mkdir("sshd")
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	s := &SSHServer{Port: port, Files: filepath.Join(dir, "files"), user: me.Username,
		key: filepath.Join(dir, "client"), known: filepath.Join(dir, "known_hosts")}
	if err := WriteFiles(s.Files, files); err != nil {
		return nil, err
	}
	host := filepath.Join(dir, "host")
	for _, key := range []string{host, s.key} {
		if _, err := h.Run(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", key); err != nil {
			return nil, err
		}
	}
	public, err := os.ReadFile(host + ".pub")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.known, append([]byte("* "), public...), 0o600); err != nil {
		return nil, err
	}
	// sshd needs this empty directory for privilege separation.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return nil, err
	}
	// If the account's password is locked (root on Ubuntu), sshd accepts it only with PAM.
	conf := fmt.Sprintf(`Port %d
HostKey %s
AuthorizedKeysFile %s.pub
PidFile none
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM %s
UseDNS no
Subsystem sftp internal-sftp -d %s
`, port, host, s.key, usePAM(), s.Files)
	path := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	if s.Process, err = h.Start(ctx, "sshd", "-D", "-e", "-f", path); err != nil {
		return nil, err
	}
	return s, h.WaitTCP(ctx, s.Process, port)
}

// usePAM returns "yes" if root's password is locked, else "no".
func usePAM() string {
	shadow, err := os.ReadFile("/etc/shadow")
	if err == nil {
		for _, line := range strings.Split(string(shadow), "\n") {
			if strings.HasPrefix(line, "root:!") {
				return "yes"
			}
		}
	}
	return "no"
}

// options returns the arguments that ssh and sftp share.
func (s *SSHServer) options() []string {
	return []string{"-F", "none", "-i", s.key, "-o", "IdentitiesOnly=yes", "-o", "UserKnownHostsFile=" + s.known,
		"-o", "GlobalKnownHostsFile=none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"}
}

// SFTP connects to the server at addr and runs commands of sftp's batch mode, such as
// "get big /dev/null".
func (h *Host) SFTP(ctx context.Context, s *SSHServer, addr string, commands ...string) error {
	p, err := h.StartSFTP(ctx, s, addr, commands...)
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("host %q: sftp to %s: %w: %s", h.name, addr, err, tail(p.Output()))
	}
	return nil
}

// StartSFTP is like SFTP but does not wait.
func (h *Host) StartSFTP(ctx context.Context, s *SSHServer, addr string, commands ...string) (*Process, error) {
	args := append(s.options(), "-q", "-b", "-", "-P", fmt.Sprint(s.Port), s.user+"@"+bracket(addr))
	cmd, err := h.Command(ctx, "sftp", args...)
	if err != nil {
		return nil, err
	}
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	return h.StartCommand(cmd)
}

// SSH logs in to the server at addr, runs a command and returns its output. The command
// has SSH_CONNECTION in its environment, as in every login. The options are ssh's.
func (h *Host) SSH(ctx context.Context, s *SSHServer, addr, command string, options ...string) (string, error) {
	args := append(append(s.options(), options...), "-p", fmt.Sprint(s.Port), "-l", s.user, addr, command)
	return h.Run(ctx, "ssh", args...)
}
