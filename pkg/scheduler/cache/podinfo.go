package cache

import (
	"errors"
	"sync"

	v1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
)

// PodInfo is a pod with what plugins ask of it often, computed once.
type PodInfo struct {
	Pod *v1.Pod

	affinity, antiAffinity                   []fwk.AffinityTerm
	preferredAffinity, preferredAntiAffinity []fwk.WeightedAffinityTerm

	calculated sync.Once // the resource is asked for by some only
	resource   fwk.PodResource
}

var _ fwk.PodInfo = &PodInfo{}

// NewPodInfo computes a PodInfo. A selector that does not parse is reported; the
// PodInfo is usable all the same, without that term.
func NewPodInfo(pod *v1.Pod) (*PodInfo, error) {
	p := &PodInfo{Pod: pod}
	a := pod.Spec.Affinity
	if a == nil {
		return p, nil
	}
	var errs [4]error
	p.affinity, errs[0] = fwk.GetAffinityTerms(pod, fwk.GetPodAffinityTerms(a))
	p.antiAffinity, errs[1] = fwk.GetAffinityTerms(pod, fwk.GetPodAntiAffinityTerms(a))
	if a.PodAffinity != nil {
		p.preferredAffinity, errs[2] = fwk.GetWeightedAffinityTerms(pod, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a.PodAntiAffinity != nil {
		p.preferredAntiAffinity, errs[3] = fwk.GetWeightedAffinityTerms(pod, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return p, errors.Join(errs[:]...)
}

// GetPod returns the pod.
func (p *PodInfo) GetPod() *v1.Pod { return p.Pod }

// GetRequiredAffinityTerms returns the terms of required pod affinity.
func (p *PodInfo) GetRequiredAffinityTerms() []fwk.AffinityTerm { return p.affinity }

// GetRequiredAntiAffinityTerms returns the terms of required pod anti-affinity.
func (p *PodInfo) GetRequiredAntiAffinityTerms() []fwk.AffinityTerm { return p.antiAffinity }

// GetPreferredAffinityTerms returns the terms of preferred pod affinity.
func (p *PodInfo) GetPreferredAffinityTerms() []fwk.WeightedAffinityTerm { return p.preferredAffinity }

// GetPreferredAntiAffinityTerms returns the terms of preferred pod anti-affinity.
func (p *PodInfo) GetPreferredAntiAffinityTerms() []fwk.WeightedAffinityTerm {
	return p.preferredAntiAffinity
}

// CalculateResource returns what the pod asks for.
func (p *PodInfo) CalculateResource() fwk.PodResource {
	p.calculated.Do(func() { p.resource = podResource(p.Pod) })
	return p.resource
}
