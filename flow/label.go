// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"regexp"
	"strings"
)

// Unknown is the verdict of a flow that belongs to none of a model's classes.
// It is never a class of a model.
const Unknown = "unknown"

// Categories are the traffic categories: the paper's twelve, where "vpn-"
// means packets inside a VPN (as on a tun device), and "vpn-tunnel", the outer
// packets of a VPN.
var Categories = []string{
	"chat", "email", "file-transfer", "streaming", "torrent", "voip",
	"vpn-chat", "vpn-email", "vpn-file-transfer", "vpn-streaming", "vpn-torrent", "vpn-voip",
	"vpn-tunnel",
}

// Apps are the paper's seventeen applications.
var Apps = []string{
	"aim", "email", "facebook", "ftps", "gmail", "hangouts", "icq", "netflix", "scp", "sftp",
	"skype", "spotify", "torrent", "tor", "voipbuster", "vimeo", "youtube",
}

// Vocabulary lists the names that have a fixed label id in the kernel (enum
// label of bpf/labels.h): the id is the index. "" is "no verdict yet". A
// model's own names get the ids behind these.
var Vocabulary = vocabulary()

func vocabulary() []string {
	names := append([]string{"", Unknown}, Categories...)
	seen := map[string]bool{}
	for _, name := range names {
		seen[name] = true
	}
	for _, name := range Apps {
		if !seen[name] {
			names = append(names, name)
		}
	}
	return names
}

// IsVPN tells whether a category is traffic of a VPN, inside or outside of the
// tunnel.
func IsVPN(category string) bool { return strings.HasPrefix(category, "vpn-") }

// nameRule holds for labels and names of models: they go into kernel maps, file
// names and policy files.
var nameRule = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)

// NameRule says in words what ValidName takes.
const NameRule = "1 to 32 of a-z, 0-9, '.', '_' and '-', a letter or digit first"

// ValidName tells whether a label or a model may be called that.
func ValidName(name string) bool { return nameRule.MatchString(name) }
