package noderestriction

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/core/podrefs"
)

func (p *Plugin) admitPod(node string, a admission.Attributes) error {
	switch a.GetSubresource() {
	case "":
		switch a.GetOperation() {
		case admission.Create:
			return p.createPod(node, a)
		case admission.Delete:
			pod, err := p.pods.Pods(a.GetNamespace()).Get(a.GetName())
			if err != nil {
				return err
			}
			if pod.Spec.NodeName != node {
				return admission.NewForbidden(a, fmt.Errorf("node %q can only delete pods with spec.nodeName set to itself", node))
			}
			return nil
		}
		return unexpected(a)
	case "status":
		if a.GetOperation() != admission.Update {
			return unexpected(a)
		}
		return updatePodStatus(node, a)
	case "eviction":
		if a.GetOperation() != admission.Create {
			return unexpected(a)
		}
		return p.evictPod(node, a)
	}
	return admission.NewForbidden(a, fmt.Errorf("unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.GetSubresource()))
}

// createPod lets a node create mirror pods of its own static pods, which refer to
// nothing: the node could read what they refer to.
func (p *Plugin) createPod(node string, a admission.Attributes) error {
	pod, err := object[*corev1.Pod](a.GetObject())
	if err != nil {
		return err
	}
	refuse := func(format string, args ...any) error {
		return admission.NewForbidden(a, fmt.Errorf("node %q "+format, append([]any{node}, args...)...))
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		return admission.NewForbidden(a, fmt.Errorf("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node))
	}
	if pod.Spec.NodeName != node {
		return refuse("can only create pods with spec.nodeName set to itself")
	}
	if what := referred(pod); what != "" {
		return refuse("can not create pods that reference %s", what)
	}

	if len(pod.OwnerReferences) > 1 {
		return refuse("can only create pods with a single owner reference set to itself")
	}
	if len(pod.OwnerReferences) == 0 {
		return refuse("can only create pods with an owner reference set to itself")
	}
	owner := pod.OwnerReferences[0]
	switch {
	case owner.APIVersion != "v1" || owner.Kind != "Node" || owner.Name != node:
		return refuse("can only create pods with an owner reference set to itself")
	case !ptr.Deref(owner.Controller, false):
		return refuse("can only create pods with a controller owner reference set to itself")
	case ptr.Deref(owner.BlockOwnerDeletion, false):
		return refuse("must not set blockOwnerDeletion on an owner reference")
	}
	// A node of the same name that is there by now is another owner.
	live, err := p.nodes.Get(node)
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	if owner.UID != live.UID {
		return refuse("UID mismatch: expected %s got %s", owner.UID, live.UID)
	}
	return nil
}

// referred names the kind of an API object that the pod refers to; "" if none.
func referred(pod *corev1.Pod) string {
	switch {
	case pod.Spec.ServiceAccountName != "":
		return "serviceaccounts"
	case len(podrefs.Secrets(&pod.Spec)) > 0:
		return "secrets"
	case len(podrefs.ConfigMaps(&pod.Spec)) > 0:
		return "configmaps"
	case len(podrefs.VolumeClaims(pod)) > 0:
		return "persistentvolumeclaims"
	case len(pod.Spec.ResourceClaims) > 0:
		return "resourceclaims"
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			switch {
			case source.ServiceAccountToken != nil:
				return "serviceaccounts"
			case source.ClusterTrustBundle != nil:
				return "clustertrustbundles"
			case source.PodCertificate != nil:
				return "podcertificates"
			}
		}
	}
	return ""
}

func updatePodStatus(node string, a admission.Attributes) error {
	old, err := object[*corev1.Pod](a.GetOldObject())
	if err != nil {
		return err
	}
	pod, err := object[*corev1.Pod](a.GetObject())
	if err != nil {
		return err
	}
	refuse := func(text string) error { return admission.NewForbidden(a, fmt.Errorf("node %q %s", node, text)) }
	switch {
	case old.Spec.NodeName != node:
		return refuse("can only update pod status for pods with spec.nodeName set to itself")
	case !equality.Semantic.DeepEqual(old.Labels, pod.Labels):
		return refuse("cannot update labels through pod status")
	case !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses):
		return refuse("cannot update resource claim statuses")
	case !equality.Semantic.DeepEqual(old.Status.ExtendedResourceClaimStatus, pod.Status.ExtendedResourceClaimStatus):
		return refuse("cannot update extended resource claim status")
	case !equality.Semantic.DeepEqual(old.Status.NodeAllocatableResourceClaimStatuses, pod.Status.NodeAllocatableResourceClaimStatuses):
		return refuse("cannot update node allocatable resource claim statuses")
	}
	return nil
}

func (p *Plugin) evictPod(node string, a admission.Attributes) error {
	eviction, err := object[*policyv1.Eviction](a.GetObject())
	if err != nil {
		return err
	}
	// The path names the pod; the body may.
	name := a.GetName()
	if name == "" {
		name = eviction.Name
	}
	if name == "" {
		return admission.NewForbidden(a, errors.New("could not determine pod from request data"))
	}
	pod, err := p.pods.Pods(a.GetNamespace()).Get(name)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName != node {
		return admission.NewForbidden(a, fmt.Errorf("node %s can only evict pods with spec.nodeName set to itself", node))
	}
	return nil
}

// admitVolumeClaim lets a node report the expansion of a file system: the size, the
// conditions and the progress in the status, and nothing else.
func admitVolumeClaim(node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Update {
		return unexpected(a)
	}
	if a.GetSubresource() != "status" {
		return admission.NewForbidden(a, fmt.Errorf("node %q may only update PVC status", node))
	}
	old, err := object[*corev1.PersistentVolumeClaim](a.GetOldObject())
	if err != nil {
		return err
	}
	claim, err := object[*corev1.PersistentVolumeClaim](a.GetObject())
	if err != nil {
		return err
	}
	old, claim = old.DeepCopy(), claim.DeepCopy()
	for _, c := range []*corev1.PersistentVolumeClaim{old, claim} {
		c.Status.Capacity, c.Status.Conditions = nil, nil
		c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil
		c.ManagedFields, c.ResourceVersion = nil, ""
	}
	if !equality.Semantic.DeepEqual(old, claim) {
		return admission.NewForbidden(a, fmt.Errorf("node %q is not allowed to update fields other than status.capacity, status.conditions, status.allocatedResources and status.allocatedResourceStatuses", node))
	}
	return nil
}
