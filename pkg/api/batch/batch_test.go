package batch

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/apitest"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// features are on in the server that the cases were recorded with.
var features = map[string]bool{SchedulingFeature: true}

func TestJob(t *testing.T) {
	for _, file := range []string{
		"job", "job_indexed", "job_success_policy", "job_running", "job_complete", "job_failed",
		"job_suspended", "job_suspended_started", "job_suspended_active", "job_scheduling", "job_scheduling_basic",
	} {
		t.Run(file, func(t *testing.T) {
			apitest.Run(t, "testdata/"+file+".txtar", apitest.Kind[batchv1.Job, *batchv1.Job]{
				Path:        "/apis/batch/v1/namespaces/default/jobs",
				AddDefaults: AddDefaults,
				Create:      func(j *batchv1.Job) field.ErrorList { return ValidateJob(j, features) },
				Update:      func(j, old *batchv1.Job) field.ErrorList { return ValidateJobUpdate(j, old, features) },
				Status:      ValidateJobStatusUpdate,
			})
		})
	}
}

func TestCronJob(t *testing.T) {
	for _, file := range []string{"cronjob", "cronjob_scheduling"} {
		t.Run(file, func(t *testing.T) {
			apitest.Run(t, "testdata/"+file+".txtar", apitest.Kind[batchv1.CronJob, *batchv1.CronJob]{
				Path:        "/apis/batch/v1/namespaces/default/cronjobs",
				AddDefaults: AddDefaults,
				Create:      func(c *batchv1.CronJob) field.ErrorList { return ValidateCronJob(c, features) },
				Update:      func(c, old *batchv1.CronJob) field.ErrorList { return ValidateCronJobUpdate(c, old, features) },
				Status:      ValidateCronJobStatusUpdate,
			})
		})
	}
}

// Where the feature is off, only what has scheduling already may keep it.
func TestSchedulingDisabled(t *testing.T) {
	with := func() *batchv1.JobSpec { return &batchv1.JobSpec{Scheduling: &batchv1.JobSchedulingConfiguration{}} }
	for name, tc := range map[string]struct {
		old  *batchv1.JobSpec
		on   bool
		kept bool
	}{
		"created":        {},
		"created, on":    {on: true, kept: true},
		"had none":       {old: &batchv1.JobSpec{}},
		"had none, on":   {old: &batchv1.JobSpec{}, on: true, kept: true},
		"had it already": {old: with(), kept: true},
	} {
		spec := with()
		DropDisabledJobFields(spec, tc.old, map[string]bool{SchedulingFeature: tc.on})
		if (spec.Scheduling != nil) != tc.kept {
			t.Errorf("%s: %+v", name, spec.Scheduling)
		}
	}
	errs := rules.Declared(declaredScheduling, specPath, with(), nil, map[string]bool{SchedulingFeature: false})
	if len(errs) != 1 || errs[0].Type != field.ErrorTypeForbidden || errs[0].Field != "spec.scheduling" {
		t.Errorf("with the feature off: %v", errs)
	}
}
