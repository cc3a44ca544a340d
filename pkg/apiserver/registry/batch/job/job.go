// Package job serves batch/v1 Job.
package job

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/batch"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of jobs and jobs/status.
func Storage(o generic.Options) (generic.Storage, error) {
	s, err := generic.NewStore(resource(o.Features), o)
	if err != nil {
		return nil, err
	}
	paths := s.Paths()
	paths["jobs"] = jobs{s}
	return paths, nil
}

// jobs warns who deletes one without saying what becomes of its pods.
type jobs struct{ *generic.Store[*batchv1.Job] }

// Delete implements rest.GracefulDeleter.
func (j jobs) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	warnOfOrphans(ctx, options)
	return j.Store.Delete(ctx, name, validate, options)
}

// DeleteCollection implements rest.CollectionDeleter.
func (j jobs) DeleteCollection(ctx context.Context, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions, list *internalversion.ListOptions) (runtime.Object, error) {
	warnOfOrphans(ctx, options)
	return j.Store.DeleteCollection(ctx, validate, options, list)
}

func warnOfOrphans(ctx context.Context, options *metav1.DeleteOptions) {
	if options != nil && options.PropagationPolicy == nil && options.OrphanDependents == nil {
		warning.AddWarning(ctx, "", "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them "+
			"or set propagationPolicy=Orphan to suppress this warning")
	}
}

var (
	specDoc   = batchv1.JobSpec{}.SwaggerDoc()
	statusDoc = batchv1.JobStatus{}.SwaggerDoc()
)

func resource(features map[string]bool) generic.Resource[*batchv1.Job] {
	return generic.Resource[*batchv1.Job]{
		GroupVersion: batchv1.SchemeGroupVersion,
		Name:         "jobs",
		Categories:   []string{"all"},

		Status: &generic.Update[*batchv1.Job]{
			Validate: generic.CheckUpdate(batch.ValidateJobStatusUpdate),
		},

		Generation: generic.SpecChanged[*batchv1.Job],
		PrepareForCreate: func(_ context.Context, j *batchv1.Job) {
			batch.DropDisabledJobFields(&j.Spec, nil, features)
			if !ptr.Deref(j.Spec.ManualSelector, false) {
				generateSelector(j)
			}
		},
		PrepareForUpdate: func(_ context.Context, j, old *batchv1.Job) {
			batch.DropDisabledJobFields(&j.Spec, &old.Spec, features)
		},
		Validate: func(_ context.Context, j *batchv1.Job) field.ErrorList { return batch.ValidateJob(j, features) },
		ValidateUpdate: func(_ context.Context, j, old *batchv1.Job) field.ErrorList {
			return batch.ValidateJobUpdate(j, old, features)
		},
		PodSpec: func(j *batchv1.Job) (*corev1.PodSpec, *field.Path) {
			return &j.Spec.Template.Spec, field.NewPath("spec", "template", "spec")
		},
		Warnings: generic.Warn(batch.WarningsJob),
		// Clients that are older than the garbage collector expect pods to stay.
		GarbageCollection: rest.OrphanDependents,

		Fields: func(j *batchv1.Job) fields.Set {
			return fields.Set{"status.successful": strconv.Itoa(int(j.Status.Succeeded))}
		},
		Columns: []metav1.TableColumnDefinition{
			generic.NameColumn,
			generic.Column("Status", "string", "Status of the job."),
			generic.Column("Completions", "string", statusDoc["succeeded"]),
			generic.Column("Duration", "string", "Time required to complete the job."),
			generic.AgeColumn,
			generic.WideColumn("Containers", "string", "Names of each container in the template."),
			generic.WideColumn("Images", "string", "Images referenced by each container in the template."),
			generic.WideColumn("Selector", "string", specDoc["selector"]),
		},
		Cells: func(j *batchv1.Job) []any {
			names, images := generic.ContainerNames(j.Spec.Template.Spec.Containers)
			return []any{
				j.Name, state(j), completions(j), took(j), generic.Age(j.CreationTimestamp),
				strings.Join(names, ","), strings.Join(images, ","), metav1.FormatLabelSelector(j.Spec.Selector),
			}
		},
	}
}

// generateSelector makes the Job select the pods that carry its UID. What the
// client wrote there stays, and is refused by validation.
func generateSelector(j *batchv1.Job) {
	if j.Spec.Template.Labels == nil {
		j.Spec.Template.Labels = map[string]string{}
	}
	// In place, since by default a Job shares the labels of its template.
	for key, value := range map[string]string{
		"controller-uid":           string(j.UID),
		"job-name":                 j.Name,
		batchv1.ControllerUidLabel: string(j.UID),
		batchv1.JobNameLabel:       j.Name,
	} {
		if _, given := j.Spec.Template.Labels[key]; !given {
			j.Spec.Template.Labels[key] = value
		}
	}
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, ok := j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !ok {
		j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = string(j.UID)
	}
}

func condition(j *batchv1.Job, kind batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range j.Status.Conditions {
		if c := &j.Status.Conditions[i]; c.Type == kind && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

func state(j *batchv1.Job) string {
	switch {
	case condition(j, batchv1.JobComplete) != nil:
		return "Complete"
	case condition(j, batchv1.JobFailed) != nil:
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case condition(j, batchv1.JobSuspended) != nil:
		return "Suspended"
	case condition(j, batchv1.JobFailureTarget) != nil:
		return "FailureTarget"
	case condition(j, batchv1.JobSuccessCriteriaMet) != nil:
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func completions(j *batchv1.Job) string {
	if j.Spec.Completions != nil {
		return generic.Fraction(j.Status.Succeeded, *j.Spec.Completions)
	}
	if parallelism := ptr.Deref(j.Spec.Parallelism, 0); parallelism > 1 {
		return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, parallelism)
	}
	return fmt.Sprintf("%d/1", j.Status.Succeeded)
}

func took(j *batchv1.Job) string {
	if j.Status.StartTime == nil {
		return ""
	}
	end := time.Now()
	if j.Status.CompletionTime != nil {
		end = j.Status.CompletionTime.Time
	}
	return duration.HumanDuration(end.Sub(j.Status.StartTime.Time))
}
