package namespace

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	storageerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"

	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

type store = generic.Store[*corev1.Namespace]

// methods are those of a store but for deletion.
type methods interface {
	rest.Storage
	rest.Scoper
	rest.SingularNameProvider
	rest.ShortNamesProvider
	rest.Getter
	rest.Lister
	rest.CreaterUpdater
	rest.Watcher
	rest.ResetFieldsStrategy
	rest.StorageVersionProvider
	rest.StorageWithReadiness
}

// namespaces deletes in two steps, and never a collection: to delete a namespace
// is first to begin emptying it.
type namespaces struct {
	methods
	store *store
}

func newStorage(s *store) *namespaces { return &namespaces{methods: s, store: s} }

// Delete implements rest.GracefulDeleter.
func (n *namespaces) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	obj, err := n.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, false, err
	}
	ns := obj.(*corev1.Namespace)
	if options == nil {
		options = metav1.NewDeleteOptions(0)
	}
	if err := checkPreconditions(ns, options); err != nil {
		return nil, false, err
	}
	switch {
	case ns.DeletionTimestamp.IsZero():
		out, err := n.terminate(ctx, name, validate, options)
		return out, false, err
	case len(ns.Spec.Finalizers) > 0:
		return ns, false, nil
	}
	return n.store.Delete(ctx, name, validate, options)
}

// checkPreconditions compares what the client thinks it deletes with what there is,
// and makes sure that nothing else is deleted.
func checkPreconditions(ns *corev1.Namespace, options *metav1.DeleteOptions) error {
	if options.Preconditions == nil {
		options.Preconditions = &metav1.Preconditions{}
	}
	p := options.Preconditions
	if p.UID == nil {
		p.UID = &ns.UID
	}
	var problem error
	switch {
	case *p.UID != ns.UID:
		problem = fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", *p.UID, ns.UID)
	case p.ResourceVersion != nil && *p.ResourceVersion != ns.ResourceVersion:
		problem = fmt.Errorf("Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", *p.ResourceVersion, ns.ResourceVersion)
	default:
		return nil
	}
	return apierrors.NewConflict(corev1.Resource("namespaces"), ns.Name, problem)
}

// terminate marks the namespace as going.
func (n *namespaces) terminate(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, error) {
	key, err := n.store.KeyFunc(ctx, name)
	if err != nil {
		return nil, err
	}
	out := n.store.NewFunc()
	preconditions := &storage.Preconditions{UID: options.Preconditions.UID, ResourceVersion: options.Preconditions.ResourceVersion}
	err = n.store.Store.Storage.GuaranteedUpdate(ctx, key, out, false, preconditions, storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
		ns := obj.(*corev1.Namespace)
		if err := validate(ctx, ns); err != nil {
			return nil, err
		}
		if ns.DeletionTimestamp.IsZero() {
			now := metav1.Now()
			ns.DeletionTimestamp = &now
		}
		ns.Status.Phase = corev1.NamespaceTerminating
		setPropagation(ns, options)
		return ns, nil
	}), dryrun.IsDryRun(options.DryRun), nil)
	if err == nil {
		return out, nil
	}
	gr := corev1.Resource("namespaces")
	err = storageerr.InterpretUpdateError(storageerr.InterpretGetError(err, gr, name), gr, name)
	if status := apierrors.APIStatus(nil); !errors.As(err, &status) {
		err = apierrors.NewInternalError(err)
	}
	return nil, err
}

// setPropagation makes the finalizers of garbage collection say what options say,
// when they say anything.
func setPropagation(ns *corev1.Namespace, options *metav1.DeleteOptions) {
	var orphan, foreground bool
	switch {
	case options.OrphanDependents != nil: // deprecated, not gone
		orphan = *options.OrphanDependents
		foreground = !orphan
	case options.PropagationPolicy != nil:
		orphan = *options.PropagationPolicy == metav1.DeletePropagationOrphan
		foreground = *options.PropagationPolicy == metav1.DeletePropagationForeground
	default:
		return
	}
	for finalizer, want := range map[string]bool{metav1.FinalizerOrphanDependents: orphan, metav1.FinalizerDeleteDependents: foreground} {
		ns.Finalizers = slices.DeleteFunc(ns.Finalizers, func(f string) bool { return f == finalizer })
		if want {
			ns.Finalizers = append(ns.Finalizers, finalizer)
		}
	}
}

// finalizeStorage takes PUT alone.
type finalizeStorage struct{ part *generic.PartStore }

// New implements rest.Storage.
func (f finalizeStorage) New() runtime.Object { return f.part.New() }

// Destroy implements rest.Storage.
func (f finalizeStorage) Destroy() {}

// Update implements rest.Updater.
func (f finalizeStorage) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, createValidation rest.ValidateObjectFunc,
	updateValidation rest.ValidateObjectUpdateFunc, forceAllowCreate bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	return f.part.Update(ctx, name, info, createValidation, updateValidation, forceAllowCreate, options)
}

var (
	_ rest.GracefulDeleter = &namespaces{}
	_ rest.Updater         = finalizeStorage{}
)
