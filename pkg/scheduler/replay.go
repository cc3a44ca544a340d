package scheduler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/rest"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/record"
)

// ReplayConfig says how a recording is replayed.
type ReplayConfig struct {
	// Component is another configuration to decide by; nil for the recorded one.
	Component *configv1.KubeSchedulerConfiguration
	// Plugins are those that profiles may name.
	Plugins framework.Registry
}

// Replay makes the decisions of a recording again and calls each with them. Each is made
// from what the scheduler knew then, its own earlier decisions included: what is decided
// otherwise now is shown, and has no consequences. It ends with record.ErrCut if the
// recording breaks off.
func Replay(ctx context.Context, in io.Reader, c ReplayConfig, each func(record.Header, record.Replayed) error) error {
	log, err := record.NewReader(in)
	if err != nil {
		return err
	}
	r, err := newReplay(ctx, log.Header, c)
	if err != nil {
		return err
	}
	for line := 2; ; line++ {
		e, err := log.Next()
		switch {
		case errors.Is(err, io.EOF) || e.Full:
			return nil
		case errors.Is(err, record.ErrCut):
			return err
		case err == nil:
			err = r.apply(ctx, e, func(d record.Replayed) error { return each(log.Header, d) })
		}
		if err != nil {
			return fmt.Errorf("line %d of the recording: %w", line, err)
		}
	}
}

// replay is a replay that goes on.
type replay struct{ *closedMind }

func newReplay(ctx context.Context, h record.Header, c ReplayConfig) (*replay, error) {
	if c.Component == nil {
		var err error
		if c.Component, err = config.Decode(h.Configuration); err != nil {
			return nil, fmt.Errorf("the recorded configuration: %w", err)
		}
	}
	if errs := config.Validate(c.Component, sets.KeySet(c.Plugins), h.Gates); len(errs) > 0 {
		return nil, fmt.Errorf("invalid configuration: %w", errs.ToAggregate())
	}
	if len(c.Component.Extenders) > 0 {
		return nil, errors.New("invalid configuration: extenders: a recording does not have their answers")
	}
	m, err := newClosedMind(ctx, c.Component, c.Plugins, h.Gates, nil, &rest.Config{Host: "https://nowhere.invalid", Transport: nowhere{}})
	if err != nil {
		return nil, err
	}
	return &replay{m}, nil
}

// nowhere is the network of a replay.
type nowhere struct{}

// RoundTrip refuses everything.
func (nowhere) RoundTrip(req *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("a replay asks nobody: %s %s is not sent", req.Method, req.URL.Path)
}

func (r *replay) apply(ctx context.Context, e record.Entry, each func(record.Replayed) error) error {
	switch {
	case e.Saw != nil:
		return r.see(ctx, e.Saw)
	case e.Decided != nil:
		return r.decideAgain(ctx, e.Decided, each)
	case e.Undone != nil:
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: e.Undone.Namespace, Name: e.Undone.Name, UID: e.Undone.UID}}
		if seen, err := r.pods.Pods(pod.Namespace).Get(pod.Name); err == nil && seen.UID == pod.UID {
			pod = seen // which names its group
		}
		r.unassume(pod)
		r.promise(ctx, pod, noPromise)
	case e.Noted != nil:
		if fw, ok := r.profiles[e.Noted.Profile]; ok {
			return fw.Recall(e.Noted.Plugin, framework.Note{What: e.Noted.What, Object: e.Noted.Object.Object})
		}
	}
	return nil
}

// see takes over an object that came, changed or went.
func (r *replay) see(ctx context.Context, saw *record.Saw) error {
	obj := saw.Object.Object
	store := r.store(obj)
	old, known, err := store.Get(obj)
	if err != nil {
		return err
	}
	if saw.Gone {
		err = store.Delete(obj)
	} else {
		err = store.Update(obj)
	}
	if err != nil {
		return err
	}
	switch o := obj.(type) {
	case *v1.Pod:
		before, _ := old.(*v1.Pod)
		switch {
		case !saw.Gone:
			r.podChanged(ctx, before, o)
		case known:
			r.podGone(ctx, o)
		}
	case *v1.Node:
		before, _ := old.(*v1.Node)
		if saw.Gone {
			r.nodeGone(ctx, o)
		} else {
			r.nodeChanged(ctx, before, o)
		}
	}
	return nil
}

// decideAgain makes a decision again, and then goes on from the recorded one.
func (r *replay) decideAgain(ctx context.Context, d *record.Decided, each func(record.Replayed) error) error {
	if d.Group != "" {
		return r.decideGroupAgain(ctx, d, each)
	}
	pod, err := r.tried(record.Tried{Pod: d.Pod, Object: d.Object})
	if err != nil {
		return err
	}
	q := question{state: framework.NewTrialState(), pod: pod, attempt: d.Attempt, start: d.Start, seed: d.Seed, now: d.Time}
	var (
		ok  bool
		now = record.Outcome{Message: fmt.Sprintf("no profile has the name %q", pod.Spec.SchedulerName)}
	)
	if q.fw, ok = r.profiles[pod.Spec.SchedulerName]; ok {
		made := r.decide(ctx, q)
		if err := ctx.Err(); err != nil {
			return err
		}
		now = made.outcome()
	}
	if err := compare(d, now, each); err != nil {
		return err
	}
	r.goOn(ctx, q.fw, q.state, pod, d.Outcome)
	return nil
}

// decideGroupAgain is decideAgain for a pod group.
func (r *replay) decideGroupAgain(ctx context.Context, d *record.Decided, each func(record.Replayed) error) error {
	q := groupQuestion{trial: true, start: d.Start, seed: d.Seed, now: d.Time}
	var pods []*v1.Pod
	for _, t := range d.Pods() {
		pod, err := r.tried(t)
		if err != nil {
			return err
		}
		pods, q.attempts = append(pods, pod), append(q.attempts, t.Attempt)
	}
	profile := pods[0].Spec.SchedulerName
	var (
		err    error
		ok     bool
		now    = record.Outcome{Message: fmt.Sprintf("no profile has the name %q", profile)}
		states = make([]fwk.CycleState, len(pods))
	)
	if r.groups == nil {
		return fmt.Errorf("a decision about pod group %s, and the GenericWorkload feature gate is off", d.Group)
	}
	root := fwk.PodGroupKey(d.Namespace, d.Group)
	if d.Composite {
		root = fwk.CompositePodGroupKey(d.Namespace, d.Group)
	}
	if q.group, err = r.groups.Tree(root, pods); err != nil {
		return fmt.Errorf("a decision about a pod group: %w", err)
	}
	if q.fw, ok = r.profiles[profile]; ok {
		made := r.decideGroup(ctx, q)
		if err := ctx.Err(); err != nil {
			return err
		}
		now = made.outcome()
		for i := range made.members {
			if s := made.members[i].state; s != nil {
				s.LeaveGroup()
				states[i] = s
			}
		}
	}
	if err := compare(d, now, each); err != nil {
		return err
	}
	for i, pod := range pods {
		if i < len(d.Members) {
			r.goOn(ctx, q.fw, states[i], pod, d.Members[i])
		}
	}
	return nil
}

// compare shows a decision and what was recorded of it.
func compare(d *record.Decided, now record.Outcome, each func(record.Replayed) error) error {
	same, err := equal(now, d.Outcome)
	if err != nil {
		return err
	}
	return each(record.Replayed{Recorded: *d, Now: now, Same: same})
}

// goOn takes over what was recorded for a pod. state is what plugins found out about it
// this time, nil for nothing.
func (r *replay) goOn(ctx context.Context, fw *framework.Framework, state fwk.CycleState, pod *v1.Pod, was record.Outcome) {
	var nominated *fwk.NominatingInfo
	if was.Nominated != nil {
		nominated = &fwk.NominatingInfo{NominatedNodeName: *was.Nominated, NominatingMode: fwk.ModeOverride}
	}
	if was.Node == "" {
		r.promise(ctx, pod, nominated)
		return
	}
	placed, err := r.assume(ctx, pod, was.Node)
	if err != nil { // as it was then
		r.promise(ctx, pod, noPromise)
		return
	}
	if fw != nil && state != nil {
		// Where it is refused, as can be if another node was found this time, the pod is on its node all the same.
		_ = fw.RunReservePluginsReserve(ctx, state, placed, was.Node)
	}
}

// tried returns the pod of a decision, as it was tried.
func (r *replay) tried(d record.Tried) (*v1.Pod, error) {
	if d.Object != nil {
		if pod, ok := d.Object.Object.(*v1.Pod); ok {
			return pod, nil
		}
		return nil, fmt.Errorf("a decision about a %T", d.Object.Object)
	}
	pod, err := r.pods.Pods(d.Namespace).Get(d.Name)
	if err != nil || pod.UID != d.UID {
		return nil, fmt.Errorf("a decision about pod %s/%s (%s), which is not there", d.Namespace, d.Name, d.UID)
	}
	return pod, nil
}

func equal(a, b record.Outcome) (bool, error) {
	x, err := json.Marshal(a)
	if err != nil {
		return false, err
	}
	y, err := json.Marshal(b)
	return bytes.Equal(x, y), err
}
