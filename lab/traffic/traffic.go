// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/lab"
)

// Options says what traffic to make.
type Options struct {
	Out      string        // directory of the captures; it must be empty or not exist
	Classes  []string      // categories of the captures to keep; empty: all
	Programs []string      // names of programs; empty: all
	Tunnels  []string      // names of tunnels; empty: all
	Length   time.Duration // how long to begin new rounds; 0: each program once alone and once in a tunnel
	Quick    bool          // short rounds, one program of each category, alone and in a tunnel
	Seed     uint64
	Parallel int // rounds at the same time; 0: four for each CPU

	// Log is called with each finished or failed round and each skipped program. It may be
	// called from several goroutines.
	Log func(Event)
	// Ready is called when the network is up, with the router that all rounds' traffic
	// crosses: clients are beyond its eth0, servers and gateways beyond its eth1. It may
	// be nil.
	Ready func(router *lab.Host) error
	// Done is called when all rounds are over and the network is still there. It may be nil.
	Done func(router *lab.Host) error
}

// Event is one thing that happened.
type Event struct {
	Round    string // or the name of the program that is skipped
	Captures []*Capture
	Took     time.Duration
	Skipped  bool
	Again    bool  // the round failed because the machine was too busy, and is run again
	Err      error // why a round failed, or a program is skipped
}

// Result sums up a run.
type Result struct {
	Captures []*Capture
	Failed   int // rounds
}

// Categories returns the categories that the lab can make.
func Categories() []string {
	set := []string{tunnelCategory}
	for _, p := range registered {
		set = append(set, p.Category, job{program: p, tunnel: tunnels[0]}.category())
	}
	slices.Sort(set)
	return slices.Compact(set)
}

// Run makes traffic. A round that fails leaves no captures; the others go on. Run returns
// an error if it could not make any, or the context ended; the manifest then lists what
// is complete.
func Run(ctx context.Context, o Options) (result Result, err error) {
	for _, class := range o.Classes {
		if !slices.Contains(Categories(), class) {
			return result, fault.Advise(fmt.Errorf("no program of the lab makes %q", class), "choose among %s", strings.Join(Categories(), ", "))
		}
	}
	programs, usable, err := o.choose()
	if err != nil {
		return result, err
	}
	if err := vacant(o.Out); err != nil {
		return result, err
	}
	net, err := newNetwork(ctx)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, net.lab.Close()) }()
	if !net.limits {
		o.Log(Event{Round: "rate limits", Skipped: true, Err: errors.New("the kernel has no TBF qdisc")})
	}
	if !net.delays {
		o.Log(Event{Round: "delays", Skipped: true, Err: errors.New("the kernel has no netem qdisc")})
	}
	if o.Ready != nil {
		if err := o.Ready(net.router); err != nil {
			return result, err
		}
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return result, err
	}
	list, err := newManifest(o.Out)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, list.file.Close()) }()

	w := &work{options: o, net: net, list: list, versions: map[string]string{}}
	for _, p := range programs {
		w.versions[p.Name] = version(ctx, p.Version)
	}
	for _, t := range usable {
		w.versions[t.name] = version(ctx, t.version)
	}
	jobs := make(chan job)
	var workers sync.WaitGroup
	if o.Parallel == 0 {
		o.Parallel = roundsPerCPU * runtime.NumCPU()
	}
	for range o.Parallel {
		workers.Go(func() {
			for j := range jobs {
				w.do(ctx, j)
			}
		})
	}
	w.plan(ctx, programs, usable, jobs)
	close(jobs)
	workers.Wait()
	if o.Done != nil {
		if err := o.Done(net.router); err != nil {
			return w.result, err
		}
	}
	switch {
	case ctx.Err() != nil:
		return w.result, ctx.Err()
	case len(w.result.Captures) == 0:
		return w.result, fmt.Errorf("no traffic: %d rounds failed", w.result.Failed)
	}
	return w.result, nil
}

// roundsPerCPU is how many rounds run at the same time. Most of them wait: on average, a
// round needs a tenth of a CPU.
const roundsPerCPU = 4

// vacant returns an error unless the directory is empty or does not exist.
func vacant(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return fault.Advise(fmt.Errorf("directory %q is not empty", dir), "name a new directory")
	}
	return nil
}

// choose returns the programs and tunnels to use: those that are asked for and installed.
func (o *Options) choose() (programs []*Program, usable []*tunnel, err error) {
	if o.Log == nil {
		o.Log = func(Event) {}
	}
	var absent []error
	have := map[string][]*Program{}
	var categories []string
	for _, p := range Programs() {
		if len(o.Programs) > 0 && !slices.Contains(o.Programs, p.Name) {
			continue
		}
		if err := p.Missing(); err != nil {
			absent = append(absent, err)
			o.Log(Event{Round: p.Name, Skipped: true, Err: err})
			continue
		}
		if !slices.Contains(categories, p.Category) {
			categories = append(categories, p.Category)
		}
		have[p.Category] = append(have[p.Category], p)
	}
	for _, name := range o.Programs {
		if !slices.ContainsFunc(registered, func(p *Program) bool { return p.Name == name }) {
			return nil, nil, fault.Advise(fmt.Errorf("the lab has no program %q", name), "dplab traffic --list shows all")
		}
	}
	for _, category := range categories {
		all := have[category]
		if o.Quick && len(o.Programs) == 0 {
			slices.SortStableFunc(all, func(a, b *Program) int { return quickness(b) - quickness(a) })
			all = all[:1]
		}
		programs = append(programs, all...)
	}
	if len(programs) == 0 {
		return nil, nil, fmt.Errorf("none of the programs is installed: %w", errors.Join(absent...))
	}
	for _, name := range o.Tunnels {
		if !slices.Contains(Tunnels(), name) {
			return nil, nil, fault.Advise(fmt.Errorf("the lab has no tunnel %q", name), "choose among %s", strings.Join(Tunnels(), ", "))
		}
	}
	for _, t := range tunnels {
		if len(o.Tunnels) > 0 && !slices.Contains(o.Tunnels, t.name) || len(o.Tunnels) == 0 && o.Quick && t.slow {
			continue
		}
		if err := missing(t.needs); err != nil {
			o.Log(Event{Round: t.name, Skipped: true, Err: err})
			continue
		}
		usable = append(usable, t)
	}
	return programs, usable, nil
}

func quickness(p *Program) int {
	if p.Quick {
		return 1
	}
	return 0
}

// Tunnels returns the names of all tunnels.
func Tunnels() []string {
	var names []string
	for _, t := range tunnels {
		names = append(names, t.name)
	}
	return names
}

// keeps reports whether the captures of a category are asked for.
func (o *Options) keeps(category string) bool {
	return len(o.Classes) == 0 || slices.Contains(o.Classes, category)
}

// How many flows of a category and of a program are enough. A run with a time goes on
// with those that have fewer, and with all when none has.
const (
	enoughOfCategory = 200
	enoughOfProgram  = 20
)

// scarce is the number of flows in a capture below which a program gets as many clients as
// it can have, and shorter rounds: its sessions last as long as a round.
const scarce = 10

// plan sends the jobs: passes over the programs, each alone and in one tunnel, in an order
// that the seed gives.
func (w *work) plan(ctx context.Context, programs []*Program, usable []*tunnel, jobs chan<- job) {
	o := w.options
	end := time.Now().Add(o.Length)
	for pass := 0; ; pass++ {
		all := w.pass(programs, usable, pass)
		for _, j := range all {
			if o.Length > 0 && pass > 0 && time.Now().After(end) {
				return
			}
			select {
			case jobs <- j:
			case <-ctx.Done():
				return
			}
		}
		if o.Length == 0 || time.Now().After(end) || len(all) == 0 {
			return
		}
	}
}

// pass returns the jobs of one pass.
func (w *work) pass(programs []*Program, usable []*tunnel, pass int) []job {
	var all []job
	for i, p := range programs {
		if j := (job{program: p, number: pass}); w.options.keeps(j.category()) {
			all = append(all, j)
		}
		fitting := slices.DeleteFunc(slices.Clone(usable), func(t *tunnel) bool { return !t.carries(p) })
		if len(fitting) == 0 || p.OneLink {
			continue
		}
		t := fitting[(pass+i)%len(fitting)]
		if j := (job{program: p, tunnel: t, number: pass}); w.options.keeps(j.category()) || w.options.keeps(tunnelCategory) {
			all = append(all, j)
		}
	}
	w.mu.Lock()
	categories, names := map[string]int{}, map[string]int{}
	flows, rounds := map[string]int{}, map[string]int{} // of the programs themselves
	for _, c := range w.result.Captures {
		categories[c.Category] += c.Flows
		names[c.Program] += c.Flows
		if c.Category != tunnelCategory {
			flows[c.Program] += c.Flows
			rounds[c.Program]++
		}
	}
	w.mu.Unlock()
	for i, j := range all {
		all[i].scarce = rounds[j.program.Name] > 0 && flows[j.program.Name] < scarce*rounds[j.program.Name]
	}
	// What is short of flows goes first. Its rounds in tunnels give flows of tunnels too, so
	// other programs run in tunnels only if that was not enough.
	short := slices.DeleteFunc(slices.Clone(all), func(j job) bool {
		return j.tunnel != nil && j.tunnel.streams != nil || categories[j.category()] >= enoughOfCategory && names[j.program.Name] >= enoughOfProgram
	})
	if len(short) == 0 {
		short = slices.DeleteFunc(slices.Clone(all), func(j job) bool {
			return j.tunnel == nil || names[j.tunnel.name] >= enoughOfProgram && categories[tunnelCategory] >= enoughOfCategory
		})
	}
	if len(short) > 0 && pass > 0 {
		all = short
	}
	order := newDraw(w.options.Seed, "order", fmt.Sprint(pass))
	order.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
	return spread(all)
}

// spread puts the rounds that need much of the CPU at even distances between the others.
func spread(jobs []job) []job {
	var heavy, light []job
	for _, j := range jobs {
		if j.program.heavy() {
			heavy = append(heavy, j)
		} else {
			light = append(light, j)
		}
	}
	all := make([]job, 0, len(jobs))
	share := len(heavy)
	for n := range jobs {
		// After n jobs, n·share/len(jobs) of them are heavy.
		if due := (n + 1) * share / len(jobs); due > share-len(heavy) {
			all, heavy = append(all, heavy[0]), heavy[1:]
		} else {
			all, light = append(all, light[0]), light[1:]
		}
	}
	return all
}

// work runs jobs.
type work struct {
	options  Options
	net      *network
	list     *manifest
	versions map[string]string

	mu     sync.Mutex
	result Result
}

// attempts is how often a round is tried that a busy machine has made fail. Each try has more
// time.
const attempts = 3

// busy reports whether a round has failed because the machine was too busy.
func busy(err error) bool {
	return errors.Is(err, errLost) || errors.Is(err, errNothing) || errors.Is(err, context.DeadlineExceeded)
}

// errNothing is what a round without any packet fails with: its time was over before the
// clients had started.
var errNothing = errors.New("no payload crossed the router")

// do runs one job and writes its captures.
func (w *work) do(ctx context.Context, j job) {
	began := time.Now()
	captures, err := w.round(ctx, j, 1)
	for attempt := 2; attempt <= attempts && ctx.Err() == nil && busy(err); attempt++ {
		w.options.Log(Event{Round: j.id(), Took: time.Since(began), Again: true, Err: err})
		captures, err = w.round(ctx, j, attempt)
	}
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	w.result.Captures = append(w.result.Captures, captures...)
	if err != nil {
		w.result.Failed++
	}
	w.mu.Unlock()
	w.options.Log(Event{Round: j.id(), Captures: captures, Took: time.Since(began), Err: err})
}

func (w *work) round(ctx context.Context, j job, attempt int) (captures []*Capture, err error) {
	d := newDraw(w.options.Seed, j.id())
	r := &Round{draw: d, Program: j.program, Quick: w.options.Quick, id: j.id(), net: w.net, tunnel: j.tunnel}
	most := j.program.Clients
	if most == 0 {
		most = 3
	}
	length, clients := time.Duration(d.Between(20, 60)*float64(time.Second)), 1+d.IntN(most)
	if j.scarce {
		length, clients = time.Duration(d.Between(15, 40)*float64(time.Second)), most
	}
	if r.Quick {
		length, clients = 7*time.Second, min(most, 2)
	}
	dumps, err := r.run(ctx, length*time.Duration(attempt), setupTime*time.Duration(attempt), clients)
	if err != nil {
		for _, d := range dumps {
			_ = os.Remove(d.file)
		}
		return nil, err
	}
	inside := 0 // flows of the program in the tunnel
	for n, dump := range slices.Backward(dumps) {
		c := j.describe(dump, w.options.Seed, n, w.versions[j.program.Name])
		if c.Category == tunnelCategory {
			c.Version = w.versions[j.tunnel.name]
		}
		// The first capture is of the tunnel itself, which is no good if nobody used it.
		if !w.options.keeps(c.Category) && !dump.inside || j.tunnel != nil && j.tunnel.streams == nil && !dump.inside && inside == 0 {
			_ = os.Remove(dump.file)
			continue
		}
		ok, err := dump.finish(ctx, w.options.Out, c, d)
		if err != nil {
			return captures, err
		}
		if !ok {
			continue
		}
		if dump.inside {
			inside += c.Flows
		}
		if !w.options.keeps(c.Category) {
			if err := os.Remove(filepath.Join(w.options.Out, filepath.FromSlash(c.Path))); err != nil {
				return captures, err
			}
			continue
		}
		if err := w.list.write(c.row()); err != nil {
			return captures, err
		}
		captures = append(captures, c)
	}
	if len(captures) == 0 {
		return nil, errNothing
	}
	return captures, nil
}
