package resourceclaim

import (
	"context"
	"strconv"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/component-base/metrics"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/census"
)

// extendedResource marks claims that stand for extended resources of a pod.
const extendedResource = "resource.kubernetes.io/extended-resource-claim"

// register adds the original's metric of claims.
func register(r metrics.KubeRegistry, reader client.Reader) {
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
			admin := false
			for _, request := range claim.Spec.Devices.Requests {
				admin = admin || request.Exactly != nil && request.Exactly.AdminAccess != nil && *request.Exactly.AdminAccess
			}
			source := ""
			switch {
			case claim.Annotations[resourcev1.PodResourceClaimAnnotation] != "":
				source = "resource_claim_template"
			case claim.Annotations[extendedResource] == "true":
				source = "extended_resource"
			}
			sum[[3]string{strconv.FormatBool(claim.Status.Allocation != nil), strconv.FormatBool(admin), source}]++
		}
		for labels, n := range sum {
			show(claims, n, labels[:]...)
		}
		return nil
	}})
}
