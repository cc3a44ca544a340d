// Package cronjob serves batch/v1 CronJob.
package cronjob

import (
	"context"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/batch"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var (
	specDoc   = batchv1.CronJobSpec{}.SwaggerDoc()
	statusDoc = batchv1.CronJobStatus{}.SwaggerDoc()
)

// Storage returns the storage of cronjobs and cronjobs/status.
func Storage(o generic.Options) (generic.Storage, error) {
	return generic.NewStorage(cronJobs(o.Features), o)
}

func cronJobs(features map[string]bool) generic.Resource[*batchv1.CronJob] {
	return generic.Resource[*batchv1.CronJob]{
		GroupVersion: batchv1.SchemeGroupVersion,
		Name:         "cronjobs",
		ShortNames:   []string{"cj"},
		Categories:   []string{"all"},

		Status: &generic.Update[*batchv1.CronJob]{
			Validate: generic.CheckUpdate(batch.ValidateCronJobStatusUpdate),
		},

		Generation: generic.SpecChanged[*batchv1.CronJob],
		PrepareForCreate: func(_ context.Context, c *batchv1.CronJob) {
			batch.DropDisabledJobFields(&c.Spec.JobTemplate.Spec, nil, features)
		},
		PrepareForUpdate: func(_ context.Context, c, old *batchv1.CronJob) {
			batch.DropDisabledJobFields(&c.Spec.JobTemplate.Spec, &old.Spec.JobTemplate.Spec, features)
		},
		Validate: func(_ context.Context, c *batchv1.CronJob) field.ErrorList { return batch.ValidateCronJob(c, features) },
		ValidateUpdate: func(_ context.Context, c, old *batchv1.CronJob) field.ErrorList {
			return batch.ValidateCronJobUpdate(c, old, features)
		},
		PodSpec: func(c *batchv1.CronJob) (*corev1.PodSpec, *field.Path) {
			return &c.Spec.JobTemplate.Spec.Template.Spec, field.NewPath("spec", "jobTemplate", "spec", "template", "spec")
		},
		Warnings: generic.Warn(batch.WarningsCronJob),

		Columns: []metav1.TableColumnDefinition{
			generic.NameColumn,
			generic.Column("Schedule", "string", specDoc["schedule"]),
			generic.Column("Timezone", "string", specDoc["timeZone"]),
			generic.Column("Suspend", "boolean", specDoc["suspend"]),
			generic.Column("Active", "integer", statusDoc["active"]),
			generic.Column("Last Schedule", "string", statusDoc["lastScheduleTime"]),
			generic.AgeColumn,
			generic.WideColumn("Containers", "string", "Names of each container in the template."),
			generic.WideColumn("Images", "string", "Images referenced by each container in the template."),
			generic.WideColumn("Selector", "string", batchv1.JobSpec{}.SwaggerDoc()["selector"]),
		},
		Cells: func(c *batchv1.CronJob) []any {
			job := &c.Spec.JobTemplate.Spec
			names, images := generic.ContainerNames(job.Template.Spec.Containers)
			zone, last := "<none>", "<none>"
			if c.Spec.TimeZone != nil {
				zone = *c.Spec.TimeZone
			}
			if c.Status.LastScheduleTime != nil {
				last = generic.Age(*c.Status.LastScheduleTime)
			}
			return []any{
				c.Name, c.Spec.Schedule, zone, printBool(c.Spec.Suspend), int64(len(c.Status.Active)), last,
				generic.Age(c.CreationTimestamp),
				strings.Join(names, ","), strings.Join(images, ","), metav1.FormatLabelSelector(job.Selector),
			}
		},
	}
}

func printBool(b *bool) string {
	switch {
	case b == nil:
		return "<unset>"
	case *b:
		return "True"
	}
	return "False"
}
