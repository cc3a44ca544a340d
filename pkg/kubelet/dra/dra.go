// Package dra has drivers prepare the devices that have been allocated to pods by ResourceClaims, and tells which of them a
// container is given. A claim is prepared for the first of the node's pods that uses it, and given back with the last.
//
// What is prepared is kept in a file, under the original's name and in its format, so that a restarted kubelet of either kind
// gives back what its pods leave.
package dra

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/klog/v2"
	drapb "k8s.io/kubelet/pkg/apis/dra/v1"
	"k8s.io/utils/keymutex"

	"github.com/leme-k8s/leme/pkg/kubelet/plugins"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// Config is what a Manager works with.
type Config struct {
	Client   kubernetes.Interface
	NodeName string
	// StateFile keeps what is prepared; empty keeps it in memory.
	StateFile string
	// Patience is how long the devices of a driver that has gone are still offered; zero is half a minute.
	Patience time.Duration
	// GroupClaims lets pods use claims that were made, or are reserved, for their PodGroup.
	GroupClaims bool
}

// A Manager prepares claims.
type Manager struct {
	Config
	claims  keymutex.KeyMutex // one operation a claim
	gone    chan struct{}     // a driver has gone
	drivers *plugins.Drivers[*driver]
	metrics managerMetrics

	mu    sync.Mutex
	state map[types.NamespacedName]*claim
}

// New returns a Manager that knows what an earlier one has prepared.
func New(c Config) (*Manager, error) {
	if c.Patience == 0 {
		c.Patience = 30 * time.Second
	}
	state, err := readState(c.StateFile)
	if err != nil {
		return nil, err
	}
	return &Manager{Config: c, claims: keymutex.NewHashed(64), gone: make(chan struct{}, 1), drivers: &plugins.Drivers[*driver]{}, metrics: newMetrics(), state: state}, nil
}

// Prepare makes the devices of all claims of a pod ready.
func (m *Manager) Prepare(ctx context.Context, pod *v1.Pod) (err error) {
	if len(pod.Spec.ResourceClaims) > 0 {
		began := time.Now()
		defer func() { m.metrics.timed(prepareAll, began, err) }()
	}
	for i := range pod.Spec.ResourceClaims {
		if _, _, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i]); err != nil {
			return fmt.Errorf("resource claim %s: %w", pod.Spec.ResourceClaims[i].Name, err)
		}
	}
	for name, own := range resourceclaim.PodClaims(pod) {
		if err := m.prepare(ctx, pod, name, own); err != nil {
			return fmt.Errorf("preparing ResourceClaim %s: %w", name, err)
		}
	}
	return nil
}

func (m *Manager) prepare(ctx context.Context, pod *v1.Pod, name string, own bool) error {
	key := types.NamespacedName{Namespace: pod.Namespace, Name: name}
	m.claims.LockKey(key.String())
	defer m.claims.UnlockKey(key.String()) //nolint:errcheck // it is locked
	object, err := m.Client.ResourceV1().ResourceClaims(pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if own {
		if err := resourceclaim.IsForPod(pod, object, m.GroupClaims); err != nil {
			return err
		}
	}
	if object.Status.Allocation == nil {
		return errors.New("it is not allocated")
	}
	if !resourceclaim.IsReservedForPod(pod, object, m.GroupClaims) {
		return errors.New("it is not reserved for the pod")
	}
	m.mu.Lock()
	c := m.state[key]
	m.mu.Unlock()
	if c != nil && c.ClaimUID != object.UID {
		return fmt.Errorf("an earlier one of the same name (UID %s) is still in use", c.ClaimUID)
	}
	if c == nil {
		c = newClaim(object)
	}
	// What a driver may have prepared is noted first.
	if err := m.change(func() { c.PodUIDs.Insert(string(pod.UID)); m.state[key] = c }); err != nil || c.prepared {
		return err
	}
	for name, d := range c.DriverState {
		if d.skips(resourcev1.SkipNodeOperationNodePrepareResources) {
			continue
		}
		devices, err := m.ask(ctx, name, c)
		if err != nil {
			return fmt.Errorf("driver %s: %w", name, err)
		}
		if err := m.change(func() { d.Devices = devices; c.DriverState[name] = d }); err != nil {
			return err
		}
	}
	return m.change(func() { c.prepared = true })
}

// ask has a driver prepare a claim.
func (m *Manager) ask(ctx context.Context, name string, c *claim) ([]device, error) {
	d, err := m.driver(name)
	if err != nil {
		return nil, err
	}
	resp, err := d.NodePrepareResources(ctx, &drapb.NodePrepareResourcesRequest{Claims: []*drapb.Claim{c.reference()}})
	if err != nil {
		return nil, err
	}
	got, ok := resp.Claims[string(c.ClaimUID)]
	if !ok {
		return nil, errors.New("NodePrepareResources skipped the claim")
	}
	if got.Error != "" {
		return nil, errors.New(got.Error)
	}
	var devices []device
	for _, p := range got.Devices {
		o := device{PoolName: p.PoolName, DeviceName: p.DeviceName, RequestNames: p.RequestNames, CDIDeviceIDs: p.CdiDeviceIds}
		if p.ShareId != nil {
			id := types.UID(*p.ShareId)
			o.ShareID = &id
		}
		devices = append(devices, o)
	}
	return devices, nil
}

// Of returns the devices of a container of a pod that has been prepared.
func (m *Manager) Of(_ context.Context, pod *v1.Pod, c *v1.Container) (runtime.Devices, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out runtime.Devices
	for _, u := range uses(pod, c) {
		claim := m.state[types.NamespacedName{Namespace: pod.Namespace, Name: u.claim}]
		if claim == nil {
			return out, fmt.Errorf("ResourceClaim %s is not prepared", u.claim)
		}
		out.CDI = append(out.CDI, claim.cdi(u.request)...)
	}
	return out, nil
}

// use is a request of a claim, or all of them.
type use struct{ claim, request string }

// uses lists what a container uses of its pod's claims, in the order in which it names them.
func uses(pod *v1.Pod, c *v1.Container) []use {
	var out []use
	for _, want := range c.Resources.Claims {
		for i := range pod.Spec.ResourceClaims {
			// A name that cannot be found out has failed the preparation; no name is no claim.
			if name, _, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i]); pod.Spec.ResourceClaims[i].Name == want.Name && err == nil && name != nil {
				out = append(out, use{*name, want.Request})
			}
		}
	}
	if s := pod.Status.ExtendedResourceClaimStatus; s != nil {
		for _, r := range s.RequestMappings {
			if r.ContainerName == c.Name {
				out = append(out, use{s.ResourceClaimName, r.RequestName})
			}
		}
	}
	return out
}

// UIDs lists the pods that have claims.
func (m *Manager) UIDs() ([]types.UID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []types.UID
	for _, c := range m.state {
		for uid := range c.PodUIDs {
			out = append(out, types.UID(uid))
		}
	}
	return out, nil
}

// Release gives back the claims that a pod was the last to use.
func (m *Manager) Release(ctx context.Context, uid types.UID) (err error) {
	m.mu.Lock()
	var used []types.NamespacedName
	for key, c := range m.state {
		if c.PodUIDs.Has(string(uid)) {
			used = append(used, key)
		}
	}
	m.mu.Unlock()
	if len(used) > 0 {
		began := time.Now()
		defer func() { m.metrics.timed(unprepareAll, began, err) }()
	}
	var errs []error
	for _, key := range used {
		if err := m.release(ctx, key, uid); err != nil {
			errs = append(errs, fmt.Errorf("giving back ResourceClaim %s: %w", key, err))
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) release(ctx context.Context, key types.NamespacedName, uid types.UID) error {
	m.claims.LockKey(key.String())
	defer m.claims.UnlockKey(key.String()) //nolint:errcheck // it is locked
	m.mu.Lock()
	c := m.state[key]
	m.mu.Unlock()
	if c == nil || !c.PodUIDs.Has(string(uid)) {
		return nil
	}
	if c.PodUIDs.Len() > 1 {
		return m.change(func() { c.PodUIDs.Delete(string(uid)) })
	}
	if err := m.change(func() { c.prepared = false }); err != nil { // whatever comes of it
		return err
	}
	for name, state := range c.DriverState {
		if state.skips(resourcev1.SkipNodeOperationNodeUnprepareResources) {
			continue
		}
		d, err := m.driver(name)
		if err != nil {
			return err
		}
		resp, err := d.NodeUnprepareResources(ctx, &drapb.NodeUnprepareResourcesRequest{Claims: []*drapb.Claim{c.reference()}})
		switch {
		case err != nil:
			return fmt.Errorf("driver %s: %w", name, err)
		case resp.Claims[string(c.ClaimUID)] == nil:
			return fmt.Errorf("driver %s: NodeUnprepareResources skipped the claim", name)
		case resp.Claims[string(c.ClaimUID)].Error != "":
			return fmt.Errorf("driver %s: %s", name, resp.Claims[string(c.ClaimUID)].Error)
		}
	}
	return m.change(func() { delete(m.state, key) })
}

// change changes the state and notes it in the file.
func (m *Manager) change(what func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	what()
	return writeState(m.StateFile, m.state)
}

// Run takes the devices of drivers that have gone, and stay away, out of the cluster's offer.
func (m *Manager) Run(ctx context.Context) {
	timer := time.NewTimer(m.Patience) // whoever served under an earlier kubelet has as long to register
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.gone:
			timer.Reset(m.Patience)
		case <-timer.C:
			if err := m.wipe(ctx); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Cannot remove the ResourceSlices of drivers that have gone")
				timer.Reset(m.Patience)
			}
		}
	}
}

// wipe removes the node's slices of drivers that are not registered.
func (m *Manager) wipe(ctx context.Context) error {
	slicesOf := m.Client.ResourceV1().ResourceSlices()
	node := fields.OneTermEqualSelector(resourcev1.ResourceSliceSelectorNodeName, m.NodeName)
	list, err := slicesOf.List(ctx, metav1.ListOptions{FieldSelector: node.String()})
	if err != nil {
		return err
	}
	var errs []error
	var done []string
	for i := range list.Items {
		name := list.Items[i].Spec.Driver
		if _, err := m.driver(name); err == nil || slices.Contains(done, name) {
			continue
		}
		done = append(done, name)
		own := fields.AndSelectors(node, fields.OneTermEqualSelector(resourcev1.ResourceSliceSelectorDriver, name)).String()
		errs = append(errs, slicesOf.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: own}))
	}
	return errors.Join(errs...)
}
