// SPDX-License-Identifier: Apache-2.0

package vector

// Field is a header field of a packet.
type Field struct {
	Name     string
	Offset   int // bytes from the IP header on
	Length   int // bytes
	InVector int // offset in the packet's vector
}

// fieldsOf4 and the others are the fields of a header that a vector keeps: name, offset
// in the header, length. The version stays: without it there is no packet.
var (
	fieldsOf4 = []Field{
		{Name: "tos", Offset: 1, Length: 1}, {Name: "total length", Offset: 2, Length: 2}, {Name: "id", Offset: 4, Length: 2},
		{Name: "fragment flags", Offset: 6, Length: 2}, {Name: "ttl", Offset: 8, Length: 1},
	}
	fieldsOf6 = []Field{
		{Name: "payload length", Offset: 4, Length: 2}, {Name: "hop limit", Offset: 7, Length: 1},
	}
	fieldsOfTCP = []Field{
		{Name: "source port", Offset: 0, Length: 2}, {Name: "destination port", Offset: 2, Length: 2},
		{Name: "sequence number", Offset: 4, Length: 4}, {Name: "acknowledgement number", Offset: 8, Length: 4},
		{Name: "flags", Offset: 13, Length: 1}, {Name: "window", Offset: 14, Length: 2},
	}
	fieldsOfUDP = []Field{
		{Name: "source port", Offset: 0, Length: 2}, {Name: "destination port", Offset: 2, Length: 2}, {Name: "length", Offset: 4, Length: 2},
	}
)

// Fields returns the header fields of an IP packet that its vector keeps, nil for a packet
// without a flow. The arguments are those of Parse.
func Fields(packet []byte, frameLen int) []Field {
	p, reason := Parse(packet, frameLen)
	if reason != OK {
		return nil
	}
	var fields []Field
	add := func(base int, of []Field) {
		for _, f := range of {
			f.Offset += base
			f.InVector = f.Offset
			fields = append(fields, f)
		}
	}
	if packet[0]>>4 == 4 {
		add(0, fieldsOf4)
	} else {
		add(0, fieldsOf6)
	}
	if hasUDPHeader(p.Proto) {
		add(p.L4, fieldsOfUDP)
		return fields
	}
	add(p.L4, fieldsOfTCP)
	if options := p.Payload - p.L4 - tcpHeader; options > 0 {
		add(p.L4, []Field{{Name: "tcp options", Offset: tcpHeader, Length: options}})
	}
	return fields
}
