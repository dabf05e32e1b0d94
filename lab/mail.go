// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// MailServer is a running SMTP server (aiosmtpd), which takes every mail and keeps none.
type MailServer struct {
	*Process
	addr netip.AddrPort
}

// SMTPD starts an SMTP server on an address of the host and waits until it listens.
func (h *Host) SMTPD(ctx context.Context, addr string, port int) (*MailServer, error) {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, fmt.Errorf("host %q: SMTP server: %w", h.name, err)
	}
	s := &MailServer{addr: netip.AddrPortFrom(ip, uint16(port))}
	// Unlike others, aiosmtpd wants no brackets around an IPv6 address.
	if s.Process, err = h.Start(ctx, "aiosmtpd", "--nosetuid", "--listen", fmt.Sprintf("%s:%d", addr, port),
		"--class", "aiosmtpd.handlers.Sink"); err != nil {
		return nil, err
	}
	return s, h.WaitTCP(ctx, s.Process, port)
}

// SendMail sends a mail of about the given size to the server, with curl.
func (h *Host) SendMail(ctx context.Context, s *MailServer, size int) error {
	const line = "All work and no play makes the lab a dull network.\r\n"
	mail := "From: <ann@lab.example>\r\nTo: <bob@lab.example>\r\nSubject: a mail\r\n\r\n" + strings.Repeat(line, size/len(line)+1)
	cmd, err := h.Command(ctx, "curl", "--silent", "--show-error", "--max-time", "10", "--mail-from", "ann@lab.example",
		"--mail-rcpt", "bob@lab.example", "--upload-file", "-", fmt.Sprintf("smtp://%s/client.lab.example", s.addr))
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(mail)
	p, err := h.StartCommand(cmd)
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("host %q: mail to %s: %w: %s", h.name, s.addr, err, tail(p.Output()))
	}
	return nil
}
