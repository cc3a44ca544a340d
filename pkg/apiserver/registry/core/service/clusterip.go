package service

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	networkingclient "k8s.io/client-go/kubernetes/typed/networking/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/utils/ptr"
)

// managedBy marks the IPAddress objects that are made here.
const managedBy = "ipallocator.k8s.io"

var errTaken = errors.New("provided IP is already allocated")

// ClusterIPs gives out the addresses of the cluster's ServiceCIDRs. An address is
// taken by creating the IPAddress object of its name: only one can succeed, in
// however many servers.
type ClusterIPs struct {
	// Ranges are those of the flags: they hold as long as no ServiceCIDR says more.
	Ranges []netip.Prefix
	Client networkingclient.IPAddressesGetter
	// Known and CIDRs may lag behind; what they say saves attempts, and decides nothing.
	Known networkinglisters.IPAddressLister
	CIDRs networkinglisters.ServiceCIDRLister
}

// Take implements Addresses.
func (c *ClusterIPs) Take(ctx context.Context, s *corev1.Service, ip string, dryRun bool) error {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return err
	}
	for _, r := range c.ranges(familyOf(ip)) {
		if first, last := bounds(r); r.Contains(addr) && !addr.Less(first) && !last.Less(addr) {
			return c.create(ctx, s, addr, dryRun)
		}
	}
	if i := slices.IndexFunc(c.Ranges, func(r netip.Prefix) bool { return r.Addr().Is6() == addr.Is6() }); dryRun && i >= 0 {
		return fmt.Errorf("the provided IP (%v) is not in the valid range. The range of valid IPs is %s", addr, c.Ranges[i])
	}
	return errors.New("the provided network does not match the current range")
}

// Next implements Addresses. The lower part of a range is left, while there is
// choice, to those who name their address.
func (c *ClusterIPs) Next(ctx context.Context, s *corev1.Service, family corev1.IPFamily, dryRun bool) (string, error) {
	for _, r := range c.ranges(family) {
		first, last := bounds(r)
		size := distance(first, last) + 1
		reserved := reserved(size)
		upper := size - reserved
		start := rand.Uint64N(upper)
		for i := range size {
			offset := i - upper // the lower part comes last
			if i < upper {
				offset = reserved + (start+i)%upper
			}
			addr := advance(first, offset)
			if _, err := c.Known.Get(addr.String()); err == nil {
				continue
			}
			err := c.create(ctx, s, addr, dryRun)
			if err == nil {
				return addr.String(), nil
			}
			if !errors.Is(err, errTaken) {
				return "", err
			}
		}
	}
	return "", ErrFull
}

// Release implements Addresses.
func (c *ClusterIPs) Release(ctx context.Context, s *corev1.Service, ip string) error {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return err
	}
	obj, err := c.Client.IPAddresses().Get(ctx, addr.String(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if ref := obj.Spec.ParentRef; ref == nil || ref.Namespace != s.Namespace || ref.Name != s.Name {
		return nil
	}
	err = c.Client.IPAddresses().Delete(ctx, obj.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &obj.UID}, GracePeriodSeconds: ptr.To[int64](0)})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (c *ClusterIPs) create(ctx context.Context, s *corev1.Service, addr netip.Addr, dryRun bool) error {
	options := metav1.CreateOptions{}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	_, err := c.Client.IPAddresses().Create(ctx, newIPAddress(addr, s), options)
	if apierrors.IsAlreadyExists(err) {
		return errTaken
	}
	return err
}

func newIPAddress(addr netip.Addr, s *corev1.Service) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{
			Name: addr.String(),
			Labels: map[string]string{
				networkingv1.LabelIPAddressFamily: string(familyOf(addr.String())),
				networkingv1.LabelManagedBy:       managedBy,
			},
		},
		Spec: networkingv1.IPAddressSpec{
			ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: s.Namespace, Name: s.Name},
		},
	}
}

// ranges are the ranges of a family that addresses may be taken from.
func (c *ClusterIPs) ranges(family corev1.IPFamily) []netip.Prefix {
	var all []netip.Prefix
	add := func(p netip.Prefix) {
		if familyOf(p.Addr().String()) == family {
			all = append(all, p.Masked())
		}
	}
	cidrs, err := c.CIDRs.List(labels.Everything())
	if err != nil || len(cidrs) == 0 {
		for _, p := range c.Ranges {
			add(p)
		}
		return all
	}
	for _, cidr := range cidrs {
		if cidr.DeletionTimestamp != nil {
			continue
		}
		for _, text := range cidr.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				add(p)
			}
		}
	}
	return all
}

// bounds are the first and last address of a range that can be given out: of IPv4
// neither the network's nor the broadcast address, of IPv6 not the router's.
func bounds(p netip.Prefix) (first, last netip.Addr) {
	first = p.Masked().Addr()
	bits := first.BitLen() - p.Bits()
	size := uint64(1)<<min(bits, 62) - 1
	last = advance(first, size)
	first = first.Next()
	if first.Is4() {
		last = last.Prev()
	}
	return first, last
}

// reserved is how many of the lower addresses of a range are kept for those who
// name theirs: a sixteenth, at least 16, at most 256, of ranges that are large enough.
func reserved(size uint64) uint64 {
	n := min(max(16, size/16), 256)
	if n >= size {
		return 0
	}
	return n
}

// advance adds to an address, within the low 64 bits.
func advance(a netip.Addr, n uint64) netip.Addr {
	if a.Is4() {
		b := a.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
		return netip.AddrFrom4(b)
	}
	b := a.As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
	return netip.AddrFrom16(b)
}

func distance(from, to netip.Addr) uint64 {
	if from.Is4() {
		a, b := from.As4(), to.As4()
		return uint64(binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(a[:]))
	}
	a, b := from.As16(), to.As16()
	return binary.BigEndian.Uint64(b[8:]) - binary.BigEndian.Uint64(a[8:])
}
