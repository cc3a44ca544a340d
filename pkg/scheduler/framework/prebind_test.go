package framework

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
)

// worker is a PreBind plugin that works for an hour.
type worker struct {
	name     string
	flight   *fwk.Status
	together bool
	err      error
	log      *workLog
}

// workLog is who began to work when.
type workLog struct {
	mu    sync.Mutex
	began time.Time
	lines []string
}

func (w *worker) Name() string { return w.name }

func (w *worker) PreBindPreFlight(context.Context, fwk.CycleState, *v1.Pod, string) (*fwk.PreBindPreFlightResult, *fwk.Status) {
	return &fwk.PreBindPreFlightResult{AllowParallel: w.together}, w.flight
}

func (w *worker) PreBind(context.Context, fwk.CycleState, *v1.Pod, string) *fwk.Status {
	w.log.mu.Lock()
	w.log.lines = append(w.log.lines, fmt.Sprint(w.name, "@", time.Since(w.log.began).Hours()))
	w.log.mu.Unlock()
	time.Sleep(time.Hour)
	return fwk.AsStatus(w.err)
}

// Plugins work before the binding if they said that they have work, one after the other,
// or beside their neighbours if all of these agree.
func TestPreBind(t *testing.T) {
	idle := fwk.NewStatus(fwk.Skip)
	no := errors.New("no")
	for _, tc := range []struct {
		name    string
		plugins []fwk.PreBindPlugin
		flight  string // what comes of asking for work
		worked  string // who began to work, and when
		err     string
	}{
		{name: "no plugins", flight: "Skip"},
		{name: "no work", plugins: []fwk.PreBindPlugin{&worker{name: "a", flight: idle}, &worker{name: "b", flight: idle, together: true}}, flight: "Skip"},
		{name: "one after the other", plugins: []fwk.PreBindPlugin{&worker{name: "a"}, &worker{name: "b", flight: idle}, &worker{name: "c"}}, flight: "Success", worked: "a@0 c@1"},
		{name: "side by side", plugins: []fwk.PreBindPlugin{
			&worker{name: "a", together: true}, &worker{name: "b", flight: idle, together: true}, &worker{name: "c", together: true}, &worker{name: "d"}, &worker{name: "e", together: true},
		}, flight: "Success", worked: "a@0 c@0 d@1 e@2"},
		{name: "kept apart by one without work", plugins: []fwk.PreBindPlugin{
			&worker{name: "a", together: true}, &worker{name: "b", flight: idle}, &worker{name: "c", together: true},
		}, flight: "Success", worked: "a@0 c@1"},
		{name: "the first fails", plugins: []fwk.PreBindPlugin{&worker{name: "a", err: no}, &worker{name: "b"}, &worker{name: "c", together: true}},
			flight: "Success", worked: "a@0", err: `running PreBind plugin "a": no`},
		{name: "one beside others fails", plugins: []fwk.PreBindPlugin{&worker{name: "a", together: true, err: no}, &worker{name: "b", together: true}, &worker{name: "c"}},
			flight: "Success", worked: "a@0 b@0", err: `running PreBind plugin "a": no`},
		{name: "an error when asked", plugins: []fwk.PreBindPlugin{&worker{name: "a", flight: fwk.AsStatus(no)}}, flight: `running PreBindPreFlight "a": no`},
		{name: "an answer that there is not", plugins: []fwk.PreBindPlugin{&worker{name: "a", flight: fwk.NewStatus(fwk.Unschedulable)}},
			flight: `PreBindPreFlight a returned "Unschedulable", which is unsupported. It is supposed to return Success, Skip, or Error status`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &workLog{began: time.Now()}
				for _, p := range tc.plugins {
					p.(*worker).log = log
				}
				f, state := &Framework{preBind: tc.plugins}, NewCycleState(false)
				s := f.RunPreBindPreFlight(t.Context(), state, nil, "n")
				flight := s.Code().String()
				if s.Code() == fwk.Error {
					flight = s.Message()
				}
				if flight != tc.flight {
					t.Fatalf("asked for work: %s, want %s", flight, tc.flight)
				}
				if s.Code() == fwk.Error {
					return
				}
				if got := f.RunPreBind(t.Context(), state, nil, "n").Message(); got != tc.err {
					t.Errorf("%s, want %s", got, tc.err)
				}
				// Those that begin at the same time do so in any order.
				slices.Sort(log.lines)
				if got := strings.Join(log.lines, " "); got != tc.worked {
					t.Errorf("worked: %s, want %s", got, tc.worked)
				}
			})
		})
	}
}
