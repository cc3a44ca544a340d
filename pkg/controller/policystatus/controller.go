// Package policystatus checks the types in the expressions of
// ValidatingAdmissionPolicies, as far as the kinds that they match are known, and
// writes what it finds into their status.
package policystatus

import (
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	applyv1 "k8s.io/client-go/applyconfigurations/admissionregistration/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
)

const name = "validatingadmissionpolicy-status-controller"

// Controller reconciles ValidatingAdmissionPolicies.
type Controller struct {
	client    client.Client
	clientset kubernetes.Interface
	checker   *validating.TypeChecker
}

// New returns the controller. Types are those that the API server documents.
func New(c client.Client, cs kubernetes.Interface, mapper meta.RESTMapper) *Controller {
	return &Controller{client: c, clientset: cs, checker: &validating.TypeChecker{
		SchemaResolver: &resolver.ClientDiscoveryResolver{Discovery: cs.Discovery()},
		RestMapper:     mapper,
	}}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	return builder.ControllerManagedBy(mgr).Named(name).WithOptions(o).
		For(&admissionregistrationv1.ValidatingAdmissionPolicy{}).
		Complete(conflict.Ignored(c))
}

// Reconcile checks a policy that has not been checked since it last changed.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{}
	if err := c.client.Get(ctx, req.NamespacedName, policy); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if policy.DeletionTimestamp != nil || policy.Generation <= policy.Status.ObservedGeneration {
		return reconcile.Result{}, nil
	}
	checked := applyv1.TypeChecking()
	for _, w := range c.checker.Check(policy) {
		checked.WithExpressionWarnings(applyv1.ExpressionWarning().WithFieldRef(w.FieldRef).WithWarning(w.Warning))
	}
	status := applyv1.ValidatingAdmissionPolicy(policy.Name).WithStatus(applyv1.ValidatingAdmissionPolicyStatus().
		WithObservedGeneration(policy.Generation).
		WithTypeChecking(checked))
	_, err := c.clientset.AdmissionregistrationV1().ValidatingAdmissionPolicies().
		ApplyStatus(ctx, status, metav1.ApplyOptions{FieldManager: name, Force: true})
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("writing the status of ValidatingAdmissionPolicy %s: %w", policy.Name, err)
	}
	return reconcile.Result{}, nil
}
