// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/loader"
	"github.com/dpclass/dpclass/policy"
)

// policyLimit is larger than any valid policy file; the rest of a file is not read.
const policyLimit = flow.MaxSource + 1

// readPolicy reads and checks a policy file, or standard input for "-", and
// prints its warnings.
func readPolicy(cmd *cobra.Command, file string, labels []string, options ...policy.Option) (*flow.Policy, error) {
	name, in := file, cmd.InOrStdin()
	if file == "-" {
		name = "standard input"
	} else {
		opened, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("policy file %q: %w", file, pathReason(err))
		}
		defer opened.Close() // nothing is written to it
		in = opened
	}
	data, err := io.ReadAll(io.LimitReader(in, policyLimit))
	if err != nil {
		return nil, fmt.Errorf("policy file %q: %w", file, pathReason(err))
	}
	p, warnings, err := policy.Parse(name, data, labels, options...)
	if err != nil {
		return nil, err
	}
	for _, warning := range warnings {
		if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", fault.Printable(fmt.Sprint(warning))); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// pathReason removes the path from an error whose message has it already.
func pathReason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// protectSSH protects the SSH connections of the session that this process runs in. It
// warns if the session seems to be remote but has none.
func protectSSH(cmd *cobra.Command, p *flow.Policy) error {
	session := policy.FindSession(os.Getpid())
	p.Flows = session.Flows
	if len(p.Flows) > 0 || session.Server == "" {
		return nil
	}
	_, err := fmt.Fprintf(cmd.ErrOrStderr(), "warning: this seems to be a remote session of %s, but its connection was not found: the policy may cut it off\n"+
		"  name your address or the server's port in the policy, as in protect: [192.0.2.7, tcp/22]\n", session.Server)
	return err
}

// runningModels returns what to tell the parser of a policy about the models that run on an
// interface: nothing if no agent does.
func runningModels(iface *loader.Pins) ([]policy.Option, error) {
	agent, err := iface.Agent()
	if err != nil || agent == nil || !agent.Ready {
		return nil, err
	}
	var models []policy.Model
	for n, name := range agent.Model {
		models = append(models, policy.Model{Name: name, Labels: agent.Says[n]})
	}
	if agent.Classify && len(models) == 0 {
		return nil, nil
	}
	return []policy.Option{policy.WithModels(models...)}, nil
}

// policyModels describes models for the parser of a policy.
func policyModels(models []*model.Model) policy.Option {
	var described []policy.Model
	for _, m := range models {
		described = append(described, policy.Model{Name: m.Name, Labels: m.Labels})
	}
	return policy.WithModels(described...)
}

// completePolicyFiles completes YAML files.
func completePolicyFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}
