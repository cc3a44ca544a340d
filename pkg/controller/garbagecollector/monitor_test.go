package garbagecollector

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
)

// silent is a discovery that fails.
type silent struct{ discovery.DiscoveryInterface }

func (silent) ServerPreferredResources() ([]*metav1.APIResourceList, error) {
	return nil, errors.New("no answer")
}

// Whoever looks at what a deleted object owned does not ask the API server for the owner: its watch has said that it is gone.
func TestOwnerSeenToGo(t *testing.T) {
	c := New(meta.NewDefaultRESTMapper(nil), silent{}, nil, record.NewFakeRecorder(1), metrics.NewKubeRegistry())
	var looked []types.UID
	ref := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "1"}
	c.monitors.look = func(uid types.UID) {
		if owner, err := c.owner(t.Context(), ref, "ns"); owner != nil || err != nil {
			t.Errorf("%v %v", owner, err)
		}
		looked = append(looked, uid)
	}
	m := &monitor{monitors: c.monitors, kind: schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, known: sets.New[types.UID]()}
	owner := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "1"}}
	child := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-1", UID: "2", OwnerReferences: []metav1.OwnerReference{ref}}}
	for _, err := range []error{m.Add(owner), m.Add(child), m.Delete(owner)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(looked, []types.UID{"2"}) {
		t.Error(looked)
	}
}

func TestFailedDiscoveryIsCounted(t *testing.T) {
	r := metrics.NewKubeRegistry()
	c := New(meta.NewDefaultRESTMapper(nil), silent{}, nil, record.NewFakeRecorder(1), r)
	for range 2 {
		if err := c.monitors.sync(t.Context()); err == nil {
			t.Error("no error")
		}
	}
	want := `
# HELP garbagecollector_controller_resources_sync_error_total [ALPHA] Number of times that not all resources were known
# TYPE garbagecollector_controller_resources_sync_error_total counter
garbagecollector_controller_resources_sync_error_total 2
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), "garbagecollector_controller_resources_sync_error_total"); err != nil {
		t.Error(err)
	}
}
