// Package index names the questions that controllers ask the shared cache often
// enough to keep the answers: which objects does this one control, which pods are
// on this node.
package index

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/ephemeral"
	"sigs.k8s.io/controller-runtime/pkg/client"
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
	return Index{&corev1.Pod{}, claimField, func(o client.Object) []string { return ClaimsOf(o.(*corev1.Pod)) }}
}

// ClaimsOf returns the names of the claims that a pod uses, those that are made for it included.
func ClaimsOf(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			names = append(names, ephemeral.VolumeClaimName(pod, v))
		}
	}
	return names
}

// WithClaim lists the pods that use a claim.
func WithClaim(ctx context.Context, r client.Reader, namespace, claim string) (*corev1.PodList, error) {
	list := &corev1.PodList{}
	return list, r.List(ctx, list, client.InNamespace(namespace), client.MatchingFields{claimField: claim})
}

// Controlled lists the objects in namespace that the owner with uid controls. An
// empty uid lists those that no one controls.
func Controlled(ctx context.Context, r client.Reader, list client.ObjectList, namespace string, uid types.UID) error {
	return r.List(ctx, list, client.InNamespace(namespace), client.MatchingFields{controllerField: string(uid)})
}

// OnNode lists the pods bound to a node. An empty name lists those bound to none.
func OnNode(ctx context.Context, r client.Reader, node string) (*corev1.PodList, error) {
	list := &corev1.PodList{}
	return list, r.List(ctx, list, client.MatchingFields{nodeField: node})
}
