// Package servicecidr says of ServiceCIDRs that they are ready, and keeps those from
// going out of which Services still have addresses.
package servicecidr

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/protection"
	"github.com/leme-k8s/leme/pkg/controller/internal/wake"
)

const (
	finalizer = "networking.k8s.io/service-cidr-finalizer"
	// managedBy marks the addresses that Services have.
	managedBy = "ipallocator.k8s.io"
	// grace is how long an API server may still give out addresses of a range that is going.
	grace = 10 * time.Second
)

// Controller reconciles ServiceCIDRs.
type Controller struct {
	client client.Client
	events record.EventRecorder
	clock  clock.PassiveClock
}

// New returns the controller.
func New(c client.Client, events record.EventRecorder) *Controller {
	return &Controller{client: c, events: events, clock: clock.RealClock{}}
}

// Register adds the controller to mgr. What is being deleted may wait for any other range or address.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	going := wake.Those(c.client, func(r *networkingv1.ServiceCIDR, _ client.Object) bool { return r.DeletionTimestamp != nil })
	return builder.ControllerManagedBy(mgr).Named("service-cidr-controller").WithOptions(o).
		For(&networkingv1.ServiceCIDR{}).
		Watches(&networkingv1.ServiceCIDR{}, going).
		Watches(&networkingv1.IPAddress{}, going).
		Complete(conflict.Ignored(c))
}

// Reconcile looks at one ServiceCIDR.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	cidr := &networkingv1.ServiceCIDR{}
	if err := c.client.Get(ctx, req.NamespacedName, cidr); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	ready := metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, Message: "Kubernetes Service CIDR is ready"}
	if cidr.DeletionTimestamp != nil {
		used, err := c.inUse(ctx, cidr)
		if err != nil {
			return reconcile.Result{}, err
		}
		if !used {
			if left := cidr.DeletionTimestamp.Add(grace).Sub(c.clock.Now()); left > 0 {
				return reconcile.Result{RequeueAfter: left}, nil
			}
			return reconcile.Result{}, protection.Apply(ctx, c.client, cidr, finalizer, func() (bool, error) { return false, nil })
		}
		ready.Status, ready.Reason = metav1.ConditionFalse, networkingv1.ServiceCIDRReasonTerminating
		ready.Message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
	} else if err := protection.Apply(ctx, c.client, cidr, finalizer, nil); err != nil {
		return reconcile.Result{}, err
	}
	if old := meta.FindStatusCondition(cidr.Status.Conditions, ready.Type); old != nil && old.Status == ready.Status && old.Reason == ready.Reason && ready.Status == metav1.ConditionTrue {
		return reconcile.Result{}, nil // the API server's own says the same in other words
	}
	if !meta.SetStatusCondition(&cidr.Status.Conditions, ready) {
		return reconcile.Result{}, nil
	}
	if err := c.client.Status().Update(ctx, cidr); client.IgnoreNotFound(err) != nil {
		c.events.Event(cidr, corev1.EventTypeWarning, "KubernetesServiceCIDRError", "The ServiceCIDR Status can not be set to Ready=True")
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, nil
}

func (c *Controller) inUse(ctx context.Context, cidr *networkingv1.ServiceCIDR) (bool, error) {
	var all networkingv1.ServiceCIDRList
	if err := c.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("listing ServiceCIDRs: %w", err)
	}
	var addresses networkingv1.IPAddressList
	if err := c.client.List(ctx, &addresses, client.MatchingLabels{networkingv1.LabelManagedBy: managedBy}, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("listing IPAddresses: %w", err)
	}
	return needed(cidr, all.Items, addresses.Items), nil
}

// needed reports whether some address is in a range and in no other that stays.
func needed(cidr *networkingv1.ServiceCIDR, all []networkingv1.ServiceCIDR, addresses []networkingv1.IPAddress) bool {
	var others []netip.Prefix
	for i := range all {
		if all[i].Name != cidr.Name && all[i].DeletionTimestamp == nil {
			others = append(others, prefixes(&all[i])...)
		}
	}
	own := prefixes(cidr)
	for i := range addresses {
		ip, err := netip.ParseAddr(addresses[i].Name)
		if err == nil && anyContains(own, ip) && !anyContains(others, ip) {
			return true
		}
	}
	return false
}

func prefixes(cidr *networkingv1.ServiceCIDR) []netip.Prefix {
	var list []netip.Prefix
	for _, s := range cidr.Spec.CIDRs {
		if p, err := netip.ParsePrefix(s); err == nil {
			list = append(list, p.Masked())
		}
	}
	return list
}

// anyContains reports whether Services can have an address out of one of the ranges. The
// first address of a range, and the last of an IPv4 range, belong to none.
func anyContains(ranges []netip.Prefix, ip netip.Addr) bool {
	for _, p := range ranges {
		if p.Contains(ip) && p.Addr() != ip && (ip.Is6() || p.Contains(ip.Next())) {
			return true
		}
	}
	return false
}
