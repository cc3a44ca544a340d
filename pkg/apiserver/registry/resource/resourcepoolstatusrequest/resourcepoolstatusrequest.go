// Package resourcepoolstatusrequest serves resource.k8s.io/v1alpha3 ResourcePoolStatusRequest.
package resourcepoolstatusrequest

import (
	"fmt"
	"strconv"

	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/resource"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of resourcepoolstatusrequests and …/status.
var Storage = generic.StorageOf(requests)

var requests = generic.Resource[*resourcev1alpha3.ResourcePoolStatusRequest]{
	GroupVersion:  resourcev1alpha3.SchemeGroupVersion,
	Name:          "resourcepoolstatusrequests",
	ClusterScoped: true,

	Status: &generic.Update[*resourcev1alpha3.ResourcePoolStatusRequest]{
		KeepsMetadata: true,
		NoTable:       true,
		Validate:      generic.CheckUpdate(resource.ValidateResourcePoolStatusRequestStatusUpdate),
	},

	RequireResourceVersion: true,
	ReturnDeleted:          true,
	DropDisabled:           resource.DropDisabledPoolRequestFields,
	Validate:               generic.Check(resource.ValidateResourcePoolStatusRequest),
	ValidateUpdate:         generic.CheckUpdate(resource.ValidateResourcePoolStatusRequestUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Driver", "string", "The driver to query pools for."),
		generic.Column("Total", "string", "Total number of devices across all pools."),
		generic.Column("Available", "string", "Number of available devices across all pools."),
		generic.Column("Allocated", "string", "Number of allocated devices across all pools."),
		generic.Column("Unavailable", "string", "Number of unavailable devices across all pools."),
		generic.Column("Errors", "string", "Number of pools with validation errors."),
		generic.Column("Pools", "integer", "Total number of matching pools."),
		generic.Column("Status", "string", "Processing status."),
		generic.Column("Completed", "string", "Time since the observation completed."),
	},
	Cells: func(r *resourcev1alpha3.ResourcePoolStatusRequest) []any {
		a := answerTo(r)
		cells := []any{r.Name, r.Spec.Driver}
		for _, n := range a.counts {
			cell := "-"
			if a.counted {
				cell = strconv.Itoa(int(n))
			}
			cells = append(cells, cell)
		}
		completed := "<none>"
		if a.completed != nil {
			completed = generic.Age(*a.completed)
		}
		return append(cells, a.pools, a.state, completed)
	},
}

// answer is what a request was answered with, for its row.
type answer struct {
	state     string
	completed *metav1.Time
	pools     int32
	// counts are the devices of all pools that exist, are available, allocated and
	// unavailable, and the pools with errors. They mean nothing unless counted.
	counts  [5]int32
	counted bool
}

func answerTo(r *resourcev1alpha3.ResourcePoolStatusRequest) answer {
	a := answer{state: "Pending"}
	s := r.Status
	if s == nil {
		return a
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if c.Status != metav1.ConditionTrue {
			continue
		}
		if c.Type == resourcev1alpha3.ResourcePoolStatusRequestConditionComplete {
			a.state, a.completed = "Complete", &c.LastTransitionTime
			break
		}
		if c.Type == resourcev1alpha3.ResourcePoolStatusRequestConditionFailed {
			a.state = "Failed"
			break
		}
	}
	add := func(sum, n *int32) {
		if n != nil {
			*sum += *n
		}
	}
	add(&a.pools, s.PoolCount)
	if a.completed != nil && int(a.pools) > len(s.Pools) {
		a.state = fmt.Sprintf("Complete (%d/%d pools)", len(s.Pools), a.pools)
	}
	a.counted = a.state != "Failed"
	for i := range s.Pools {
		p := &s.Pools[i]
		add(&a.counts[0], p.TotalDevices)
		add(&a.counts[1], p.AvailableDevices)
		add(&a.counts[2], p.AllocatedDevices)
		add(&a.counts[3], p.UnavailableDevices)
		if p.ValidationError != nil {
			a.counts[4]++
		}
	}
	return a
}
