// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"slices"
	"testing"
)

// TestLabelNumbers freezes the numbers: they are stored in pinned maps. Labels may be
// added after these; none may change.
func TestLabelNumbers(t *testing.T) {
	frozen := []string{
		"", "unknown", "chat", "email", "file-transfer", "streaming", "torrent", "voip", "vpn-chat", "vpn-email",
		"vpn-file-transfer", "vpn-streaming", "vpn-torrent", "vpn-voip", "vpn-tunnel", "aim", "facebook", "ftps", "gmail",
		"hangouts", "icq", "netflix", "scp", "sftp", "skype", "spotify", "tor", "voipbuster", "vimeo", "youtube",
	}
	if len(Vocabulary) < len(frozen) || !slices.Equal(Vocabulary[:len(frozen)], frozen) {
		t.Errorf("the vocabulary is %q, want %q first", Vocabulary, frozen)
	}
}

// TestLabelOrder freezes the order of each task's labels: datasets number their classes by it.
func TestLabelOrder(t *testing.T) {
	for task, frozen := range map[Task][]string{
		Category: {"chat", "email", "file-transfer", "streaming", "torrent", "voip", "vpn-chat", "vpn-email",
			"vpn-file-transfer", "vpn-streaming", "vpn-torrent", "vpn-voip", "vpn-tunnel"},
		App: {"aim", "email", "facebook", "ftps", "gmail", "hangouts", "icq", "netflix", "scp", "sftp", "skype", "spotify",
			"torrent", "tor", "voipbuster", "vimeo", "youtube"},
	} {
		if got := task.Labels(); len(got) < len(frozen) || !slices.Equal(got[:len(frozen)], frozen) {
			t.Errorf("labels of %v are %q, want %q first", task, got, frozen)
		}
	}
}

func TestLabelsAreValid(t *testing.T) {
	for _, name := range slices.Concat(Categories, Apps, []string{Unknown}) {
		if !ValidName(name) {
			t.Errorf("label %q: want %s", name, NameRule)
		}
	}
}
