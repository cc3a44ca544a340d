package conflict

import (
	"context"
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestIgnored(t *testing.T) {
	conflict := apierrors.NewConflict(corev1.Resource("pods"), "p", errors.New("changed"))
	other := errors.New("other")
	for name, tc := range map[string]struct {
		err, want error
		again     bool
	}{
		"none":               {nil, nil, false},
		"a conflict":         {conflict, nil, true},
		"a wrapped conflict": {fmt.Errorf("writing: %w", conflict), nil, true},
		"another error":      {other, other, false},
		"both":               {errors.Join(conflict, other), other, false},
	} {
		r := Ignored(reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
			return reconcile.Result{}, tc.err
		}))
		res, err := r.Reconcile(t.Context(), reconcile.Request{})
		if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) || (res.RequeueAfter > 0) != tc.again {
			t.Errorf("%s: %v, %v", name, res, err)
		}
	}
}
