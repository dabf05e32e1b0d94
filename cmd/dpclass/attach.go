// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/agent"
	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/loader"
)

// attachFlags are the flags of dpclass attach.
type attachFlags struct {
	mode, direction string
	models          []string
	policy          string
	samples         int
	minConfidence   float64
	persist         bool
	noClassify      bool
	vlan            bool
	maxFlows        uint32
	logFormat       string
}

func newAttachCommand(g *globals) *cobra.Command {
	f := attachFlags{mode: string(loader.Auto), direction: "both", logFormat: "text"}
	cmd := &cobra.Command{
		Use:   "attach IFACE...",
		Short: "Watch interfaces, classify their flows and enforce a policy",
		Long: `Load the programs into the kernel, attach them to the interfaces, and classify
flows until SIGINT or SIGTERM; then detach and leave nothing behind, unless
--persist. Several interfaces share one classifier.

--mode auto takes native XDP where the driver has it and tcx otherwise; what was
obtained is printed. The packets themselves are never held up: when something
fails, they pass. SIGHUP reads the choice of models anew ("dpclass models use")
and samples undecided flows again.

With --persist the programs and the policy go on working after the agent's end:
flows keep their verdicts, and new ones stay undecided until it is attached again.

With --log-format json every flow that ends is one JSON object on standard
output, with the fields of "dpclass flows -o json"; the log goes to standard error.`,
		Example: `  dpclass attach eth0
  dpclass attach eth0 eth1 --policy policy.yaml
  dpclass attach eth0 --model cnn-traffic --model cnn-app --samples 10
  dpclass attach eth0 --direction ingress --no-classify
  dpclass attach veth1 --netns lab --log-format json > flows.jsonl`,
		Args:              interfaces,
		ValidArgsFunction: completeInterfaces(g),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.inNetns(func() error { return attach(cmd, g, &f, args) })
		},
	}
	flags := cmd.Flags()
	flags.Var(choice{&f.mode, []string{"auto", "native", "tc"}}, "mode", "where ingress is watched: native XDP or tcx")
	flags.Var(choice{&f.direction, []string{"both", "ingress", "egress"}}, "direction", "what is watched")
	flags.StringArrayVar(&f.models, "model", nil, "model: `NAME` of a shipped one or FILE.onnx; may be given once for each task (default: the choice of \"dpclass models use\")")
	flags.StringVar(&f.policy, "policy", "", "policy `FILE` to enforce; checked before anything is attached")
	flags.IntVar(&f.samples, "samples", 0, "payload packets of a flow to look at, 1 to 255 (default: the model's)")
	flags.Float64Var(&f.minConfidence, "min-confidence", 0, "final verdicts less confident than this are \"unknown\" (0 to 1)")
	flags.BoolVar(&f.persist, "persist", false, "leave programs, flows and policy in the kernel at the end")
	flags.BoolVar(&f.noClassify, "no-classify", false, "count flows only; needs no ONNX Runtime")
	flags.BoolVar(&f.vlan, "vlan", false, "tell flows of different VLANs apart")
	flags.Uint32Var(&f.maxFlows, "max-flows", 0, "decided flows that are kept for each IP version (default: the loader's)")
	flags.Var(choice{&f.logFormat, []string{"text", "json"}}, "log-format", "format of the log")
	mustComplete(cmd, "mode", "auto", "native", "tc")
	mustComplete(cmd, "direction", "both", "ingress", "egress")
	mustComplete(cmd, "log-format", "text", "json")
	mustCompleteFunc(cmd, "model", completeModels)
	mustCompleteFunc(cmd, "policy", completePolicyFiles)
	return cmd
}

// interfaces checks the arguments of attach.
func interfaces(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("IFACE is missing")
	}
	for i, name := range args {
		if slices.Contains(args[:i], name) {
			return usagef("interface %q stands twice", name)
		}
	}
	return nil
}

func (f *attachFlags) check() error {
	switch {
	case f.samples < 0 || f.samples > 255:
		return usagef("--samples %d: want 1 to 255", f.samples)
	case !(f.minConfidence >= 0 && f.minConfidence <= 1):
		return usagef("--min-confidence %g: want a number from 0 to 1", f.minConfidence)
	case f.noClassify && (len(f.models) > 0 || f.minConfidence > 0):
		return usagef("--no-classify excludes --model and --min-confidence")
	}
	return nil
}

// attach is the verb: everything that can be wrong is found before anything is
// attached.
func attach(cmd *cobra.Command, g *globals, f *attachFlags, names []string) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	log := g.logger(cmd.ErrOrStderr(), f.logFormat)
	models, engine, err := f.classifier(g)
	if err != nil {
		return err
	}
	if engine != nil {
		defer func() { err = errors.Join(err, engine.Close()) }()
	}
	labels := model.NewLabels(models)
	var rules *flow.Policy
	if f.policy != "" {
		if rules, err = readPolicy(f.policy, cmd.InOrStdin(), labels, cmd.ErrOrStderr()); err != nil {
			return err
		}
		protectSSH(rules)
	}
	attached, err := attachAll(names, f.config(engine, labels), rules, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.finish(attached, log)) }()
	if err := f.announce(cmd.OutOrStdout(), log, attached, models); err != nil {
		return err
	}
	ended := newFlowLog(cmd.OutOrStdout(), log, f.logFormat)
	return agent.New(agent.Config{
		Interfaces: attached, Classifier: engine, Log: log, Ended: ended,
		Reload: hangups(cmd.Context()),
		Models: func() ([]*model.Model, error) { return loadModels(f.models) },
	}).Run(cmd.Context())
}

// classifier loads the models and opens ONNX Runtime, unless --no-classify.
func (f *attachFlags) classifier(g *globals) ([]*model.Model, *classifier.Classifier, error) {
	if f.noClassify {
		return nil, nil, nil
	}
	models, err := loadModels(f.models)
	if err != nil {
		return nil, nil, err
	}
	engine, err := classifier.New(classifier.Options{
		Library: g.onnxruntime, Models: models, Samples: f.samples, MinConfidence: f.minConfidence,
	})
	if errors.Is(err, ort.ErrNoLibrary) {
		return nil, nil, fault.Advise(err, "to watch without verdicts, give --no-classify")
	}
	return models, engine, err
}

func (f *attachFlags) config(engine *classifier.Classifier, labels []string) loader.Config {
	config := loader.Config{
		Mode:    loader.Mode(f.mode),
		Ingress: f.direction != "egress", Egress: f.direction != "ingress",
		Samples: f.samples, VLAN: f.vlan, MaxFlows: f.maxFlows, Labels: labels,
	}
	switch {
	case engine != nil:
		config.Samples = engine.Samples()
	case f.samples == 0:
		config.Samples = -1 // nobody reads them
	}
	return config
}

// attachAll attaches every interface and sets the policy on it, or none.
func attachAll(names []string, config loader.Config, rules *flow.Policy, log *slog.Logger) (attached []*loader.Interface, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, iface := range attached {
			err = errors.Join(err, iface.Detach())
		}
		attached = nil
	}()
	for _, name := range names {
		iface, err := loader.Attach(name, config, log)
		if err != nil {
			return attached, err
		}
		attached = append(attached, iface)
		if rules == nil {
			continue
		}
		if err := iface.SetPolicy(rules); err != nil {
			return attached, fmt.Errorf("policy on %q: %w", name, err)
		}
	}
	return attached, nil
}

// finish ends the work on the interfaces.
func (f *attachFlags) finish(attached []*loader.Interface, log *slog.Logger) error {
	var problems []error
	for _, iface := range attached {
		if f.persist {
			problems = append(problems, iface.Close())
			log.Info("the agent ended; programs, flows and policy stay", "iface", iface.Name())
			continue
		}
		problems = append(problems, iface.Detach())
		log.Info("detached", "iface", iface.Name())
	}
	return errors.Join(problems...)
}

// announce says what was obtained.
func (f *attachFlags) announce(out io.Writer, log *slog.Logger, attached []*loader.Interface, models []*model.Model) error {
	for _, iface := range attached {
		status, err := iface.Status()
		if err != nil {
			return err
		}
		var hooks []string
		for _, hook := range status.Hooks {
			hooks = append(hooks, hook.Name)
		}
		model := "none"
		if len(models) > 0 {
			model = strings.Join(agent.ModelNames(models), ", ")
		}
		if f.logFormat == "json" {
			log.Info("attached", "iface", iface.Name(), "mode", status.Mode, "driver", status.Driver, "hooks", hooks,
				"model", model, "samples", status.Samples, "rules", status.Rules)
			continue
		}
		if _, err := fmt.Fprintf(out, "%s: attached, mode %s, driver %s, hooks %s; model %s, %d samples a flow; %d policy rules\n",
			iface.Name(), status.Mode, orNone(status.Driver), strings.Join(hooks, " and "), model, status.Samples, status.Rules); err != nil {
			return err
		}
	}
	return nil
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// newFlowLog returns what is done with each flow that ended: one JSON object a
// line, or a line of the log with --verbose.
func newFlowLog(out io.Writer, log *slog.Logger, format string) func(flow.Record) {
	if format != "json" {
		return func(r flow.Record) {
			ended := live(&r).Ended
			log.Log(context.Background(), slog.LevelDebug, "flow ended", "iface", r.Iface, "flow", r.Key().String(), "ended", ended,
				"category", r.Category, "app", r.App, "packets", r.Packets, "bytes", r.Bytes)
		}
	}
	encoder := json.NewEncoder(out)
	return func(r flow.Record) {
		if err := encoder.Encode(r); err != nil {
			log.Error("flow record cannot be written", "error", err)
		}
	}
}
