// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab/bench"
	"github.com/dpclass/dpclass/loader"
)

// benchTitles names the machine above the titles of a table; JSON has it in
// each object.
func benchTitles(format string, titles ...any) string {
	return fmt.Sprintf("On this machine (%s):\n"+format, append([]any{bench.Machine()}, titles...)...)
}

// interrupted says of a bench that a signal ended just that.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted: what was set up to measure with is removed")
	}
	return err
}

func newBenchKernelCommand(g *globals) *cobra.Command {
	var options bench.KernelOptions
	cases := bench.KernelCases()
	half := len(cases) / 2 // a line
	names := strings.Join(cases[:half], ", ") + ",\n" + strings.Join(cases[half:], ", ")
	cmd := &cobra.Command{
		Use:   "kernel",
		Short: "Nanoseconds that the programs add to a packet",
		Long: `Measure what the programs in the kernel add to a packet, by test runs of the
attached program (BPF_PROG_TEST_RUN) in turn with an empty one: the difference
is what counts. Each case has a device of its own in a network namespace. Root
is needed.

Cases: ` + names + `.
In flows-* that many decided flows are live and each packet is of another one.
lookup-alone is one look-up in the flow table and nothing else: what this
kernel and processor take for it, whoever asks.`,
		Example: "  dpclass bench kernel\n  dpclass bench kernel --case decided-ipv4-tcp --case policed -o json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkCases(options.Cases, bench.KernelCases()); err != nil {
				return err
			}
			if options.Rounds < 1 {
				return usagef("--rounds %d: want at least 1", options.Rounds)
			}
			progress := newProgress(cmd.ErrOrStderr(), "cases", len(bench.KernelCases()))
			defer progress.done()
			options.Log = g.logger(cmd.ErrOrStderr(), "text")
			options.Progress = func(n, _ int, what string) { progress.step(n, what) }
			print := benchPrinter[bench.KernelResult](g, cmd.OutOrStdout(),
				benchTitles("%-18s %8s %8s %8s %12s", "CASE", "ns", "EMPTY ns", "ADDED ns", "LEAST ADDED"),
				func(r bench.KernelResult) string {
					return fmt.Sprintf("%-18s %8.0f %8.0f %8.0f %12.0f", r.Case, r.NS, r.EmptyNS, r.AddedNS, r.LeastNS)
				})
			return interrupted(cmd.Context(), bench.Kernel(cmd.Context(), options, func(r bench.KernelResult) error {
				progress.wipe()
				return print(r)
			}))
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&options.Cases, "case", nil, "`CASE` to measure (default: every one)")
	flags.IntVar(&options.Rounds, "rounds", 41, "rounds of each case, of which the median counts")
	mustCompleteFunc(cmd, "case", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return bench.KernelCases(), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func checkCases(chosen, all []string) error {
	for _, name := range chosen {
		known := false
		for _, one := range all {
			known = known || one == name
		}
		if !known {
			return usagef("--case %q: want one of %s", name, strings.Join(all, ", "))
		}
	}
	return nil
}

func newBenchLatencyCommand(g *globals) *cobra.Command {
	var options bench.LatencyOptions
	cmd := &cobra.Command{
		Use:   "latency",
		Short: "Time from a flow's first payload packet to its verdict",
		Long: `Measure how soon new flows have a verdict: real TCP and UDP sockets over a veth
pair in namespaces, half of the flows each, and the agent as in attach. The time
runs from just before the call that sends the flow's first payload until the
agent has stored the flow's first verdict in the kernel's map. Lost are flows
without any verdict a second after the end. Root is needed.`,
		Example: "  dpclass bench latency\n  dpclass bench latency --flows-per-second 1000 --time 20s -o json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch flows := options.Time.Seconds() * float64(options.PerSecond); {
			case options.PerSecond < 1:
				return usagef("--flows-per-second %d: want at least 1", options.PerSecond)
			case flows < 10 || flows > bench.MaxLatencyFlows:
				return usagef("--flows-per-second %d for %v: want 10 to %d flows in all", options.PerSecond, options.Time, bench.MaxLatencyFlows)
			}
			var err error
			if options.Models, err = cli.ModelsOr(options.Models); err != nil {
				return err
			}
			options.Library = g.onnxruntime
			options.Log = g.logger(cmd.ErrOrStderr(), "text")
			progress := newProgress(cmd.ErrOrStderr(), "flows", int(options.Time.Seconds()*float64(options.PerSecond)))
			defer progress.done()
			options.Progress = func(n, _ int) { progress.step(n, "begun") }
			print := benchPrinter[bench.LatencyResult](g, cmd.OutOrStdout(),
				benchTitles("%-16s %-7s %8s %8s %9s %9s %9s %6s", "MODEL", "MODE", "FLOWS/s", "FLOWS", "p50 ms", "p99 ms", "MAX ms", "LOST"),
				func(r bench.LatencyResult) string {
					return fmt.Sprintf("%-16s %-7s %8.0f %8d %9.2f %9.2f %9.2f %6d", r.Model, r.Mode, r.PerSecond, r.Flows, r.P50, r.P99, r.Max, r.Lost)
				})
			result, err := bench.Latency(cmd.Context(), options)
			if err != nil {
				return interrupted(cmd.Context(), err)
			}
			progress.done()
			return print(result)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&options.PerSecond, "flows-per-second", 500, "new flows a second")
	flags.DurationVar(&options.Time, "time", 10*time.Second, "how long flows begin")
	flags.StringArrayVar(&options.Models, "model", nil, "model to classify with: `NAME` or FILE.onnx (default: as attach)")
	mustCompleteFunc(cmd, "model", completeModels)
	return cmd
}

func newBenchThroughputCommand(g *globals) *cobra.Command {
	var options bench.ThroughputOptions
	var modes []string
	cmd := &cobra.Command{
		Use:   "throughput",
		Short: "iperf3 with nothing attached, with empty programs and with dpclass",
		Long: `Measure one TCP stream of iperf3 over a veth pair in namespaces, in turn with
nothing attached (off), with empty programs on both hooks (empty) and with
dpclass and its agent (on). The ratio is on by empty, of the medians. Root and
iperf3 are needed.`,
		Example: "  dpclass bench throughput\n  dpclass bench throughput --mode native --rounds 9 -o json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range modes {
				mode, err := loader.ParseMode(name)
				if err != nil || mode == loader.Auto {
					return usagef("--mode %q: want native or tc", name)
				}
				options.Modes = append(options.Modes, mode)
			}
			if options.Rounds < 1 || options.Time < time.Second {
				return usagef("--rounds %d of %v: want at least 1 of at least 1s", options.Rounds, options.Time)
			}
			var err error
			if options.Models, err = cli.ModelsOr(options.Models); err != nil {
				return err
			}
			options.Library = g.onnxruntime
			options.Log = g.logger(cmd.ErrOrStderr(), "text")
			progress := newProgress(cmd.ErrOrStderr(), "runs", 0)
			defer progress.done()
			options.Progress = func(n, total int, what string) { progress.step(n, fmt.Sprintf("of %d, %s", total, what)) }
			print := benchPrinter[bench.ThroughputResult](g, cmd.OutOrStdout(),
				benchTitles("%-7s %10s %12s %9s %7s %11s", "MODE", "OFF Gbit/s", "EMPTY Gbit/s", "ON Gbit/s", "RATIO", "BEST RATIO"),
				func(r bench.ThroughputResult) string {
					return fmt.Sprintf("%-7s %10.2f %12.2f %9.2f %7.3f %11.3f", r.Mode, r.Off, r.Empty, r.On, r.Ratio, r.Best)
				})
			return interrupted(cmd.Context(), bench.Throughput(cmd.Context(), options, func(r bench.ThroughputResult) error {
				progress.wipe()
				return print(r)
			}))
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&modes, "mode", nil, "`MODE` to measure (default native and tc)")
	flags.IntVar(&options.Rounds, "rounds", 11, "rounds of each mode, of which the median counts")
	flags.DurationVar(&options.Time, "time", time.Second, "of each iperf3 run")
	flags.StringArrayVar(&options.Models, "model", nil, "model to classify with: `NAME` or FILE.onnx (default: as attach)")
	mustCompleteFunc(cmd, "model", completeModels)
	mustCompleteFunc(cmd, "mode", cobra.FixedCompletions([]string{"native", "tc"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
