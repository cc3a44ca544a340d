// Package fleet is a small operator: each Boat gets a Deployment of its crew.
package fleet

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// BoatKind is the kind of what the operator looks after.
var BoatKind = schema.GroupVersionKind{Group: "fleet.example.com", Version: "v1", Kind: "Boat"}

// NewBoat returns an empty Boat.
func NewBoat() *unstructured.Unstructured {
	b := &unstructured.Unstructured{}
	b.SetGroupVersionKind(BoatKind)
	return b
}

// Reconciler gives boats their crews.
type Reconciler struct{ client.Client }

// Register adds the reconciler to a manager.
func (r *Reconciler) Register(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("boats").For(NewBoat()).Owns(&appsv1.Deployment{}).Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	boat := NewBoat()
	if err := r.Get(ctx, req.NamespacedName, boat); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	crew, _, err := unstructured.NestedInt64(boat.Object, "spec", "crew")
	if err != nil {
		return ctrl.Result{}, err
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: boat.GetNamespace(), Name: boat.GetName()}}
	_, err = controllerutil.CreateOrUpdate(ctx, r.Client, d, func() error {
		labels, replicas := map[string]string{"boat": boat.GetName()}, int32(crew)
		d.Spec.Replicas = &replicas
		d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
		d.Spec.Template.Labels = labels
		if len(d.Spec.Template.Spec.Containers) == 0 {
			d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "sailor", Image: "registry.example.com/sailor"}}
		}
		return controllerutil.SetControllerReference(boat, d, r.Scheme())
	})
	return ctrl.Result{}, err
}
