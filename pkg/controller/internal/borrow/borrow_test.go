package borrow

import (
	"context"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// everybody is in two namespaces, on two nodes and of two applications.
func everybody() []*corev1.Pod {
	pod := func(namespace, name, node, app string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": app}}, Spec: corev1.PodSpec{NodeName: node},
		}
	}
	return []*corev1.Pod{pod("x", "1", "n", "a"), pod("x", "2", "m", "a"), pod("x", "3", "n", "b"), pod("y", "4", "n", "a")}
}

// lends has a store as an informer of controller-runtime's has it.
type lends struct {
	client.Reader
	store toolscache.Indexer
}

func (l lends) Borrow(_ context.Context, _ client.Object, opts ...client.ListOption) ([]any, error) {
	return FromStore(l.store, opts...)
}

func onNode(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }

func TestList(t *testing.T) {
	store := toolscache.NewIndexer(toolscache.MetaNamespaceKeyFunc, toolscache.Indexers{
		toolscache.NamespaceIndex: toolscache.MetaNamespaceIndexFunc,
		"field:node": func(o any) (keys []string, err error) {
			for _, v := range onNode(o.(*corev1.Pod)) {
				keys = append(keys, o.(*corev1.Pod).Namespace+"/"+v, "__all_namespaces/"+v)
			}
			return keys, nil
		},
	})
	b := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithIndex(&corev1.Pod{}, "node", onNode)
	all := everybody()
	for _, p := range all {
		if err := store.Add(p); err != nil {
			t.Fatal(err)
		}
		b.WithObjects(p.DeepCopy())
	}
	plain := b.Build()
	for name, tc := range map[string]struct {
		opts []client.ListOption
		want []string
	}{
		"all":                          {nil, []string{"1", "2", "3", "4"}},
		"of a namespace":               {[]client.ListOption{client.InNamespace("x")}, []string{"1", "2", "3"}},
		"on a node":                    {[]client.ListOption{client.MatchingFields{"node": "n"}}, []string{"1", "3", "4"}},
		"on a node and of a namespace": {[]client.ListOption{client.MatchingFields{"node": "n"}, client.InNamespace("x")}, []string{"1", "3"}},
		"with labels":                  {[]client.ListOption{client.InNamespace("x"), client.MatchingLabels{"app": "a"}}, []string{"1", "2"}},
		"with any labels":              {[]client.ListOption{client.InNamespace("y"), client.MatchingLabelsSelector{Selector: labels.Everything()}}, []string{"4"}},
		"none":                         {[]client.ListOption{client.MatchingFields{"node": "o"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			lent, err := List[corev1.Pod](t.Context(), lends{store: store}, tc.opts...)
			if err != nil {
				t.Fatal(err)
			}
			copies, err := List[corev1.Pod](t.Context(), plain, tc.opts...)
			if err != nil {
				t.Fatal(err)
			}
			for from, got := range map[string][]*corev1.Pod{"a lender": lent, "a reader": copies} {
				var names []string
				for _, p := range got {
					names = append(names, p.Name)
				}
				if slices.Sort(names); !slices.Equal(names, tc.want) {
					t.Errorf("from %s: %v, want %v", from, names, tc.want)
				}
			}
			for _, p := range lent {
				if !slices.Contains(all, p) {
					t.Errorf("%s is a copy", p.Name)
				}
			}
		})
	}
	for name, opt := range map[string]client.ListOption{"no index": client.MatchingFields{"phase": "x"}, "two fields": client.MatchingFields{"node": "n", "phase": "x"}} {
		if got, err := List[corev1.Pod](t.Context(), lends{store: store}, opt); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got, err := List[corev1.Node](t.Context(), lends{store: store}); err == nil {
		t.Errorf("nodes: %v", got)
	}
}
