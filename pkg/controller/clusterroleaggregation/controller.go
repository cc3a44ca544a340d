// Package clusterroleaggregation fills ClusterRoles that are defined as the sum of
// others, such as admin, edit and view.
package clusterroleaggregation

import (
	"context"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	rbacv1ac "k8s.io/client-go/applyconfigurations/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/wake"
)

// fieldOwner is who the rules belong to.
const fieldOwner = "clusterrole-aggregation-controller"

// Controller reconciles ClusterRoles.
type Controller struct {
	client client.Client
}

// New returns the controller.
func New(c client.Client) *Controller { return &Controller{client: c} }

// Register adds the controller to mgr. Any role may be a part of any sum.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	sums := wake.Those(c.client, func(r *rbacv1.ClusterRole, _ client.Object) bool { return r.AggregationRule != nil })
	return builder.ControllerManagedBy(mgr).Named("clusterrole-aggregation-controller").WithOptions(o).
		Watches(&rbacv1.ClusterRole{}, sums).
		Complete(conflict.Ignored(c))
}

// Reconcile brings the rules of one sum up to date.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	role := &rbacv1.ClusterRole{}
	if err := c.client.Get(ctx, req.NamespacedName, role); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if role.AggregationRule == nil || role.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	var list rbacv1.ClusterRoleList
	if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing ClusterRoles: %w", err)
	}
	rules, err := sum(role, list.Items)
	if err != nil {
		return reconcile.Result{}, reconcile.TerminalError(err)
	}
	if equality.Semantic.DeepEqual(rules, role.Rules) {
		return reconcile.Result{}, nil
	}
	// Applied, not updated: while nothing is added up, the rules that somebody else has written stay.
	wanted := rbacv1ac.ClusterRole(role.Name).WithUID(role.UID)
	for _, r := range rules {
		wanted.WithRules(rbacv1ac.PolicyRule().WithAPIGroups(r.APIGroups...).WithResources(r.Resources...).
			WithResourceNames(r.ResourceNames...).WithNonResourceURLs(r.NonResourceURLs...).WithVerbs(r.Verbs...))
	}
	if err := c.client.Apply(ctx, wanted, client.FieldOwner(fieldOwner), client.ForceOwnership); err != nil {
		return reconcile.Result{}, fmt.Errorf("applying ClusterRole %s: %w", role.Name, err)
	}
	return reconcile.Result{}, nil
}

// sum returns the rules of all roles that role adds up, each once, in a stable order.
func sum(role *rbacv1.ClusterRole, all []rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b rbacv1.ClusterRole) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	for i := range role.AggregationRule.ClusterRoleSelectors {
		sel, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, fmt.Errorf("aggregationRule.clusterRoleSelectors[%d]: %w", i, err)
		}
		for j := range sorted {
			if sorted[j].Name == role.Name || !sel.Matches(labels.Set(sorted[j].Labels)) {
				continue
			}
			for _, rule := range sorted[j].Rules {
				if !slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(r, rule) }) {
					rules = append(rules, *rule.DeepCopy())
				}
			}
		}
	}
	return rules, nil
}
