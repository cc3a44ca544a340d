// Package endpointslice serves discovery.k8s.io/v1 EndpointSlice.
package endpointslice

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/discovery"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var doc = discoveryv1.EndpointSlice{}.SwaggerDoc()

// Storage returns the storage of endpointslices.
var Storage = generic.StorageOf(resource)

var resource = generic.Resource[*discoveryv1.EndpointSlice]{
	GroupVersion: discoveryv1.SchemeGroupVersion,
	Name:         "endpointslices",

	PrepareForCreate: func(_ context.Context, s *discoveryv1.EndpointSlice) {
		s.Generation = 1
		dropTopology(s)
	},
	PrepareForUpdate: func(_ context.Context, s, old *discoveryv1.EndpointSlice) {
		if changed(s, old) { // be it in what is dropped then
			s.Generation = old.Generation + 1
		}
		// What an older version of the API wrote stays while nobody touches it.
		if !equality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) {
			dropTopology(s)
		}
	},
	Validate:       generic.Check(discovery.ValidateEndpointSlice),
	ValidateUpdate: generic.CheckUpdate(discovery.ValidateEndpointSliceUpdate),
	Warnings:       generic.Warn(discovery.WarningsEndpointSlice),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("AddressType", "string", doc["addressType"]),
		generic.Column("Ports", "string", doc["ports"]),
		generic.Column("Endpoints", "string", doc["endpoints"]),
		generic.AgeColumn,
	},
	Cells: func(s *discoveryv1.EndpointSlice) []any {
		return []any{s.Name, string(s.AddressType), ports(s.Ports), endpoints(s.Endpoints), generic.Age(s.CreationTimestamp)}
	},
}

// changed tells whether an update changes what is desired.
func changed(s, old *discoveryv1.EndpointSlice) bool {
	return s.AddressType != old.AddressType || !equality.Semantic.DeepEqual(s.Labels, old.Labels) ||
		!equality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) || !equality.Semantic.DeepEqual(s.Ports, old.Ports)
}

// dropTopology removes what the current version of the API only reads.
func dropTopology(s *discoveryv1.EndpointSlice) {
	for i := range s.Endpoints {
		s.Endpoints[i].DeprecatedTopology = nil
	}
}

// shown is how many ports, or addresses, a table lists.
const shown = 3

func ports(ports []discoveryv1.EndpointPort) string {
	var list []string
	for _, port := range ports {
		if port.Port != nil {
			list = append(list, strconv.Itoa(int(*port.Port)))
		} else {
			list = append(list, ptr.Deref(port.Name, ""))
		}
	}
	if text := shorten(list); text != "" {
		return text
	}
	return "<unset>"
}

func endpoints(endpoints []discoveryv1.Endpoint) string {
	if len(endpoints) == 0 {
		return "<unset>"
	}
	var list []string
	for _, e := range endpoints {
		list = append(list, e.Addresses...)
	}
	return shorten(list)
}

func shorten(list []string) string {
	if len(list) <= shown {
		return strings.Join(list, ",")
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(list[:shown], ","), len(list)-shown)
}
