// Package scheduler gives the original kube-scheduler and Leme's the same random
// clusters and pods, in one process, and says where they decide differently.
//
//	generate.go   clusters and pods, drawn with a seed
//	storage.go    their volumes
//	devices.go    their devices
//	original.go   the original scheduler, asked what its rules allow
//	leme.go       Leme's, asked for a decision
//	compare.go    what is different
//	groups.go     trees of pod groups, drawn with a seed, and both schedulers' decisions about them
//	reduce.go     the smallest cluster that still shows a difference
package scheduler

import (
	"context"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	fwk "k8s.io/kube-scheduler/framework"
	"sigs.k8s.io/yaml"
)

// A Case is a cluster and the pods that come to it, one after the other.
type Case struct {
	Seed    uint64
	Nodes   []*v1.Node
	Pods    []*v1.Pod        // those on nodes
	Objects []runtime.Object // everything else
	Pending []*v1.Pod
	Root    fwk.EntityKey // of a case of groups: the one that the pods which wait are below
}

// String shows the case as one would apply it.
func (c *Case) String() string {
	var b strings.Builder
	add := func(o runtime.Object) {
		if kinds, _, err := scheme.Scheme.ObjectKinds(o); err == nil {
			o = o.DeepCopyObject()
			o.GetObjectKind().SetGroupVersionKind(kinds[0])
		}
		data, err := yaml.Marshal(o)
		if err != nil {
			data = fmt.Append(nil, err)
		}
		fmt.Fprintf(&b, "---\n%s", data)
	}
	for _, o := range c.Objects {
		add(o)
	}
	for _, o := range c.Nodes {
		add(o)
	}
	for _, o := range c.Pods {
		add(o)
	}
	for _, o := range c.Pending {
		add(o)
	}
	return b.String()
}

// world is what a scheduler sees of a case through informers. Each has one of its own,
// since preemption and devices write.
type world struct {
	client  *fake.Clientset
	factory informers.SharedInformerFactory
}

func newWorld(c *Case) *world {
	var objects []runtime.Object
	for _, o := range c.Objects {
		objects = append(objects, o.DeepCopyObject())
	}
	client := fake.NewSimpleClientset(objects...)
	version := 1
	client.PrependReactor("update", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if o, ok := a.(clienttesting.UpdateAction).GetObject().(metav1.Object); ok { // an API server counts versions
			version++
			o.SetResourceVersion(fmt.Sprint(version))
		}
		return false, nil, nil
	})
	return &world{client, informers.NewSharedInformerFactory(client, 0)}
}

// start fills the informers. Nodes and pods are put into their stores and not watched:
// the schedulers are told of them one by one.
func (w *world) start(ctx context.Context, c *Case) error {
	w.factory.Start(ctx.Done())
	for kind, synced := range w.factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("the informer of %v has not been filled", kind)
		}
	}
	for _, n := range c.Nodes {
		if err := w.factory.Core().V1().Nodes().Informer().GetStore().Add(n); err != nil {
			return err
		}
	}
	for _, p := range c.Pods {
		if err := w.setPod(p); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) setPod(pod *v1.Pod) error {
	return w.factory.Core().V1().Pods().Informer().GetStore().Add(pod)
}

func (w *world) deletePod(pod *v1.Pod) error {
	return w.factory.Core().V1().Pods().Informer().GetStore().Delete(pod)
}
