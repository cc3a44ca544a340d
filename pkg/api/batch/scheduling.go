package batch

import (
	"context"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/scheduling/schedulingv1/workloadbuilder"
	"k8s.io/utils/ptr"
)

// SchedulingFeature is the feature gate that the scheduling of a Job depends on.
const SchedulingFeature = "WorkloadWithJob"

// DropDisabledJobFields clears the fields of a Job that belong to features which are off, unless
// the stored one uses them already. old is nil on creation.
func DropDisabledJobFields(spec, old *batchv1.JobSpec, features map[string]bool) {
	if !features[SchedulingFeature] && (old == nil || old.Scheduling == nil) {
		spec.Scheduling = nil
	}
}

// Workload returns what a Workload is built from that says how the pods of a Job are scheduled, in a group of
// the given name. Where the Job is silent they are scheduled one by one, and a gang is all pods that run at a time. Errors are said of what is below p.
func Workload(spec *batchv1.JobSpec, group string, p *field.Path) *workloadbuilder.WorkloadItem {
	s := ptr.Deref(spec.Scheduling, batchv1.JobSchedulingConfiguration{})
	return &workloadbuilder.WorkloadItem{
		Name: group,
		Path: p,
		DefaultConfig: &workloadbuilder.SchedulingConfig{
			Policy:            &workloadbuilder.SchedulingPolicy{Basic: &workloadbuilder.BasicSchedulingPolicy{}},
			PriorityClassName: spec.Template.Spec.PriorityClassName,
		},
		Input: workloadbuilder.WorkloadInput{
			Policy:         workloadbuilder.PolicyInput{PodGroupData: s.SchedulingPolicy, PathElements: []string{"schedulingPolicy"}},
			Constraints:    workloadbuilder.ConstraintsInput{PodGroupData: s.SchedulingConstraints, PathElements: []string{"schedulingConstraints"}},
			DisruptionMode: workloadbuilder.DisruptionModeInput{PodGroupData: s.DisruptionMode, PathElements: []string{"disruptionMode"}},
			ResourceClaims: workloadbuilder.ResourceClaimsInput{PodGroupData: s.ResourceClaims, PathElements: []string{"resourceClaims"}},
		},
		Callbacks: []workloadbuilder.SchedulingConfigFunc{func(c *workloadbuilder.SchedulingConfig) {
			if gang := c.Policy.Gang; gang != nil && gang.MinCount == nil {
				gang.MinCount = ptr.To(max(1, ptr.Deref(spec.Parallelism, 1)))
			}
		}},
	}
}

// WorkloadOptions are what a Job may ask for.
func WorkloadOptions() workloadbuilder.BuildOptions {
	return workloadbuilder.BuildOptions{
		AllowedPolicies:              []workloadbuilder.SchedulingPolicyOption{workloadbuilder.BasicPolicy, workloadbuilder.GangPolicy},
		AllowedDisruptionModes:       []workloadbuilder.DisruptionModeOption{workloadbuilder.SingleMode, workloadbuilder.AllMode},
		DisableDeclarativeValidation: true, // declaredScheduling says these
	}
}

// validateScheduling checks what the parts of a Job's scheduling mean together.
func validateScheduling(spec *batchv1.JobSpec, p *field.Path) field.ErrorList {
	if spec.Scheduling == nil {
		return nil
	}
	var errs field.ErrorList
	if policy := spec.Scheduling.SchedulingPolicy; policy != nil && policy.Gang != nil {
		least, most := ptr.Deref(policy.Gang.MinCount, 0), ptr.Deref(spec.Parallelism, 1)
		if least > most {
			errs = append(errs, field.Invalid(p.Child("schedulingPolicy", "gang", "minCount"), least, fmt.Sprintf("must not be greater than parallelism (%d)", most)))
		}
	}
	b := workloadbuilder.NewBuilder(Workload(spec, "group", p), WorkloadOptions())
	return append(errs, b.Validate(context.Background(), workloadbuilder.ValidationInput{})...)
}

// validateSchedulingUpdate keeps a Job from becoming a gang, or ceasing to be one.
func validateSchedulingUpdate(spec, old *batchv1.JobSpec) field.ErrorList {
	if spec.Scheduling == nil || old.Scheduling == nil || spec.Scheduling.SchedulingPolicy == nil || old.Scheduling.SchedulingPolicy == nil {
		return nil
	}
	is, was := spec.Scheduling.SchedulingPolicy, old.Scheduling.SchedulingPolicy
	if (is.Gang == nil) == (was.Gang == nil) && (is.Basic == nil) == (was.Basic == nil) {
		return nil
	}
	return field.ErrorList{field.Invalid(specPath.Child("scheduling", "schedulingPolicy"), nil,
		"the basic/gang policy variant is immutable after creation; only schedulingPolicy.gang.minCount may be updated")}
}

// declaredScheduling are the rules that the type declares for the scheduling of a Job.
func declaredScheduling(ctx context.Context, op operation.Operation, p *field.Path, spec, old *batchv1.JobSpec) field.ErrorList {
	is, was := spec.Scheduling, (*batchv1.JobSchedulingConfiguration)(nil)
	if old != nil {
		was = old.Scheduling
	}
	if equality.Semantic.DeepEqual(is, was) {
		return nil
	}
	p = p.Child("scheduling")
	errs := validate.IfOption(ctx, op, p, is, was, SchedulingFeature, false, validate.ForbiddenPointer)
	errs = append(errs, validate.UpdatePointer(ctx, op, p, is, was, validate.NoSet, validate.NoUnset)...)
	if len(errs) > 0 {
		return errs
	}
	if op.Type == operation.Update {
		return declaredSchedulingUpdate(ctx, op, p, is, was)
	}
	if is.SchedulingPolicy != nil {
		errs = append(errs, schedulingv1alpha3.Validate_WorkloadPodGroupSchedulingPolicy(ctx, op, p.Child("schedulingPolicy"), is.SchedulingPolicy, nil)...)
	}
	if is.SchedulingConstraints != nil {
		errs = append(errs, schedulingv1alpha3.Validate_WorkloadPodGroupSchedulingConstraints(ctx, op, p.Child("schedulingConstraints"), is.SchedulingConstraints, nil)...)
	}
	if is.DisruptionMode != nil {
		errs = append(errs, schedulingv1alpha3.Validate_WorkloadPodGroupDisruptionMode(ctx, op, p.Child("disruptionMode"), is.DisruptionMode, nil)...)
	}
	claims := p.Child("resourceClaims")
	if many := validate.MaxItems(ctx, op, claims, is.ResourceClaims, nil, schedulingv1alpha3.MaxPodGroupResourceClaims); len(many) > 0 {
		return append(errs, many...)
	}
	called := func(a, b *schedulingv1alpha3.WorkloadPodGroupResourceClaim) bool { return a.Name == b.Name }
	errs = append(errs, validate.ValSliceUnique(ctx, op, claims, is.ResourceClaims, nil, called)...)
	for i := range is.ResourceClaims {
		errs = append(errs, schedulingv1alpha3.Validate_WorkloadPodGroupResourceClaim(ctx, op, claims.Index(i), &is.ResourceClaims[i], nil)...)
	}
	return errs
}

// declaredSchedulingUpdate lets nothing change but what the policy lets change in itself.
func declaredSchedulingUpdate(ctx context.Context, op operation.Operation, p *field.Path, is, was *batchv1.JobSchedulingConfiguration) field.ErrorList {
	var errs field.ErrorList
	if policy := p.Child("schedulingPolicy"); !equality.Semantic.DeepEqual(is.SchedulingPolicy, was.SchedulingPolicy) {
		errs = validate.UpdatePointer(ctx, op, policy, is.SchedulingPolicy, was.SchedulingPolicy, validate.NoSet, validate.NoUnset)
		if len(errs) == 0 {
			errs = schedulingv1alpha3.Validate_WorkloadPodGroupSchedulingPolicy(ctx, op, policy, is.SchedulingPolicy, was.SchedulingPolicy)
		}
	}
	for _, f := range []struct {
		name    string
		is, was any
	}{
		{"schedulingConstraints", is.SchedulingConstraints, was.SchedulingConstraints},
		{"disruptionMode", is.DisruptionMode, was.DisruptionMode},
		{"resourceClaims", is.ResourceClaims, was.ResourceClaims},
	} {
		if !equality.Semantic.DeepEqual(f.is, f.was) {
			errs = append(errs, validate.Immutable(ctx, op, p.Child(f.name), f.is, f.was)...)
		}
	}
	return errs
}
