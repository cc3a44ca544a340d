package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
	"k8s.io/klog/v2"
)

// HookName is the name under which the server runs [Hook], and reports on it in
// /healthz.
const HookName = "rbac/bootstrap-roles"

// workers write at the same time. A new cluster needs some hundred and forty
// writes, each of which waits for etcd's disk.
const workers = 16

// Hook is the post-start hook that brings the cluster's policy up to date with that of
// the features that are on, and returns it. The server is not healthy until it has succeeded once.
func Hook(hc server.PostStartHookContext, features map[string]bool) (*Policy, error) {
	client, err := kubernetes.NewForConfig(hc.LoopbackClientConfig)
	if err != nil {
		return nil, fmt.Errorf("making the client for the bootstrap policy: %w", err)
	}
	policy, err := Load(features)
	if err != nil {
		return nil, err
	}
	var last error
	err = wait.PollUntilContextTimeout(hc, 200*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		if last = policy.Reconcile(ctx, client); last != nil {
			klog.FromContext(ctx).Info("Bringing the bootstrap policy up to date failed, will try again", "err", last)
		}
		return last == nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("bringing the bootstrap policy up to date: %w", errors.Join(err, last))
	}
	return policy, nil
}

// Reconcile creates what is missing and adds the permissions and subjects that
// existing objects lack. It takes nothing away, and it leaves alone what is
// annotated not to be updated. One list of each kind shows what has to be done:
// when that is nothing, these four requests are all.
func (p *Policy) Reconcile(ctx context.Context, client kubernetes.Interface) error {
	have, err := list(ctx, client)
	if err != nil {
		return err
	}
	rbac := client.RbacV1()
	namespaces := &namespaces{NamespaceInterface: client.CoreV1().Namespaces(), known: map[string]*corev1.Namespace{}}
	var steps []func() error
	// These first: admission may wait until it has heard of their namespace.
	for _, o := range p.Roles {
		steps = append(steps, role(reconciliation.RoleRuleOwner{Role: o}, have.roles, reconciliation.RoleModifier{Client: rbac, NamespaceClient: namespaces}))
	}
	for _, o := range p.RoleBindings {
		steps = append(steps, binding(reconciliation.RoleBindingAdapter{RoleBinding: o}, have.roleBindings, reconciliation.RoleBindingClientAdapter{Client: rbac, NamespaceClient: namespaces}))
	}
	for _, o := range p.ClusterRoles {
		steps = append(steps, role(reconciliation.ClusterRoleRuleOwner{ClusterRole: o}, have.clusterRoles, reconciliation.ClusterRoleModifier{Client: rbac.ClusterRoles()}))
	}
	for _, o := range p.ClusterRoleBindings {
		steps = append(steps, binding(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: o}, have.clusterRoleBindings, reconciliation.ClusterRoleBindingClientAdapter{Client: rbac.ClusterRoleBindings()}))
	}
	return inParallel(ctx, steps)
}

func inParallel(ctx context.Context, steps []func() error) error {
	todo := make(chan func() error)
	failed := make(chan error, len(steps))
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for step := range todo {
				if err := step(); err != nil {
					failed <- err
				}
			}
		})
	}
	for _, step := range steps {
		if ctx.Err() != nil {
			failed <- ctx.Err()
			break
		}
		todo <- step
	}
	close(todo)
	wg.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

type key struct{ namespace, name string }

// existing objects by kind, as they were listed.
type existing struct {
	clusterRoles, roles               map[key]reconciliation.RuleOwner
	clusterRoleBindings, roleBindings map[key]reconciliation.RoleBinding
}

func list(ctx context.Context, client kubernetes.Interface) (*existing, error) {
	rbac := client.RbacV1()
	have := &existing{
		clusterRoles: map[key]reconciliation.RuleOwner{}, roles: map[key]reconciliation.RuleOwner{},
		clusterRoleBindings: map[key]reconciliation.RoleBinding{}, roleBindings: map[key]reconciliation.RoleBinding{},
	}
	clusterRoles, err := rbac.ClusterRoles().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing ClusterRoles: %w", err)
	}
	for i := range clusterRoles.Items {
		o := &clusterRoles.Items[i]
		have.clusterRoles[key{name: o.Name}] = reconciliation.ClusterRoleRuleOwner{ClusterRole: o}
	}
	clusterRoleBindings, err := rbac.ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing ClusterRoleBindings: %w", err)
	}
	for i := range clusterRoleBindings.Items {
		o := &clusterRoleBindings.Items[i]
		have.clusterRoleBindings[key{name: o.Name}] = reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: o}
	}
	roles, err := rbac.Roles(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing Roles: %w", err)
	}
	for i := range roles.Items {
		o := &roles.Items[i]
		have.roles[key{o.Namespace, o.Name}] = reconciliation.RoleRuleOwner{Role: o}
	}
	roleBindings, err := rbac.RoleBindings(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing RoleBindings: %w", err)
	}
	for i := range roleBindings.Items {
		o := &roleBindings.Items[i]
		have.roleBindings[key{o.Namespace, o.Name}] = reconciliation.RoleBindingAdapter{RoleBinding: o}
	}
	return have, nil
}

func role(want reconciliation.RuleOwner, have map[key]reconciliation.RuleOwner, live reconciliation.RuleOwnerModifier) func() error {
	return func() error {
		o := reconciliation.ReconcileRoleOptions{Role: want, Confirm: true, Client: &listedRoles{RuleOwnerModifier: live, listed: have}}
		if _, err := o.Run(); err != nil {
			return fmt.Errorf("role %s: %w", want.GetName(), err)
		}
		return nil
	}
}

func binding(want reconciliation.RoleBinding, have map[key]reconciliation.RoleBinding, live reconciliation.RoleBindingModifier) func() error {
	return func() error {
		o := reconciliation.ReconcileRoleBindingOptions{RoleBinding: want, Confirm: true, Client: &listedBindings{RoleBindingModifier: live, listed: have}}
		if _, err := o.Run(); err != nil {
			return fmt.Errorf("binding %s: %w", want.GetName(), err)
		}
		return nil
	}
}

// listedRoles answers the first Get from the list. A second one means that the
// list is out of date, and asks the server.
type listedRoles struct {
	reconciliation.RuleOwnerModifier
	listed map[key]reconciliation.RuleOwner
	asked  bool
}

func (l *listedRoles) Get(namespace, name string) (reconciliation.RuleOwner, error) {
	if l.asked {
		return l.RuleOwnerModifier.Get(namespace, name)
	}
	l.asked = true
	if o, ok := l.listed[key{namespace, name}]; ok {
		return o, nil
	}
	return nil, apierrors.NewNotFound(rbacv1.Resource("roles"), name)
}

// listedBindings does the same for bindings.
type listedBindings struct {
	reconciliation.RoleBindingModifier
	listed map[key]reconciliation.RoleBinding
	asked  bool
}

func (l *listedBindings) Get(namespace, name string) (reconciliation.RoleBinding, error) {
	if l.asked {
		return l.RoleBindingModifier.Get(namespace, name)
	}
	l.asked = true
	if o, ok := l.listed[key{namespace, name}]; ok {
		return o, nil
	}
	return nil, apierrors.NewNotFound(rbacv1.Resource("rolebindings"), name)
}

// namespaces makes a namespace that is missing when it is first asked for, and then knows it: the
// library asks once for each object in it.
type namespaces struct {
	corev1client.NamespaceInterface
	mu    sync.Mutex
	known map[string]*corev1.Namespace
}

func (n *namespaces) Get(ctx context.Context, name string, o metav1.GetOptions) (*corev1.Namespace, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ns, ok := n.known[name]; ok {
		return ns, nil
	}
	ns, err := n.NamespaceInterface.Get(ctx, name, o)
	if apierrors.IsNotFound(err) {
		ns, err = n.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			ns, err = n.NamespaceInterface.Get(ctx, name, o)
		}
	}
	if err != nil {
		return nil, err
	}
	n.known[name] = ns
	return ns, nil
}
