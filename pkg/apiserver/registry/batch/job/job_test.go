package job

import (
	"context"
	"maps"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/ptr"
)

type recorder struct{ warnings []string }

func (r *recorder) AddWarning(_, text string) { r.warnings = append(r.warnings, text) }

func TestWarnOfOrphans(t *testing.T) {
	for name, tc := range map[string]struct {
		options *metav1.DeleteOptions
		want    int
	}{
		"nothing said": {&metav1.DeleteOptions{}, 1},
		"a policy":     {&metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationOrphan)}, 0},
		"as once":      {&metav1.DeleteOptions{OrphanDependents: ptr.To(true)}, 0},
		"no options":   {nil, 0},
	} {
		r := &recorder{}
		warnOfOrphans(warning.WithWarningRecorder(context.Background(), r), tc.options)
		if len(r.warnings) != tc.want {
			t.Errorf("%s: %q", name, r.warnings)
		}
	}
}

func TestGenerateSelectorSharesLabels(t *testing.T) {
	shared := map[string]string{"app": "a", "job-name": "mine"}
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", UID: "u", Labels: shared}}
	j.Spec.Template.Labels = shared // as its defaults leave a Job without labels
	generateSelector(j)
	want := map[string]string{
		"app": "a", "job-name": "mine", "controller-uid": "u",
		batchv1.JobNameLabel: "j", batchv1.ControllerUidLabel: "u",
	}
	for of, got := range map[string]map[string]string{"Job": j.Labels, "template": j.Spec.Template.Labels} {
		if !maps.Equal(got, want) {
			t.Errorf("the labels of the %s are %v, not %v", of, got, want)
		}
	}
}
