// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// SNMPD starts Net-SNMP's agent on all addresses of the host and waits until it listens.
// Anyone may read it, with the community "public".
func (h *Host) SNMPD(ctx context.Context, port int) (*Process, error) {
	dir, err := h.mkdir("snmpd")
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "snmpd.conf")
	if err := os.WriteFile(conf, []byte("rocommunity public\nrocommunity6 public\n"), 0o600); err != nil {
		return nil, err
	}
	cmd, err := h.Command(ctx, "snmpd", "-f", "-Lo", "-C", "-c", conf, "-m", "", "-p", filepath.Join(dir, "pid"),
		fmt.Sprintf("udp:%d", port), fmt.Sprintf("udp6:%d", port))
	if err != nil {
		return nil, err
	}
	cmd.Env = append(os.Environ(), "SNMP_PERSISTENT_DIR="+dir) // instead of /var/lib/snmp
	p, err := h.StartCommand(cmd)
	if err != nil {
		return nil, err
	}
	return p, h.WaitUDP(ctx, p, port)
}

// SNMPWalk reads a subtree, such as 1.3.6.1.2.1.2 (the interfaces), from the agent at
// addr and returns it as snmpbulkwalk prints it. Each call is one flow.
func (h *Host) SNMPWalk(ctx context.Context, addr string, port int, subtree string) (string, error) {
	return h.Run(ctx, "snmpbulkwalk", "-m", "", "-v", "2c", "-c", "public", "-t", "2", "-r", "1", fmt.Sprintf("%s:%s:%d",
		map[bool]string{false: "udp", true: "udp6"}[bracket(addr) != addr], bracket(addr), port), subtree)
}
