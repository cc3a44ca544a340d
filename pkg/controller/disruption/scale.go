package disruption

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// scale returns how many pods the owners of pods mean to have, and the names of pods without an owner.
func (c *Controller) scale(ctx context.Context, selected []*corev1.Pod) (total int, unmanaged []string, err error) {
	seen, counted := map[types.UID]bool{}, map[types.UID]bool{}
	for _, p := range selected {
		ref := metav1.GetControllerOfNoCopy(p)
		if ref == nil {
			unmanaged = append(unmanaged, p.Name)
			continue
		}
		if seen[ref.UID] {
			continue
		}
		seen[ref.UID] = true
		uid, n, err := c.replicas(ctx, p.Namespace, ref)
		if err != nil {
			return 0, unmanaged, err
		}
		if uid == "" {
			return 0, unmanaged, fmt.Errorf("found no controllers for pod %q", p.Name)
		}
		if !counted[uid] { // two ReplicaSets may be of one Deployment
			counted[uid] = true
			total += int(n)
		}
	}
	return total, unmanaged, nil
}

// replicas returns the object that a pod's owner has its number of replicas from, which is the owner itself or,
// of a ReplicaSet, its Deployment; and the number. The UID is empty if the owner is gone.
func (c *Controller) replicas(ctx context.Context, namespace string, ref *metav1.OwnerReference) (types.UID, int32, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return "", 0, fmt.Errorf("owner %s %s: %w", ref.Kind, ref.Name, err)
	}
	key := client.ObjectKey{Namespace: namespace, Name: ref.Name}
	var (
		owner client.Object
		n     func() *int32
	)
	switch gk := gv.WithKind(ref.Kind).GroupKind(); gk {
	case appsv1.SchemeGroupVersion.WithKind("ReplicaSet").GroupKind():
		o := &appsv1.ReplicaSet{}
		owner, n = o, func() *int32 { return o.Spec.Replicas }
	case appsv1.SchemeGroupVersion.WithKind("Deployment").GroupKind():
		o := &appsv1.Deployment{}
		owner, n = o, func() *int32 { return o.Spec.Replicas }
	case appsv1.SchemeGroupVersion.WithKind("StatefulSet").GroupKind():
		o := &appsv1.StatefulSet{}
		owner, n = o, func() *int32 { return o.Spec.Replicas }
	case corev1.SchemeGroupVersion.WithKind("ReplicationController").GroupKind():
		o := &corev1.ReplicationController{}
		owner, n = o, func() *int32 { return o.Spec.Replicas }
	default:
		return c.scaleOf(ctx, gv.WithKind(ref.Kind), key, ref.UID)
	}
	err = c.client.Get(ctx, key, owner)
	if apierrors.IsNotFound(err) || err == nil && owner.GetUID() != ref.UID {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("getting %s %s: %w", ref.Kind, ref.Name, err)
	}
	if up := metav1.GetControllerOfNoCopy(owner); up != nil && up.Kind == "Deployment" && ref.Kind == "ReplicaSet" {
		return c.replicas(ctx, namespace, up)
	}
	return owner.GetUID(), ptr.Deref(n(), 1), nil
}

// scaleOf asks an object of any kind for its scale.
func (c *Controller) scaleOf(ctx context.Context, gvk schema.GroupVersionKind, key client.ObjectKey, uid types.UID) (types.UID, int32, error) {
	mapping, err := c.live.RESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return "", 0, fmt.Errorf("owner %s %s: %w", gvk.Kind, key.Name, err)
	}
	owner, scale := &unstructured.Unstructured{}, &unstructured.Unstructured{}
	owner.SetGroupVersionKind(gvk)
	owner.SetNamespace(key.Namespace)
	owner.SetName(key.Name)
	err = c.live.SubResource("scale").Get(ctx, owner, scale)
	switch {
	case apierrors.IsNotFound(err) && !namesObject(err):
		return "", 0, fmt.Errorf("%s does not implement the scale subresource", mapping.Resource.GroupResource())
	case apierrors.IsNotFound(err):
		return "", 0, nil
	case err != nil:
		return "", 0, fmt.Errorf("getting the scale of %s %s: %w", gvk.Kind, key.Name, err)
	case scale.GetUID() != uid:
		return "", 0, nil
	}
	n, _, err := unstructured.NestedInt64(scale.Object, "spec", "replicas")
	if err != nil {
		return "", 0, fmt.Errorf("the scale of %s %s: %w", gvk.Kind, key.Name, err)
	}
	return uid, int32(n), nil
}

// namesObject reports whether an error is about an object. If nothing is found, and no object is named, it is the path
// that there is not: objects of that kind have no scale.
func namesObject(err error) bool {
	var status apierrors.APIStatus
	return !apierrors.IsUnexpectedServerError(err) && errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Name != ""
}
