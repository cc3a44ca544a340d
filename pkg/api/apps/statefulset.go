package apps

import (
	"cmp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

func setStatefulSet(s *appsv1.StatefulSet) {
	spec := &s.Spec
	rules.SetPtr(&spec.Replicas, 1)
	rules.SetPtr(&spec.RevisionHistoryLimit, 10)
	spec.PodManagementPolicy = cmp.Or(spec.PodManagementPolicy, appsv1.OrderedReadyPodManagement)
	strategy := &spec.UpdateStrategy
	if strategy.Type == "" {
		strategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
		rules.SetPtr(&strategy.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
	}
	if strategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && strategy.RollingUpdate != nil {
		rules.SetPtr(&strategy.RollingUpdate.Partition, 0)
		rules.SetPtr(&strategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
	}
	rules.SetPtr(&spec.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	retention := spec.PersistentVolumeClaimRetentionPolicy
	retention.WhenDeleted = cmp.Or(retention.WhenDeleted, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	retention.WhenScaled = cmp.Or(retention.WhenScaled, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	for i := range spec.VolumeClaimTemplates {
		claim := &spec.VolumeClaimTemplates[i]
		claim.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"))
		core.SetDefaultsPersistentVolumeClaim(claim)
	}
	core.SetDefaultsPodTemplateSpec(&spec.Template)
}

// statefulSetName is the rule for names: pods are named after the set, and a dot
// would break their host names.
func statefulSetName(name string, prefix bool) []string {
	if !prefix && strings.Contains(name, ".") {
		return []string{"must not contain dots"}
	}
	return apivalidation.NameIsDNSLabel(name, prefix)
}

// ValidateStatefulSet says what is wrong with a new StatefulSet.
func ValidateStatefulSet(s *appsv1.StatefulSet) field.ErrorList {
	errs := rules.Namespaced(&s.ObjectMeta, statefulSetName)
	errs = append(errs, validateStatefulSetSpec(&s.Spec)...)
	if s.Spec.ServiceName != "" {
		errs = append(errs, rules.Messages(specPath.Child("serviceName"), s.Spec.ServiceName, validation.IsDNS1123Label(s.Spec.ServiceName))...)
	}
	for i := range s.Spec.VolumeClaimTemplates {
		errs = append(errs, core.ValidatePersistentVolumeClaimSpec(&s.Spec.VolumeClaimTemplates[i].Spec, specPath.Child("volumeClaimTemplates").Index(i).Child("spec"))...)
	}
	return errs
}

// ValidateStatefulSetUpdate says what is wrong with an update of a StatefulSet.
func ValidateStatefulSetUpdate(s, old *appsv1.StatefulSet) field.ErrorList {
	errs := rules.MetaUpdate(&s.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateStatefulSetSpec(&s.Spec)...)
	errs = append(errs, rules.Immutable(s.Spec.Selector, old.Spec.Selector, selectorPath)...)
	errs = append(errs, rules.Immutable(s.Spec.ServiceName, old.Spec.ServiceName, specPath.Child("serviceName"))...)
	errs = append(errs, rules.Immutable(s.Spec.PodManagementPolicy, old.Spec.PodManagementPolicy, specPath.Child("podManagementPolicy"))...)
	return append(errs, rules.Immutable(s.Spec.VolumeClaimTemplates, old.Spec.VolumeClaimTemplates, specPath.Child("volumeClaimTemplates"))...)
}

func validateStatefulSetSpec(spec *appsv1.StatefulSetSpec) field.ErrorList {
	var errs field.ErrorList
	switch spec.PodManagementPolicy {
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	case "":
		errs = append(errs, field.Required(specPath.Child("podManagementPolicy"), ""))
	default:
		errs = append(errs, field.Invalid(specPath.Child("podManagementPolicy"), spec.PodManagementPolicy, "must be 'OrderedReady' or 'Parallel'"))
	}
	errs = append(errs, validateStatefulSetStrategy(&spec.UpdateStrategy)...)
	errs = append(errs, validateRetention(spec.PersistentVolumeClaimRetentionPolicy)...)
	errs = append(errs, rules.NonNegativePtr(spec.Replicas, specPath.Child("replicas"))...)
	errs = append(errs, rules.NonNegative(spec.MinReadySeconds, specPath.Child("minReadySeconds"))...)
	if spec.Ordinals != nil {
		errs = append(errs, rules.NonNegative(spec.Ordinals.Start, specPath.Child("ordinals", "start"))...)
	}

	if spec.Selector == nil {
		errs = append(errs, field.Required(selectorPath, ""))
	} else {
		errs = append(errs, rules.LabelSelector(spec.Selector, selectorPath)...)
		if len(spec.Selector.MatchLabels)+len(spec.Selector.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(selectorPath, spec.Selector, "empty selector is invalid for statefulset"))
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(spec.Selector)
	if err != nil {
		errs = append(errs, field.Invalid(selectorPath, spec.Selector, ""))
		errs = append(errs, core.ValidateEvictionResponders(&spec.Template.Spec, templatePath.Child("spec"))...)
	} else {
		errs = append(errs, validateStatefulSetTemplate(spec, selector)...)
	}
	return append(errs, validateNeverEnds(&spec.Template, "StatefulSet")...)
}

// validateStatefulSetTemplate checks the pods as they will be made: each claim
// template is a volume of the same name, in place of one that the template has.
func validateStatefulSetTemplate(spec *appsv1.StatefulSetSpec, selector labels.Selector) field.ErrorList {
	errs := validateSelected(&spec.Template, selector)
	template := spec.Template.DeepCopy()
	claims := map[string]bool{}
	var volumes []corev1.Volume
	for _, claim := range spec.VolumeClaimTemplates {
		if claims[claim.Name] {
			continue
		}
		claims[claim.Name] = true
		volumes = append(volumes, corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name},
		}})
	}
	for _, v := range template.Spec.Volumes {
		if !claims[v.Name] {
			volumes = append(volumes, v)
		}
	}
	template.Spec.Volumes = volumes
	return append(errs, core.ValidatePodTemplateSpec(template, templatePath)...)
}

func validateStatefulSetStrategy(s *appsv1.StatefulSetUpdateStrategy) field.ErrorList {
	p := specPath.Child("updateStrategy")
	rolling := p.Child("rollingUpdate")
	switch s.Type {
	case "":
		return field.ErrorList{field.Required(p, "")}
	case appsv1.OnDeleteStatefulSetStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Invalid(rolling, s.RollingUpdate, "only allowed for updateStrategy 'RollingUpdate'")}
		}
		return nil
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if s.RollingUpdate == nil {
			return nil
		}
	default:
		return field.ErrorList{field.Invalid(p, s, "must be 'RollingUpdate' or 'OnDelete'")}
	}
	errs := rules.NonNegativePtr(s.RollingUpdate.Partition, rolling.Child("partition"))
	if unavailable := s.RollingUpdate.MaxUnavailable; unavailable != nil {
		p := rolling.Child("maxUnavailable")
		errs = append(errs, rules.CountOrPercent(*unavailable, p)...)
		if rules.IsZero(unavailable) {
			errs = append(errs, field.Invalid(p, *unavailable, "cannot be 0"))
		}
		errs = append(errs, rules.AtMost100Percent(*unavailable, p)...)
	}
	return errs
}

func validateRetention(r *appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy) field.ErrorList {
	if r == nil {
		return nil
	}
	p := specPath.Child("persistentVolumeClaimRetentionPolicy")
	retain, remove := appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	return append(rules.OneOf(r.WhenDeleted, p.Child("whenDeleted"), retain, remove),
		rules.OneOf(r.WhenScaled, p.Child("whenScaled"), retain, remove)...)
}

// ValidateStatefulSetStatusUpdate says what is wrong with an update of the status of a StatefulSet.
func ValidateStatefulSetStatusUpdate(s, old *appsv1.StatefulSet) field.ErrorList {
	errs := rules.MetaUpdate(&s.ObjectMeta, &old.ObjectMeta)
	st := &s.Status
	ready, available := counter{"readyReplicas", st.ReadyReplicas}, counter{"availableReplicas", st.AvailableReplicas}
	current, updated := counter{"currentReplicas", st.CurrentReplicas}, counter{"updatedReplicas", st.UpdatedReplicas}
	errs = append(errs, validateCounters(counter{"replicas", st.Replicas}, ready, current, updated, available)...)
	errs = append(errs, rules.NonNegative(st.ObservedGeneration, statusPath.Child("observedGeneration"))...)
	errs = append(errs, rules.NonNegativePtr(st.CollisionCount, statusPath.Child("collisionCount"))...)
	errs = append(errs, validateAtMost(st.Replicas, "status.replicas", ready, current, updated, available)...)
	errs = append(errs, validateAtMost(st.ReadyReplicas, "status.readyReplicas", available)...)
	return append(errs, validateCollisionCount(st.CollisionCount, old.Status.CollisionCount)...)
}
