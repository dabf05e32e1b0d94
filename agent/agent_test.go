// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// A port may have undecided flows of an earlier agent: they are sampled again
// before the first sample is read, and until then the status is "not ready".
func TestTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0", "eth1")
		release := make(chan struct{})
		r.ports[1].resampleAll = func() error { <-release; return nil }
		r.start()
		if got, want := r.journal.take(), []string{"eth0: resample all", "eth1: resample all"}; !slices.Equal(got, want) {
			t.Errorf("at the start: %q, want %q", got, want)
		}
		for _, p := range r.ports {
			if len(get(&p.mu, &p.published)) != 1 || p.last().Ready || p.last().PID == 0 {
				t.Errorf("%s during the takeover: %+v", p.name, get(&p.mu, &p.published))
			}
		}
		close(release)
		synctest.Wait()
		if got := r.journal.take(); !slices.Contains(got, "eth0: samples") || !slices.Contains(got, "eth1: samples") || !slices.Contains(got, "classifier: run") {
			t.Errorf("after the takeover: %q", got)
		}
		for _, p := range r.ports {
			if got := p.last(); !got.Ready || !got.Classify || !slices.Equal(got.Model, []string{"old"}) {
				t.Errorf("%s at work: %+v", p.name, got)
			}
		}
		r.end()
		for _, p := range r.ports {
			if p.last().Ready {
				t.Errorf("%s is ready after the end", p.name)
			}
			if get(&p.mu, &p.all) != 1 {
				t.Errorf("%s was resampled %d times", p.name, get(&p.mu, &p.all))
			}
		}
	})
}

func TestTakeoverFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		r.ports[0].resampleAll = func() error { return errTest }
		r.start()
		if err := <-r.result; !errors.Is(err, errTest) || !strings.Contains(err.Error(), "eth0") {
			t.Errorf("Run: %v", err)
		}
		for _, s := range get(&r.ports[0].mu, &r.ports[0].published) {
			if s.Ready {
				t.Error("ready although the flows were not sampled again")
			}
		}
	})
}

func TestWithoutClassifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		r.classifier = nil
		sink := &fakeSink{name: "log"}
		r.config.Sinks = []Sink{sink}
		r.ports[0].ended = ended(1)
		r.start()
		time.Sleep(sweepEvery)
		synctest.Wait()
		if got := r.ports[0].last(); !got.Ready || got.Classify {
			t.Errorf("published %+v", got)
		}
		r.reload <- struct{}{}
		synctest.Wait()
		r.end()
		if got := r.journal.take(); slices.Contains(got, "eth0: samples") || slices.Contains(got, "eth0: resample all") {
			t.Errorf("an agent that does not classify samples: %q", got)
		}
		if got := sink.records(); !slices.Equal(got, []uint16{1}) {
			t.Errorf("the sink has %d", got)
		}
		if r.log.count("does not classify") != 1 {
			t.Errorf("log: %s", &r.log.text)
		}
	})
}

// Samples get the number of their port, and decisions go to the table of theirs.
func TestPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0", "eth1")
		var stored int
		r.config.Stored = func(decisions []flow.Decision) { stored += len(decisions) }
		r.start()
		for i, p := range r.ports {
			p.samples <- flow.Sample{ID: flow.ID{Key: id(0, i).Key, Generation: 7}}
		}
		synctest.Wait()
		if got := get(&r.classifier.mu, &r.classifier.submitted); !slices.Contains(got, id(0, 0)) || !slices.Contains(got, id(1, 1)) || len(got) != 2 {
			t.Errorf("submitted %v", got)
		}
		r.ports[1].with(func() { r.ports[1].stale = 1 })
		r.classifier.decisions <- []flow.Decision{{ID: id(1, 1)}, {ID: id(0, 0)}, {ID: id(1, 2)}}
		time.Sleep(publishEvery)
		synctest.Wait()
		for i, want := range [][]flow.ID{{id(0, 0)}, {id(1, 1), id(1, 2)}} {
			var got []flow.ID
			for _, d := range get(&r.ports[i].mu, &r.ports[i].applied) {
				got = append(got, d.ID)
			}
			if !slices.Equal(got, want) {
				t.Errorf("port %d: applied %v, want %v", i, got, want)
			}
			if s := r.ports[i].last(); s.Samples != 1 || s.Verdicts != 1 || s.Batches != 1 {
				t.Errorf("port %d: published %+v", i, s)
			}
		}
		if stored != 3 {
			t.Errorf("Stored got %d decisions, want 3", stored)
		}
		r.ports[0].with(func() { r.ports[0].applyErr = errTest })
		r.classifier.decisions <- []flow.Decision{{ID: id(0, 3)}}
		time.Sleep(publishEvery)
		synctest.Wait()
		if s := r.ports[0].last(); s.Verdicts != 1 || !strings.Contains(s.LastError, errTest.Error()) || stored != 3 {
			t.Errorf("after a failed Apply: %d stored, published %+v", stored, s)
		}
		r.end()
	})
}

// TestFaultsAreLoggedOnce: ports that fail in turn do not fill the log.
func TestFaultsAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0", "eth1")
		r.start()
		for _, p := range r.ports {
			p.with(func() { p.goneErr = errTest })
		}
		time.Sleep(5 * lostEvery)
		synctest.Wait()
		if n := r.log.count(errTest.Error()); n != len(r.ports) {
			t.Errorf("%d log lines for %d ports", n, len(r.ports))
		}
		r.end()
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0", "eth1")
		r.ports[1].ended = ended(5)
		r.start()
		time.Sleep(sweepEvery)
		synctest.Wait()
		if got := get(&r.classifier.mu, &r.classifier.forgotten); !slices.Equal(got, []flow.ID{id(1, 5)}) {
			t.Errorf("forgotten %v", got)
		}
		r.end()
	})
}

// A flow whose sample was shed is sampled again at the next tick, once.
func TestResampleAfterShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0", "eth1")
		r.classifier.full = true
		r.start()
		r.ports[1].samples <- flow.Sample{ID: id(0, 1)}
		r.ports[1].samples <- flow.Sample{ID: id(0, 2)}
		synctest.Wait()
		if len(get(&r.ports[1].mu, &r.ports[1].resampled)) > 0 {
			t.Error("sampled again at once: the classifier has too much to do")
		}
		r.classifier.with(func() { r.classifier.full = false })
		r.ports[1].samples <- flow.Sample{ID: id(0, 3)}
		time.Sleep(3 * resampleEvery)
		synctest.Wait()
		if got := get(&r.ports[1].mu, &r.ports[1].resampled); !slices.Equal(got, []flow.ID{id(1, 1), id(1, 2)}) {
			t.Errorf("sampled again: %v", got)
		}
		if len(get(&r.ports[0].mu, &r.ports[0].resampled)) > 0 {
			t.Errorf("the other port sampled again: %v", get(&r.ports[0].mu, &r.ports[0].resampled))
		}
		time.Sleep(publishEvery)
		synctest.Wait()
		if s := r.ports[1].last(); s.Shed != 2 || s.Samples != 3 || r.ports[0].last().Shed != 0 {
			t.Errorf("published %+v", s)
		}
		r.end()
	})
}

// Models are replaced as a whole or not at all.
func TestReload(t *testing.T) {
	for _, test := range []struct {
		name    string
		models  Models
		loadErr error
		useErr  error
		used    int
		again   int // times that each port is sampled again
		log     string
	}{
		{name: "right", models: Models{Names: []string{"new"}, Labels: []string{"web"}, Tasks: flow.Tasks[:], Samples: 8}, used: 1, again: 1, log: "models changed"},
		{name: "a task less", models: Models{Names: []string{"new"}, Tasks: []flow.Task{flow.Category}}, used: 1, again: 1, log: "models changed"},
		{name: "label missing", models: Models{Labels: []string{"web", "racing"}}, log: `label \"racing\"`},
		{name: "more samples", models: Models{Samples: 9}, log: "read 9 packets of a flow"},
		{name: "not loaded", loadErr: errTest, log: errTest.Error()},
		{name: "not used", models: Models{Names: []string{"new"}}, useErr: errTest, used: 1, log: errTest.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "eth0", "eth1")
				used := 0
				test.models.Use = func() error {
					used++
					r.journal.add("use")
					return test.useErr
				}
				r.classifier.models, r.classifier.loadErr = test.models, test.loadErr
				// The second port knows every label, so that each port counts.
				r.start()
				second := r.agent.serving()[1]
				second.Labels, second.Samples = append(second.Labels, "racing"), 9
				r.journal.take()
				r.reload <- struct{}{}
				synctest.Wait()
				if used != test.used {
					t.Errorf("used %d times, want %d", used, test.used)
				}
				for _, p := range r.ports {
					if get(&p.mu, &p.all) != 1+test.again {
						t.Errorf("%s was sampled again %d times, want %d", p.name, get(&p.mu, &p.all)-1, test.again)
					}
				}
				if events := r.journal.take(); test.again > 0 && (events[0] != "use" || events[len(events)-1] != "eth1: resample all") {
					t.Errorf("flows are to be sampled again after the change: %q", events)
				}
				// What the old models said of a task that the new ones lack does not stay.
				var want []flow.Task
				for _, task := range flow.Tasks {
					if test.again > 0 && !slices.Contains(test.models.Tasks, task) {
						want = append(want, task)
					}
				}
				for _, p := range r.ports {
					if got := get(&p.mu, &p.withdrawn); !slices.Equal(got, want) {
						t.Errorf("%s: verdicts on %v are withdrawn, want %v", p.name, got, want)
					}
				}
				if r.log.count(test.log) != 1 {
					t.Errorf("no %s in the log: %s", test.log, &r.log.text)
				}
				time.Sleep(publishEvery)
				synctest.Wait()
				s := r.ports[0].last()
				if (s.ReloadError == "") != (test.again > 0) || s.ReloadsBegun != 1 || s.Reloads != 1 || s.LastError != "" || !s.Ready {
					t.Errorf("published %+v", s)
				}
				r.end()
			})
		})
	}
}

// Sources end first, then the classifier with what it still decides, then comes
// the last sweep. Nothing touches the tables after Run has returned.
func TestShutdownOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		r.ports[0].source = func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(5 * time.Second) // it is slow to end
			return nil
		}
		r.classifier.run = func(ctx context.Context, store func([]flow.Decision)) error {
			<-ctx.Done()
			r.journal.add("classifier: told to end")
			time.Sleep(lastBatch / 2) // the batch at work
			store([]flow.Decision{{ID: id(0, 1)}})
			return nil
		}
		sink := &fakeSink{name: "log"}
		r.config.Sinks = []Sink{sink}
		r.start()
		time.Sleep(sweepEvery / 2) // between two sweeps
		r.journal.take()
		r.ports[0].with(func() { r.ports[0].ended = ended(1) })
		r.stop()
		want := []string{"eth0: samples end", "classifier: told to end", "eth0: apply", "classifier: end", "eth0: sweep"}
		if got := r.journal.take(); !slices.Equal(got, want) {
			t.Errorf("at the end: %q, want %q", got, want)
		}
		if err := r.agent.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		time.Sleep(time.Minute)
		if got := r.journal.take(); len(got) > 0 {
			t.Errorf("after Run has returned: %q", got)
		}
		if got := sink.records(); !slices.Equal(got, []uint16{1}) {
			t.Errorf("the sink has %d, not the flow of the last sweep", got)
		}
	})
}

// A verdict of the old models on a task that the new ones lack, which was on its way during
// the change, is not stored.
func TestReloadDropsLateVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		r.classifier.models = Models{Tasks: []flow.Task{flow.Category}, Use: func() error { return nil }}
		r.start()
		r.reload <- struct{}{}
		synctest.Wait()
		late := flow.Verdict{Label: "netflix", Source: flow.SourceModel}
		final, named := late, late
		final.Final, named.Source = true, flow.SourceName
		for _, v := range []flow.Verdict{late, final, named} {
			r.classifier.decisions <- []flow.Decision{{ID: id(0, 1), Verdicts: flow.Verdicts{flow.Category: late, flow.App: v}}}
		}
		synctest.Wait()
		var got []flow.Verdict
		for _, d := range get(&r.ports[0].mu, &r.ports[0].applied) {
			got = append(got, d.Verdicts[flow.App])
			if d.Verdicts[flow.Category] != late {
				t.Errorf("category %+v", d.Verdicts[flow.Category])
			}
		}
		if want := []flow.Verdict{{}, final, named}; !slices.Equal(got, want) {
			t.Errorf("applications %+v, want %+v", got, want)
		}
		r.end()
	})
}

// Models that never load do not keep the agent from ending, and change nothing later.
func TestReloadHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		release := make(chan struct{})
		r.classifier.models = Models{Use: func() error { <-release; return nil }}
		r.start()
		r.reload <- struct{}{}
		synctest.Wait()
		if s := r.ports[0].last(); s.ReloadsBegun != 1 || s.Reloads != 0 {
			t.Errorf("published %+v", s)
		}
		r.end()
		all := get(&r.ports[0].mu, &r.ports[0].all)
		close(release)
		synctest.Wait()
		if got := get(&r.ports[0].mu, &r.ports[0].all); got != all {
			t.Error("flows are sampled again after Run has returned")
		}
	})
}

// A model that never returns does not hold up Run, and its decisions are not stored later.
// Close says that it does not return.
func TestClassifierHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		release := make(chan struct{})
		r.classifier.run = func(_ context.Context, store func([]flow.Decision)) error {
			<-release
			store([]flow.Decision{{ID: id(0, 1)}})
			return nil
		}
		r.start()
		start := time.Now()
		r.stop()
		if took := time.Since(start); took != lastBatch {
			t.Errorf("Run took %v to end, want %v", took, lastBatch)
		}
		if s := r.ports[0].last(); s.Ready || !s.Ending {
			t.Errorf("published %+v", s)
		}
		if err := r.agent.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "a model does not return") {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(start); took != lastBatch+DefaultDrain {
			t.Errorf("the end took %v", took)
		}
		close(release)
		synctest.Wait()
		if got := get(&r.ports[0].mu, &r.ports[0].applied); len(got) > 0 {
			t.Errorf("stored after Run has returned: %+v", got)
		}
	})
}

// The agent lets go of an interface that is gone, once, and serves the others. When it
// returns, it is attached again, and has a number of its own: what was said of the flows of
// the old one is not stored.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0", "eth1")
		back := &fakePort{name: "eth0", journal: &r.journal, samples: make(chan flow.Sample)}
		var isBack atomic.Bool
		r.ports[0].again = func(context.Context) (Port, error) {
			if !isBack.Load() {
				return Port{}, ErrNotYet
			}
			return back.port(), nil
		}
		r.start()
		r.ports[0].with(func() { r.ports[0].gone = loader.ErrDeviceGone })
		r.ports[1].with(func() { r.ports[1].goneErr, r.ports[1].gone = errTest, loader.ErrDeviceGone }) // not known: not gone
		time.Sleep(3 * lostEvery)
		synctest.Wait()
		if !get(&r.ports[0].mu, &r.ports[0].released) || r.log.count("let go") != 1 || r.log.count("iface=eth0") != 1 || r.log.count("was removed") != 1 {
			t.Errorf("log: %s", &r.log.text)
		}
		r.ports[1].samples <- flow.Sample{ID: id(0, 1)}
		r.classifier.decisions <- []flow.Decision{{ID: id(1, 1)}, {ID: id(0, 1)}}
		synctest.Wait()
		if len(get(&r.ports[1].mu, &r.ports[1].applied)) != 1 || get(&r.ports[1].mu, &r.ports[1].released) {
			t.Error("the interface that is left is not served")
		}
		isBack.Store(true)
		time.Sleep(lostEvery)
		synctest.Wait()
		back.samples <- flow.Sample{ID: id(0, 2)}
		r.classifier.decisions <- []flow.Decision{{ID: id(0, 1)}, {ID: id(2, 2)}}
		time.Sleep(sweepEvery)
		synctest.Wait()
		if got := get(&back.mu, &back.applied); len(got) != 1 || got[0].ID != id(2, 2) {
			t.Errorf("stored %+v, want only what is about the new interface", got)
		}
		if !back.last().Ready || get(&back.mu, &back.sweeps) == 0 || r.log.count("attached an interface again") != 1 {
			t.Errorf("the interface that returned is not served: %+v, %s", back.last(), &r.log.text)
		}
		r.end()
	})
}

// Without an interface the agent waits for one for a while, and then ends. It does not wait
// for one that somebody took away on purpose.
func TestNoneLeft(t *testing.T) {
	for name, test := range map[string]struct {
		reason error
		want   time.Duration
	}{
		"removed": {loader.ErrDeviceGone, lostEvery + DefaultWait}, "moved": {loader.ErrDeviceLeft, lostEvery + DefaultWait},
		"pins removed": {loader.ErrPinsGone, lostEvery}, "namespace deleted": {loader.ErrNetnsGone, lostEvery},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "eth0", "eth1")
				for _, p := range r.ports {
					p.again = func(context.Context) (Port, error) { return Port{}, ErrNotYet }
				}
				r.start()
				for _, p := range r.ports {
					p.with(func() { p.gone = test.reason })
				}
				start := time.Now()
				err := <-r.result
				if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "eth0 ("+test.reason.Error()) || !strings.Contains(err.Error(), "eth1 (") {
					t.Errorf("Run: %v", err)
				}
				if took := time.Since(start); took != test.want {
					t.Errorf("it ended after %v, want %v", took, test.want)
				}
				if err := r.agent.Close(t.Context()); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
}

// A source that fails is tried again. Meanwhile the other interfaces are served, and the
// status of this one says why it is not ready.
func TestSourceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0", "eth1")
		calls := 0
		r.ports[0].source = func(ctx context.Context) error {
			if calls++; calls <= 2 {
				return errTest
			}
			<-ctx.Done()
			return nil
		}
		r.start()
		time.Sleep(publishEvery)
		synctest.Wait()
		if s := r.ports[0].last(); s.Ready || !strings.Contains(s.LastError, errTest.Error()) || !r.ports[1].last().Ready {
			t.Errorf("published %+v and %+v", s, r.ports[1].last())
		}
		r.ports[1].samples <- flow.Sample{ID: id(0, 1)}
		time.Sleep(4 * retryEvery)
		synctest.Wait()
		if calls != 3 || !r.ports[0].last().Ready || r.log.count(errTest.Error()) != 1 {
			t.Errorf("%d calls, published %+v, log %s", calls, r.ports[0].last(), &r.log.text)
		}
		r.end()
	})
}

// What cannot be repaired ends the agent, in order too.
func TestFailures(t *testing.T) {
	for name, breakIt := range map[string]func(*rig){
		"classifier": func(r *rig) {
			r.classifier.run = func(context.Context, func([]flow.Decision)) error { return errTest }
		},
		"statistics": func(r *rig) { r.ports[0].publishErr = errTest },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "eth0", "eth1")
				breakIt(r)
				r.start()
				if err := <-r.result; !errors.Is(err, errTest) || !strings.Contains(err.Error(), name) {
					t.Errorf("Run: %v", err)
				}
				synctest.Wait()
				if got := r.journal.take(); slices.Contains(got, "eth1: samples") != slices.Contains(got, "eth1: samples end") {
					t.Errorf("the other port's source was left running: %q", got)
				}
			})
		})
	}
}

// Later on, statistics that cannot be published are logged once.
func TestPublishFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		r.start()
		r.ports[0].with(func() { r.ports[0].publishErr = errTest })
		time.Sleep(3 * publishEvery)
		synctest.Wait()
		if n := r.log.count(errTest.Error()); n != 1 {
			t.Errorf("logged %d times: %s", n, &r.log.text)
		}
		r.end()
	})
}
