// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/cmd/dpclass/internal/explanation"
	"github.com/dpclass/dpclass/cmd/dpclass/internal/offline"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/tui"
	"github.com/dpclass/dpclass/loader"
)

func newExplainCommand(g *cli.Globals) *cobra.Command {
	var models []string
	var names nameFiles
	cmd := &cobra.Command{
		Use:   "explain IFACE FLOW",
		Short: "Say why a flow has its verdict",
		Long: `Say why a flow has its verdict: its protocol and the signature that recognised it,
its server name and the line of the catalogue that has it, the labels that the
network finds likeliest, and the header fields and payload bytes that moved the
network most. For that, each of them is set to zero in turn, and the network runs
again.

The agent keeps the first packets of the newest flows for this, 4,096 packets in
all. Their addresses are zeroed. FLOW is "tcp ADDR:PORT ADDR:PORT" or "udp ...",
either end first. To explain flows of a capture file, use classify --explain.`,
		Example: `  dpclass explain eth0 "tcp 10.0.0.2:4000 192.0.2.1:443"
  dpclass flows eth0 -o json --filter source:model | jq -r '"\(.proto) \(.src):\(.src_port) \(.dst):\(.dst_port)"'
  dpclass explain eth0 "udp [fd00::1]:5000 [fd00::2]:443" -o json | jq .explanation.networks`,
		Args:              cli.Exactly("IFACE", "FLOW"),
		ValidArgsFunction: completeFlows(g),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := flow.ParseKey(args[1])
			if err != nil {
				return cli.Usage(err)
			}
			return withInterface(g, args[0], func(iface *loader.Pins) error {
				record, samples, err := keptFlow(iface, key)
				if err != nil {
					return err
				}
				finder, err := openProcesses(iface)
				if err != nil {
					return err
				}
				if finder != nil {
					setProcess(finder, record)
					if err := finder.Close(); err != nil {
						return err
					}
				}
				reader, err := openModels(g, models, &names, classifier.Options{})
				if err != nil {
					return err
				}
				defer reader.Close()
				page, err := explainKept(reader, record, samples)
				if err != nil {
					return err
				}
				return printPages(cmd.OutOrStdout(), g, []*explanation.Page{page}, tui.WantColor(cmd.OutOrStdout()), "")
			})
		},
	}
	cmd.Flags().StringArrayVar(&models, "model", nil, "`NAME` of a shipped model, or FILE.onnx: explain with it (default: the choice of \"dpclass models use\")")
	names.flag(cmd)
	cli.CompleteFunc(cmd, "model", completeModels)
	return cmd
}

// keptFlow returns a flow of the interface, live or ended, with the samples that the agent
// has kept of it.
func keptFlow(iface *loader.Pins, key flow.Key) (*flow.Record, []flow.Sample, error) {
	record, err := iface.Table().Lookup(key)
	if errors.Is(err, loader.ErrNoFlow) && !key.Is6() {
		if mapped, mappedErr := iface.Table().Lookup(key.Mapped()); mappedErr == nil {
			record, err = mapped, nil
		}
	}
	if errors.Is(err, loader.ErrNoFlow) {
		ended, endedErr := iface.Table().Ended()
		if endedErr != nil {
			return nil, nil, endedErr
		}
		for i := range ended {
			if ended[i].Key() == key && (err != nil || ended[i].LastSeen.After(record.LastSeen)) {
				record, err = ended[i], nil
			}
		}
	}
	if errors.Is(err, loader.ErrNoFlow) {
		return nil, nil, fault.Advise(err, "list the flows with: dpclass flows %s, and ended ones with --ended", iface.Name())
	}
	if err != nil {
		return nil, nil, err
	}
	samples, err := iface.Table().Kept(record.Generation)
	return &record, samples, err
}

// explainKept explains a flow by its kept samples. The verdicts that the flow has stay: the
// agent may have seen more than is kept.
func explainKept(reader *offline.Reader, record *flow.Record, samples []flow.Sample) (*explanation.Page, error) {
	known := flow.Evidence{Name: record.Name, NameSource: flow.ParseNameSource(record.NameSource)}
	why, err := reader.Explain(samples, known)
	if err != nil {
		return nil, fmt.Errorf("flow %q: %w", record.Key(), err)
	}
	if record.Protocol != why.Evidence.Protocol.String() {
		why.Signature = "" // of packets that are not kept
	}
	return &explanation.Page{Record: record, Why: why, Samples: samples}, nil
}

// explainMost bounds the flows of a capture that are explained: each takes hundreds of runs
// of the network.
const explainMost = 1000

// explainFile explains flows of a capture file and hands the explanations to show.
func explainFile(ctx context.Context, reader *offline.Reader, name string, chosen iter.Seq[*flow.Record], show func([]*explanation.Page) error) error {
	var records []flow.Record
	n := 0
	for record := range chosen {
		if n++; n <= explainMost {
			records = append(records, *record)
		}
	}
	if n > explainMost {
		return fault.Advise(fmt.Errorf("capture %q: %d flows are too many to explain", name, n), "choose at most %d of them with --filter", explainMost)
	}
	samples, err := reader.Samples(ctx, name, records)
	if err != nil {
		return err
	}
	var pages []*explanation.Page
	for i := range records {
		page, err := explainKept(reader, &records[i], samples[i])
		if err != nil {
			return err
		}
		pages = append(pages, page)
	}
	return show(pages)
}

// printPages prints explanations. file is the capture's name, "" if it need not be said.
func printPages(out io.Writer, g *cli.Globals, pages []*explanation.Page, color bool, file string) error {
	if g.JSON() {
		objects := make([]explanation.Object, len(pages))
		for i, page := range pages {
			objects[i] = page.JSON()
			objects[i].File = file
		}
		return cli.PrintJSON(out, objects...)
	}
	if file != "" {
		fmt.Fprintln(out, tui.Paint(tui.Printable(file), tui.Bold, color))
	}
	for i, page := range pages {
		if i > 0 || file != "" {
			fmt.Fprintln(out)
		}
		for _, line := range page.Text(color) {
			if _, err := fmt.Fprintln(out, line); err != nil {
				return err
			}
		}
	}
	return nil
}
