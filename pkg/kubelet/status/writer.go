package status

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
)

// A Writer brings the statuses of pods to the API: at once, a change at a time for each pod, and only
// what has changed.
type Writer struct {
	client kubernetes.Interface
	slots  chan struct{}
	took   *metrics.Histogram

	mu   sync.Mutex
	pods map[types.UID]*entry
}

type entry struct {
	pod     *v1.Pod // as the API has it, as far as is known
	want    v1.PodStatus
	end     bool // the pod has ended: delete it from the API after the last status
	deleted bool // that has been done
	gone    bool // the API knows it no more
	dirty   bool
	since   time.Time // the first change that the API has not heard of; zero if there is none
	writing bool
}

// NewWriter returns a Writer that writes to several pods at the same time.
func NewWriter(client kubernetes.Interface, parallel int) *Writer {
	return &Writer{client: client, slots: make(chan struct{}, parallel), took: newSyncDuration(), pods: map[types.UID]*entry{}}
}

// Set brings the API's pod to a status. pod is the newest known object: a mirror
// pod in place of a static one. end says that the pod has ended and was asked to go, so it is deleted afterwards.
func (w *Writer) Set(ctx context.Context, pod *v1.Pod, status v1.PodStatus, end bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.pods[pod.UID]
	if e == nil {
		e = &entry{pod: pod, want: pod.Status}
		w.pods[pod.UID] = e
	}
	if !e.writing && newer(pod, e.pod) {
		e.pod = pod
	}
	end = end && !e.deleted
	has := &e.pod.Status
	if e.writing {
		has = &e.want // it will, or the write is tried again
	}
	if !equality.Semantic.DeepEqual(*has, status) || e.dirty || end && !e.end {
		e.want, e.dirty = status, true
		if e.since.IsZero() {
			e.since = time.Now()
		}
		e.end = e.end || end
	}
	if e.dirty && !e.writing && !e.gone {
		e.writing = true
		go w.write(ctx, e)
	}
}

// newer tells whether a is a later version of b. Versions of one object in etcd are numbers that grow.
func newer(a, b *v1.Pod) bool {
	if len(a.ResourceVersion) != len(b.ResourceVersion) {
		return len(a.ResourceVersion) > len(b.ResourceVersion)
	}
	return a.ResourceVersion >= b.ResourceVersion
}

// Forget drops a pod that the API has no more. What could not be written yet is not tried again.
func (w *Writer) Forget(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.pods[uid]; e != nil {
		e.gone = true
	}
	delete(w.pods, uid)
}

// write writes until there is nothing new to write. A failure is tried again, slower each time.
func (w *Writer) write(ctx context.Context, e *entry) {
	const least, most = 200 * time.Millisecond, 10 * time.Second
	logger := klog.FromContext(ctx)
	for wait := least; ; {
		w.mu.Lock()
		if !e.dirty || e.gone || ctx.Err() != nil {
			e.writing = false
			w.mu.Unlock()
			return
		}
		pod, want, end, since := e.pod, *e.want.DeepCopy(), e.end, e.since
		e.dirty = false
		w.mu.Unlock()

		w.slots <- struct{}{}
		updated, err := w.patch(ctx, pod, want)
		if err == nil && end {
			err = w.delete(ctx, pod)
		}
		<-w.slots

		w.mu.Lock()
		if updated != nil && newer(updated, e.pod) {
			e.pod = updated
		}
		if err == nil {
			w.took.Observe(time.Since(since).Seconds())
			if e.since.Equal(since) && !e.dirty {
				e.since = time.Time{}
			}
		}
		switch {
		case apierrors.IsNotFound(err):
			e.gone, err = true, nil
		case err != nil: // a pod that has been replaced by another of its name is forgotten soon
			e.dirty = true
		case end:
			e.end, e.deleted = false, true
		}
		w.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			logger.Info("Cannot write the status of a pod yet", "pod", klog.KObj(pod), "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			wait = min(2*wait, most)
		}
	}
}

func (w *Writer) patch(ctx context.Context, pod *v1.Pod, want v1.PodStatus) (*v1.Pod, error) {
	if equality.Semantic.DeepEqual(pod.Status, want) {
		return nil, nil
	}
	before, err := json.Marshal(v1.Pod{Status: pod.Status})
	if err != nil {
		return nil, err
	}
	// The UID makes sure that a new pod of the same name is not meant.
	after, err := json.Marshal(v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: pod.UID}, Status: want})
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("comparing pod statuses: %w", err)
	}
	updated, err := w.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return nil, fmt.Errorf("patching the pod's status: %w", err)
	}
	return updated, nil
}

func (w *Writer) delete(ctx context.Context, pod *v1.Pod) error {
	zero := int64(0)
	err := w.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero,
		Preconditions:      &metav1.Preconditions{UID: &pod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting the pod: %w", err)
	}
	return nil
}
