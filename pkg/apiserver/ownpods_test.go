package apiserver

import (
	"context"
	"io"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/inprocess"
)

// podStore has one pod, and watches that others have too.
type podStore struct {
	rest.Lister
	pod     corev1.Pod
	watched *watch.FakeWatcher
	options *internalversion.ListOptions
}

var _ runtime.CacheableObject = sharedPod{}

func (s *podStore) List(context.Context, *internalversion.ListOptions) (runtime.Object, error) {
	return &corev1.PodList{Items: []corev1.Pod{s.pod}}, nil
}

func (s *podStore) Watch(_ context.Context, options *internalversion.ListOptions) (watch.Interface, error) {
	s.options = options
	return s.watched, nil
}

// sharedPod is a pod as the cache hands it to several watchers.
type sharedPod struct{ *corev1.Pod }

func (p sharedPod) CacheEncode(runtime.Identifier, func(runtime.Object, io.Writer) error, io.Writer) error {
	return nil
}
func (p sharedPod) GetObject() runtime.Object { return p.DeepCopy() }

// The informer may change what it gets, since the store's own pods stay as they are.
func TestOwnPods(t *testing.T) {
	self := inprocess.NewTransport()
	o := &ownPods{self: self}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.list(gone, metav1.ListOptions{}); err == nil {
		t.Error("there is an answer before the server has any")
	}
	self.Serve(http.NotFoundHandler())
	if _, err := o.watch(t.Context(), metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("where pods are not served: %v", err)
	}

	container := corev1.Container{Args: []string{"fast"}}
	store := &podStore{pod: corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{container}}}, watched: watch.NewFake()}
	o.store = store
	list, err := o.list(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trim(&list.(*corev1.PodList).Items[0]); err != nil {
		t.Fatal(err)
	}
	w, err := o.watch(t.Context(), metav1.ListOptions{ResourceVersion: "7", AllowWatchBookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if store.options.ResourceVersion != "7" || !store.options.AllowWatchBookmarks {
		t.Errorf("the watch is another one: %+v", store.options)
	}
	go store.watched.Modify(sharedPod{&store.pod})
	e := <-w.ResultChan()
	if _, err := trim(e.Object.(*corev1.Pod)); err != nil {
		t.Fatal(err)
	}
	if got := store.pod.Spec.Containers[0].Args; len(got) != 1 {
		t.Errorf("the store's pod has changed: %+v", store.pod)
	}
}
