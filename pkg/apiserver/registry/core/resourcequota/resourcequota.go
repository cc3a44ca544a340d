// Package resourcequota serves v1 ResourceQuota.
package resourcequota

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of resourcequotas and resourcequotas/status.
var Storage = generic.StorageOf(generic.Resource[*corev1.ResourceQuota]{
	GroupVersion: corev1.SchemeGroupVersion,
	Name:         "resourcequotas",
	ShortNames:   []string{"quota"},

	Status: &generic.Update[*corev1.ResourceQuota]{
		Validate: generic.CheckUpdate(core.ValidateResourceQuotaStatusUpdate),
	},

	Validate:       generic.Check(core.ValidateResourceQuota),
	ValidateUpdate: generic.CheckUpdate(core.ValidateResourceQuotaUpdate),
	ReturnDeleted:  true,

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Request", "string", "Request represents a minimum amount of cpu/memory that a container may consume."),
		generic.Column("Limit", "string", "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."),
		generic.AgeColumn,
	},
	Cells: func(q *corev1.ResourceQuota) []any {
		requests, limits := usage(&q.Status)
		return []any{q.Name, requests, limits, generic.Age(q.CreationTimestamp)}
	},
})

// usage prints what is used of what may be, limits apart from the rest.
func usage(status *corev1.ResourceQuotaStatus) (requests, limits string) {
	var names []string
	for name := range status.Hard {
		names = append(names, string(name))
	}
	slices.Sort(names)
	var request, limit []string
	for _, name := range names {
		used, hard := status.Used[corev1.ResourceName(name)], status.Hard[corev1.ResourceName(name)]
		text := fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String())
		if strings.HasPrefix(name, "limits.") {
			limit = append(limit, text)
		} else {
			request = append(request, text)
		}
	}
	return strings.Join(request, ", "), strings.Join(limit, ", ")
}
