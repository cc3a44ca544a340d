package resourceclaim

import (
	"context"
	"slices"
	"strconv"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/component-base/metrics"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/census"
)

// extendedResource marks claims that stand for extended resources of a pod.
const extendedResource = "resource.kubernetes.io/extended-resource-claim"

// register adds the original's metrics of claims, and returns the one of those that are made here.
func register(r metrics.KubeRegistry, reader client.Reader) *metrics.CounterVec {
	creates := metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: "dynamic_resource_allocation", Name: "resourceclaim_creates_total", StabilityLevel: metrics.ALPHA,
		Help: "Number of ResourceClaims that were to be made from templates, with success or failure, with access for administrators or not, and for an owner of which kind",
	}, []string{"status", "admin_access", "owner_api_group", "owner_api_kind"})
	r.MustRegister(creates)
	claims := census.Gauge("dynamic_resource_allocation", "resource_claims", "Number of ResourceClaims: allocated or not, with access for administrators or not, "+
		"and made from a template (resource_claim_template), for an extended resource (extended_resource) or by somebody else", "allocated", "admin_access", "source")
	r.CustomMustRegister(&census.Census{Gauges: []*metrics.Desc{claims}, Count: func(ctx context.Context, show func(*metrics.Desc, float64, ...string)) error {
		var list resourcev1.ResourceClaimList
		if err := reader.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
			return err
		}
		sum := map[[3]string]float64{}
		for i := range list.Items {
			claim := &list.Items[i]
			source := ""
			switch {
			case claim.Annotations[resourcev1.PodResourceClaimAnnotation] != "":
				source = "resource_claim_template"
			case claim.Annotations[extendedResource] == "true":
				source = "extended_resource"
			}
			sum[[3]string{strconv.FormatBool(claim.Status.Allocation != nil), strconv.FormatBool(adminAccess(claim)), source}]++
		}
		for labels, n := range sum {
			show(claims, n, labels[:]...)
		}
		return nil
	}})
	return creates
}

// count counts a claim that was to be made.
func (c *Controller) count(claim *resourcev1.ResourceClaim, err error) {
	status := "success"
	if err != nil {
		status = "failure"
	}
	owner := metav1.GetControllerOfNoCopy(claim)
	kind := schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind)
	c.creates.WithLabelValues(status, strconv.FormatBool(adminAccess(claim)), kind.Group, kind.Kind).Inc()
}

// adminAccess reports whether a claim asks for access for administrators.
func adminAccess(claim *resourcev1.ResourceClaim) bool {
	return slices.ContainsFunc(claim.Spec.Devices.Requests, func(r resourcev1.DeviceRequest) bool {
		return r.Exactly != nil && ptr.Deref(r.Exactly.AdminAccess, false)
	})
}
