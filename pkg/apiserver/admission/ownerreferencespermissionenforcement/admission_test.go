package ownerreferencespermissionenforcement

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

// refs from kind/name[!], where "!" blocks the owner's deletion.
func refs(text string) (all []metav1.OwnerReference) {
	for _, f := range strings.Fields(text) {
		f, block := strings.CutSuffix(f, "!")
		kind, name, _ := strings.Cut(f, "/")
		r := metav1.OwnerReference{APIVersion: "v1", Kind: kind, Name: name, UID: types.UID(name)}
		if block {
			r.BlockOwnerDeletion = ptr.To(true)
		}
		all = append(all, r)
	}
	return all
}

func TestValidate(t *testing.T) {
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "ReplicationController"}, meta.RESTScopeNamespace)
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Node"}, meta.RESTScopeRoot)
	const noDelete, noBlock = "cannot set an ownerRef on a resource you can't delete", "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on"
	const all = "delete:pods update:replicationcontrollers/finalizers update:nodes/finalizers"
	for name, c := range map[string]struct {
		may         string // verb:resource/subresource each
		create      bool
		subresource string
		old, refs   string
		err         string
	}{
		"created with an owner":           {create: true, refs: "ReplicationController/r"},
		"nothing changes":                 {old: "ReplicationController/r", refs: "ReplicationController/r"},
		"changed by who may delete it":    {may: "delete:pods", refs: "ReplicationController/r"},
		"changed by who may not":          {refs: "ReplicationController/r", err: noDelete},
		"removed by who may not":          {old: "ReplicationController/r", err: noDelete},
		"by the status":                   {subresource: "/status", refs: "ReplicationController/r!"},
		"blocking":                        {may: all, create: true, refs: "ReplicationController/r! Node/n!"},
		"blocking, no finalizers":         {create: true, refs: "ReplicationController/r!", err: noBlock},
		"blocking, finalizers of others":  {may: "update:nodes/finalizers", create: true, refs: "Node/n! ReplicationController/r!", err: noBlock},
		"newly blocking":                  {may: "delete:pods", old: "ReplicationController/r", refs: "ReplicationController/r!", err: noBlock},
		"blocking as before":              {may: "delete:pods", old: "ReplicationController/r!", refs: "ReplicationController/r! Node/n"},
		"no longer blocking":              {may: "delete:pods", old: "ReplicationController/r!", refs: "ReplicationController/r"},
		"a kind that is not":              {may: all, create: true, refs: "Nonsense/x!", err: "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion v1 Kind Nonsense"},
		"a kind that is not, who may all": {may: "update:*/finalizers", create: true, refs: "Nonsense/x!"},
	} {
		t.Run(name, func(t *testing.T) {
			p := New()
			p.SetRESTMapper(mapper)
			p.SetUnconditionalAuthorizer(authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				what := a.GetVerb() + ":" + a.GetResource()
				if s := a.GetSubresource(); s != "" {
					what += "/" + s
				}
				if namespaced := a.GetResource() == "replicationcontrollers"; namespaced && a.GetNamespace() != "ns" || a.GetResource() == "nodes" && a.GetNamespace() != "" {
					t.Errorf("asked about namespace %q of %s", a.GetNamespace(), what)
				}
				for _, f := range strings.Fields(c.may) {
					if f == what {
						return authorizer.DecisionAllow, "", nil
					}
				}
				return authorizer.DecisionNoOpinion, "", nil
			}))
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", OwnerReferences: refs(c.refs)}}
			r := admissiontest.Request{Resource: "/pods" + c.subresource, Object: pod}
			if !c.create {
				r.Old = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", OwnerReferences: refs(c.old)}}
			}
			admissiontest.Check(t, admissiontest.Run(t, p, r.Attributes(t)), c.err)
		})
	}
}
