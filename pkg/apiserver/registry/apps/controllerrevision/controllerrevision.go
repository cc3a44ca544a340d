// Package controllerrevision serves apps/v1 ControllerRevision.
package controllerrevision

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/leme-k8s/leme/pkg/api/apps"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of controllerrevisions.
var Storage = generic.StorageOf(generic.Resource[*appsv1.ControllerRevision]{
	GroupVersion: appsv1.SchemeGroupVersion,
	Name:         "controllerrevisions",

	Validate:       generic.Check(apps.ValidateControllerRevision),
	ValidateUpdate: generic.CheckUpdate(apps.ValidateControllerRevisionUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Controller", "string", "Controller of the object"),
		generic.Column("Revision", "string", appsv1.ControllerRevision{}.SwaggerDoc()["revision"]),
		generic.AgeColumn,
	},
	Cells: func(r *appsv1.ControllerRevision) []any {
		return []any{r.Name, controller(r), r.Revision, generic.Age(r.CreationTimestamp)}
	},
})

// controller prints what the revision belongs to, as "statefulset.apps/name".
func controller(r *appsv1.ControllerRevision) string {
	owner := metav1.GetControllerOf(r)
	if owner == nil {
		return "<none>"
	}
	gk := schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind).GroupKind()
	return fmt.Sprintf("%s/%s", strings.ToLower(gk.String()), owner.Name)
}
