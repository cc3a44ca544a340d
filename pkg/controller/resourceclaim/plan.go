package resourceclaim

import (
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// made is what there is to do so that a pod, or a group of pods, has the claims that it asks for.
type made struct {
	// create are claims, by what they are called where they are asked for, that are to be made.
	create map[string]*resourcev1.ResourceClaim
	// found are those that have been made already, and that the status does not name.
	found map[string]string
}

func nothingMade() made {
	return made{create: map[string]*resourcev1.ResourceClaim{}, found: map[string]string{}}
}

// add says how the claim that is called so comes from a template.
func (m *made) add(owner client.Object, kind schema.GroupVersionKind, called, template string, s *stock) error {
	if claim := s.madeFor(owner, called); claim != nil {
		m.found[called] = claim.Name
		return nil
	}
	t := s.templates[template]
	if t == nil {
		return fmt.Errorf("resource claim template %q: resourceclaimtemplate.resource.k8s.io %q not found", template, template)
	}
	m.create[called] = fromTemplate(owner, kind, called, t)
	return nil
}

// stock is what there is in a namespace.
type stock struct {
	claims    map[string]*resourcev1.ResourceClaim
	templates map[string]*resourcev1.ResourceClaimTemplate
}

// madeFor returns the claim that has been made for its owner, who calls it so.
func (s *stock) madeFor(owner client.Object, called string) *resourcev1.ResourceClaim {
	for _, c := range s.claims {
		if c.Annotations[resourcev1.PodResourceClaimAnnotation] == called && metav1.IsControlledBy(c, owner) {
			return c
		}
	}
	return nil
}

// Gates are the feature gates that the controller heeds.
type Gates struct {
	// Groups lets pods belong to PodGroups, and GroupClaims lets those have claims that their pods share.
	Groups, GroupClaims bool
}

// groupError says why a pod's group is not known. It may be on its way, so that nobody is told.
type groupError struct{ error }

// groupOf returns the group that a pod belongs to, or nil for a pod that belongs to none.
type groupOf func(*corev1.Pod) (*schedulingv1beta1.PodGroup, error)

// reservation is a claim, and who it is to be reserved for.
type reservation struct {
	claim *resourcev1.ResourceClaim
	by    resourcev1.ResourceClaimConsumerReference
}

// podPlan is what there is to do for a pod.
type podPlan struct {
	made
	// reserve are allocated claims of a pod with a node that are reserved neither for it nor for its group: it did not come from the scheduler.
	reserve []reservation
}

// planPod decides about the claims of a pod.
func planPod(pod *corev1.Pod, s *stock, gates Gates, of groupOf) (podPlan, error) {
	p := podPlan{made: nothingMade()}
	if pod.DeletionTimestamp != nil || isDone(pod) { // its claims go
		return p, nil
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
			if claim := s.claims[*name]; claim != nil && (!own || resourceclaim.IsForPod(pod, claim, gates.GroupClaims) == nil) {
				if err := p.addReservation(pod, wanted, claim, gates, of); err != nil {
					return p, fmt.Errorf("PodResourceClaim %s: %w", wanted.Name, err)
				}
				continue
			}
		}
		if wanted.ResourceClaimTemplateName == nil {
			continue // somebody has to make it
		}
		if err := p.addPodClaim(pod, wanted, s, gates, of); err != nil {
			return p, fmt.Errorf("PodResourceClaim %s: %w", wanted.Name, err)
		}
	}
	return p, nil
}

// addReservation reserves a claim for a pod that has a node, or for its group where that shares the claim.
func (p *podPlan) addReservation(pod *corev1.Pod, wanted *corev1.PodResourceClaim, claim *resourcev1.ResourceClaim, gates Gates, of groupOf) error {
	if pod.Spec.NodeName == "" || claim.Status.Allocation == nil || resourceclaim.IsReservedForPod(pod, claim, gates.GroupClaims) || !resourceclaim.CanBeReserved(claim) {
		return nil
	}
	group, err := of(pod)
	if err != nil {
		return groupError{err}
	}
	by, err := resourceclaim.BindTo(pod, group, wanted)
	if err != nil || isGroup(by) && !gates.GroupClaims {
		return err
	}
	p.reserve = append(p.reserve, reservation{claim, by})
	return nil
}

// addPodClaim says how the claim comes from a template, or from the pod's group where that shares it.
func (p *podPlan) addPodClaim(pod *corev1.Pod, wanted *corev1.PodResourceClaim, s *stock, gates Gates, of groupOf) error {
	group, err := of(pod)
	if err != nil {
		return groupError{err}
	}
	by, err := resourceclaim.BindTo(pod, group, wanted)
	switch {
	case err != nil:
		return err
	case !isGroup(by):
		return p.add(pod, corev1.SchemeGroupVersion.WithKind("Pod"), wanted.Name, *wanted.ResourceClaimTemplateName, s)
	case !gates.GroupClaims:
		return errors.New("the PodGroup has the claim, but the DRAWorkloadResourceClaims feature is disabled")
	}
	if claim := s.madeFor(group, wanted.Name); claim != nil {
		p.found[wanted.Name] = claim.Name
	}
	return nil
}

// isGroup reports whether a claim is reserved for a PodGroup.
func isGroup(r resourcev1.ResourceClaimConsumerReference) bool {
	return r.APIGroup == schedulingv1beta1.GroupName && r.Resource == "podgroups"
}

// isPod reports whether a claim is reserved for a pod.
func isPod(r resourcev1.ResourceClaimConsumerReference) bool {
	return r.APIGroup == "" && r.Resource == "pods"
}

// planGroup decides about the claims of a group of pods.
func planGroup(g *schedulingv1beta1.PodGroup, s *stock) (made, error) {
	m := nothingMade()
	if g.DeletionTimestamp != nil {
		return m, nil
	}
	for i := range g.Spec.ResourceClaims {
		wanted := &g.Spec.ResourceClaims[i]
		name, own, err := resourceclaim.NameFromPodGroup(g, wanted)
		if err != nil && !errors.Is(err, resourceclaim.ErrClaimNotFound) {
			return m, err
		}
		if wanted.ResourceClaimTemplateName == nil || err == nil && name == nil {
			continue
		}
		if err == nil {
			if claim := s.claims[*name]; claim != nil && (!own || resourceclaim.IsForPodGroup(g, claim) == nil) {
				continue
			}
		}
		if err := m.add(g, schedulingv1beta1.SchemeGroupVersion.WithKind("PodGroup"), wanted.Name, *wanted.ResourceClaimTemplateName, s); err != nil {
			return m, fmt.Errorf("PodGroupResourceClaim %s: %w", wanted.Name, err)
		}
	}
	return m, nil
}

func fromTemplate(owner client.Object, kind schema.GroupVersionKind, called string, t *resourcev1.ResourceClaimTemplate) *resourcev1.ResourceClaim {
	annotations := maps.Clone(t.Spec.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[resourcev1.PodResourceClaimAnnotation] = called
	ref := *metav1.NewControllerRef(owner, kind)
	ref.BlockOwnerDeletion = nil
	return &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: owner.GetNamespace(), GenerateName: prefix(owner.GetName(), called), Labels: t.Spec.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{ref},
		},
		Spec: *t.Spec.Spec.DeepCopy(),
	}
}

// prefix returns the beginning of a claim's name, which with five more characters is a DNS label. Of long names
// it takes the same share each, and nothing parts them from those characters.
func prefix(owner, called string) string {
	const longest = 57
	whole := len(owner) + len(called) + 2
	if whole > longest {
		return owner[:len(owner)*longest/whole] + "-" + called[:len(called)*longest/whole]
	}
	return owner + "-" + called + "-"
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

// planClaim decides about a claim. Whether a consumer has no use for it any more is found out by gone, and owner is the pod that the claim was made for, if that is there.
func planClaim(claim *resourcev1.ResourceClaim, gone func(resourcev1.ResourceClaimConsumerReference) (bool, error), owner *corev1.Pod) (claimPlan, error) {
	p := claimPlan{}
	for _, consumer := range claim.Status.ReservedFor {
		ended, err := gone(consumer)
		if err != nil {
			return p, err
		}
		if !ended {
			p.consumers = append(p.consumers, consumer)
		}
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
