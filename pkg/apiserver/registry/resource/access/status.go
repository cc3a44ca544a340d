package access

import (
	"context"
	"fmt"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/utils/ptr"
)

// binding says why the user of ctx may not allocate or reserve: that takes the verb on
// resourceclaims/binding, in all namespaces.
func (g *Guard) binding(ctx context.Context, status, old *resourcev1.ResourceClaimStatus) field.ErrorList {
	if equality.Semantic.DeepEqual(status.Allocation, old.Allocation) && equality.Semantic.DeepEqual(status.ReservedFor, old.ReservedFor) {
		return nil
	}
	p := field.NewPath("status", "allocation")
	request, err := filters.GetAuthorizerAttributes(ctx)
	if err != nil {
		return field.ErrorList{field.InternalError(p, fmt.Errorf("cannot build authorizer attributes: %w", err))}
	}
	err = g.allows(ctx, attributes{Attributes: request, verb: request.GetVerb(), subresource: resourcev1.SubresourceBinding})
	if err != nil {
		return field.ErrorList{field.Forbidden(p, fmt.Sprintf(`changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="%s" permission: %s`, request.GetVerb(), err))}
	}
	return nil
}

// devices says why the user of ctx may not report about the devices of a driver: that
// takes a verb for the node of the claim, or one for any node, on resourceclaims/driver
// with the driver's name.
func (g *Guard) devices(ctx context.Context, status, old *resourcev1.ResourceClaimStatus) field.ErrorList {
	drivers := changedDrivers(status.Devices, old.Devices)
	if len(drivers) == 0 {
		return nil
	}
	p := field.NewPath("status", "devices")
	request, err := filters.GetAuthorizerAttributes(ctx)
	if err != nil {
		return field.ErrorList{field.InternalError(p, fmt.Errorf("cannot build authorizer attributes: %w", err))}
	}
	verbs := []string{resourcev1.VerbPrefixArbitraryNode + request.GetVerb()}
	if isOn(request.GetUser(), allocatedNode(status.Allocation)) {
		verbs = append([]string{resourcev1.VerbPrefixAssociatedNode + request.GetVerb()}, verbs...)
	}
	var errs field.ErrorList
	for _, driver := range sets.List(drivers) {
		if err := g.allowsOne(ctx, request, verbs, driver); err != nil {
			errs = append(errs, field.Forbidden(p, fmt.Sprintf(`changing status.devices requires resource="resourceclaims/driver", verb="%s" permission: %s`, verbs, err)))
		}
	}
	return errs
}

// allowsOne says, of the first of the verbs, why none of them is allowed.
func (g *Guard) allowsOne(ctx context.Context, request authorizer.Attributes, verbs []string, driver string) error {
	var first error
	for _, verb := range verbs {
		err := g.allows(ctx, attributes{
			Attributes: request, verb: verb, subresource: resourcev1.SubresourceDriver, namespace: request.GetNamespace(), name: driver,
		})
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func (g *Guard) allows(ctx context.Context, a attributes) error {
	decision, reason, err := g.authorizer.Authorize(ctx, a)
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case err != nil && reason != "":
		reason = fmt.Sprintf("%v: %s", err, reason)
	case err != nil:
		reason = err.Error()
	}
	return responsewriters.ForbiddenStatusError(a, reason)
}

// attributes are those of a request, but for what is asked about.
type attributes struct {
	authorizer.Attributes
	verb, subresource, namespace, name string
}

func (a attributes) GetVerb() string        { return a.verb }
func (a attributes) GetSubresource() string { return a.subresource }
func (a attributes) GetNamespace() string   { return a.namespace }
func (a attributes) GetName() string        { return a.name }

// changedDrivers are the drivers of the devices about which something else is reported.
func changedDrivers(devices, old []resourcev1.AllocatedDeviceStatus) sets.Set[string] {
	drivers := sets.New[string]()
	index := func(devices []resourcev1.AllocatedDeviceStatus) map[device]resourcev1.AllocatedDeviceStatus {
		all := map[device]resourcev1.AllocatedDeviceStatus{}
		for _, d := range devices {
			all[device{d.Driver, d.Pool, d.Device, ptr.Deref(d.ShareID, "")}] = d
		}
		return all
	}
	now, before := index(devices), index(old)
	for id, d := range now {
		if was, ok := before[id]; !ok || !equality.Semantic.DeepEqual(d, was) {
			drivers.Insert(id.driver)
		}
	}
	for id := range before {
		if _, ok := now[id]; !ok {
			drivers.Insert(id.driver)
		}
	}
	return drivers
}

type device struct{ driver, pool, name, share string }

// allocatedNode is the name of the only node on which the allocation can be used, or "".
func allocatedNode(a *resourcev1.AllocationResult) string {
	if a == nil || a.NodeSelector == nil || len(a.NodeSelector.NodeSelectorTerms) != 1 {
		return ""
	}
	term := &a.NodeSelector.NodeSelectorTerms[0]
	if len(term.MatchExpressions) != 0 || len(term.MatchFields) != 1 {
		return ""
	}
	f := &term.MatchFields[0]
	if f.Key != "metadata.name" || f.Operator != "In" || len(f.Values) != 1 {
		return ""
	}
	return f.Values[0]
}

// isOn reports whether u is the service account of a pod on the node.
func isOn(u user.Info, node string) bool {
	_, _, err := serviceaccount.SplitUsername(u.GetName())
	names := u.GetExtra()[serviceaccount.NodeNameKey]
	return err == nil && node != "" && len(names) == 1 && names[0] == node && len(validation.IsDNS1123Subdomain(node)) == 0
}
