// Package access says who may claim devices with administrators' access, and who may
// write which part of the status of a claim.
package access

import (
	"context"
	"fmt"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
)

// A Guard keeps administrators' access to namespaces that are labelled for it, and each
// part of a claim's status to those who may write it.
type Guard struct {
	authorizer authorizer.UnconditionalAuthorizer
	client     kubernetes.Interface
}

// NewGuard returns a Guard that asks the server's authorizer, and reads namespaces
// through a client that may do everything.
func NewGuard(a authorizer.UnconditionalAuthorizer, client kubernetes.Interface) *Guard {
	return &Guard{authorizer: a, client: client}
}

// Requests says why a claim of the namespace may not make the requests.
func (g *Guard) Requests(ctx context.Context, namespace string, requests []resourcev1.DeviceRequest) field.ErrorList {
	for i := range requests {
		if r := requests[i].Exactly; r != nil && isTrue(r.AdminAccess) {
			// The path is the same for a template, whose requests are further down.
			return g.admin(ctx, namespace, field.NewPath("spec", "devices", "requests").Index(i).Child("adminAccess"))
		}
	}
	return nil
}

// Status says why the user of ctx may not update the status of a claim.
func (g *Guard) Status(ctx context.Context, namespace string, status, old *resourcev1.ResourceClaimStatus) field.ErrorList {
	var errs field.ErrorList
	if i := adminResult(status); i >= 0 && adminResult(old) < 0 {
		errs = g.admin(ctx, namespace, field.NewPath("status", "allocation", "devices", "results").Index(i).Child("adminAccess"))
	}
	errs = append(errs, g.binding(ctx, status, old)...)
	if status.Allocation != nil { // what goes with an allocation is nobody's write
		errs = append(errs, g.devices(ctx, status, old)...)
	}
	return errs
}

// adminResult is the index of the first result with administrators' access, or -1.
func adminResult(s *resourcev1.ResourceClaimStatus) int {
	if s.Allocation != nil {
		for i := range s.Allocation.Devices.Results {
			if isTrue(s.Allocation.Devices.Results[i].AdminAccess) {
				return i
			}
		}
	}
	return -1
}

// admin says why the namespace may not have administrators' access.
func (g *Guard) admin(ctx context.Context, namespace string, p *field.Path) field.ErrorList {
	ns, err := g.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	switch {
	case err != nil:
		return field.ErrorList{field.InternalError(p, fmt.Errorf("could not retrieve namespace to verify admin access: %w", err))}
	case ns.Labels[resourcev1.DRAAdminNamespaceLabelKey] != "true":
		return field.ErrorList{field.Forbidden(p, fmt.Sprintf("admin access to devices requires the `%s: true` label on the containing namespace", resourcev1.DRAAdminNamespaceLabelKey))}
	}
	return nil
}

func isTrue(b *bool) bool { return b != nil && *b }
