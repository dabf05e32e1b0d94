// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"testing"

	"github.com/dpclass/dpclass/flow"
)

func byModel(label string, confidence float64, final bool) flow.Verdict {
	return flow.Verdict{Label: label, Confidence: confidence, Source: flow.SourceModel, Model: "m", Final: final}
}

func byOperator(label string) flow.Verdict {
	return flow.Verdict{Label: label, Confidence: 1, Source: flow.SourceOperator, Final: true}
}

// apply stores verdicts of a model, or an operator's as a model's agent would.
func (k *kernel) apply(id flow.ID, settled bool, category, app flow.Verdict) {
	k.t.Helper()
	stale, err := k.table.Apply([]flow.Decision{{ID: id, Settled: settled, Verdicts: flow.Verdicts{flow.Category: category, flow.App: app}}})
	if err != nil || stale != 0 {
		k.t.Fatalf("verdicts on %q: stale %d, %v", id.Key, stale, err)
	}
}

// operator stores an operator's verdicts.
func (k *kernel) operator(key flow.Key, category, app string) {
	k.t.Helper()
	verdicts := flow.Verdicts{flow.Category: {Label: category, Confidence: 1}, flow.App: {Label: app, Confidence: 1}}
	if err := k.table.SetVerdicts(key, verdicts); err != nil {
		k.t.Fatal(err)
	}
}

// TestWhoChangesAVerdict: a final verdict is changed by an operator alone, an operator's never by a model.
func TestWhoChangesAVerdict(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	for n, test := range []struct {
		name        string
		first, next flow.Verdict
		changes     bool
	}{
		{"provisional, provisional", byModel("chat", .5, false), byModel("voip", .4, false), true},
		{"provisional, final", byModel("chat", .5, false), byModel("voip", .9, true), true},
		{"final, final", byModel("chat", .9, true), byModel("voip", 1, true), false},
		{"final, provisional", byModel("chat", .9, true), byModel("voip", 1, false), false},
		{"final, operator", byModel("chat", .9, true), byOperator("voip"), true},
		{"operator, final", byOperator("chat"), byModel("voip", 1, true), false},
		{"operator, operator", byOperator("chat"), byOperator("voip"), true},
		{"provisional, none", byModel("chat", .5, false), flow.Verdict{}, false},
		{"unknown, final", byModel(flow.Unknown, .2, false), byModel("voip", 1, true), true},
	} {
		c := tcp(n)
		k.pass(progXDP, c.sent(syn, 0))
		id := k.id(c.key())
		app := byModel("tor", .7, false)
		k.apply(id, false, test.first, app)
		k.apply(id, false, test.next, flow.Verdict{})
		want := test.first
		if test.changes {
			want = test.next
		}
		r := k.flow(c.key())
		if r.Category != want.Label || r.CategoryConfidence != want.Confidence || r.CategorySource != want.Source.String() ||
			r.CategoryFinal != want.Final {
			t.Errorf("%s: %+v, want %+v", test.name, r, want)
		}
		if r.App != app.Label || r.AppConfidence != app.Confidence || r.AppFinal {
			t.Errorf("%s: the other task's verdict is %+v", test.name, r)
		}
	}
}

// TestOperatorFreezesOneTask: the flow is still sampled, and the model decides the other task.
func TestOperatorFreezesOneTask(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	for n, operated := range []flow.Task{flow.Category, flow.App} {
		c := tcp(n)
		k.pass(progXDP, c.sent(syn, 0))
		id := k.id(c.key())
		labels := [flow.NumTasks]string{"voip", "tor"}
		other := 1 - operated
		set := labels
		set[other] = ""
		k.operator(c.key(), set[flow.Category], set[flow.App])
		if _, decided := k.entry(c.key()); !decided {
			t.Errorf("%v: an operator's verdict did not move the flow to the decided ones", operated)
		}
		k.pass(progXDP, c.sent(ack|psh, 100))
		if s := k.sample(); s == nil || s.ID != id {
			t.Fatalf("%v: sample %+v: the flow is sampled no more", operated, s)
		}
		var model flow.Verdicts
		model[other] = byModel(labels[other], .6, false)
		k.apply(id, false, model[flow.Category], model[flow.App])
		r := k.flow(c.key())
		final := [flow.NumTasks]bool{r.CategoryFinal, r.AppFinal}
		if r.Category != labels[flow.Category] || r.App != labels[flow.App] || !final[operated] || final[other] || r.Final {
			t.Errorf("%v: %+v", operated, r)
		}
		model[other].Final = true
		k.apply(id, false, model[flow.Category], model[flow.App])
		if r := k.flow(c.key()); !r.CategoryFinal || !r.AppFinal || !r.Final {
			t.Errorf("%v: %+v", operated, r)
		}
		k.pass(progXDP, c.sent(ack|psh, 100))
		if s := k.sample(); s != nil {
			t.Errorf("%v: both verdicts are final, and the flow is still sampled", operated)
		}
	}
}

// TestSettled: a decided flow is sampled until it is settled.
func TestSettled(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		settled       bool
		category, app flow.Verdict
		decided       bool
		sampled       bool
	}{
		"no verdict yet":          {false, byModel("chat", .5, false), byModel("tor", .5, false), false, true},
		"one final":               {false, byModel("chat", 1, true), flow.Verdict{}, true, true},
		"the other final":         {false, flow.Verdict{}, byModel("tor", 1, true), true, true},
		"both final":              {false, byModel("chat", 1, true), byModel("tor", 1, true), true, false},
		"one final, and settled":  {true, byModel("chat", 1, true), flow.Verdict{}, true, false},
		"provisional and settled": {true, byModel("chat", .5, false), flow.Verdict{}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKernel(t, Config{Samples: 1}, ethernet)
			c := tcp6(1)
			k.pass(progXDP, c.sent(syn, 0), c.sent(ack|psh, 10), c.sent(ack|psh, 10))
			if n := k.samples(); n != 1 {
				t.Fatalf("%d samples, the budget is 1", n)
			}
			id := k.id(c.key())
			k.apply(id, test.settled, test.category, test.app)
			if _, decided := k.entry(c.key()); decided != test.decided {
				t.Errorf("decided %v, want %v", decided, test.decided)
			}
			want := 0
			if test.sampled {
				want = 1
			}
			again := func(what string, resample func() error) {
				t.Helper()
				if err := resample(); err != nil {
					t.Fatal(err)
				}
				k.pass(progOut, c.answer(ack|psh, 10), c.answer(ack|psh, 10))
				if n := k.samples(); n != want {
					t.Errorf("%s: %d samples more, want %d", what, n, want)
				}
			}
			again("one shed", func() error { return k.table.Resample([]flow.ID{id}) })
			again("all", k.table.ResampleAll)
		})
	}
}

// TestRuleAndTasks: a rule acts on the final verdicts of the tasks that it names, or on any final one if it names none.
func TestRuleAndTasks(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	voip, tor := []string{"voip"}, []string{"tor"}
	category, app := flow.Rule{Categories: voip}, flow.Rule{Apps: tor}
	both, neither := flow.Rule{Categories: voip, Apps: tor}, flow.Rule{}
	sure := func(r flow.Rule) flow.Rule { r.MinConfidence = .8; return r }
	early := func(r flow.Rule) flow.Rule { r.Provisional = true; return r }
	final := func(label string) flow.Verdict { return byModel(label, .9, true) }
	doubtful := func(label string) flow.Verdict { return byModel(label, .7, true) }
	provisional := func(label string) flow.Verdict { return byModel(label, .9, false) }
	none := flow.Verdict{}
	for n, test := range []struct {
		name          string
		rule          flow.Rule
		category, app flow.Verdict
		acts          bool
	}{
		{"category final", category, final("voip"), none, true},
		{"another category", category, final("chat"), none, false},
		{"category final, app open", category, final("voip"), provisional("tor"), true},
		{"app final, category open", category, provisional("voip"), final("tor"), false},
		{"category by an operator", sure(category), byOperator("voip"), provisional("tor"), true},
		{"category open, early rule", early(category), provisional("voip"), none, true},
		{"category doubtful, app sure", sure(category), doubtful("voip"), final("tor"), false},
		{"app final", app, none, final("tor"), true},
		{"category final, app open, rule of app", app, final("voip"), provisional("tor"), false},
		{"app open, early rule", early(app), final("voip"), provisional("tor"), true},
		{"both final", both, final("voip"), final("tor"), true},
		{"both, app open", both, final("voip"), provisional("tor"), false},
		{"both, category open", both, provisional("voip"), final("tor"), false},
		{"both open, early rule", early(both), provisional("voip"), provisional("tor"), true},
		{"both, app doubtful", sure(both), final("voip"), doubtful("tor"), false},
		{"no label, one final", neither, final("chat"), none, true},
		{"no label, the other final", neither, none, final("skype"), true},
		{"no label, none final", neither, provisional("chat"), provisional("skype"), false},
		{"no label, early rule", early(neither), provisional("chat"), none, true},
		{"no label, the final one sure", sure(neither), final("chat"), doubtful("skype"), true},
		{"no label, the final one doubtful", sure(neither), doubtful("chat"), provisional("skype"), false},
		{"no label, no verdict", early(neither), none, none, false},
		{"unknown is a verdict", neither, final(flow.Unknown), none, true},
	} {
		test.rule.Action = passing
		k.policy(test.rule)
		c := udp(n)
		k.pass(progXDP, c.sent(0, 10))
		k.apply(k.id(c.key()), false, test.category, test.app)
		k.pass(progXDP, c.sent(0, 10))
		if acts := k.flow(c.key()).Rule == 1; acts != test.acts {
			t.Errorf("%s: acts %v, want %v", test.name, acts, test.acts)
		}
	}
}

// TestPolicerOutlivesSamples: a verdict that changes nothing gives the flow's policer no new burst.
func TestPolicerOutlivesSamples(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	c := k.begun(udp(1), "streaming", 1, true)
	k.policy(flow.Rule{Action: policing(100, flow.ScopeFlow)})
	burst := func() (passed int) {
		for range 10 {
			if verdict, _ := k.run(progXDP, c.sent(0, 972)); verdict == xdpPass {
				passed++
			}
		}
		return passed
	}
	if n := burst(); n != 6 {
		t.Fatalf("%d packets passed, want 6", n)
	}
	k.decide(k.id(c.key()), "streaming", .9, true)
	if n := burst(); n != 0 {
		t.Errorf("%d packets passed after another verdict, want none", n)
	}
}
