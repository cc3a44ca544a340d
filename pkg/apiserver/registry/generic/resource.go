// Package generic turns the description of a resource into its storage: what is
// particular to a kind is said once, as a [Resource], and all that kinds have in
// common lives here.
//
//	Resource ── NewStore ──▶ Store   GET, LIST, WATCH, POST, PUT, PATCH, DELETE
//	            Status ──▶ StatusStore …/status
//	            Scale  ──▶ ScaleStore  …/scale
package generic

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/tools/cache"
)

// Object is a pointer to a published API type, such as *corev1.Pod.
type Object interface {
	runtime.Object
	metav1.Object
}

// Options are what the storage of every resource is built from.
type Options struct {
	// Scheme knows every served type.
	Scheme *runtime.Scheme
	// RESTOptions says where and how a resource is stored.
	RESTOptions genericregistry.RESTOptionsGetter
	// AllowPrivileged lets containers be privileged.
	AllowPrivileged bool
	// Features says of feature gates that are off by default whether they are on.
	Features map[string]bool
}

// Storage maps the paths of a resource and its subresources ("deployments",
// "deployments/scale") to what serves them.
type Storage map[string]rest.Storage

// Resource describes one resource. Hooks that are nil do nothing.
//
// Before a hook runs, the object has been decoded and defaulted, and Status (when
// the kind has one) cleared on create, or put back to its old value on update.
type Resource[T Object] struct {
	// Group, Version: the API version that clients use, the preferred one of several.
	schema.GroupVersion
	Name          string // in the plural: "configmaps"
	ShortNames    []string
	Categories    []string
	ClusterScoped bool

	// HasStatus says that the kind has fields Spec and Status (or Status alone)
	// and that clients write Status through the status subresource only. Status implies it.
	HasStatus bool
	// Status and Scale are those subresources. Nil: there is none, or the folder makes its own.
	Status *Update[T]
	Scale  *Scaler[T]
	// Generation reports whether an update changes what is desired, which
	// increments metadata.generation. Nil: the kind counts no generations.
	Generation func(obj, old T) bool
	// ResetFields are paths that clients cannot set here ("metadata.labels"), in
	// addition to "status" when HasStatus. Server-side apply ignores them.
	ResetFields []string

	PrepareForCreate func(ctx context.Context, obj T)
	Validate         func(ctx context.Context, obj T) field.ErrorList
	PrepareForUpdate func(ctx context.Context, obj, old T)
	ValidateUpdate   func(ctx context.Context, obj, old T) field.ErrorList
	// NameFields names the fields of errors as a version has them in which the client
	// sees the resource. Nil: all versions have them alike.
	NameFields func(version string, errs field.ErrorList) field.ErrorList
	// PodSpec is the spec in obj of a pod, or of a template for pods, and where it is.
	// Nil: there is none.
	PodSpec func(obj T) (*corev1.PodSpec, *field.Path)
	// DropDisabled clears the fields of obj that belong to features which are off, unless the
	// stored object uses them already. old is nil on creation.
	DropDisabled func(obj, old T)
	// Canonicalize changes a valid object into its stored form.
	Canonicalize func(obj T)
	// Warnings are for the client that creates (old is nil) or updates obj.
	Warnings func(ctx context.Context, obj, old T) []string

	// CreateOnUpdate lets PUT create the object.
	CreateOnUpdate bool
	// RequireResourceVersion refuses a PUT that does not say which version it replaces.
	RequireResourceVersion bool
	// GarbageCollection is what deletion does to dependents unless the client says
	// otherwise. Empty: they are deleted in the background.
	GarbageCollection rest.GarbageCollectionPolicy
	// DeleteGracefully reports whether obj is marked as being deleted and removed
	// later. When it is, options.GracePeriodSeconds must be set.
	DeleteGracefully func(ctx context.Context, obj T, options *metav1.DeleteOptions) bool
	// NoUnreadDeletion refuses to delete an object that cannot be read.
	NoUnreadDeletion bool
	// ReturnDeleted answers a DELETE with the object in place of a Status.
	ReturnDeleted bool

	// Fields are what field selectors see beside metadata.name and metadata.namespace.
	Fields func(obj T) fields.Set
	// TriggerFields are those of Fields by which watches are dispatched.
	TriggerFields []string
	// Indexers index the watch cache.
	Indexers *cache.Indexers

	// Columns and Cells are the table that kubectl prints. Nil Columns: name and time of creation.
	Columns []metav1.TableColumnDefinition
	Cells   func(obj T) []any
	// CompareRows sorts a table. Nil: rows are in the order of the list.
	CompareRows func(a, b T) int
	// RowConditions mark table rows, as those of finished pods.
	RowConditions func(obj T) []metav1.TableRowCondition
}
