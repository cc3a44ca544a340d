package batch

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestJob(t *testing.T) {
	for _, file := range []string{
		"job", "job_indexed", "job_success_policy", "job_running", "job_complete", "job_failed",
		"job_suspended", "job_suspended_started", "job_suspended_active",
	} {
		t.Run(file, func(t *testing.T) {
			apitest.Run(t, "testdata/"+file+".txtar", apitest.Kind[batchv1.Job, *batchv1.Job]{
				Path:        "/apis/batch/v1/namespaces/default/jobs",
				AddDefaults: AddDefaults,
				Create:      ValidateJob,
				Update:      ValidateJobUpdate,
				Status:      ValidateJobStatusUpdate,
			})
		})
	}
}

func TestCronJob(t *testing.T) {
	apitest.Run(t, "testdata/cronjob.txtar", apitest.Kind[batchv1.CronJob, *batchv1.CronJob]{
		Path:        "/apis/batch/v1/namespaces/default/cronjobs",
		AddDefaults: AddDefaults,
		Create:      ValidateCronJob,
		Update:      ValidateCronJobUpdate,
		Status:      ValidateCronJobStatusUpdate,
	})
}
