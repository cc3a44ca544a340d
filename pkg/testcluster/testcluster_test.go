package testcluster_test

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

func TestStart(t *testing.T) {
	begin := time.Now()
	c := testcluster.Start(t)
	t.Logf("ready after %v", time.Since(begin).Round(time.Millisecond))
	namespaces, err := c.Client(t).CoreV1().Namespaces().List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(namespaces.Items) != 4 {
		t.Errorf("%d namespaces, want 4", len(namespaces.Items))
	}
}
