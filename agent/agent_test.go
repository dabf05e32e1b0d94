// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dpclass/dpclass/flow"
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
		time.Sleep(5 * goneEvery)
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
		{name: "right", models: Models{Names: []string{"new"}, Labels: []string{"web"}}, used: 1, again: 1, log: "models changed"},
		{name: "label missing", models: Models{Labels: []string{"web", "racing"}}, log: `label \"racing\"`},
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
				r.agent.ports[1].Labels = append(r.agent.ports[1].Labels, "racing")
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
				if events := r.journal.take(); test.again > 0 && (len(events) != 3 || events[0] != "use") {
					t.Errorf("flows are to be sampled again after the change: %q", events)
				}
				if r.log.count(test.log) != 1 {
					t.Errorf("no %s in the log: %s", test.log, &r.log.text)
				}
				time.Sleep(publishEvery)
				synctest.Wait()
				if s := r.ports[0].last(); (s.LastError == "") != (test.again > 0) {
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
			time.Sleep(2 * time.Second) // the batch at work
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

// An interface that goes away is reported once; the others are served on, until
// the last one is gone too.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0", "eth1")
		r.start()
		r.ports[0].with(func() { r.ports[0].gone = true })
		r.ports[1].with(func() { r.ports[1].goneErr = errTest; r.ports[1].gone = true }) // not known: not gone
		time.Sleep(3 * goneEvery)
		synctest.Wait()
		if r.log.count("was removed") != 1 || r.log.count("iface=eth0") != 1 {
			t.Errorf("log: %s", &r.log.text)
		}
		r.ports[1].samples <- flow.Sample{ID: id(0, 1)}
		r.classifier.decisions <- []flow.Decision{{ID: id(1, 1)}}
		synctest.Wait()
		if len(get(&r.ports[1].mu, &r.ports[1].applied)) != 1 {
			t.Error("the interface that is left is not served")
		}
		r.ports[1].with(func() { r.ports[1].goneErr = nil })
		time.Sleep(goneEvery)
		synctest.Wait()
		select {
		case err := <-r.result:
			if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "eth0, eth1") {
				t.Errorf("Run: %v", err)
			}
		default:
			t.Fatal("the agent goes on without an interface")
		}
		if err := r.agent.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// What cannot be repaired ends the agent, in order too.
func TestFailures(t *testing.T) {
	for name, breakIt := range map[string]func(*rig){
		`samples of "eth0"`: func(r *rig) { r.ports[0].source = func(context.Context) error { return errTest } },
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
