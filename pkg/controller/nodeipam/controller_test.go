package nodeipam

import (
	"context"
	"net"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func cidr(t *testing.T, s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFree(t *testing.T) {
	for _, c := range []struct {
		cluster string
		mask    int
		taken   []string
		want    string
	}{
		{"10.244.0.0/16", 24, nil, "10.244.0.0/24"},
		{"10.244.0.0/16", 24, []string{"10.244.0.0/24", "10.244.2.0/24"}, "10.244.1.0/24"},
		{"10.244.0.0/16", 24, []string{"10.244.0.0/20"}, "10.244.16.0/24"},    // Services inside
		{"10.244.0.0/16", 24, []string{"10.0.0.0/8"}, ""},                     // and all around
		{"10.244.0.0/16", 24, []string{"10.96.0.0/12"}, "10.244.0.0/24"},      // or elsewhere
		{"10.244.0.0/30", 31, []string{"10.244.0.0/32"}, "10.244.0.2/31"},     // smaller than a part
		{"10.244.0.0/23", 24, []string{"10.244.0.0/24", "10.244.1.0/24"}, ""}, // full
		{"fd00:10:244::/56", 64, []string{"fd00:10:244::/64", "10.0.0.0/8"}, "fd00:10:244:1::/64"},
	} {
		r := &ranges{cluster: cidr(t, c.cluster), mask: c.mask}
		var taken []*net.IPNet
		for _, s := range c.taken {
			taken = append(taken, cidr(t, s))
		}
		got, err := r.free(taken)
		if c.want == "" {
			if err == nil {
				t.Errorf("%+v: got %s", c, r.part(got))
			}
		} else if err != nil || r.part(got).String() != c.want {
			t.Errorf("%+v: got %v, %v", c, r.part(got), err)
		}
	}
}

// TestRangesRest: a range is given away again only after all others, and one that did
// not reach its node was not given away.
func TestRangesRest(t *testing.T) {
	conflicts := 1
	c := fake.NewClientBuilder().WithInterceptorFuncs(interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if conflicts--; conflicts >= 0 {
				return apierrors.NewConflict(corev1.Resource("nodes"), o.GetName(), nil)
			}
			return c.Patch(ctx, o, p, opts...)
		},
	}).Build()
	ctl := New(c, record.NewFakeRecorder(1), []*net.IPNet{cidr(t, "10.244.0.0/22")}, []int{24}, nil)
	ctx := t.Context()
	for i, want := range []string{"10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24", "10.244.0.0/24"} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
		if err := c.Create(ctx, n); err != nil {
			t.Fatal(err)
		}
		request := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(n)}
		_, err := ctl.Reconcile(ctx, request)
		if i == 0 {
			if !apierrors.IsConflict(err) {
				t.Fatalf("got %v, want a conflict", err)
			}
			_, err = ctl.Reconcile(ctx, request)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Get(ctx, request.NamespacedName, n); err != nil || n.Spec.PodCIDR != want {
			t.Errorf("got %s, %v, want %s", n.Spec.PodCIDR, err, want)
		}
		if err := c.Delete(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
}
