package resourceclaim

import (
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// podPlan is what there is to do for a pod.
type podPlan struct {
	// create are claims, by what the pod calls them, that are to be made.
	create map[string]*resourcev1.ResourceClaim
	// found are those that have been made already, and that the pod's status does not name.
	found map[string]string
	// reserve are allocated claims of a pod with a node that are not reserved for it: it did not come from the scheduler.
	reserve []*resourcev1.ResourceClaim
}

// planPod decides about the claims of a pod. Claims and templates are those of its namespace.
func planPod(pod *corev1.Pod, claims []*resourcev1.ResourceClaim, templates map[string]*resourcev1.ResourceClaimTemplate) (podPlan, error) {
	p := podPlan{create: map[string]*resourcev1.ResourceClaim{}, found: map[string]string{}}
	if pod.DeletionTimestamp != nil || isDone(pod) { // its claims go
		return p, nil
	}
	byName := map[string]*resourcev1.ResourceClaim{}
	made := map[string]*resourcev1.ResourceClaim{} // for the pod, by what it calls them
	for _, c := range claims {
		byName[c.Name] = c
		if called := c.Annotations[resourcev1.PodResourceClaimAnnotation]; called != "" && metav1.IsControlledBy(c, pod) {
			made[called] = c
		}
	}
	for i := range pod.Spec.ResourceClaims {
		wanted := &pod.Spec.ResourceClaims[i]
		name, own, err := resourceclaim.Name(pod, wanted)
		if err != nil && !errors.Is(err, resourceclaim.ErrClaimNotFound) {
			return p, err
		}
		if err == nil && name == nil {
			continue // it turned out not to be needed
		}
		if err == nil {
			if claim := byName[*name]; claim != nil && (!own || resourceclaim.IsForPod(pod, claim, false) == nil) {
				if pod.Spec.NodeName != "" && claim.Status.Allocation != nil && !resourceclaim.IsReservedForPod(pod, claim, false) && resourceclaim.CanBeReserved(claim) {
					p.reserve = append(p.reserve, claim)
				}
				continue
			}
		}
		if wanted.ResourceClaimTemplateName == nil {
			continue // somebody has to make it
		}
		if claim := made[wanted.Name]; claim != nil {
			p.found[wanted.Name] = claim.Name
			continue
		}
		template := templates[*wanted.ResourceClaimTemplateName]
		if template == nil {
			return p, fmt.Errorf("PodResourceClaim %s: resource claim template %q: resourceclaimtemplate.resource.k8s.io %q not found", wanted.Name, *wanted.ResourceClaimTemplateName, *wanted.ResourceClaimTemplateName)
		}
		p.create[wanted.Name] = fromTemplate(pod, wanted.Name, template)
	}
	return p, nil
}

func fromTemplate(pod *corev1.Pod, called string, t *resourcev1.ResourceClaimTemplate) *resourcev1.ResourceClaim {
	annotations := maps.Clone(t.Spec.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[resourcev1.PodResourceClaimAnnotation] = called
	owner := *metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))
	owner.BlockOwnerDeletion = nil
	return &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, GenerateName: prefix(pod.Name, called), Labels: t.Spec.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{owner},
		},
		Spec: *t.Spec.Spec.DeepCopy(),
	}
}

// prefix returns the beginning of a claim's name, which with five more characters is a DNS label. Of long names
// it takes the same share each.
func prefix(pod, called string) string {
	const longest = 57
	whole := len(pod) + len(called) + 2
	if whole > longest {
		pod, called = pod[:len(pod)*longest/whole], called[:len(called)*longest/whole]
	}
	return pod + "-" + called + "-"
}

// isDone reports whether a pod has no use for claims any more.
func isDone(p *corev1.Pod) bool {
	return pods.IsTerminated(p) || p.DeletionTimestamp != nil && p.Spec.NodeName == ""
}

// claimPlan is what there is to do for a claim.
type claimPlan struct {
	// consumers are those that it stays reserved for.
	consumers []resourcev1.ResourceClaimConsumerReference
	// deallocate frees what it has; release lets it go.
	deallocate, release bool
	// remove deletes it: it was made for a pod that has ended.
	remove bool
}

// planClaim decides about a claim. A pod's fate is found out by gone, and owner is the pod that the claim was made for, if that is there.
func planClaim(claim *resourcev1.ResourceClaim, gone func(resourcev1.ResourceClaimConsumerReference) (bool, error), owner *corev1.Pod) (claimPlan, error) {
	p := claimPlan{}
	for _, consumer := range claim.Status.ReservedFor {
		if consumer.APIGroup == "" && consumer.Resource == "pods" {
			ended, err := gone(consumer)
			if err != nil {
				return p, err
			}
			if ended {
				continue
			}
		}
		p.consumers = append(p.consumers, consumer)
	}
	if len(p.consumers) > 0 {
		return p, nil
	}
	fewer := len(claim.Status.ReservedFor) > 0
	ours := false
	for _, f := range claim.Finalizers {
		ours = ours || f == resourcev1.Finalizer
	}
	if ours && (fewer || claim.DeletionTimestamp != nil) {
		p.deallocate, p.release = claim.Status.Allocation != nil, true
	}
	if ref := metav1.GetControllerOfNoCopy(claim); ref != nil && owner != nil && ref.Kind == "Pod" && ref.APIVersion == "v1" {
		p.remove = claim.DeletionTimestamp == nil && (owner.UID != ref.UID || isDone(owner))
	}
	return p, nil
}
