// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/loader"
)

// interfaceArgs checks that the arguments are interfaces, at least one.
func interfaceArgs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cli.Usagef("IFACE is missing")
	}
	for i, name := range args {
		if slices.Contains(args[:i], name) {
			return cli.Usagef("interface %q is named twice", name)
		}
	}
	return nil
}

// open opens an attached interface.
func open(name string) (*loader.Pins, error) {
	iface, err := loader.Open(name)
	if errors.Is(err, loader.ErrNotAttached) {
		return nil, fault.Advise(err, "attach it with: dpclass attach %s", name)
	}
	return iface, err
}

// isAttached reports whether an interface has programs and maps of an agent, which may
// have ended.
func isAttached(name string) bool {
	iface, err := loader.Open(name)
	if err != nil {
		return false
	}
	defer iface.Close() // nothing was written
	runs, err := hasPrograms(iface)
	return err == nil && runs
}

// hasPrograms reports whether a program is attached to the interface. An agent that died
// leaves only its tables.
func hasPrograms(iface *loader.Pins) (bool, error) {
	hooks, err := iface.Hooks()
	return slices.ContainsFunc(hooks, func(h loader.Hook) bool { return h.State == loader.HookAttached }), err
}

// withInterface runs fn with an attached interface in the namespace of --netns.
func withInterface(g *cli.Globals, name string, fn func(*loader.Pins) error) error {
	return g.InNetns(func() error {
		iface, err := open(name)
		if err != nil {
			return err
		}
		return errors.Join(fn(iface), iface.Close())
	})
}

// changeInterface is withInterface for a verb that changes what the programs do. It is an
// error if there are none.
func changeInterface(g *cli.Globals, name string, fn func(*loader.Pins) error) error {
	return withInterface(g, name, func(iface *loader.Pins) error {
		runs, err := hasPrograms(iface)
		if err != nil {
			return err
		}
		if !runs {
			return fault.Advise(fmt.Errorf("nothing is attached to %q: its agent died and left only its tables", name),
				"attach it again: dpclass attach %s", name)
		}
		return fn(iface)
	})
}

// withInterfaces runs fn with the interface of the first argument, or without one with
// all attached interfaces of the namespace, also those that are gone.
func withInterfaces(g *cli.Globals, args []string, fn func([]*loader.Pins) error) error {
	return g.InNetns(func() (err error) {
		var all []*loader.Pins
		defer func() {
			for _, iface := range all {
				err = errors.Join(err, iface.Close())
			}
		}()
		if len(args) == 0 {
			if all, err = loader.OpenAll(); err != nil {
				return err
			}
		}
		for _, name := range args {
			iface, err := open(name)
			if err != nil {
				return err
			}
			all = append(all, iface)
		}
		return fn(all)
	})
}

// allOrInterfaces checks the arguments of a verb that takes interfaces or --all.
func allOrInterfaces(g *cli.Globals, all *bool) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case *all && len(args) > 0:
			return cli.Usagef("--all cannot be used with IFACE")
		case *all && g.Netns != "":
			return cli.Usagef("--all covers every network namespace: leave --netns out")
		case *all:
			return nil
		}
		return interfaceArgs(cmd, args)
	}
}

// completeInterfaces completes names of interfaces that are not yet given.
func completeInterfaces(g *cli.Globals) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		err := g.InNetns(func() error {
			all, err := net.Interfaces()
			for _, iface := range all {
				if !slices.Contains(args, iface.Name) {
					names = append(names, iface.Name)
				}
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeAttached completes the first argument with attached interfaces, and later
// arguments as the directive rest says.
func completeAttached(g *cli.Globals, rest cobra.ShellCompDirective) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, rest
		}
		var names []string
		err := g.InNetns(func() (err error) {
			names, err = loader.List()
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
