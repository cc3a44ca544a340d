package storagemigration

import (
	"testing"

	migrationv1 "k8s.io/api/storagemigration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestStorageVersionMigration(t *testing.T) {
	apitest.Run(t, "testdata/storageversionmigration.txtar", apitest.Kind[migrationv1.StorageVersionMigration, *migrationv1.StorageVersionMigration]{
		Path:   "/apis/storagemigration.k8s.io/v1/storageversionmigrations",
		Create: ValidateStorageVersionMigration,
		Update: ValidateStorageVersionMigrationUpdate,
		Status: ValidateStorageVersionMigrationStatusUpdate,
	})
}

// TestEnd checks that a migration ends once.
func TestEnd(t *testing.T) {
	with := func(version string, types ...string) *migrationv1.StorageVersionMigration {
		m := &migrationv1.StorageVersionMigration{ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: "1"}}
		m.Status.ResourceVersion = version
		for _, t := range types {
			m.Status.Conditions = append(m.Status.Conditions, metav1.Condition{Type: t, Status: "True", Reason: "R", LastTransitionTime: metav1.Unix(1, 0)})
		}
		return m
	}
	for name, tc := range map[string]struct {
		obj, old *migrationv1.StorageVersionMigration
		errs     int
	}{
		"begins":         {with("5", "Running"), with(""), 0},
		"succeeds":       {with("5", "Succeeded"), with("5", "Running"), 0},
		"other version":  {with("6", "Running"), with("5", "Running"), 1},
		"fails after it": {with("5", "Failed"), with("5", "Succeeded"), 1},
		"runs again":     {with("5", "Running"), with("5", "Failed"), 1},
	} {
		if errs := ValidateStorageVersionMigrationStatusUpdate(tc.obj, tc.old); len(errs) != tc.errs {
			t.Errorf("%s: %v", name, errs)
		}
	}
}
