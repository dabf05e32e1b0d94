// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is the release, set by the linker:
// -X github.com/dpclass/dpclass/internal/cli.version=...
var version string

// Build says what a binary was built from.
type Build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Modified bool   `json:"modified"` // the working tree was not clean
	Go       string `json:"go"`
	Platform string `json:"platform"` // operating system and architecture
}

// ReadBuild returns what this binary was built from.
func ReadBuild() Build {
	b := Build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if b.Version == "" {
			b.Version = info.Main.Version
		}
		for _, setting := range info.Settings {
			switch setting.Key {
			case "vcs.revision":
				b.Commit = setting.Value
			case "vcs.modified":
				b.Modified = setting.Value == "true"
			}
		}
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	return b
}

// String returns one line without the program's name.
func (b Build) String() string {
	text := b.Version
	if b.Commit != "" {
		text += " commit " + b.Commit[:min(12, len(b.Commit))]
		if b.Modified {
			text += " (modified)"
		}
	}
	return text + " " + b.Go + " " + b.Platform
}

// NewVersionCommand returns the verb version of a program.
func NewVersionCommand(g *Globals, program string) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    "Print the version, the commit and the Go release that this binary was built from.",
		Example: fmt.Sprintf("  %[1]s version\n  %[1]s version -o json", program),
		Args:    Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if g.JSON() {
				return PrintJSON(cmd.OutOrStdout(), ReadBuild())
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", program, ReadBuild())
			return err
		},
	}
}
