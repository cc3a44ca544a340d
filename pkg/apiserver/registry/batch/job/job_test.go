package job

import (
	"context"
	"testing"

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
