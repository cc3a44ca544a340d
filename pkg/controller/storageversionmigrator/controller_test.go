package storageversionmigrator

import (
	"slices"
	"strings"
	"testing"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNext(t *testing.T) {
	// migration returns one that is as old as minutes say, in a state: running, marked, succeeded, failed, done.
	migration := func(name string, minutes int, state string) storagemigrationv1.StorageVersionMigration {
		m := storagemigrationv1.StorageVersionMigration{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(0, 0).Add(-time.Duration(minutes) * time.Minute))}}
		m.Spec.Resource = metav1.GroupResource{Resource: "secrets"}
		if state == "other" {
			m.Spec.Resource.Resource = "configmaps"
		}
		if slices.Contains([]string{"running", "marked", "succeeded", "failed"}, state) {
			set(&m, storagemigrationv1.MigrationRunning, metav1.ConditionTrue, "x", "")
		}
		if state == "marked" {
			m.Status.ResourceVersion = "7"
		}
		if state == "succeeded" || state == "done" {
			set(&m, storagemigrationv1.MigrationSucceeded, metav1.ConditionTrue, "x", "")
		}
		if state == "failed" {
			set(&m, storagemigrationv1.MigrationFailed, metav1.ConditionTrue, "x", "")
		}
		return m
	}
	for name, tc := range map[string]struct {
		state  string
		others []storagemigrationv1.StorageVersionMigration
		want   step
	}{
		"alone":                       {want: begin},
		"another runs":                {others: []storagemigrationv1.StorageVersionMigration{migration("b", 0, "running")}, want: nothing},
		"another runs elsewhere":      {others: []storagemigrationv1.StorageVersionMigration{migration("b", 9, "other")}, want: begin},
		"an older one waits":          {others: []storagemigrationv1.StorageVersionMigration{migration("b", 9, "")}, want: nothing},
		"a younger one waits":         {others: []storagemigrationv1.StorageVersionMigration{migration("b", 0, "")}, want: begin},
		"an older one is done":        {others: []storagemigrationv1.StorageVersionMigration{migration("b", 9, "done")}, want: begin},
		"an older one is to clean up": {others: []storagemigrationv1.StorageVersionMigration{migration("b", 9, "succeeded")}, want: nothing},
		"running":                     {state: "running", want: mark},
		"marked":                      {state: "marked", want: migrate},
		"succeeded":                   {state: "succeeded", want: finish},
		"failed":                      {state: "failed", want: finish},
		"done":                        {state: "done", want: nothing},
	} {
		m := migration("a", 5, tc.state)
		if got := next(&m, append(tc.others, m)); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

func TestNote(t *testing.T) {
	crd := &apiextensionsv1.CustomResourceDefinition{Spec: apiextensionsv1.CustomResourceDefinitionSpec{Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1"}, {Name: "v2", Storage: true}}}}
	crd.Generation, crd.Status.StoredVersions = 3, []string{"v1", "v2"}
	note(crd, metav1.ConditionTrue, "MigrationRunning", "m", metav1.Now())
	changed := crd.DeepCopy()
	changed.Generation = 4
	note(changed, metav1.ConditionFalse, "MigrationSucceeded", "The migration has succeeded", metav1.Now())
	if len(changed.Status.StoredVersions) != 2 || !strings.Contains(changed.Status.Conditions[0].Message, "generation mismatch") {
		t.Errorf("changed meanwhile: %+v", changed.Status)
	}
	note(crd, metav1.ConditionFalse, "MigrationSucceeded", "The migration has succeeded", metav1.Now())
	if !slices.Equal(crd.Status.StoredVersions, []string{"v2"}) || len(crd.Status.Conditions) != 1 || crd.Status.Conditions[0].Status != "False" {
		t.Errorf("as it was: %+v", crd.Status)
	}
}
