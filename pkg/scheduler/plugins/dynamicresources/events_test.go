package dynamicresources

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler/devices"
)

// What becomes of a claim matters to its pods, and to all when it gives devices back.
func TestClaimChanged(t *testing.T) {
	claim := func(name string, change ...func(*resourceapi.ResourceClaim)) *resourceapi.ResourceClaim {
		c := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}}
		for _, f := range change {
			f(c)
		}
		return c
	}
	allocated := func(c *resourceapi.ResourceClaim) { c.Status.Allocation = &resourceapi.AllocationResult{} }
	protected := func(c *resourceapi.ResourceClaim) { c.Finalizers = []string{resourceapi.Finalizer} }
	special := func(c *resourceapi.ResourceClaim) {
		c.Annotations = map[string]string{resourceapi.ExtendedResourceClaimAnnotation: "true"}
		c.OwnerReferences = []metav1.OwnerReference{{Kind: "Pod", Name: "p", UID: "p", Controller: ptr.To(true)}}
	}
	var none *resourceapi.ResourceClaim
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "p"}, Spec: v1.PodSpec{ResourceClaims: []v1.PodResourceClaim{{Name: "r", ResourceClaimName: ptr.To("c")}}}}
	for _, tc := range []struct {
		name     string
		known    *resourceapi.ResourceClaim
		old, new any
		want     fwk.QueueingHint
		bad      bool
	}{
		{"its claim came", claim("c"), nil, claim("c"), fwk.Queue, false},
		{"another's claim came", claim("c"), nil, claim("d"), fwk.QueueSkip, false},
		{"its claim has not come", nil, nil, claim("d"), fwk.QueueSkip, false},
		{"its claim is allocated", claim("c", allocated), claim("c"), claim("c", allocated), fwk.Queue, false},
		{"its claim is protected", claim("c", protected), claim("c"), claim("c", protected), fwk.QueueSkip, false},
		{"another's claim is freed", claim("c"), claim("d", allocated), claim("d"), fwk.Queue, false},
		{"another's claim is allocated", claim("c"), claim("d"), claim("d", allocated), fwk.QueueSkip, false},
		{"one with devices went", claim("c"), claim("d", allocated), nil, fwk.Queue, false},
		{"one without devices went", claim("c"), claim("d"), none, fwk.QueueSkip, false},
		{"one for its extended resources went", claim("c"), claim("s", special), nil, fwk.Queue, false},
		{"one went unseen", claim("c"), cache.DeletedFinalStateUnknown{Obj: claim("d", allocated)}, nil, fwk.Queue, false},
		{"something else", claim("c"), nil, "hello", fwk.Queue, true},
		{"something else before", claim("c"), "hello", claim("c"), fwk.Queue, true},
	} {
		f := informers.NewSharedInformerFactory(nil, 0)
		known := devices.NewManager(f)
		if tc.known != nil {
			if err := f.Resource().V1().ResourceClaims().Informer().GetStore().Add(tc.known); err != nil {
				t.Fatal(err)
			}
		}
		p := &Plugin{claims: known.Claims(), resolver: known.DeviceClassResolver()}
		if got, err := p.claimChanged(klog.Background(), pod, tc.old, tc.new); got != tc.want || (err != nil) != tc.bad {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
}
