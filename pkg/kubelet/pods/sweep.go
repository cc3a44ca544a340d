package pods

import (
	"context"
	"errors"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/kubelet/allocation"
	"github.com/leme-k8s/leme/pkg/kubelet/logs"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// listed compares everything that the runtime has with what the workers have last seen.
func (m *Manager) listed(ctx context.Context, states map[types.UID]*runtime.State, err error) {
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot list what the runtime has")
		return
	}
	known := map[types.UID]bool{}
	for _, w := range m.all() {
		known[w.uid] = true
		w.mu.Lock()
		same := sameState(w.state, states[w.uid])
		w.mu.Unlock()
		if !same {
			w.poke()
		}
	}
	if !m.allSynced() {
		return
	}
	for uid, state := range states {
		if !known[uid] {
			m.metrics.orphans.Inc()
			m.orphan(ctx, state, false)
		}
	}
	m.sweep(ctx)
}

func sameState(a, b *runtime.State) bool {
	if a == nil || b == nil {
		return (a == nil || len(a.Containers)+len(a.Sandboxes) == 0) && (b == nil || len(b.Containers)+len(b.Sandboxes) == 0)
	}
	return slices.EqualFunc(a.Sandboxes, b.Sandboxes, func(x, y runtime.Sandbox) bool { return x.ID == y.ID && x.Ready == y.Ready }) &&
		slices.EqualFunc(a.Containers, b.Containers, func(x, y runtime.Container) bool { return x.ID == y.ID && x.State == y.State })
}

// orphan ends a pod of which something is there although nobody wants it: it was deleted while no kubelet ran.
// volumes says that it was found by them.
func (m *Manager) orphan(ctx context.Context, state *runtime.State, volumes bool) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: state.UID, Namespace: state.Namespace, Name: state.Name}}
	klog.FromContext(ctx).Info("Ending a pod that is not desired", "pod", klog.KObj(pod), "uid", pod.UID)
	w := newWorker(m, pod)
	w.end, w.removed, w.swept = &End{Grace: 1, Since: time.Now()}, true, volumes
	m.begin(ctx, w)
}

// sweep ends pods that left something on the node but nothing in the runtime, and removes the logs and sizes of
// those that are gone: once, when all sources are known; what pods leave later their workers remove.
func (m *Manager) sweep(ctx context.Context) {
	if m.swept {
		return
	}
	m.swept = true
	logger := klog.FromContext(ctx)
	for _, store := range []*allocation.Store{m.Allocated, m.Actuated} {
		if err := store.Retain(m.known); err != nil {
			logger.Error(err, "Cannot forget the sizes of earlier pods")
		}
	}
	if err := logs.Clean(m.Runtime.LogDir, m.Runtime.LogLinkDir, m.known); err != nil {
		logger.Error(err, "Cannot remove the logs of earlier pods")
	}
	lists := []func() ([]types.UID, error){m.Volumes.UIDs, m.Cgroups.UIDs}
	for _, d := range m.Devices {
		lists = append(lists, d.UIDs)
	}
	for i, list := range lists {
		uids, err := list()
		if err != nil {
			logger.Error(err, "Cannot list what earlier pods have left")
		}
		for _, uid := range uids {
			if !m.known(uid) {
				m.orphan(ctx, &runtime.State{UID: uid}, i == 0)
			}
		}
	}
}

func (m *Manager) known(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.workers[uid] != nil
}

// RemoveDead removes all containers of pods that have ended, with their logs: the disk is worth more.
func (m *Manager) RemoveDead(ctx context.Context) error {
	var errs []error
	for _, w := range m.all() {
		w.mu.Lock()
		state, over := w.state, w.over
		w.mu.Unlock()
		if !over {
			continue
		}
		for i := range state.Containers {
			errs = append(errs, m.Runtime.RemoveContainer(ctx, state, &state.Containers[i]))
		}
		w.poke()
	}
	return errors.Join(errs...)
}
