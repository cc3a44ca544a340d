// Package nodeipam gives each node a range of addresses for its pods.
package nodeipam

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	netutils "k8s.io/utils/net"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
)

// Controller reconciles nodes. It keeps no record: what is taken is what the nodes
// say, and reads wait for its own writes.
type Controller struct {
	client   client.Client
	events   record.EventRecorder
	ranges   []*ranges
	reserved []*net.IPNet
}

// ranges are the equal parts of a cluster's range.
type ranges struct {
	cluster *net.IPNet
	mask    int // prefix length of a part
	next    int // where the search begins, so that a range rests before it is used again
}

// New returns the controller. Each cluster range is divided by the mask of the same
// index; parts that overlap with reserved are not given away.
func New(c client.Client, events record.EventRecorder, cluster []*net.IPNet, masks []int, reserved []*net.IPNet) *Controller {
	ctl := &Controller{client: c, events: events, reserved: reserved}
	for i := range cluster {
		ctl.ranges = append(ctl.ranges, &ranges{cluster: cluster[i], mask: masks[i]})
	}
	return ctl
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	o.MaxConcurrentReconciles = 1 // two at a time would choose the same range
	return builder.ControllerManagedBy(mgr).Named("node-ipam-controller").WithOptions(o).
		For(&corev1.Node{}).Complete(conflict.Ignored(c))
}

// Reconcile gives one node its ranges unless it has them.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	node := &corev1.Node{}
	if err := c.client.Get(ctx, req.NamespacedName, node); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if len(node.Spec.PodCIDRs) > 0 || node.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	var list corev1.NodeList
	if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing nodes: %w", err)
	}
	taken := append([]*net.IPNet{}, c.reserved...)
	for i := range list.Items {
		cidrs, err := netutils.ParseCIDRs(list.Items[i].Spec.PodCIDRs)
		if err != nil {
			return reconcile.Result{}, fmt.Errorf("spec.podCIDRs of node %s: %w", list.Items[i].Name, err)
		}
		taken = append(taken, cidrs...)
	}
	before := node.DeepCopy()
	next := make([]int, len(c.ranges))
	for k, r := range c.ranges {
		i, err := r.free(taken)
		if err != nil {
			c.events.Eventf(node, corev1.EventTypeNormal, "CIDRNotAvailable", "Node %s status is now: CIDRNotAvailable", node.Name)
			return reconcile.Result{}, err
		}
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, r.part(i).String())
		next[k] = i + 1
	}
	node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	if err := c.client.Patch(ctx, node, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return reconcile.Result{}, fmt.Errorf("giving node %s its pod addresses: %w", node.Name, err)
	}
	for k, r := range c.ranges {
		r.next = next[k]
	}
	return reconcile.Result{}, nil
}

// free returns the number of a part that overlaps with nothing that is taken.
func (r *ranges) free(taken []*net.IPNet) (int, error) {
	ones, bits := r.cluster.Mask.Size()
	n := 1 << (r.mask - ones)
	used := make([]bool, n)
	for _, t := range taken {
		if first, last, ok := r.span(t, n, bits); ok {
			for i := first; i <= last; i++ {
				used[i] = true
			}
		}
	}
	for k := range n {
		if i := (r.next + k) % n; !used[i] {
			return i, nil
		}
	}
	return 0, errors.New("no range is left in " + r.cluster.String())
}

// part returns the i-th part.
func (r *ranges) part(i int) *net.IPNet {
	_, bits := r.cluster.Mask.Size()
	base := new(big.Int).SetBytes(r.cluster.IP.Mask(r.cluster.Mask))
	base.Add(base, new(big.Int).Lsh(big.NewInt(int64(i)), uint(bits-r.mask)))
	return &net.IPNet{IP: base.FillBytes(make([]byte, bits/8)), Mask: net.CIDRMask(r.mask, bits)}
}

// span returns the first and the last part that t overlaps with.
func (r *ranges) span(t *net.IPNet, n, bits int) (first, last int, ok bool) {
	_, tbits := t.Mask.Size()
	if tbits != bits {
		return 0, 0, false
	}
	number := func(ip net.IP) *big.Int {
		if bits == 32 {
			ip = ip.To4()
		}
		return new(big.Int).SetBytes(ip)
	}
	base := number(r.cluster.IP.Mask(r.cluster.Mask))
	start := number(t.IP.Mask(t.Mask))
	tones, _ := t.Mask.Size()
	end := new(big.Int).Add(start, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(bits-tones)), big.NewInt(1)))
	index := func(x *big.Int) *big.Int {
		return new(big.Int).Rsh(new(big.Int).Sub(x, base), uint(bits-r.mask)) // rounds down, below zero too
	}
	f, l := index(start), index(end)
	if l.Sign() < 0 || f.Cmp(big.NewInt(int64(n))) >= 0 {
		return 0, 0, false
	}
	first, last = 0, n-1
	if f.Sign() > 0 {
		first = int(f.Int64())
	}
	if l.Cmp(big.NewInt(int64(n-1))) < 0 {
		last = int(l.Int64())
	}
	return first, last, true
}
