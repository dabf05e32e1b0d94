// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/dpclass/dpclass/internal/netns"
	"github.com/dpclass/dpclass/loader"
)

// inNetns runs fn in the network namespace of --netns.
func (g *globals) inNetns(fn func() error) error {
	if g.netns == "" {
		return fn()
	}
	return netns.InNamed(g.netns, fn)
}

// withInterface runs fn with an attached interface, opened from its pins.
func (g *globals) withInterface(name string, fn func(*loader.Pins) error) error {
	return g.inNetns(func() error {
		iface, err := loader.Open(name)
		if err != nil {
			return explainOpen(name, err)
		}
		return errors.Join(fn(iface), iface.Close())
	})
}

// withInterfaces does so for one interface, or for all where the name is empty.
func (g *globals) withInterfaces(name string, fn func([]*loader.Pins) error) error {
	return g.inNetns(func() (err error) {
		names := []string{name}
		if name == "" {
			if names, err = loader.List(); err != nil {
				return err
			}
		}
		var open []*loader.Pins
		defer func() {
			for _, iface := range open {
				err = errors.Join(err, iface.Close())
			}
		}()
		for _, name := range names {
			iface, err := loader.Open(name)
			if err != nil {
				return explainOpen(name, err)
			}
			open = append(open, iface)
		}
		return fn(open)
	})
}

// explainOpen says what to do about an interface that is not attached.
func explainOpen(name string, err error) error {
	if errors.Is(err, loader.ErrNotAttached) {
		return fmt.Errorf("%w\nattach it with: dpclass attach %s", err, name)
	}
	return err
}
