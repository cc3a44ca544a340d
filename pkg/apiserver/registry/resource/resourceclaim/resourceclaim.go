// Package resourceclaim serves resource.k8s.io/v1 ResourceClaim.
package resourceclaim

import (
	"context"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/resource"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/resource/access"
)

// Storage returns the storage of resourceclaims and resourceclaims/status. The guard says
// who may have administrators' access and who may write which part of the status.
func Storage(o generic.Options, guard *access.Guard) (generic.Storage, error) {
	return generic.NewStorage(claims(guard), o)
}

func claims(guard *access.Guard) generic.Resource[*resourcev1.ResourceClaim] {
	return generic.Resource[*resourcev1.ResourceClaim]{
		GroupVersion: resourcev1.SchemeGroupVersion,
		Name:         "resourceclaims",

		Status: &generic.Update[*resourcev1.ResourceClaim]{
			KeepsMetadata: true,
			NoTable:       true,
			Prepare: func(_ context.Context, c, old *resourcev1.ResourceClaim) {
				resource.DropDisabledClaimStatusFields(&c.Status, &old.Status)
				dropDeallocated(&c.Status, &old.Status)
			},
			Validate: func(ctx context.Context, c, old *resourcev1.ResourceClaim) field.ErrorList {
				errs := guard.Status(ctx, c.Namespace, &c.Status, &old.Status)
				return append(errs, resource.ValidateResourceClaimStatusUpdate(c, old)...)
			},
		},

		ReturnDeleted: true,
		DropDisabled:  resource.DropDisabledClaimFields,
		Validate: func(ctx context.Context, c *resourcev1.ResourceClaim) field.ErrorList {
			errs := guard.Requests(ctx, c.Namespace, c.Spec.Devices.Requests)
			return append(errs, resource.ValidateResourceClaim(c)...)
		},
		ValidateUpdate: generic.CheckUpdate(resource.ValidateResourceClaimUpdate),
		NameFields:     resource.NameFields,

		Columns: []metav1.TableColumnDefinition{
			generic.NameColumn,
			generic.Column("State", "string", "A summary of the current state (allocated, pending, reserved, etc.)."),
			generic.AgeColumn,
		},
		Cells: func(c *resourcev1.ResourceClaim) []any {
			return []any{c.Name, state(c), generic.Age(c.CreationTimestamp)}
		},
	}
}

// state prints what became of a claim: "allocated,reserved".
func state(c *resourcev1.ResourceClaim) string {
	var states []string
	add := func(state string, is bool) {
		if is {
			states = append(states, state)
		}
	}
	deleted, allocated := c.DeletionTimestamp != nil, c.Status.Allocation != nil
	add("deleted", deleted)
	add("pending", !deleted && !allocated)
	add("allocated", allocated)
	add("reserved", allocated && len(c.Status.ReservedFor) > 0)
	return strings.Join(states, ",")
}

// dropDeallocated removes what drivers reported of devices that the claim no longer has.
func dropDeallocated(status, old *resourcev1.ResourceClaimStatus) {
	had, has := resource.Allocated(old.Allocation), resource.Allocated(status.Allocation)
	status.Devices = slices.DeleteFunc(status.Devices, func(d resourcev1.AllocatedDeviceStatus) bool {
		id := resource.ReportedDevice(&d)
		return had[id] && !has[id]
	})
	if len(status.Devices) == 0 {
		status.Devices = nil
	}
}
