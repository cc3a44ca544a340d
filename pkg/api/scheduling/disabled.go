package scheduling

import (
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
)

// DropDisabledWorkloadFields clears the fields of a Workload that belong to features which are
// off, unless the stored one uses them already. old is nil on creation.
func DropDisabledWorkloadFields(spec, old *schedulingv1alpha3.WorkloadSpec, features map[string]bool) {
	if old == nil {
		old = &schedulingv1alpha3.WorkloadSpec{}
	}
	dropGroupTemplates(spec.PodGroupTemplates, old.PodGroupTemplates, features)
	dropCompositeTemplates(&spec.CompositePodGroupTemplates, old.CompositePodGroupTemplates, features)
}

// dropGroupTemplates compares templates by their places.
func dropGroupTemplates(templates, old []schedulingv1alpha3.PodGroupTemplate, features map[string]bool) {
	for i := range templates {
		t, was := &templates[i], schedulingv1alpha3.PodGroupTemplate{}
		if i < len(old) {
			was = old[i]
		}
		if !features[TopologyFeature] && was.SchedulingConstraints == nil {
			t.SchedulingConstraints = nil
		}
		if !features[ResourceClaimsFeature] && len(was.ResourceClaims) == 0 {
			t.ResourceClaims = nil
		}
		if !features[PreemptionPolicyFeature] && was.PreemptionPolicy == nil {
			t.PreemptionPolicy = nil
		}
	}
}

// dropCompositeTemplates compares templates by their names.
func dropCompositeTemplates(templates *[]schedulingv1alpha3.CompositePodGroupTemplate, old []schedulingv1alpha3.CompositePodGroupTemplate, features map[string]bool) {
	if !features[CompositePodGroupFeature] && len(old) == 0 {
		*templates = nil
	}
	byName := map[string]schedulingv1alpha3.CompositePodGroupTemplate{}
	for _, t := range old {
		byName[t.Name] = t
	}
	for i := range *templates {
		t := &(*templates)[i]
		was := byName[t.Name]
		if !features[PreemptionPolicyFeature] && was.PreemptionPolicy == nil {
			t.PreemptionPolicy = nil
		}
		dropCompositeTemplates(&t.CompositePodGroupTemplates, was.CompositePodGroupTemplates, features)
		dropGroupTemplates(t.PodGroupTemplates, was.PodGroupTemplates, features)
	}
}

// DropDisabledPodGroupFields clears the fields of a PodGroup that belong to features which are
// off, unless the stored one uses them already. old is nil on creation.
func DropDisabledPodGroupFields(spec, old *schedulingv1alpha3.PodGroupSpec, features map[string]bool) {
	if old == nil {
		old = &schedulingv1alpha3.PodGroupSpec{}
	}
	if !features[TopologyFeature] && old.SchedulingConstraints == nil {
		spec.SchedulingConstraints = nil
	}
	if !features[ResourceClaimsFeature] && len(old.ResourceClaims) == 0 {
		spec.ResourceClaims = nil
	}
	if !features[PreemptionPolicyFeature] && old.PreemptionPolicy == nil {
		spec.PreemptionPolicy = nil
	}
	if !features[CompositePodGroupFeature] && old.ParentCompositePodGroupName == nil {
		spec.ParentCompositePodGroupName = nil
	}
}

// DropDisabledPodGroupStatusFields clears the fields of the status of a PodGroup that belong to
// features which are off, unless its spec uses them.
func DropDisabledPodGroupStatusFields(status *schedulingv1alpha3.PodGroupStatus, spec *schedulingv1alpha3.PodGroupSpec, features map[string]bool) {
	if !features[ResourceClaimsFeature] && len(spec.ResourceClaims) == 0 {
		status.ResourceClaimStatuses = nil
	}
}

// DropDisabledCompositePodGroupFields clears the fields of a CompositePodGroup that belong to
// features which are off, unless the stored one uses them already. old is nil on creation.
func DropDisabledCompositePodGroupFields(spec, old *schedulingv1alpha3.CompositePodGroupSpec, features map[string]bool) {
	if !features[PreemptionPolicyFeature] && (old == nil || old.PreemptionPolicy == nil) {
		spec.PreemptionPolicy = nil
	}
}
