// Package bootstrap keeps the objects that a cluster has from the start: namespaces,
// priority classes, the range of cluster IPs, the Service by which pods reach the API
// server, and what other API servers need to know to trust the same clients.
package bootstrap

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/server"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	networkingapply "k8s.io/client-go/applyconfigurations/networking/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// interval is how often an object that somebody deleted is put back.
const interval = time.Minute

// patience is how long a server that has just started tries; then it gives up.
const patience = time.Minute

// A Keeper keeps some of the objects.
type Keeper struct {
	// Name is that of its post-start hook.
	Name string
	// Keep creates what is missing and mends what is wrong.
	Keep func(ctx context.Context, client kubernetes.Interface) error
}

// Hook returns the post-start hook: it keeps the objects until the server stops. The
// server is ready once it has succeeded for the first time.
func (k Keeper) Hook(client kubernetes.Interface) server.PostStartHookFunc {
	return func(hc server.PostStartHookContext) error {
		ctx := hc.Context
		var last error
		err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
			last = k.Keep(ctx, client)
			return last == nil, nil
		})
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("nothing but errors for %v: %w", patience, last)
		}
		go wait.JitterUntilWithContext(ctx, func(ctx context.Context) {
			if err := k.Keep(ctx, client); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Keeping objects; will try again", "hook", k.Name, "in", interval)
			}
		}, interval, 0.1, false)
		return nil
	}
}

// Namespaces keeps the namespaces of the system and the default one.
func Namespaces() Keeper {
	return Keeper{"start-system-namespaces-controller", func(ctx context.Context, client kubernetes.Interface) error {
		for _, name := range []string{metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease, metav1.NamespaceDefault} {
			err := ensure(ctx, client.CoreV1().Namespaces().Get, client.CoreV1().Namespaces().Create, name,
				&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
			if err != nil {
				return err
			}
		}
		return nil
	}}
}

// PriorityClasses keeps the priority classes of pods that the cluster needs.
func PriorityClasses() Keeper {
	classes := []*schedulingv1.PriorityClass{
		{
			ObjectMeta:  metav1.ObjectMeta{Name: "system-node-critical"},
			Value:       2000001000,
			Description: "Used for system critical pods that must not be moved from their current node.",
		},
		{
			ObjectMeta:  metav1.ObjectMeta{Name: "system-cluster-critical"},
			Value:       2000000000,
			Description: "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
		},
	}
	return Keeper{"scheduling/bootstrap-system-priority-classes", func(ctx context.Context, client kubernetes.Interface) error {
		for _, c := range classes {
			if err := ensure(ctx, client.SchedulingV1().PriorityClasses().Get, client.SchedulingV1().PriorityClasses().Create, c.Name, c.DeepCopy()); err != nil {
				return err
			}
		}
		return nil
	}}
}

// ServiceCIDR keeps the ServiceCIDR that says what --service-cluster-ip-range says.
func ServiceCIDR(cidrs []string) Keeper {
	const name = "kubernetes"
	return Keeper{"start-kubernetes-service-cidr-controller", func(ctx context.Context, client kubernetes.Interface) error {
		api := client.NetworkingV1().ServiceCIDRs()
		if err := ensure(ctx, api.Get, api.Create, name, &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: cidrs},
		}); err != nil {
			return err
		}
		cidr, err := api.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		const message = "Kubernetes default Service CIDR is ready"
		if c := meta.FindStatusCondition(cidr.Status.Conditions, networkingv1.ServiceCIDRConditionReady); c != nil && c.Status == metav1.ConditionTrue && c.Message == message {
			return nil
		}
		ready := metaapply.Condition().WithType(networkingv1.ServiceCIDRConditionReady).WithStatus(metav1.ConditionTrue).WithMessage(message).WithLastTransitionTime(metav1.Now())
		_, err = api.ApplyStatus(ctx, networkingapply.ServiceCIDR(name).WithStatus(networkingapply.ServiceCIDRStatus().WithConditions(ready)),
			metav1.ApplyOptions{FieldManager: "kubernetes-service-cidr-controller", Force: true})
		return err
	}}
}

// LegacyTokenTracking keeps the date since which the use of tokens in Secrets is noted: before it, they may have been used.
func LegacyTokenTracking() Keeper {
	const name, key, format = "kube-apiserver-legacy-service-account-token-tracking", "since", "2006-01-02"
	return Keeper{"start-legacy-token-tracking-controller", func(ctx context.Context, client kubernetes.Interface) error {
		api := client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
		today := map[string]string{key: time.Now().UTC().Format(format)}
		if err := ensure(ctx, api.Get, api.Create, name, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name}, Data: today}); err != nil {
			return err
		}
		cm, err := api.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if _, err := time.Parse(format, cm.Data[key]); err == nil {
			return nil
		}
		cm.Data = today
		_, err = api.Update(ctx, cm, metav1.UpdateOptions{})
		return err
	}}
}

// ensure creates the object unless it is there.
func ensure[T any](ctx context.Context,
	get func(context.Context, string, metav1.GetOptions) (T, error),
	create func(context.Context, T, metav1.CreateOptions) (T, error),
	name string, obj T,
) error {
	_, err := get(ctx, name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	if _, err = create(ctx, obj, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
