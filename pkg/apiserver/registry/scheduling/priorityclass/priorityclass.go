// Package priorityclass serves scheduling.k8s.io/v1 PriorityClass.
package priorityclass

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/scheduling"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of priorityclasses.
func Storage(o generic.Options) (generic.Storage, error) {
	s, err := generic.NewStore(resource, o)
	if err != nil {
		return nil, err
	}
	return generic.Storage{"priorityclasses": &store{s}}, nil
}

// store keeps the classes that the system needs.
type store struct {
	*generic.Store[*schedulingv1.PriorityClass]
}

// Delete implements rest.GracefulDeleter.
func (s *store) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	for _, class := range scheduling.SystemPriorityClasses() {
		if class.Name == name {
			return nil, false, apierrors.NewForbidden(schedulingv1.Resource("priorityclasses"), name, errSystem)
		}
	}
	return s.Store.Delete(ctx, name, validate, options)
}

var errSystem = errors.New("this is a system priority class and cannot be deleted")

var doc = schedulingv1.PriorityClass{}.SwaggerDoc()

var resource = generic.Resource[*schedulingv1.PriorityClass]{
	GroupVersion:  schedulingv1.SchemeGroupVersion,
	Name:          "priorityclasses",
	ShortNames:    []string{"pc"},
	ClusterScoped: true,

	// All that decides anything is immutable.
	Generation:     func(_, _ *schedulingv1.PriorityClass) bool { return false },
	Validate:       generic.Check(scheduling.ValidatePriorityClass),
	ValidateUpdate: generic.CheckUpdate(scheduling.ValidatePriorityClassUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Value", "integer", doc["value"]),
		generic.Column("Global-Default", "boolean", doc["globalDefault"]),
		generic.AgeColumn,
		generic.Column("PreemptionPolicy", "string", doc["preemptionPolicy"]),
	},
	Cells: func(c *schedulingv1.PriorityClass) []any {
		return []any{c.Name, int64(c.Value), c.GlobalDefault, generic.Age(c.CreationTimestamp), string(ptr.Deref(c.PreemptionPolicy, corev1.PreemptLowerPriority))}
	},
}
