// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/agent"
	"github.com/dpclass/dpclass/agent/sink"
	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/names"
	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/tui"
	"github.com/dpclass/dpclass/loader"
	"github.com/dpclass/dpclass/policy"
)

// attachFlags are the flags of dpclass attach.
type attachFlags struct {
	mode, direction string
	bothGiven       bool // --direction both, not by default
	models          []string
	evidence        string
	names           nameFiles
	dns             bool
	policy          string
	samples         int
	minConfidence   float64
	persist         bool
	noClassify      bool
	vlan            bool
	maxFlows        uint32
	processes       bool
	noFastPath      bool
	logFormat       string
	noSandbox       bool
}

func newAttachCommand(g *cli.Globals) *cobra.Command {
	f := attachFlags{mode: string(loader.Auto), direction: "both", logFormat: "text"}
	cmd := &cobra.Command{
		Use:   "attach IFACE...",
		Short: "Watch interfaces, classify their flows and enforce a policy",
		Long: `Load the programs into the kernel, attach them to the interfaces, and classify
flows until SIGINT or SIGTERM. Then detach and leave nothing behind, unless
--persist is given. Several interfaces share one classifier.

--mode auto uses native XDP if the driver supports it, else tc; the output says
which. Packets are never held up: if something fails, they pass. "dpclass reload" changes
the models without detaching.

If an interface is deleted and created again, attach watches the new one, with the same
policy. If no interface is left for 10 seconds, attach ends with exit code 1. Closing the
terminal ends attach too. In a service, which has no terminal, SIGHUP means
"dpclass reload".

What decides a flow, in this order: its server name, if the catalogue lists it; its
protocol, if that says what the flow is; else the model. --evidence model leaves all
to the model. "dpclass explain" says for a flow why.

With --persist, the programs and the policy stay in the kernel after attach ends:
flows keep their verdicts, and new flows stay undecided until the next attach.

With --log-format json, attach prints one JSON object for every flow that ends, with
the fields of "dpclass flows -o json"; its log goes to standard error.`,
		Example: `  dpclass attach eth0
  dpclass attach eth0 eth1 --policy policy.yaml
  dpclass attach eth0 --model cnn-traffic --model cnn-app --samples 10
  dpclass attach eth0 --direction ingress --no-classify
  dpclass attach veth1 --netns lab --log-format json > flows.jsonl`,
		Args:              interfaceArgs,
		ValidArgsFunction: completeInterfaces(g),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.bothGiven = cmd.Flags().Changed("direction") && f.direction == "both"
			return g.InNetns(func() error { return attach(cmd, g, &f, args) })
		},
	}
	flags := cmd.Flags()
	flags.Var(&cli.Choice{Value: &f.mode, Words: []string{"auto", "native", "tc"}}, "mode", "how to watch received packets: native XDP or tc")
	flags.Var(&cli.Choice{Value: &f.direction, Words: []string{"both", "ingress", "egress"}}, "direction", "packets to watch: received, sent or both (default for a loopback device: ingress, because every packet passes both)")
	flags.StringArrayVar(&f.models, "model", nil, "`NAME` of a shipped model, or FILE.onnx; give it twice for one model per task (default: the choice of \"dpclass models use\")")
	addEvidence(cmd, &f.evidence)
	f.names.flag(cmd)
	flags.BoolVar(&f.dns, "dns", false, "read the DNS answers that pass, to name flows that have no server name of their own")
	flags.StringVar(&f.policy, "policy", "", "policy `FILE` to enforce, checked before anything is attached")
	addSamples(cmd, &f.samples)
	flags.Float64Var(&f.minConfidence, "min-confidence", 0, "probability, 0 to 1, below which a final verdict becomes \"unknown\" ('models show' says how many flows that leaves)")
	flags.BoolVar(&f.persist, "persist", false, "keep programs, flows and policy in the kernel when attach ends")
	flags.BoolVar(&f.noClassify, "no-classify", false, "count flows without classifying them; needs no ONNX Runtime")
	flags.BoolVar(&f.vlan, "vlan", false, "treat the same addresses and ports in different VLANs as different flows")
	flags.BoolVar(&f.processes, "processes", true, "note which process opens the socket of a local flow, where this user may")
	flags.Uint32Var(&f.maxFlows, "max-flows", 0, "decided flows to keep for each IP version (default: 65536)")
	flags.BoolVar(&f.noSandbox, "no-sandbox", false, "keep all rights instead of giving up those that attach does not need (see docs/security.md)")
	flags.BoolVar(&f.noFastPath, "no-fast-path", false, "look up the packets of decided flows in the flow tables too: slower, and less memory")
	flags.Var(&cli.Choice{Value: &f.logFormat, Words: sink.Names()}, "log-format", "format of the log")
	cli.Complete(cmd, "mode", "auto", "native", "tc")
	cli.Complete(cmd, "direction", "both", "ingress", "egress")
	cli.Complete(cmd, "log-format", sink.Names()...)
	cli.CompleteFunc(cmd, "model", completeModels)
	cli.CompleteFunc(cmd, "policy", completePolicyFiles)
	return cmd
}

func (f *attachFlags) check() error {
	switch {
	case !(f.minConfidence >= 0 && f.minConfidence <= 1):
		return cli.Usagef("--min-confidence %g: want a number from 0 to 1", f.minConfidence)
	case f.noClassify && (len(f.models) > 0 || f.minConfidence > 0 || f.dns || len(f.names) > 0 || f.evidence != string(classifier.EvidenceAll)):
		return cli.Usagef("--no-classify cannot be used with --model, --min-confidence, --evidence, --names or --dns")
	case f.evidence != string(classifier.EvidenceAll) && (f.dns || len(f.names) > 0):
		return cli.Usagef("--dns and --names need --evidence all: without names they have no effect")
	}
	return nil
}

// attach is the verb. It checks everything it can before it attaches anything.
func attach(cmd *cobra.Command, g *cli.Globals, f *attachFlags, interfaces []string) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	log := g.Logger(cmd.ErrOrStderr(), f.logFormat)
	box, err := f.newSandbox(g)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.close()) }()
	models, catalogue, err := f.load(box)
	if err != nil {
		return err
	}
	labels, apps := model.NewLabels(models), knownApps(catalogue)
	var rules *flow.Policy
	if f.policy != "" {
		if rules, err = readPolicy(cmd, f.policy, labels, policy.WithApps(apps), policyModels(models)); err != nil {
			return err
		}
		if err := protectSSH(cmd, rules); err != nil {
			return err
		}
		for _, key := range rules.Flows {
			log.Info("the SSH connection is never dropped or policed", "flow", key.String())
		}
	}
	var owners *processes
	sayUnknown := func() {}
	if f.processes {
		owners, sayUnknown = watchProcesses(log)
		defer func() { err = errors.Join(err, owners.close()) }() // after the log, which asks for processes
	}
	// All that was read so far, Go code has read. What comes now is packets and networks.
	if err := box.enter(log); err != nil {
		return err
	}
	engine, err := f.classifier(box, models, catalogue)
	if err != nil {
		return err
	}
	if engine != nil {
		defer func() { err = errors.Join(err, engine.Close()) }()
	}
	reload := cli.Reloads(cmd.Context()) // early: the signal must not end this process
	defer cli.HoldSignals()()            // detaching must not be cut short
	config := f.config(engine, append(labels, apps...))
	attached, err := f.attachAll(cmd.Context(), interfaces, config, rules, log)
	if err != nil || len(attached) == 0 {
		return err
	}
	sayUnknown() // after what may be wrong with attaching itself
	all, err := f.serve(box, attached, config, apps, owners, log)
	if err != nil {
		return errors.Join(err, f.finish(all, log))
	}
	// If the reader of the log goes away, the write fails, and the agent continues.
	signal.Ignore(syscall.SIGPIPE)
	exporter, err := sink.New(f.logFormat, cmd.OutOrStdout(), log)
	if err != nil {
		return errors.Join(err, f.finish(all, log))
	}
	var ports []agent.Port
	for _, s := range all {
		ports = append(ports, s.port())
	}
	a := agent.New(agent.Config{
		Ports: ports, Log: log, Sinks: []agent.Sink{owners.sink(exporter)}, Reload: reload, SignalReload: true,
		Classifier: agent.NewClassifier(engine, box.load),
	})
	defer func() {
		// Detach first: the reader of the log may be slow or gone, and a model may not return.
		err = errors.Join(err, f.finish(all, log))
		if lost := a.Close(context.WithoutCancel(cmd.Context())); errors.Is(lost, agent.ErrStuck) {
			log.Warn("ended without waiting for a model that does not return", "error", lost)
		} else if lost != nil {
			log.Warn("the flow log is not complete", "error", lost)
		}
	}()
	if err := f.announce(cmd.OutOrStdout(), log, attached, models); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(cmd.Context())
	var tending sync.WaitGroup
	defer tending.Wait()
	defer stop()
	for _, s := range all {
		tending.Go(func() { s.tend(ctx) })
	}
	return a.Run(cmd.Context())
}

// load reads the catalogue and the models; with --no-classify only the catalogue, for the
// names of applications.
func (f *attachFlags) load(box *sandbox) ([]*model.Model, *names.Catalogue, error) {
	catalogue, err := f.names.load()
	if err != nil || f.noClassify {
		return nil, catalogue, err
	}
	models, err := box.load()
	return models, catalogue, err
}

// classifier opens ONNX Runtime and the models, unless --no-classify is given.
func (f *attachFlags) classifier(box *sandbox, models []*model.Model, catalogue *names.Catalogue) (*classifier.Classifier, error) {
	if f.noClassify {
		return nil, nil
	}
	engine, err := classifier.New(classifier.Options{
		Library: box.library(), Models: models, Samples: f.samples, MinConfidence: f.minConfidence,
		Evidence: classifier.Evidence(f.evidence), Names: catalogue,
	})
	if errors.Is(err, ort.ErrNoLibrary) {
		return nil, fault.Advise(err, "use --no-classify to count flows without classifying them")
	}
	return engine, err
}

func (f *attachFlags) config(engine *classifier.Classifier, labels []string) loader.Config {
	config := loader.Config{
		Mode:    loader.Mode(f.mode),
		Ingress: f.bothGiven || f.direction == "ingress", Egress: f.bothGiven || f.direction == "egress", Persist: f.persist,
		Samples: f.samples, DNS: f.dns, VLAN: f.vlan, MaxFlows: f.maxFlows, NoFastPath: f.noFastPath, Labels: labels,
	}
	switch {
	case engine != nil:
		config.Samples = engine.Budget()
	case f.samples == 0:
		config.Samples = -1 // nothing reads them
	}
	return config
}

// attachAll attaches every interface and sets the policy on it. If one fails, or the
// context ends first, it lets go of the others and returns none; the end of the context
// is no error. With --persist, what an earlier agent left stays, and the rest is detached.
func (f *attachFlags) attachAll(ctx context.Context, interfaces []string, config loader.Config, rules *flow.Policy, log *slog.Logger) (attached []*loader.Attachment, err error) {
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = nil // ending on a signal is not a failure
		}
		for _, letGo := range undo {
			err = errors.Join(err, letGo())
		}
		attached = nil
	}()
	for _, name := range interfaces {
		keep := f.persist && isAttached(name)
		iface, err := loader.Attach(ctx, name, config, log)
		if err != nil {
			return attached, err
		}
		attached = append(attached, iface)
		if keep {
			undo = append(undo, iface.Close)
		} else {
			undo = append(undo, iface.Detach)
		}
		if rules == nil {
			continue
		}
		// The one of the agent before may wait to be confirmed.
		if err := iface.Rules().Replace(rules); err != nil {
			return attached, fmt.Errorf("policy on %q: %w", name, err)
		}
	}
	return attached, nil
}

// finish detaches the interfaces, or with --persist closes them and leaves them attached.
func (f *attachFlags) finish(all []*watched, log *slog.Logger) error {
	var problems []error
	for _, s := range all {
		problems = append(problems, s.finish(f.persist, log))
	}
	return errors.Join(problems...)
}

// announce prints how the interfaces are attached.
func (f *attachFlags) announce(out io.Writer, log *slog.Logger, attached []*loader.Attachment, models []*model.Model) error {
	for _, iface := range attached {
		status, err := iface.Status()
		if err != nil {
			return err
		}
		var hooks []string
		for _, hook := range status.Hooks {
			hooks = append(hooks, hook.Name)
		}
		if status.Loopback {
			log.Info("packets: "+loopbackText(&status), "iface", iface.Name())
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
		if _, err := fmt.Fprintf(out, "%s: attached, mode %s, driver %s, hooks %s; model %s, %d samples per flow; %d policy rules\n",
			iface.Name(), status.Mode, tui.OrNone(status.Driver), strings.Join(hooks, " and "), model, status.Samples, status.Rules); err != nil {
			// Whoever reads the output may be gone: that is no reason to end.
			log.Warn("cannot print how the interface is attached", "iface", iface.Name(), "error", err)
		}
	}
	return nil
}
