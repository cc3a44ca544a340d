// Package endpoints serves v1 Endpoints.
package endpoints

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of endpoints.
var Storage = generic.StorageOf(generic.Resource[*corev1.Endpoints]{
	GroupVersion: corev1.SchemeGroupVersion,
	Name:         "endpoints",
	ShortNames:   []string{"ep"},

	CreateOnUpdate: true,
	Validate:       generic.Check(core.ValidateEndpoints),
	ValidateUpdate: generic.CheckUpdate(core.ValidateEndpointsUpdate),
	Warnings:       generic.Warn(core.WarningsEndpoints),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Endpoints", "string", corev1.Endpoints{}.SwaggerDoc()["subsets"]),
		generic.AgeColumn,
	},
	Cells: func(e *corev1.Endpoints) []any {
		return []any{e.Name, addresses(e.Subsets), generic.Age(e.CreationTimestamp)}
	},
})

// shown is how many addresses fit into the table.
const shown = 3

// addresses prints the ready addresses with their ports.
func addresses(subsets []corev1.EndpointSubset) string {
	if len(subsets) == 0 {
		return "<none>"
	}
	var all []string
	for _, s := range subsets {
		if len(s.Ports) == 0 { // a headless Service without ports
			for _, a := range s.Addresses {
				all = append(all, a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				all = append(all, net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	if len(all) > shown {
		return fmt.Sprintf("%s + %d more...", strings.Join(all[:shown], ","), len(all)-shown)
	}
	return strings.Join(all, ",")
}
