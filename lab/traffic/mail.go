// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

var mailNeeds = []Need{{"postfix", "postfix"}, {"dovecot", "dovecot-imapd"}, {"/usr/lib/dovecot/imap", "dovecot-imapd"}}

var _ = register(
	&Program{Name: "msmtp", Category: "email", App: "smtp", Version: "msmtp --version", Needs: append([]Need{{"msmtp", "msmtp"}}, mailNeeds...), Start: startMSMTP},
	&Program{Name: "mbsync", Category: "email", App: "imap", Version: "mbsync --version", Needs: append([]Need{{"mbsync", "isync"}}, mailNeeds...), Start: startMbsync},
	&Program{Name: "curl-mail", Category: "email", App: "email", Version: "curl --version", Quick: true, Needs: append([]Need{{"curl", "curl"}}, mailNeeds...),
		Start: startCurlMail},
)

// mailServer is Postfix and Dovecot with one mailbox, whose mails come back to the sender.
type mailServer struct {
	submission, smtps, imaps int // ports
	CA                       string
}

const (
	mailUser     = "ann"
	mailPassword = "correct-horse"
)

const mainCF = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
daemon_directory = /usr/lib/postfix/sbin
maillog_file = /dev/stdout
inet_protocols = all
myhostname = %[2]s
mydestination =
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:mail/
virtual_mailbox_base = %[1]s
virtual_mailbox_limit = 0
message_size_limit = 50000000
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
smtpd_tls_cert_file = %[3]s
smtpd_tls_key_file = %[4]s
smtpd_tls_security_level = encrypt
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:%[5]d
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_peername_lookup = no
`

const masterCF = `%d inet n - n - - smtpd
%d inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

const dovecotConf = `base_dir = %[1]s/dovecot
state_dir = %[1]s/dovecot
log_path = /dev/stderr
protocols = imap
ssl = required
ssl_cert = <%[2]s
ssl_key = <%[3]s
mail_location = maildir:%[1]s/mail
first_valid_uid = 1
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
passdb {
  driver = static
  args = password=%[4]s
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=%[1]s
}
service imap-login {
  chroot =
  inet_listener imap {
    port = 0
  }
  inet_listener imaps {
    port = %[5]d
    ssl = yes
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
service auth {
  inet_listener {
    address = 127.0.0.1
    port = %[6]d
  }
}
`

// MailServer starts Postfix and Dovecot.
func (r *Round) MailServer(ctx context.Context) (*mailServer, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s, m := r.Server(), &mailServer{submission: r.Port(), smtps: r.Port(), imaps: r.Port(), CA: ca}
	const authPort = 1000 // on the loopback device
	dir := s.Dir
	for path, content := range map[string]string{
		"postfix/main.cf":   fmt.Sprintf(mainCF, dir, s.Name, cert.Cert, cert.Key, authPort),
		"postfix/master.cf": fmt.Sprintf(masterCF, m.submission, m.smtps),
		"dovecot.conf":      fmt.Sprintf(dovecotConf, dir, cert.Cert, cert.Key, mailPassword, m.imaps, authPort),
	} {
		if _, err := s.Write(path, content); err != nil {
			return nil, err
		}
	}
	for i := range 5 + r.IntN(10) {
		if _, err := s.Write(fmt.Sprintf("mail/new/%d.lab", i), r.mail(r.draw, "bob@lab.example")); err != nil {
			return nil, err
		}
	}
	// Postfix wants to own its directories, and the mailbox belongs to nobody.
	if _, err := s.Run(ctx, "sh", "-c", "mkdir -p queue data dovecot mail/cur mail/tmp && chown postfix data && chown -R 65534:65534 mail && chmod 755 . mail"); err != nil {
		return nil, err
	}
	dovecot, err := s.Start(ctx, "dovecot", "-F", "-c", filepath.Join(dir, "dovecot.conf"))
	if err != nil {
		return nil, err
	}
	postfix, err := s.Start(ctx, "postfix", "-c", filepath.Join(dir, "postfix"), "start-fg")
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, dovecot, m.imaps); err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, dovecot, authPort); err != nil {
		return nil, err
	}
	return m, s.WaitTCP(ctx, postfix, m.smtps)
}

// mail returns a mail; a third of them have an attachment.
func (r *Round) mail(d draw, to string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "From: <%s@%s>\r\nTo: <%s>\r\nSubject: %s\r\nMIME-Version: 1.0\r\n", mailUser, r.Server().Name, to, d.Text(30))
	body := strings.ReplaceAll(d.Text(d.Size(100, 8000)), " t", "\r\n t")
	if d.Chance(.66) {
		return text.String() + "Content-Type: text/plain\r\n\r\n" + body + "\r\n"
	}
	fmt.Fprintf(&text, "Content-Type: multipart/mixed; boundary=part\r\n\r\n--part\r\nContent-Type: text/plain\r\n\r\n%s\r\n--part\r\n"+
		"Content-Type: image/jpeg\r\nContent-Disposition: attachment; filename=picture.jpg\r\nContent-Transfer-Encoding: base64\r\n\r\n", body)
	for rest := base64.StdEncoding.EncodeToString(d.picture(d.Size(20_000, 2_000_000))); rest != ""; {
		n := min(76, len(rest))
		text.WriteString(rest[:n] + "\r\n")
		rest = rest[n:]
	}
	return text.String() + "--part--\r\n"
}

// startMSMTP: a client sends some mails, over STARTTLS or TLS.
func startMSMTP(ctx context.Context, r *Round) (Session, error) {
	m, err := r.MailServer(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		port, starttls := m.submission, "on"
		if c.Chance(.5) {
			port, starttls = m.smtps, "off"
		}
		mail := c.Round.mail(c.draw, "ann@lab.example")
		_, err := c.RunInput(ctx, mail, "msmtp", "--host="+c.Round.Server().Name, fmt.Sprintf("--port=%d", port), "--tls=on", "--tls-starttls="+starttls,
			"--tls-trust-file="+m.CA, "--auth=plain", "--user="+mailUser, "--passwordeval=echo "+mailPassword, "--from=ann@lab.example", "ann@lab.example")
		if err != nil {
			return err
		}
		return c.Think(ctx, 3*time.Second)
	}, nil
}

// startMbsync: a client fetches what is new in its mailbox, from time to time; each time it
// may have a new computer, which fetches all.
func startMbsync(ctx context.Context, r *Round) (Session, error) {
	m, err := r.MailServer(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		if c.Chance(.4) {
			if err := os.RemoveAll(filepath.Join(c.Dir, "mail")); err != nil {
				return err
			}
		}
		conf, err := c.Write("mbsyncrc", fmt.Sprintf(`IMAPAccount lab
Host %s
Port %d
User %s
Pass %s
SSLType IMAPS
CertificateFile %s

IMAPStore far
Account lab

MaildirStore near
Path %s/mail/
Inbox %[6]s/mail/inbox

Channel lab
Far :far:
Near :near:
Patterns INBOX
Create Near
SyncState *
`, c.Round.Server().Name, m.imaps, mailUser, mailPassword, m.CA, c.Dir))
		if err != nil {
			return err
		}
		if _, err := c.Run(ctx, "sh", "-c", "mkdir -p mail && mbsync -c "+conf+" lab"); err != nil {
			return err
		}
		return c.Think(ctx, 4*time.Second)
	}, nil
}

// startCurlMail: a client reads its mail and answers some.
func startCurlMail(ctx context.Context, r *Round) (Session, error) {
	m, err := r.MailServer(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		name := c.Round.Server().Name
		common := []string{"--silent", "--show-error", "--cacert", m.CA, "--user", mailUser + ":" + mailPassword, "--output", "/dev/null"}
		imap := fmt.Sprintf("imaps://%s:%d/INBOX", name, m.imaps)
		read := append(common, imap+"?ALL")
		for range 1 + c.IntN(4) {
			read = append(read, "--output", "/dev/null", fmt.Sprintf("%s;MAILINDEX=%d", imap, 1+c.IntN(5)))
		}
		if _, err := c.Run(ctx, "curl", read...); err != nil {
			return err
		}
		if err := c.Think(ctx, 3*time.Second); err != nil {
			return err
		}
		smtp := pick(c.draw, []string{fmt.Sprintf("smtps://%s:%d/%s", name, m.smtps, c.Name)}, []string{"--ssl-reqd", fmt.Sprintf("smtp://%s:%d/%s", name, m.submission, c.Name)})
		_, err := c.RunInput(ctx, c.Round.mail(c.draw, "ann@lab.example"), "curl", append(append(common, smtp...), "--mail-from", "ann@lab.example",
			"--mail-rcpt", "ann@lab.example", "--upload-file", "-")...)
		return err
	}, nil
}
