package scheduling

import (
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
)

// DropDisabledWorkloadFields clears the fields of a Workload that belong to features which are
// off, unless the stored one uses them already. old is nil on creation.
func (f Features) DropDisabledWorkloadFields(w, old *schedulingv1alpha3.Workload) {
	if old == nil {
		old = &schedulingv1alpha3.Workload{}
	}
	f.dropGroupTemplates(w.Spec.PodGroupTemplates, old.Spec.PodGroupTemplates)
	f.dropCompositeTemplates(&w.Spec.CompositePodGroupTemplates, old.Spec.CompositePodGroupTemplates)
}

// dropGroupTemplates compares templates by their places.
func (f Features) dropGroupTemplates(templates, old []schedulingv1alpha3.PodGroupTemplate) {
	for i := range templates {
		t, was := &templates[i], schedulingv1alpha3.PodGroupTemplate{}
		if i < len(old) {
			was = old[i]
		}
		if !f[TopologyFeature] && was.SchedulingConstraints == nil {
			t.SchedulingConstraints = nil
		}
		if !f[ResourceClaimsFeature] && len(was.ResourceClaims) == 0 {
			t.ResourceClaims = nil
		}
		if !f[PreemptionPolicyFeature] && was.PreemptionPolicy == nil {
			t.PreemptionPolicy = nil
		}
	}
}

// dropCompositeTemplates compares templates by their names.
func (f Features) dropCompositeTemplates(templates *[]schedulingv1alpha3.CompositePodGroupTemplate, old []schedulingv1alpha3.CompositePodGroupTemplate) {
	if !f[CompositePodGroupFeature] && len(old) == 0 {
		*templates = nil
	}
	byName := map[string]schedulingv1alpha3.CompositePodGroupTemplate{}
	for _, t := range old {
		byName[t.Name] = t
	}
	for i := range *templates {
		t := &(*templates)[i]
		was := byName[t.Name]
		if !f[PreemptionPolicyFeature] && was.PreemptionPolicy == nil {
			t.PreemptionPolicy = nil
		}
		f.dropCompositeTemplates(&t.CompositePodGroupTemplates, was.CompositePodGroupTemplates)
		f.dropGroupTemplates(t.PodGroupTemplates, was.PodGroupTemplates)
	}
}

// DropDisabledPodGroupFields clears the fields of a PodGroup that belong to features which are
// off, unless the stored one uses them already. old is nil on creation.
func (f Features) DropDisabledPodGroupFields(g, old *schedulingv1alpha3.PodGroup) {
	if old == nil {
		old = &schedulingv1alpha3.PodGroup{}
	}
	spec, was := &g.Spec, &old.Spec
	if !f[TopologyFeature] && was.SchedulingConstraints == nil {
		spec.SchedulingConstraints = nil
	}
	if !f[ResourceClaimsFeature] && len(was.ResourceClaims) == 0 {
		spec.ResourceClaims = nil
	}
	if !f[PreemptionPolicyFeature] && was.PreemptionPolicy == nil {
		spec.PreemptionPolicy = nil
	}
	if !f[CompositePodGroupFeature] && was.ParentCompositePodGroupName == nil {
		spec.ParentCompositePodGroupName = nil
	}
}

// DropDisabledPodGroupStatusFields clears the fields of the status of a PodGroup that belong to
// features which are off, unless its spec uses them.
func (f Features) DropDisabledPodGroupStatusFields(g *schedulingv1alpha3.PodGroup) {
	if !f[ResourceClaimsFeature] && len(g.Spec.ResourceClaims) == 0 {
		g.Status.ResourceClaimStatuses = nil
	}
}

// DropDisabledCompositePodGroupFields clears the fields of a CompositePodGroup that belong to
// features which are off, unless the stored one uses them already. old is nil on creation.
func (f Features) DropDisabledCompositePodGroupFields(g, old *schedulingv1alpha3.CompositePodGroup) {
	if !f[PreemptionPolicyFeature] && (old == nil || old.Spec.PreemptionPolicy == nil) {
		g.Spec.PreemptionPolicy = nil
	}
}
