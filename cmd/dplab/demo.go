// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/lab/demo"
)

func newDemoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show dpclass at work on real traffic",
		Long: `Run real servers and clients in network namespaces, with the real dpclass on the
router between them, and show what it sees, decides and enforces. At the end, the
demo removes everything that it made, also after Ctrl-C. It needs root, and the
binary dpclass in the directory of dplab.`,
		Example: "  sudo dplab demo",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			binary, err := findBinary()
			if err != nil {
				return err
			}
			err = demo.Run(cmd.Context(), binary, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if err != nil && cmd.Context().Err() != nil && !errors.Is(err, demo.ErrCleanup) {
				return errors.New("interrupted; everything is removed")
			}
			return err
		},
	}
}

// findBinary finds dpclass in the directory of this program.
func findBinary() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(filepath.Dir(self), "dpclass")
	if _, err := os.Stat(binary); err != nil {
		return "", fault.Advise(fmt.Errorf("dpclass is not in the directory of dplab: %w", err), "build both: make demo")
	}
	return binary, nil
}
