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

var _ = register(
	&Program{Name: "curl-files", Category: "file-transfer", App: "https", Version: "curl --version",
		Needs: []Need{needNGINX, {"curl", "curl"}}, Start: startCurlFiles},
	&Program{Name: "lftp", Category: "file-transfer", App: "ftps", Version: "lftp --version",
		Needs: []Need{{"vsftpd", "vsftpd"}, {"lftp", "lftp"}}, Start: startFTPS},
	&Program{Name: "smbclient", Category: "file-transfer", App: "smb", Version: "smbclient --version",
		Needs: []Need{{"smbd", "samba"}, {"smbclient", "smbclient"}}, Start: startSMB},
)

// startCurlFiles: a client uploads files to a web server and downloads files.
func startCurlFiles(ctx context.Context, r *Round) (Session, error) {
	w, err := r.NGINX(ctx)
	if err != nil {
		return nil, err
	}
	files := map[string]int64{}
	for i := range 6 {
		files[fmt.Sprintf("file%d", i)] = int64(r.Size(100_000, 10_000_000))
	}
	if err := lab.WriteFiles(w.Root, files); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		down := filepath.Join(c.Dir, "down")
		if err := w.Curl(ctx, c, "--output", down, fmt.Sprintf("%s/file%d", w.URL, c.IntN(6))); err != nil {
			return err
		}
		if c.Chance(.5) {
			return nil
		}
		if err := c.Think(ctx, 2*time.Second); err != nil {
			return err
		}
		return w.Curl(ctx, c, "--output", "/dev/null", "--upload-file", down, fmt.Sprintf("%s/up%d", w.URL, c.Number))
	}, nil
}

// startFTPS: a client looks around, and gets and puts files, with TLS on both connections.
func startFTPS(ctx context.Context, r *Round) (Session, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s, port := r.Server(), r.Port()
	files := map[string]int64{}
	for i := range 5 {
		files[fmt.Sprintf("file%d", i)] = int64(r.Size(50_000, 8_000_000))
	}
	if err := lab.WriteFiles(filepath.Join(s.Dir, "ftp"), files); err != nil {
		return nil, err
	}
	if _, err := s.Run(ctx, "sh", "-c", "chmod 755 . .. && mkdir ftp/up && chmod 777 ftp/up && chmod 555 ftp"); err != nil {
		return nil, err
	}
	least := 1024 + r.IntN(20000)
	conf, err := s.Write("vsftpd.conf", fmt.Sprintf(`listen_ipv6=YES
listen_port=%d
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root=%s/ftp
write_enable=YES
anon_upload_enable=YES
anon_other_write_enable=YES
anon_umask=022
secure_chroot_dir=/run/sshd
pasv_min_port=%d
pasv_max_port=%d
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=YES
force_anon_data_ssl=YES
require_ssl_reuse=NO
rsa_cert_file=%s
rsa_private_key_file=%s
seccomp_sandbox=NO
`, port, s.Dir, least, least+5000, cert.Cert, cert.Key))
	if err != nil {
		return nil, err
	}
	// vsftpd wants a file that belongs to root and that others cannot write.
	p, err := s.Start(ctx, "vsftpd", conf)
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		commands := []string{"set ssl:ca-file " + ca, "set ftp:ssl-force yes", "set ftp:ssl-allow-anonymous yes", "set ftp:ssl-protect-data yes", "set cmd:fail-exit yes", "set xfer:clobber yes",
			"set net:max-retries 2", fmt.Sprintf("open ftp://%s:%d", s.Name, port), "ls", "get file0 -o down"}
		for range 1 + c.IntN(4) {
			commands = append(commands, fmt.Sprintf("!sleep %.2f", c.Between(.1, 2)), pick(c.draw, fmt.Sprintf("get file%d -o down", c.IntN(5)), "ls -l",
				fmt.Sprintf("put down -o up/%d-%d", c.Number, c.IntN(3))))
		}
		_, err := c.RunInput(ctx, strings.Join(append(commands, "bye"), "\n")+"\n", "lftp", "-f", "/dev/stdin")
		return err
	}, nil
}

// startSMB: a client gets files from a share and puts files there.
func startSMB(ctx context.Context, r *Round) (Session, error) {
	s, port := r.Server(), r.Port()
	files := map[string]int64{}
	for i := range 5 {
		files[fmt.Sprintf("file%d", i)] = int64(r.Size(50_000, 8_000_000))
	}
	if err := lab.WriteFiles(filepath.Join(s.Dir, "share"), files); err != nil {
		return nil, err
	}
	if _, err := s.Run(ctx, "sh", "-c", "mkdir private && chmod 777 share share/*"); err != nil {
		return nil, err
	}
	conf, err := s.Write("smb.conf", fmt.Sprintf(`[global]
server role = standalone server
smb ports = %d
map to guest = bad user
guest account = nobody
private dir = %[2]s/private
lock directory = /run
state directory = /run
cache directory = /run
pid directory = /run
ncalrpc dir = /run/ncalrpc
log file = %[2]s/log
load printers = no
disable spoolss = yes
server smb encrypt = %[3]s
[share]
path = %[2]s/share
guest ok = yes
read only = no
`, port, s.Dir, pick(r.draw, "off", "off", "if_required")))
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "smbd", "--foreground", "--no-process-group", "--debug-stdout", "--configfile="+conf)
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		clientConf, err := c.Write("smb.conf", "[global]\nclient min protocol = SMB2\n")
		if err != nil {
			return err
		}
		commands := []string{"ls", "get file0 down"}
		for range 1 + c.IntN(4) {
			commands = append(commands, fmt.Sprintf("!sleep %.2f", c.Between(.1, 2)), pick(c.draw, fmt.Sprintf("get file%d down", c.IntN(5)), "ls",
				fmt.Sprintf("put down up%d-%d", c.Number, c.IntN(3))))
		}
		_, err = c.Run(ctx, "smbclient", "--configfile="+clientConf, "--no-pass", fmt.Sprintf("--port=%d", port), "--ip-address="+c.Server().String(),
			"//"+s.Name+"/share", "-c", strings.Join(commands, "; "))
		return err
	}, nil
}
