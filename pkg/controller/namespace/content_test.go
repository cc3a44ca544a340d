package namespace

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestOverdue(t *testing.T) {
	deleted := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	object := func(grace *int64, finalizers ...string) metav1.PartialObjectMetadata {
		return metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{DeletionGracePeriodSeconds: grace, Finalizers: finalizers}}
	}
	for _, c := range []struct {
		name    string
		objects []metav1.PartialObjectMetadata
		after   time.Duration
		want    bool
	}{
		{"nothing is left", nil, time.Hour, false},
		{"what should be gone at once", []metav1.PartialObjectMetadata{object(nil)}, 0, true},
		{"a pod that may still end", []metav1.PartialObjectMetadata{object(ptr.To[int64](30))}, 29 * time.Second, false},
		{"a pod that does not end", []metav1.PartialObjectMetadata{object(ptr.To[int64](30)), object(ptr.To[int64](1))}, 30 * time.Second, true},
		{"one is held", []metav1.PartialObjectMetadata{object(nil), object(nil, "x")}, time.Hour, false},
	} {
		if got := overdue(c.objects, deleted, deleted.Add(c.after)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
