// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"

	"github.com/dpclass/dpclass/flow"
)

// smb recognises SMB inside of the session service's frame: MS-SMB2, section 2.1, and
// MS-CIFS, section 2.2.3.1. The first byte of the identifier tells the versions: 0xff SMB 1,
// 0xfe SMB 2 and 3, 0xfd encrypted, 0xfc compressed.
func smb(p *Packet) bool {
	b := p.Payload
	return len(b) >= 8 && b[0] == 0 && b[4] >= 0xfc && has(b, 5, "SMB")
}

// tftp recognises requests by their strings (RFC 1350, section 5; options: RFC 2347). The
// answers come from another port, thus on a flow of their own: a block and the
// acknowledgement of the same number from the other side.
func (g *guess) tftp(p *Packet) bool {
	b := p.Payload
	if len(b) < 4 || b[0] != 0 {
		return false
	}
	switch b[1] {
	case 1, 2:
		name := bytes.IndexByte(b[2:], 0)
		if name < 1 || !printable(b[2:2+name]) {
			return false
		}
		mode := b[3+name:]
		return startsAnyFold(mode, "OCTET\x00", "NETASCII\x00", "MAIL\x00")
	case 3: // data
		if p.Length > 4+512 && !p.port(69) || be.Uint16(b[2:]) == 0 {
			return false
		}
		return g.answered(flow.ProtocolTFTP, p, uint32(be.Uint16(b[2:]))|0x10000)
	case 4: // acknowledgement
		if p.Length != 4 {
			return false
		}
		return g.answered(flow.ProtocolTFTP, p, uint32(be.Uint16(b[2:]))|0x10000)
	case 5: // error
		return p.port(69) && p.Length > 5 && be.Uint16(b[2:]) <= 8
	case 6: // RFC 2347, options acknowledged
		return startsAnyFold(b[2:], "BLKSIZE\x00", "TSIZE\x00", "TIMEOUT\x00", "WINDOWSIZE\x00")
	}
	return false
}

// rpc recognises calls and replies of ONC RPC, and NFS by its program number (RFC 5531,
// section 9; record marking: section 11). Replies do not name their program: the port decides
// between NFS and others.
func (g *guess) rpc(p *Packet) flow.Protocol {
	b := p.Payload
	length := p.Length
	if p.Proto == flow.TCP {
		if len(b) < 4 || b[0] != 0x80 {
			return flow.ProtocolUnknown
		}
		if n := int(be.Uint32(b) &^ 0x80000000); n < 24 || n > 1<<21 {
			return flow.ProtocolUnknown
		}
		b, length = b[4:], p.Length-4
	}
	if len(b) < 24 || b[4] != 0 || b[5] != 0 || b[6] != 0 || length%4 != 0 && p.Proto == flow.UDP {
		return flow.ProtocolUnknown
	}
	switch b[7] {
	case 0: // call, RPC version 2
		program, version, procedure := be.Uint32(b[12:]), be.Uint32(b[16:]), be.Uint32(b[20:])
		if be.Uint32(b[8:]) != 2 || program < 100000 || program >= 0x60000000 || version > 64 || procedure > 1024 {
			return flow.ProtocolUnknown
		}
		if len(b) >= 32 && (be.Uint32(b[24:]) > 6 && be.Uint32(b[24:]) < 390000 || be.Uint32(b[28:]) > 400) {
			return flow.ProtocolUnknown
		}
		switch program {
		case 100003, 100005, 100021, 100227: // nfs, mountd, nlockmgr, nfs_acl
			return flow.ProtocolNFS
		}
		return flow.ProtocolSunRPC
	case 1: // reply: accepted, verifier, success or an error
		if be.Uint32(b[8:]) != 0 || be.Uint32(b[12:]) > 6 || be.Uint32(b[16:]) > 400 ||
			(be.Uint32(b[16:]) == 0 && be.Uint32(b[20:]) > 5) {
			return flow.ProtocolUnknown
		}
		switch {
		case p.port(2049):
			return flow.ProtocolNFS
		case p.port(111):
			return flow.ProtocolSunRPC
		case g.twice(flow.ProtocolSunRPC, p, 0, uint16(g.packets)):
			return flow.ProtocolSunRPC
		}
	}
	return flow.ProtocolUnknown
}

// rsync recognises the greeting of both sides (rsync, clientserver.c, exchange_protocols).
func rsync(p *Packet) bool {
	return starts(p.Payload, "@RSYNCD: ") && len(p.Payload) > 9 && digits(p.Payload[9:]) > 0
}

// git recognises the request of a client: a pkt-line with command, path and host
// (gitprotocol-pack(5), Git transport).
func git(p *Packet) bool {
	b := p.Payload
	if len(b) < 4 || !hexDigits(b[:4]) {
		return false
	}
	return startsAny(b[4:], "git-upload-pack /", "git-receive-pack /", "git-upload-archive /")
}

// hexDigits reports whether all bytes are hexadecimal digits.
func hexDigits(b []byte) bool {
	for _, c := range b {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return true
}

// afp recognises the header of DSI, below AFP (Apple Filing Protocol Reference, section
// "Data Stream Interface").
func afp(p *Packet) bool {
	b := p.Payload
	return len(b) >= 16 && b[0] <= 1 && (b[1] >= 1 && b[1] <= 6 || b[1] == 8) && zeros(b[12:16]) &&
		int64(be.Uint32(b[8:]))+16 == int64(p.Length) && p.port(548)
}
