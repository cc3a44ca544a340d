// Package controllertest plays the parts of a cluster that the controllers need to
// be tested against a bare API server: a scheduler and kubelets.
package controllertest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// Images that say what becomes of their containers. All others run and are ready.
const (
	Unready = "unready" // runs and is never ready
	Succeed = "succeed" // ends well at once
	Fail    = "fail"    // ends badly at once
)

// Nodes binds pods and reports that they run.
type Nodes struct {
	cs    kubernetes.Interface
	names []string
	count atomic.Int64
}

// StartNodes registers nodes and plays their part until the test ends.
func StartNodes(t testing.TB, cs kubernetes.Interface, names ...string) *Nodes {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	n := &Nodes{cs: cs, names: names}
	for _, name := range names {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
		if _, err := cs.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		n.SetReady(t, name, corev1.ConditionTrue)
	}
	f := informers.NewSharedInformerFactory(cs, 0)
	handle := func(o any) {
		if p, ok := o.(*corev1.Pod); ok {
			n.handle(ctx, p.DeepCopy())
		}
	}
	_, err := f.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: handle, UpdateFunc: func(_, o any) { handle(o) },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.StartWithContext(ctx)
	return n
}

// SetReady writes a node's heartbeat.
func (n *Nodes) SetReady(t testing.TB, name string, status corev1.ConditionStatus) {
	t.Helper()
	now := metav1.Now()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error { // controllers write nodes as well
		node, err := n.cs.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Status.Conditions = []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: status, Reason: "Test", LastHeartbeatTime: now, LastTransitionTime: now,
		}}
		_, err = n.cs.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// handle takes a pod one step further; errors are those of a stale pod, of which a
// newer version is on its way.
func (n *Nodes) handle(ctx context.Context, p *corev1.Pod) {
	api := n.cs.CoreV1().Pods(p.Namespace)
	switch {
	case p.DeletionTimestamp != nil:
		_ = api.Delete(ctx, p.Name, *metav1.NewDeleteOptions(0))
	case p.Spec.NodeName == "":
		node := n.names[int(n.count.Add(1))%len(n.names)]
		if wanted := pods.Target(p); wanted != "" {
			node = wanted
		}
		_ = api.Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: node},
		}, metav1.CreateOptions{})
	case p.Status.Phase == corev1.PodPending:
		id := n.count.Add(1)
		p.Status.Phase = corev1.PodRunning
		p.Status.PodIP = fmt.Sprintf("10.88.%d.%d", id/250, id%250+1)
		p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
		ready := corev1.ConditionTrue
		switch p.Spec.Containers[0].Image {
		case Unready:
			ready = corev1.ConditionFalse
		case Succeed:
			p.Status.Phase, ready = corev1.PodSucceeded, corev1.ConditionFalse
		case Fail:
			p.Status.Phase, ready = corev1.PodFailed, corev1.ConditionFalse
		}
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.NewTime(time.Now())}}
		_, _ = api.UpdateStatus(ctx, p, metav1.UpdateOptions{})
	}
}
