// Package lease serves coordination.k8s.io/v1 Lease.
package lease

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/coordination"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// CoordinatedElection is the feature without which leases have no strategy and no preferred holder.
const CoordinatedElection = "CoordinatedLeaderElection"

// Storage returns the storage of leases.
func Storage(o generic.Options) (generic.Storage, error) {
	r := resource
	if o.Features[CoordinatedElection] {
		r.DropDisabled = nil
	}
	return generic.NewStorage(r, o)
}

var resource = generic.Resource[*coordinationv1.Lease]{
	GroupVersion: coordinationv1.SchemeGroupVersion,
	Name:         "leases",

	CreateOnUpdate:         true,
	RequireResourceVersion: true,
	// While CoordinatedElection is off, its fields are kept where they are already.
	DropDisabled: func(l, old *coordinationv1.Lease) {
		if old == nil || old.Spec.Strategy == nil {
			l.Spec.Strategy = nil
		}
		if old == nil || old.Spec.PreferredHolder == nil {
			l.Spec.PreferredHolder = nil
		}
	},
	Validate:       generic.Check(coordination.ValidateLease),
	ValidateUpdate: generic.CheckUpdate(coordination.ValidateLeaseUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Holder", "string", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]),
		generic.AgeColumn,
	},
	Cells: func(l *coordinationv1.Lease) []any {
		return []any{l.Name, ptr.Deref(l.Spec.HolderIdentity, ""), generic.Age(l.CreationTimestamp)}
	},
}
