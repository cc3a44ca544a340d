package apiserver_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestWatchOfQuietResource: while others are written, a watch from now on of a resource
// that nobody writes begins, and does not end for want of news.
func TestWatchOfQuietResource(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(testcluster.Start(t).Config)
	ctx := t.Context()
	for _, name := range []string{"a", "b"} {
		_, err := client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := client.NodeV1().RuntimeClasses().Watch(ctx, metav1.ListOptions{
		SendInitialEvents: ptr.To(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	e, ok := <-w.ResultChan()
	if !ok || e.Type != watch.Bookmark {
		t.Errorf("got %v %v, want a bookmark", e.Type, e.Object)
	}
}
