// Package csinode serves storage.k8s.io/v1 CSINode.
package csinode

import (
	"context"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/storage"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of csinodes and csinodes/status.
var Storage = generic.StorageOf(generic.Resource[*storagev1.CSINode]{
	GroupVersion:  storagev1.SchemeGroupVersion,
	Name:          "csinodes",
	ClusterScoped: true,

	Status: &generic.Update[*storagev1.CSINode]{
		KeepsMetadata: true,
		// Health of volumes, all that the status has, is alpha and off.
		Prepare: func(_ context.Context, n, old *storagev1.CSINode) { n.Status = old.Status },
	},

	RequireResourceVersion: true,
	ReturnDeleted:          true,
	Validate:               generic.Check(storage.ValidateCSINode),
	ValidateUpdate:         generic.CheckUpdate(storage.ValidateCSINodeUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Drivers", "integer", "Drivers indicates the number of CSI drivers registered on the node"),
		generic.AgeColumn,
	},
	Cells: func(n *storagev1.CSINode) []any {
		return []any{n.Name, int64(len(n.Spec.Drivers)), generic.Age(n.CreationTimestamp)}
	},
})
