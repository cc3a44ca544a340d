// Package index names the questions that controllers ask the shared cache often
// enough to keep the answers: which objects does this one control, which pods are
// on this node.
package index

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/api/core/podrefs"
	"github.com/leme-k8s/leme/pkg/controller/internal/borrow"
)

// An Index is kept for the objects of one kind.
type Index struct {
	// Object is of the kind that is indexed.
	Object client.Object
	// Field names the index among those of the kind.
	Field string
	// Values returns what an object is found by.
	Values client.IndexerFunc
}

const (
	controllerField = "controllerUID"
	nodeField       = "spec.nodeName"
	claimField      = "claims"
	deviceField     = "resourceClaims"
	groupField      = "podGroup"
)

// ByController finds the objects of o's kind by the object that controls them.
func ByController(o client.Object) Index {
	return Index{o, controllerField, func(o client.Object) []string {
		if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
			return []string{string(ref.UID)}
		}
		return []string{""}
	}}
}

// PodsByNode finds pods by the node that they are bound to.
func PodsByNode() Index {
	return Index{&corev1.Pod{}, nodeField, func(o client.Object) []string {
		return []string{o.(*corev1.Pod).Spec.NodeName}
	}}
}

// PodsByClaim finds pods by the claims that they use.
func PodsByClaim() Index {
	return Index{&corev1.Pod{}, claimField, func(o client.Object) []string { return podrefs.VolumeClaims(o.(*corev1.Pod)) }}
}

// WithClaim lists the pods that use a claim.
func WithClaim(ctx context.Context, r client.Reader, namespace, claim string, opts ...client.ListOption) (*corev1.PodList, error) {
	list := &corev1.PodList{}
	return list, r.List(ctx, list, append(opts, client.InNamespace(namespace), client.MatchingFields{claimField: claim})...)
}

// PodsByResourceClaim finds pods by the ResourceClaims that have been found or made for them, and
// by "" those that ask for any.
func PodsByResourceClaim() Index {
	return Index{&corev1.Pod{}, deviceField, func(o client.Object) []string {
		pod := o.(*corev1.Pod)
		names := podrefs.ResourceClaims(pod)
		if len(pod.Spec.ResourceClaims) > 0 || len(names) > 0 {
			names = append(names, "")
		}
		return names
	}}
}

// WithResourceClaim lists the pods of a namespace, or of all, that use a ResourceClaim. An empty name
// lists those that ask for any.
func WithResourceClaim(ctx context.Context, r client.Reader, namespace, claim string, opts ...client.ListOption) (*corev1.PodList, error) {
	list := &corev1.PodList{}
	return list, r.List(ctx, list, append(opts, client.InNamespace(namespace), client.MatchingFields{deviceField: claim})...)
}

// PodsByGroup finds pods by the PodGroup that they belong to.
func PodsByGroup() Index {
	return Index{&corev1.Pod{}, groupField, func(o client.Object) []string {
		if g := o.(*corev1.Pod).Spec.SchedulingGroup; g != nil && g.PodGroupName != nil {
			return []string{*g.PodGroupName}
		}
		return nil
	}}
}

// InGroup lists the pods that belong to a PodGroup.
func InGroup(ctx context.Context, r client.Reader, namespace, group string, opts ...client.ListOption) (*corev1.PodList, error) {
	list := &corev1.PodList{}
	return list, r.List(ctx, list, append(opts, client.InNamespace(namespace), client.MatchingFields{groupField: group}, client.UnsafeDisableDeepCopy)...)
}

// Controlled borrows the objects in namespace that the owner with uid controls. An
// empty uid lists those that no one controls.
func Controlled[T any, P borrow.Object[T]](ctx context.Context, r client.Reader, namespace string, uid types.UID, opts ...client.ListOption) ([]P, error) {
	return borrow.List[T, P](ctx, r, append(opts, client.InNamespace(namespace), client.MatchingFields{controllerField: string(uid)})...)
}

// OnNode lists the pods bound to a node. An empty name lists those bound to none.
func OnNode(ctx context.Context, r client.Reader, node string) (*corev1.PodList, error) {
	list := &corev1.PodList{}
	return list, r.List(ctx, list, client.MatchingFields{nodeField: node})
}
