// Package storageversionmigration serves storagemigration.k8s.io/v1 StorageVersionMigration.
package storageversionmigration

import (
	"slices"

	migrationv1 "k8s.io/api/storagemigration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/storagemigration"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of storageversionmigrations and storageversionmigrations/status.
var Storage = generic.StorageOf(generic.Resource[*migrationv1.StorageVersionMigration]{
	GroupVersion:  migrationv1.SchemeGroupVersion,
	Name:          "storageversionmigrations",
	ClusterScoped: true,

	Status: &generic.Update[*migrationv1.StorageVersionMigration]{
		KeepsMetadata: true,
		Validate:      generic.CheckUpdate(storagemigration.ValidateStorageVersionMigrationStatusUpdate),
	},

	RequireResourceVersion: true,
	Validate:               generic.Check(storagemigration.ValidateStorageVersionMigration),
	ValidateUpdate:         generic.CheckUpdate(storagemigration.ValidateStorageVersionMigrationUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.Column("Name", "string", generic.NameColumn.Description),
		generic.Column("Resource", "string", "GroupResource to migrate"),
		generic.Column("Status", "string", "Status of the migration"),
	},
	Cells: func(m *migrationv1.StorageVersionMigration) []any {
		return []any{m.Name, m.Spec.Resource.String(), state(m.Status.Conditions)}
	},
})

// state is the last of the conditions that hold.
func state(conditions []metav1.Condition) string {
	known := []migrationv1.MigrationConditionType{migrationv1.MigrationRunning, migrationv1.MigrationFailed, migrationv1.MigrationSucceeded}
	for _, c := range slices.Backward(conditions) {
		if c.Status == metav1.ConditionTrue && slices.Contains(known, migrationv1.MigrationConditionType(c.Type)) {
			return c.Type
		}
	}
	return "Unknown"
}
