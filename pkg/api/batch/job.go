package batch

import (
	"cmp"
	"fmt"
	"math"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// The labels that tie a pod to its Job. The legacy ones go with the others.
const (
	legacyControllerUIDLabel = "controller-uid"
	legacyJobNameLabel       = "job-name"
)

// Bounds of Indexed Jobs: their status has to fit into one object.
const (
	maxIndexedParallelism   = 100_000
	manyCompletions         = 100_000
	maxParallelismForMany   = 10_000
	maxFailedIndexesForMany = 10_000
	maxSucceededIndexesSize = 64 << 10
	maxManagedBy            = 63
)

func setJob(j *batchv1.Job) {
	spec := &j.Spec
	if spec.Completions == nil && spec.Parallelism == nil {
		spec.Completions = ptr.To[int32](1)
	}
	rules.SetPtr(&spec.Parallelism, 1)
	if spec.BackoffLimitPerIndex != nil {
		rules.SetPtr(&spec.BackoffLimit, math.MaxInt32)
	}
	rules.SetPtr(&spec.BackoffLimit, 6)
	if len(j.Labels) == 0 {
		j.Labels = spec.Template.Labels
	}
	rules.SetPtr(&spec.CompletionMode, batchv1.NonIndexedCompletion)
	rules.SetPtr(&spec.Suspend, false)
	rules.SetPtr(&spec.ManualSelector, false)
	replacement := batchv1.TerminatingOrFailed
	if spec.PodFailurePolicy != nil {
		replacement = batchv1.Failed
	}
	rules.SetPtr(&spec.PodReplacementPolicy, replacement)
	setJobSpec(spec)
}

// setJobSpec sets what a Job and the template of a CronJob have in common.
func setJobSpec(spec *batchv1.JobSpec) {
	if spec.PodFailurePolicy != nil {
		for i := range spec.PodFailurePolicy.Rules {
			patterns := spec.PodFailurePolicy.Rules[i].OnPodConditions
			for j := range patterns {
				patterns[j].Status = cmp.Or(patterns[j].Status, corev1.ConditionTrue)
			}
		}
	}
	core.SetDefaultsPodTemplateSpec(&spec.Template)
}

// ValidateJob says what is wrong with a new Job. Features are those that are on.
func ValidateJob(j *batchv1.Job, features map[string]bool) field.ErrorList {
	errs := rules.Namespaced(&j.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, validateGeneratedSelector(j)...)
	errs = append(errs, validateSelectedJobSpec(&j.Spec)...)
	if isIndexed(&j.Spec) && ptr.Deref(j.Spec.Completions, 0) > 0 {
		// Pods are named after their index, and their host names are the same.
		longest := fmt.Sprintf("%s-%d", j.Name, *j.Spec.Completions-1)
		if len(validation.IsDNS1123Label(longest)) > 0 {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), j.Name, "will not able to create pod with invalid DNS label: "+longest))
		}
	}
	return append(errs, rules.Declared(declaredScheduling, specPath, &j.Spec, nil, features)...)
}

// validateGeneratedSelector checks that a selector which the server makes was not
// mixed with the client's own.
func validateGeneratedSelector(j *batchv1.Job) field.ErrorList {
	if ptr.Deref(j.Spec.ManualSelector, false) || j.Spec.Selector == nil {
		return nil // A selector that is missing altogether is reported as such.
	}
	p := specPath.Child("template", "metadata", "labels")
	var errs field.ErrorList
	for _, want := range []struct{ label, value string }{
		{legacyControllerUIDLabel, string(j.UID)},
		{legacyJobNameLabel, j.Name},
		{batchv1.ControllerUidLabel, string(j.UID)},
		{batchv1.JobNameLabel, j.Name},
	} {
		switch got, ok := j.Spec.Template.Labels[want.label]; {
		case !ok:
			errs = append(errs, field.Required(p.Key(want.label), fmt.Sprintf("must be '%s'", want.value)))
		case got != want.value:
			errs = append(errs, field.Invalid(p.Key(want.label), j.Spec.Template.Labels, fmt.Sprintf("must be '%s'", want.value)))
		}
	}
	if _, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err != nil {
		return errs // reported with the rest of the spec
	}
	expected := map[string]string{batchv1.ControllerUidLabel: string(j.UID)}
	if len(j.Spec.Selector.MatchExpressions) > 0 || !equality.Semantic.DeepEqual(j.Spec.Selector.MatchLabels, expected) {
		errs = append(errs, field.Invalid(specPath.Child("selector"), j.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

// validateSelectedJobSpec checks the spec of a Job, which has a selector.
func validateSelectedJobSpec(spec *batchv1.JobSpec) field.ErrorList {
	errs := validateJobSpec(spec, specPath)
	if spec.Selector == nil {
		errs = append(errs, field.Required(specPath.Child("selector"), ""))
	} else {
		errs = append(errs, rules.LabelSelector(spec.Selector, specPath.Child("selector"))...)
	}
	selector, err := metav1.LabelSelectorAsSelector(spec.Selector)
	if err == nil && !selector.Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(specPath.Child("template", "metadata", "labels"), spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

func isIndexed(spec *batchv1.JobSpec) bool {
	return ptr.Deref(spec.CompletionMode, "") == batchv1.IndexedCompletion
}

func validateJobSpec(spec *batchv1.JobSpec, p *field.Path) field.ErrorList {
	errs := rules.NonNegativePtr(spec.Parallelism, p.Child("parallelism"))
	errs = append(errs, rules.NonNegativePtr(spec.Completions, p.Child("completions"))...)
	errs = append(errs, rules.NonNegativePtr(spec.ActiveDeadlineSeconds, p.Child("activeDeadlineSeconds"))...)
	errs = append(errs, rules.NonNegativePtr(spec.BackoffLimit, p.Child("backoffLimit"))...)
	errs = append(errs, rules.NonNegativePtr(spec.TTLSecondsAfterFinished, p.Child("ttlSecondsAfterFinished"))...)
	errs = append(errs, rules.NonNegativePtr(spec.BackoffLimitPerIndex, p.Child("backoffLimitPerIndex"))...)
	errs = append(errs, rules.NonNegativePtr(spec.MaxFailedIndexes, p.Child("maxFailedIndexes"))...)
	if spec.MaxFailedIndexes != nil && spec.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(p.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	if mode := spec.CompletionMode; mode != nil {
		errs = append(errs, rules.OneOf(*mode, p.Child("completionMode"), batchv1.NonIndexedCompletion, batchv1.IndexedCompletion)...)
	}
	errs = append(errs, validateIndexed(spec, p)...)
	if spec.ManagedBy != nil {
		m := p.Child("managedBy")
		errs = append(errs, validation.IsDomainPrefixedPath(m, *spec.ManagedBy)...)
		if len(*spec.ManagedBy) > maxManagedBy {
			errs = append(errs, field.TooLong(m, "" /*unused*/, maxManagedBy))
		}
	}
	if spec.PodFailurePolicy != nil {
		errs = append(errs, validatePodFailurePolicy(spec, p.Child("podFailurePolicy"))...)
	}
	if spec.SuccessPolicy != nil {
		errs = append(errs, validateSuccessPolicy(spec, p.Child("successPolicy"))...)
	}
	if policy := spec.PodReplacementPolicy; policy != nil {
		supported := []batchv1.PodReplacementPolicy{batchv1.Failed, batchv1.TerminatingOrFailed}
		if spec.PodFailurePolicy != nil {
			supported = supported[:1]
		}
		errs = append(errs, rules.OneOf(*policy, p.Child("podReplacementPolicy"), supported...)...)
	}
	errs = append(errs, validateScheduling(spec, p.Child("scheduling"))...)
	errs = append(errs, core.ValidatePodTemplateSpec(&spec.Template, p.Child("template"))...)
	return append(errs, validateJobRestartPolicy(spec, p.Child("template", "spec", "restartPolicy"))...)
}

func validateJobRestartPolicy(spec *batchv1.JobSpec, p *field.Path) field.ErrorList {
	policy := spec.Template.Spec.RestartPolicy
	switch {
	case policy == "" || policy == corev1.RestartPolicyAlways:
		return field.ErrorList{field.Required(p, fmt.Sprintf("valid values: %q, %q", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever))}
	case policy != corev1.RestartPolicyOnFailure && policy != corev1.RestartPolicyNever:
		return rules.OneOf(policy, p, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	case spec.PodFailurePolicy != nil && policy != corev1.RestartPolicyNever:
		return field.ErrorList{field.Invalid(p, policy, fmt.Sprintf("only %q is supported when podFailurePolicy is specified", corev1.RestartPolicyNever))}
	}
	return nil
}

// validateIndexed checks what depends on whether the pods of a Job have indexes.
func validateIndexed(spec *batchv1.JobSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	atMost := func(name string, value *int32, limit int, detail string) {
		if value != nil && int(*value) > limit {
			errs = append(errs, field.Invalid(p.Child(name), *value, "must be less than or equal to "+detail))
		}
	}
	switch ptr.Deref(spec.CompletionMode, batchv1.NonIndexedCompletion) {
	case batchv1.IndexedCompletion:
	case batchv1.NonIndexedCompletion:
		for _, f := range []struct {
			name  string
			value *int32
		}{{"backoffLimitPerIndex", spec.BackoffLimitPerIndex}, {"maxFailedIndexes", spec.MaxFailedIndexes}} {
			if f.value != nil {
				errs = append(errs, field.Invalid(p.Child(f.name), *f.value, "requires indexed completion mode"))
			}
		}
		return errs
	default: // refused as such
		return errs
	}
	if spec.Completions == nil {
		errs = append(errs, field.Required(p.Child("completions"), "when completion mode is Indexed"))
	}
	atMost("parallelism", spec.Parallelism, maxIndexedParallelism, strconv.Itoa(maxIndexedParallelism)+" when completion mode is Indexed")
	if spec.Completions == nil {
		return errs
	}
	atMost("maxFailedIndexes", spec.MaxFailedIndexes, int(*spec.Completions), "completions")
	if int(*spec.Completions) <= manyCompletions || spec.BackoffLimitPerIndex == nil {
		return errs
	}
	if spec.MaxFailedIndexes == nil {
		errs = append(errs, field.Required(p.Child("maxFailedIndexes"), fmt.Sprintf("must be specified when completions is above %d", manyCompletions)))
	}
	const many = "%d when completions are above %d and used with backoff limit per index"
	atMost("parallelism", spec.Parallelism, maxParallelismForMany, fmt.Sprintf(many, maxParallelismForMany, manyCompletions))
	atMost("maxFailedIndexes", spec.MaxFailedIndexes, maxFailedIndexesForMany, fmt.Sprintf(many, maxFailedIndexesForMany, manyCompletions))
	return errs
}

// ValidateJobUpdate says what is wrong with an update of a Job.
func ValidateJobUpdate(j, old *batchv1.Job, features map[string]bool) field.ErrorList {
	errs := rules.MetaUpdate(&j.ObjectMeta, &old.ObjectMeta)
	spec, was := &j.Spec, &old.Spec
	errs = append(errs, validateSelectedJobSpec(spec)...)
	errs = append(errs, validateCompletionsUpdate(spec, was)...)
	errs = append(errs, rules.Immutable(spec.Selector, was.Selector, specPath.Child("selector"))...)
	errs = append(errs, validateJobTemplateUpdate(j, old)...)
	errs = append(errs, rules.Immutable(spec.CompletionMode, was.CompletionMode, specPath.Child("completionMode"))...)
	errs = append(errs, rules.Immutable(spec.PodFailurePolicy, was.PodFailurePolicy, specPath.Child("podFailurePolicy"))...)
	errs = append(errs, rules.Immutable(spec.BackoffLimitPerIndex, was.BackoffLimitPerIndex, specPath.Child("backoffLimitPerIndex"))...)
	errs = append(errs, rules.Immutable(spec.ManagedBy, was.ManagedBy, specPath.Child("managedBy"))...)
	errs = append(errs, rules.Immutable(spec.SuccessPolicy, was.SuccessPolicy, specPath.Child("successPolicy"))...)
	errs = append(errs, validateSchedulingUpdate(spec, was)...)
	return append(errs, rules.Declared(declaredScheduling, specPath, spec, was, features)...)
}

// validateCompletionsUpdate lets an Indexed Job be resized together with its parallelism.
func validateCompletionsUpdate(spec, old *batchv1.JobSpec) field.ErrorList {
	p := specPath.Child("completions")
	if !isIndexed(old) {
		return rules.Immutable(spec.Completions, old.Completions, p)
	}
	if spec.Completions == nil || ptr.Equal(spec.Completions, old.Completions) || ptr.Equal(spec.Completions, spec.Parallelism) {
		return nil
	}
	return field.ErrorList{field.Invalid(p, *spec.Completions, "can only be modified in tandem with spec.parallelism")}
}

// validateJobTemplateUpdate keeps the template as it is, except that a Job without
// pods can still be told where they go and what resources they get.
func validateJobTemplateUpdate(j, old *batchv1.Job) field.ErrorList {
	p := specPath.Child("template")
	if !templateIsOpen(j, old) {
		return rules.Immutable(j.Spec.Template, old.Spec.Template, p)
	}
	spec := &j.Spec.Template.Spec
	was := old.Spec.Template.Spec.DeepCopy()
	was.NodeSelector, was.Affinity = spec.NodeSelector, spec.Affinity
	was.Tolerations, was.SchedulingGates = spec.Tolerations, spec.SchedulingGates
	copyResources(was.Containers, spec.Containers)
	copyResources(was.InitContainers, spec.InitContainers)
	return rules.Immutable(*spec, *was, p.Child("spec"))
}

// templateIsOpen reports whether the Job was suspended before it ever ran, or is
// suspended and has no pods left.
func templateIsOpen(j, old *batchv1.Job) bool {
	if !ptr.Deref(old.Spec.Suspend, false) {
		return false
	}
	if old.Status.StartTime == nil {
		return true
	}
	return ptr.Deref(j.Spec.Suspend, false) && hasCondition(&old.Status, batchv1.JobSuspended) && old.Status.Active == 0
}

// copyResources copies the resources of containers that both lists have at the same place.
func copyResources(to, from []corev1.Container) {
	if len(to) != len(from) {
		return
	}
	for i := range to {
		if to[i].Name == from[i].Name {
			to[i].Resources = from[i].Resources
		}
	}
}
