package protection

import (
	"context"
	"errors"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

const ours, theirs = "example.com/ours", "example.com/theirs"

func TestApply(t *testing.T) {
	unknown := errors.New("nobody knows")
	for name, tc := range map[string]struct {
		finalizers []string
		deleted    bool
		used       bool
		useErr     error
		want       []string
	}{
		"a new one":                    {nil, false, false, nil, []string{ours}},
		"a protected one":              {[]string{ours}, false, false, nil, []string{ours}},
		"deleted while in use":         {[]string{ours, theirs}, true, true, nil, []string{ours, theirs}},
		"deleted, and who knows":       {[]string{ours, theirs}, true, false, unknown, []string{ours, theirs}},
		"deleted and not in use":       {[]string{ours, theirs}, true, false, nil, []string{theirs}},
		"deleted and not protected":    {[]string{theirs}, true, false, nil, []string{theirs}},
		"deleted and protected by all": {[]string{theirs, ours}, true, false, nil, []string{theirs}},
	} {
		t.Run(name, func(t *testing.T) {
			o := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", Finalizers: tc.finalizers}}
			if tc.deleted {
				o.DeletionTimestamp = &metav1.Time{Time: metav1.Now().Rfc3339Copy().Time}
			}
			c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(o).Build()
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
				t.Fatal(err)
			}
			if err := Apply(t.Context(), c, o, ours, func() (bool, error) { return tc.used, tc.useErr }); !errors.Is(err, tc.useErr) {
				t.Fatal(err)
			}
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(o.Finalizers, tc.want) {
				t.Errorf("finalizers %v, want %v", o.Finalizers, tc.want)
			}
		})
	}
}

// Who wrote meanwhile is seen by the next look; who has deleted it leaves nothing to do.
func TestApplyRaces(t *testing.T) {
	for name, tc := range map[string]struct {
		answer error
		want   func(error) bool
	}{
		"changed": {apierrors.NewConflict(corev1.Resource("c"), "c", errors.New("changed")), apierrors.IsConflict},
		"gone":    {apierrors.NewNotFound(corev1.Resource("c"), "c"), func(err error) bool { return err == nil }},
		"refused": {apierrors.NewForbidden(corev1.Resource("c"), "c", nil), apierrors.IsForbidden},
	} {
		c := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
			Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error { return tc.answer },
		})
		if err := Apply(t.Context(), c, &corev1.PersistentVolumeClaim{}, ours, nil); !tc.want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
