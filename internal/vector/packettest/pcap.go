// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"encoding/binary"
	"time"
)

// Began is the time of the first packet in a file that Pcap makes.
var Began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Step is the time between two packets in a file that Pcap makes.
const Step = 250 * time.Millisecond

// Pcap returns a pcap file of raw IP packets (LINKTYPE_RAW).
func Pcap(packets ...[]byte) []byte {
	file := binary.LittleEndian.AppendUint32(nil, 0xa1b23c4d) // nanoseconds
	file = binary.LittleEndian.AppendUint16(file, 2)
	file = binary.LittleEndian.AppendUint16(file, 4)
	file = append(file, make([]byte, 8)...)
	file = binary.LittleEndian.AppendUint32(file, 65535)
	file = binary.LittleEndian.AppendUint32(file, 101) // LINKTYPE_RAW
	for i, packet := range packets {
		at := Began.Add(time.Duration(i) * Step)
		file = binary.LittleEndian.AppendUint32(file, uint32(at.Unix()))
		file = binary.LittleEndian.AppendUint32(file, uint32(at.Nanosecond()))
		file = binary.LittleEndian.AppendUint32(file, uint32(len(packet)))
		file = binary.LittleEndian.AppendUint32(file, uint32(len(packet)))
		file = append(file, packet...)
	}
	return file
}
