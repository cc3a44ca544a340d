// Package csinode serves storage.k8s.io/v1 CSINode.
package csinode

import (
	"context"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/api/storage"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of csinodes and csinodes/status.
func Storage(o generic.Options) (generic.Storage, error) {
	s, err := generic.NewStore(resource, o)
	if err != nil {
		return nil, err
	}
	return generic.Storage{
		"csinodes": s,
		"csinodes/status": s.Status(generic.Update[*storagev1.CSINode]{
			// Health of volumes, all that the status has, is alpha and off.
			Prepare: func(_ context.Context, n, old *storagev1.CSINode) {
				metav1.ResetObjectMetaForStatus(&n.ObjectMeta, &old.ObjectMeta)
				n.Status = old.Status
			},
			ResetFields: []string{"metadata"},
		}),
	}, nil
}

var resource = generic.Resource[*storagev1.CSINode]{
	GroupVersion:  storagev1.SchemeGroupVersion,
	Name:          "csinodes",
	Singular:      "csinode",
	ClusterScoped: true,
	New:           func() *storagev1.CSINode { return &storagev1.CSINode{} },
	NewList:       func() runtime.Object { return &storagev1.CSINodeList{} },

	HasStatus:              true,
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
}
