// Package storageversionmigrator has all objects of a resource stored anew, in the
// version that the API server stores now, when a StorageVersionMigration asks for it.
//
// Each reconciliation takes a migration one step further: it waits for its turn, notes where the resource
// stands, writes what is older, and tells the CustomResourceDefinition that old versions are gone.
package storageversionmigrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/wake"
)

const (
	// patience is how long a resource that is not served is waited for.
	patience = time.Minute
	// page is how many objects are listed at a time.
	page = 500
)

// Controller reconciles StorageVersionMigrations.
type Controller struct {
	client      client.Client
	mapper      meta.RESTMapper
	metadata    metadata.Interface
	definitions apiextensionsclient.CustomResourceDefinitionInterface
	clock       clock.PassiveClock
}

// New returns the controller.
func New(c client.Client, mapper meta.RESTMapper, md metadata.Interface, definitions apiextensionsclient.CustomResourceDefinitionInterface) *Controller {
	return &Controller{client: c, mapper: mapper, metadata: md, definitions: definitions, clock: clock.RealClock{}}
}

// Register adds the controller to mgr. Migrations of a resource take turns.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	sameResource := wake.Those(c.client, func(m *storagemigrationv1.StorageVersionMigration, changed client.Object) bool {
		return m.Spec.Resource == changed.(*storagemigrationv1.StorageVersionMigration).Spec.Resource
	})
	return builder.ControllerManagedBy(mgr).Named("storage-version-migrator-controller").WithOptions(o).
		Watches(&storagemigrationv1.StorageVersionMigration{}, sameResource).
		Complete(conflict.Ignored(c))
}

// step is what there is to do next for a migration.
type step int

const (
	nothing step = iota
	begin        // it is its turn
	mark         // note where the resource stands
	migrate      // store anew what is older
	finish       // it has succeeded or failed
)

// next decides about a migration among all others.
func next(m *storagemigrationv1.StorageVersionMigration, all []storagemigrationv1.StorageVersionMigration) step {
	running, ended := is(m, storagemigrationv1.MigrationRunning), hasEnded(m)
	switch {
	case ended && running:
		return finish
	case ended:
		return nothing
	case running && m.Status.ResourceVersion == "":
		return mark
	case running:
		return migrate
	}
	for i := range all {
		o := &all[i]
		if o.Name == m.Name || o.Spec.Resource != m.Spec.Resource {
			continue
		}
		before := o.CreationTimestamp.Compare(m.CreationTimestamp.Time)
		if is(o, storagemigrationv1.MigrationRunning) || !hasEnded(o) && (before < 0 || before == 0 && o.Name < m.Name) {
			return nothing
		}
	}
	return begin
}

func is(m *storagemigrationv1.StorageVersionMigration, t storagemigrationv1.MigrationConditionType) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(t))
}

func hasEnded(m *storagemigrationv1.StorageVersionMigration) bool {
	return is(m, storagemigrationv1.MigrationSucceeded) || is(m, storagemigrationv1.MigrationFailed)
}

func set(m *storagemigrationv1.StorageVersionMigration, t storagemigrationv1.MigrationConditionType, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{Type: string(t), Status: status, Reason: reason, Message: message})
}

func fail(m *storagemigrationv1.StorageVersionMigration, err error) {
	set(m, storagemigrationv1.MigrationFailed, metav1.ConditionTrue, "StorageVersionMigrationFailed", "migration encountered unhandled error: "+err.Error())
}

// Reconcile takes one migration a step further.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	m := &storagemigrationv1.StorageVersionMigration{}
	if err := c.client.Get(ctx, req.NamespacedName, m); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	var all storagemigrationv1.StorageVersionMigrationList
	if err := c.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing StorageVersionMigrations: %w", err)
	}
	var err error
	switch next(m, all.Items) {
	case nothing:
		return reconcile.Result{}, nil
	case begin:
		if err = c.tell(ctx, m, metav1.ConditionTrue, "MigrationRunning", fmt.Sprintf("Migration %s is running", m.Name)); err == nil {
			set(m, storagemigrationv1.MigrationRunning, metav1.ConditionTrue, "MigrationRunning", "The migration is running")
		}
	case mark:
		err = c.mark(ctx, m)
	case migrate:
		err = c.migrate(ctx, m)
	case finish:
		if is(m, storagemigrationv1.MigrationSucceeded) {
			err = c.tell(ctx, m, metav1.ConditionFalse, "MigrationSucceeded", "The migration has succeeded")
		} else {
			err = c.tell(ctx, m, metav1.ConditionFalse, "MigrationFailed", "The migration has failed")
		}
		if err == nil {
			set(m, storagemigrationv1.MigrationRunning, metav1.ConditionFalse, "MigrationCompleted", "Migration completed")
		}
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, client.IgnoreNotFound(c.client.Status().Update(ctx, m))
}

// mapping returns how a migration's resource is reached, or fails the migration if it is not served for long.
func (c *Controller) mapping(m *storagemigrationv1.StorageVersionMigration) (*meta.RESTMapping, error) {
	r := m.Spec.Resource
	kind, err := c.mapper.KindFor(schema.GroupVersionResource{Group: r.Group, Resource: r.Resource})
	if err == nil {
		mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err == nil && mapping.Resource.Group == r.Group && mapping.Resource.Resource == r.Resource {
			return mapping, nil
		}
	}
	if c.clock.Since(m.CreationTimestamp.Time) < patience {
		meta.MaybeResetRESTMapper(c.mapper)
		return nil, fmt.Errorf("resource %s.%s is not served", r.Resource, r.Group)
	}
	fail(m, errors.New("resource does not exist in discovery"))
	return nil, nil
}

// mark notes the version that the resource has reached. What is written later is stored in the new version anyway.
func (c *Controller) mark(ctx context.Context, m *storagemigrationv1.StorageVersionMigration) error {
	mapping, err := c.mapping(m)
	if err != nil || mapping == nil {
		return err
	}
	list, err := c.metadata.Resource(mapping.Resource).List(ctx, metav1.ListOptions{Limit: 1})
	if apierrors.IsMethodNotSupported(err) {
		fail(m, fmt.Errorf("resource %q does not support discovery operations: %w", mapping.Resource, err))
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing %s: %w", mapping.Resource, err)
	}
	if _, err := resourceversion.CompareResourceVersion(list.ResourceVersion, list.ResourceVersion); err != nil {
		fail(m, fmt.Errorf("latest resourceVersion for %s is not valid: %w", mapping.Resource, err))
		return nil
	}
	m.Status.ResourceVersion = list.ResourceVersion
	return nil
}

// migrate writes every object that is older than the mark, as it is.
func (c *Controller) migrate(ctx context.Context, m *storagemigrationv1.StorageVersionMigration) error {
	mapping, err := c.mapping(m)
	if err != nil || mapping == nil {
		return err
	}
	api := c.metadata.Resource(mapping.Resource)
	total, from := 0, ""
	for {
		list, err := api.List(ctx, metav1.ListOptions{Limit: page, Continue: from})
		if err != nil {
			return fmt.Errorf("listing %s: %w", mapping.Resource, err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			total++
			if newer, err := resourceversion.CompareResourceVersion(o.ResourceVersion, m.Status.ResourceVersion); err != nil {
				fail(m, err)
				return nil
			} else if newer > 0 {
				continue
			}
			err := c.rewrite(ctx, mapping, o)
			if transient(err) {
				return err
			}
			if err != nil {
				fail(m, err)
				return nil
			}
		}
		if from = list.Continue; from == "" {
			break
		}
	}
	message := "The migration is running"
	if total > 0 {
		message += fmt.Sprintf(", %d objects verified migrated", total)
	}
	set(m, storagemigrationv1.MigrationRunning, metav1.ConditionTrue, "MigrationRunning", message)
	set(m, storagemigrationv1.MigrationSucceeded, metav1.ConditionTrue, "StorageVersionMigrationSucceeded", "Migration completed")
	return nil
}

// rewrite patches an object with nothing. If somebody else has written it meanwhile, it is stored anew already.
func (c *Controller) rewrite(ctx context.Context, mapping *meta.RESTMapping, o *metav1.PartialObjectMetadata) error {
	version, kind := mapping.GroupVersionKind.ToAPIVersionAndKind()
	patch := fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"resourceVersion":%q,"uid":%q}}`, version, kind, o.ResourceVersion, o.UID)
	api := metadata.ResourceInterface(c.metadata.Resource(mapping.Resource))
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		api = c.metadata.Resource(mapping.Resource).Namespace(o.Namespace)
	}
	_, err := api.Patch(ctx, o.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "storage-version-migrator-controller"})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// transient reports whether it is worth to try again.
func transient(err error) bool {
	if err == nil {
		return false
	}
	return apierrors.ReasonForError(err) == metav1.StatusReasonUnknown || apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || apierrors.IsTimeout(err)
}

// tell writes into the definition of a custom resource that it is being migrated, or which version alone is stored now.
func (c *Controller) tell(ctx context.Context, m *storagemigrationv1.StorageVersionMigration, status metav1.ConditionStatus, reason, message string) error {
	r := m.Spec.Resource
	if r.Group == "" || !strings.Contains(r.Group, ".") {
		return nil // not a custom one
	}
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		crd, err := c.definitions.Get(ctx, r.Resource+"."+r.Group, metav1.GetOptions{})
		if err != nil {
			return err
		}
		note(crd, status, reason, message, metav1.NewTime(c.clock.Now()))
		_, err = c.definitions.UpdateStatus(ctx, crd, metav1.UpdateOptions{})
		return err
	})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("updating the CustomResourceDefinition: %w", err)
	}
	return nil
}

// note writes the condition StorageMigrating and, after a success, which versions are stored, unless the definition
// has changed since the migration began.
func note(crd *apiextensionsv1.CustomResourceDefinition, status metav1.ConditionStatus, reason, message string, now metav1.Time) {
	want := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.StorageMigrating, Status: apiextensionsv1.ConditionStatus(status), LastTransitionTime: now, Reason: reason, Message: message, ObservedGeneration: crd.Generation,
	}
	i := slices.IndexFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool { return c.Type == want.Type })
	if reason == "MigrationSucceeded" {
		if i >= 0 && crd.Status.Conditions[i].ObservedGeneration == crd.Generation {
			want.Message += " and the stored versions have been updated"
			for _, v := range crd.Spec.Versions {
				if v.Storage {
					crd.Status.StoredVersions = []string{v.Name}
				}
			}
		} else {
			want.Message += " but the stored versions have not been updated due to a generation mismatch"
		}
	}
	if i < 0 {
		crd.Status.Conditions = append(crd.Status.Conditions, want)
	} else {
		crd.Status.Conditions[i] = want
	}
}
