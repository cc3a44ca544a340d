package claim

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/index"
)

const (
	finalizer = "example.com/tracked"
	another   = "example.com/another"
)

var kind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")

func set(uid types.UID) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: uid},
		Spec:       appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	}
}

func pod(name, app string, owner *appsv1.ReplicaSet, finalizers ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), Labels: map[string]string{"app": app}, Finalizers: finalizers}}
	if owner != nil {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Thing", Name: "t", UID: "t"}, *metav1.NewControllerRef(owner, kind)}
	}
	return p
}

func going(p *corev1.Pod) *corev1.Pod {
	p.DeletionTimestamp = &metav1.Time{Time: metav1.Now().Rfc3339Copy().Time}
	return p
}

func TestClaim(t *testing.T) {
	mine, other := set("1"), set("2")
	deleted := set("1")
	deleted.DeletionTimestamp, deleted.Finalizers = &metav1.Time{Time: metav1.Now().Rfc3339Copy().Time}, []string{another}
	everybody := []client.Object{
		pod("owned", "web", mine), pod("renamed", "other", mine, finalizer, another), pod("orphan", "web", nil, another), pod("unwanted", "web", nil),
		pod("stranger", "other", nil), pod("others", "web", other), going(pod("ends", "web", nil, another)), going(pod("owned-ends", "web", mine, another)),
	}
	wanted := func(p *corev1.Pod) bool { return p.Name != "unwanted" }
	answer := func(err error) interceptor.Funcs {
		return interceptor.Funcs{Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
			return err
		}}
	}
	for name, tc := range map[string]struct {
		owner, live *appsv1.ReplicaSet
		writes      interceptor.Funcs
		want        []string
		err         string
		// controllers of the pods afterwards, and finalizers, where they change.
		controllers map[string]types.UID
	}{
		"all": {
			owner: mine, live: mine, want: []string{"orphan", "owned", "owned-ends"},
			controllers: map[string]types.UID{"orphan": "1", "renamed": ""},
		},
		"a deleted owner":                {owner: deleted, live: deleted, want: []string{"owned", "owned-ends"}},
		"an owner whose deletion is new": {owner: mine, live: deleted, err: "it is being deleted", controllers: map[string]types.UID{"renamed": ""}},
		"an owner that is gone":          {owner: mine, err: "not found", controllers: map[string]types.UID{"renamed": ""}},
		"an owner of the same name":      {owner: mine, live: other, err: "replaced by another", controllers: map[string]types.UID{"renamed": ""}},
		"pods that have gone":            {owner: mine, live: mine, writes: answer(apierrors.NewNotFound(corev1.Resource("pods"), "p")), want: []string{"owned", "owned-ends"}},
		"pods that others took":          {owner: mine, live: mine, writes: answer(apierrors.NewInvalid(kind.GroupKind(), "p", nil)), want: []string{"owned", "owned-ends"}},
		"pods that have changed": {
			owner: mine, live: mine, writes: answer(apierrors.NewConflict(corev1.Resource("pods"), "p", errors.New("changed"))), want: []string{"owned", "owned-ends"}, err: "claiming orphan",
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := index.ByController(&corev1.Pod{})
			var all []client.Object
			for _, p := range everybody {
				all = append(all, p.DeepCopyObject().(client.Object))
			}
			c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(all...).WithIndex(i.Object, i.Field, i.Values).WithInterceptorFuncs(tc.writes).Build()
			live := fake.NewClientBuilder().WithScheme(scheme.Scheme)
			if tc.live != nil {
				live.WithObjects(tc.live.DeepCopy())
			}
			got, err := Claim(t.Context(), Owner{
				Object: tc.owner, Kind: kind, Selector: labels.SelectorFromSet(labels.Set{"app": "web"}), Finalizers: []string{finalizer}, Client: c, Live: live.Build(),
			}, wanted)
			if (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			var names []string
			for _, p := range got {
				names = append(names, p.Name)
			}
			if slices.Sort(names); !slices.Equal(names, tc.want) {
				t.Errorf("claimed %v, want %v", names, tc.want)
			}
			var now corev1.PodList
			if err := c.List(t.Context(), &now); err != nil {
				t.Fatal(err)
			}
			for j := range now.Items {
				p := &now.Items[j]
				was := all[slices.IndexFunc(all, func(o client.Object) bool { return o.GetName() == p.Name })]
				want, changed := tc.controllers[p.Name]
				if !changed {
					want = controllerOf(was)
				}
				if got := controllerOf(p); got != want {
					t.Errorf("the controller of %s is %q, want %q", p.Name, got, want)
				}
				if tracks := slices.Contains(p.Finalizers, finalizer); changed && tracks != (want != "") || !changed && !slices.Equal(p.Finalizers, was.GetFinalizers()) {
					t.Errorf("the finalizers of %s are %v", p.Name, p.Finalizers)
				}
				if len(was.GetFinalizers()) > 0 && !slices.Contains(p.Finalizers, another) {
					t.Errorf("%s has lost another's finalizer: %v", p.Name, p.Finalizers)
				}
			}
		})
	}
}

func controllerOf(o client.Object) types.UID {
	if ref := metav1.GetControllerOf(o); ref != nil {
		return ref.UID
	}
	return ""
}

func TestOwnerOf(t *testing.T) {
	elsewhere := pod("p", "web", set("1"))
	elsewhere.OwnerReferences[1].APIVersion = "example.com/v1"
	newer := pod("p", "web", set("1"))
	newer.OwnerReferences[1].APIVersion = "apps/v2"
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"owned": {pod("p", "web", set("1")), true}, "an orphan": {pod("p", "web", nil), false}, "of another group": {elsewhere, false}, "of another version": {newer, true},
	} {
		got := ownerOf(tc.pod, kind)
		if want := []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: "ns", Name: "web"}}}; slices.Equal(got, want) != tc.want || !tc.want && len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAdopters(t *testing.T) {
	all, none, wrong := set("2"), set("3"), set("4")
	all.Name, none.Name, wrong.Name = "all", "none", "wrong"
	all.Spec.Selector, none.Spec.Selector = &metav1.LabelSelector{}, nil
	wrong.Spec.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Near"}}}
	far := set("5")
	far.Namespace = "far"
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(set("1"), all, none, wrong, far).Build()
	selector := func(o client.Object) *metav1.LabelSelector { return o.(*appsv1.ReplicaSet).Spec.Selector }
	bare := pod("p", "", nil)
	bare.Labels = nil
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want []string
	}{
		"selected": {pod("p", "web", nil), []string{"web"}}, "not selected": {pod("p", "other", nil), nil}, "without labels": {bare, nil},
	} {
		var got []string
		for _, r := range adopters(t.Context(), tc.pod, c, &appsv1.ReplicaSetList{}, selector) {
			got = append(got, r.Name)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
