package apps

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// WarningsDeployment are what the author of a Deployment should know. old is nil on creation.
func WarningsDeployment(d, old *appsv1.Deployment) []string {
	if old == nil {
		return append(rules.HostNameWarnings(d.Name), templateWarnings(&d.Spec.Template, nil)...)
	}
	if d.Generation == old.Generation {
		return nil
	}
	return templateWarnings(&d.Spec.Template, &old.Spec.Template)
}

// WarningsReplicaSet are what the author of a ReplicaSet should know. old is nil on creation.
func WarningsReplicaSet(r, old *appsv1.ReplicaSet) []string {
	if old == nil {
		return append(rules.HostNameWarnings(r.Name), templateWarnings(&r.Spec.Template, nil)...)
	}
	if r.Generation == old.Generation {
		return nil
	}
	return templateWarnings(&r.Spec.Template, &old.Spec.Template)
}

// WarningsDaemonSet are what the author of a DaemonSet should know. old is nil on creation.
func WarningsDaemonSet(d, old *appsv1.DaemonSet) []string {
	if old == nil {
		return templateWarnings(&d.Spec.Template, nil)
	}
	return templateWarnings(&d.Spec.Template, &old.Spec.Template)
}

// WarningsStatefulSet are what the author of a StatefulSet should know. old is nil on creation.
func WarningsStatefulSet(s, old *appsv1.StatefulSet) []string {
	var warnings []string
	switch {
	case old == nil:
		warnings = templateWarnings(&s.Spec.Template, nil)
	case s.Generation != old.Generation:
		warnings = templateWarnings(&s.Spec.Template, &old.Spec.Template)
	}
	for i := range s.Spec.VolumeClaimTemplates {
		at := specPath.Child("volumeClaimTemplates").Index(i)
		if old != nil { // the original's paths
			at = at.Child("Spec")
		}
		warnings = append(warnings, core.WarningsClaimTemplate(&s.Spec.VolumeClaimTemplates[i], at)...)
	}
	if limit := s.Spec.RevisionHistoryLimit; limit != nil && *limit < 0 {
		warnings = append(warnings, fmt.Sprintf("%s: a negative value retains all historical revisions; a value >= 0 is recommended", specPath.Child("revisionHistoryLimit")))
	}
	return warnings
}

func templateWarnings(template, old *corev1.PodTemplateSpec) []string {
	return core.WarningsPodTemplateSpec(template, old, templatePath)
}
