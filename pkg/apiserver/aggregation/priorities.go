package aggregation

import "k8s.io/apimachinery/pkg/runtime/schema"

// priority decides the order of discovery: of groups among each other, and of the versions
// of a group. Higher comes first.
type priority struct{ group, version int32 }

// custom is the priority of custom resources.
var custom = priority{group: 1000, version: 100}

// groups are the built-in ones. Clients look for a short name in this order.
var groups = map[string]int32{
	"":                             18000,
	"apps":                         17800,
	"events.k8s.io":                17750,
	"authentication.k8s.io":        17700,
	"authorization.k8s.io":         17600,
	"autoscaling":                  17500,
	"batch":                        17400,
	"certificates.k8s.io":          17300,
	"networking.k8s.io":            17200,
	"policy":                       17100,
	"rbac.authorization.k8s.io":    17000,
	"storage.k8s.io":               16800,
	"admissionregistration.k8s.io": 16700,
	"apiextensions.k8s.io":         16700,
	"scheduling.k8s.io":            16600,
	"coordination.k8s.io":          16500,
	"node.k8s.io":                  16300,
	"discovery.k8s.io":             16200,
	"resource.k8s.io":              16200,
	"flowcontrol.apiserver.k8s.io": 16100,
	"internal.apiserver.k8s.io":    16000,
	"storagemigration.k8s.io":      15800,
	"lifecycle.k8s.io":             15700,
}

// versions that do not have the priority of others of their stability.
var versions = map[schema.GroupVersion]int32{
	{Version: "v1"}:                                              1,
	{Group: "autoscaling", Version: "v2"}:                        30,
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1"}:       21,
	{Group: "resource.k8s.io", Version: "v1"}:                    21,
	{Group: "resource.k8s.io", Version: "v1beta2"}:               15,
	{Group: "resource.k8s.io", Version: "v1alpha3"}:              1,
	{Group: "scheduling.k8s.io", Version: "v1alpha3"}:            3,
	{Group: "coordination.k8s.io", Version: "v1beta1"}:           13,
	{Group: "coordination.k8s.io", Version: "v1alpha2"}:          12,
	{Group: "admissionregistration.k8s.io", Version: "v1beta1"}:  12,
	{Group: "admissionregistration.k8s.io", Version: "v1alpha1"}: 9,
	{Group: "internal.apiserver.k8s.io", Version: "v1alpha1"}:    9,
	{Group: "lifecycle.k8s.io", Version: "v1alpha1"}:             1,
}

// local returns the priority of a built-in version.
func local(gv schema.GroupVersion) priority {
	p := priority{group: groups[gv.Group], version: versions[gv]}
	if p.group == 0 {
		p.group = custom.group
	}
	if p.version == 0 {
		p.version = 9
		if gv.Version == "v1" {
			p.version = 15
		}
	}
	return p
}
