// Package node keeps the Node object of this machine: it registers it, reports its status
// when it changes, and renews its Lease.
package node

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	goruntime "runtime"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/apimachinery/lease"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Config is what a node says of itself.
type Config struct {
	Name     string
	Hostname string
	// IPs are the node's addresses, the first of each family at most.
	IPs    []net.IP
	Labels map[string]string
	Taints []v1.Taint
	// Register creates the Node if it is not there.
	Register   bool
	ProviderID string
	// Port is where the kubelet's API answers.
	Port    int32
	Version string
	// Look is the time between two looks at what may change without notice, Report the one
	// between two reports of an unchanged status, LeaseSeconds how long a heartbeat is good.
	Look, Report time.Duration
	LeaseSeconds int32
	// External says that somebody else initializes the node and knows its addresses.
	External bool
	// PodCIDR is the node's when no API server gives one.
	PodCIDR string
	// Boot is since when the machine has been up.
	Boot time.Time
}

// Dependencies are what a Manager asks.
type Dependencies struct {
	// Client reports and renews; its calls may end early. Nil without an API server.
	Client kubernetes.Interface
	// Watch follows the Node, so its calls must not.
	Watch    kubernetes.Interface
	CRI      cri.RuntimeService
	Machine  Machine
	Images   Images
	Pressure Pressure
	Recorder record.EventRecorder
	// VolumesInUse are the volumes that must not be detached from the node.
	VolumesInUse func() []v1.UniqueVolumeName
	// Changed is called when the API's Node has changed, from the first time on.
	Changed func(ctx context.Context, node *v1.Node)
}

// A Manager keeps one Node.
type Manager struct {
	Config
	Dependencies

	known chan struct{} // closed once the API's Node is known
	once  sync.Once
	again chan struct{} // asks for a look at the machine

	mu       sync.Mutex
	node     *v1.Node // the API's
	handlers map[string]*runtimeapi.RuntimeHandlerFeatures
	written  *v1.NodeStatus
	reported time.Time
	podCIDR  string
	startup  startup
}

// New returns a Manager.
func New(c Config, d Dependencies) *Manager {
	return &Manager{Config: c, Dependencies: d, startup: startup{boot: c.Boot, kubelet: time.Now()}, known: make(chan struct{}), again: make(chan struct{}, 1), handlers: map[string]*runtimeapi.RuntimeHandlerFeatures{}}
}

// HostIPs are the node's addresses.
func (m *Manager) HostIPs() []string {
	out := make([]string, 0, len(m.IPs))
	for _, ip := range m.IPs {
		out = append(out, ip.String())
	}
	return out
}

// Node returns the node as pods are admitted to it: the API's object, as soon as it is known, or
// what this machine alone can say.
func (m *Manager) Node(ctx context.Context) (*v1.Node, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.node != nil {
		return m.node, nil
	}
	return m.initial(), nil
}

// RecursiveReadOnly tells whether a runtime handler can make mounts so.
func (m *Manager) RecursiveReadOnly(handler string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.handlers[handler].GetRecursiveReadOnlyMounts()
}

// Run keeps the Node until ctx is cancelled.
func (m *Manager) Run(ctx context.Context) error {
	var running sync.WaitGroup
	if m.Client != nil {
		running.Go(func() { m.watch(ctx) })
		running.Go(func() { m.lease(ctx) })
	}
	if m.Client == nil && m.PodCIDR != "" {
		m.setPodCIDR(ctx, m.PodCIDR)
	}
	m.report(ctx)
	running.Wait()
	return nil
}

// initial is the Node as it is registered, without its status.
func (m *Manager) initial() *v1.Node {
	n := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:        m.Name,
			Labels:      maps.Clone(m.Labels),
			Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
		},
		Spec: v1.NodeSpec{ProviderID: m.ProviderID, Taints: slices.Clone(m.Taints)},
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	maps.Copy(n.Labels, m.ownLabels())
	n.Status.Capacity, n.Status.Allocatable = m.Machine.Capacity(), m.Machine.Allocatable()
	return n
}

func (m *Manager) ownLabels() map[string]string {
	return map[string]string{
		v1.LabelHostname:          m.Hostname,
		v1.LabelOSStable:          goruntime.GOOS,
		v1.LabelArchStable:        goruntime.GOARCH,
		"beta.kubernetes.io/os":   goruntime.GOOS,
		"beta.kubernetes.io/arch": goruntime.GOARCH,
	}
}

// report registers the node and reports its status whenever it differs from the last one written.
func (m *Manager) report(ctx context.Context) {
	logger := klog.FromContext(ctx)
	const least = 200 * time.Millisecond
	wait := least
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-m.Pressure.Changed():
		case <-m.again:
		}
		ready, err := m.look(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			logger.Info("Cannot report the node's status yet", "err", err)
			wait = min(2*wait, m.Look)
		case !ready:
			wait = least // soon to be ready, and somebody waits for it
		default:
			wait = m.Look
		}
		timer.Reset(wait)
	}
}

// Again has what the machine has reported without delay: it has changed.
func (m *Manager) Again() {
	select {
	case m.again <- struct{}{}:
	default:
	}
}

// look looks once, and writes if there is something to write.
func (m *Manager) look(ctx context.Context) (ready bool, err error) {
	m.mu.Lock()
	node := m.node
	m.mu.Unlock()
	now := time.Now()
	status, ready := m.status(ctx, node, now)
	if m.Client == nil {
		return ready, nil
	}
	if node == nil {
		return ready, m.register(ctx, status)
	}
	m.mu.Lock()
	same := m.written != nil && sameStatus(m.written, &status) && now.Sub(m.reported) < m.Report
	m.mu.Unlock()
	if same {
		return ready, nil
	}
	return ready, m.write(ctx, node, status)
}

// register creates the Node, or finds it.
func (m *Manager) register(ctx context.Context, status v1.NodeStatus) error {
	n := m.initial()
	n.Status = status
	if !m.Register {
		found, err := m.Client.CoreV1().Nodes().Get(ctx, m.Name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("getting the node (registerNode is false): %w", err)
		}
		m.learn(ctx, found)
		return nil
	}
	m.mu.Lock()
	m.startup.attempted(time.Now())
	m.mu.Unlock()
	created, err := m.Client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{})
	if err == nil {
		m.mu.Lock()
		m.startup.created(isReady(&status), time.Now())
		m.mu.Unlock()
		klog.FromContext(ctx).Info("Registered the node", "node", m.Name)
		m.wrote(status)
		m.learn(ctx, created)
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("registering the node: %w", err)
	}
	found, err := m.Client.CoreV1().Nodes().Get(ctx, m.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("getting the node: %w", err)
	}
	updated := found.DeepCopy()
	if updated.Labels == nil {
		updated.Labels = map[string]string{}
	}
	maps.Copy(updated.Labels, m.ownLabels())
	if updated.Annotations == nil {
		updated.Annotations = map[string]string{}
	}
	maps.Copy(updated.Annotations, n.Annotations)
	if found, err = m.patch(ctx, found, updated); err != nil {
		return fmt.Errorf("updating the node's labels: %w", err)
	}
	m.learn(ctx, found)
	return m.write(ctx, found, status)
}

func (m *Manager) write(ctx context.Context, node *v1.Node, status v1.NodeStatus) error {
	updated := node.DeepCopy()
	updated.Status = status
	got, err := m.patch(ctx, node, updated, "status")
	if err != nil {
		return fmt.Errorf("writing the node's status: %w", err)
	}
	m.wrote(status)
	m.learn(ctx, got)
	return nil
}

func (m *Manager) wrote(status v1.NodeStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.written
	m.written, m.reported = &status, time.Now()
	m.startup.wrote(isReady(&status), m.reported)
	if was, is := isReady(before), isReady(&status); before == nil || was != is {
		reason := "NodeNotReady"
		if is {
			reason = "NodeReady"
		}
		if before != nil || is {
			m.Recorder.Eventf(Ref(m.Name), v1.EventTypeNormal, reason, "Node %s status is now: %s", m.Name, reason)
		}
	}
}

// Ref is how events refer to a node.
func Ref(name string) *v1.ObjectReference {
	return &v1.ObjectReference{Kind: "Node", Name: name, UID: types.UID(name)}
}

// NodeLabels are the labels of the node.
func (m *Manager) NodeLabels() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.node != nil {
		return m.node.Labels
	}
	return m.initial().Labels
}

func isReady(s *v1.NodeStatus) bool {
	return s != nil && slices.ContainsFunc(s.Conditions, func(c v1.NodeCondition) bool {
		return c.Type == v1.NodeReady && c.Status == v1.ConditionTrue
	})
}

func (m *Manager) patch(ctx context.Context, before, after *v1.Node, subresources ...string) (*v1.Node, error) {
	from, err := json.Marshal(before)
	if err != nil {
		return nil, err
	}
	to, err := json.Marshal(after)
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(from, to, v1.Node{})
	if err != nil {
		return nil, err
	}
	if patch, err = replaceAddresses(patch, after, subresources); err != nil {
		return nil, err
	}
	return m.Client.CoreV1().Nodes().Patch(ctx, m.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, subresources...)
}

// replaceAddresses has the patch replace the list of addresses as a whole: it is merged by type, and there
// may be several of one type.
func replaceAddresses(patch []byte, after *v1.Node, subresources []string) ([]byte, error) {
	if len(subresources) == 0 {
		return patch, nil
	}
	var p map[string]any
	if err := json.Unmarshal(patch, &p); err != nil {
		return nil, err
	}
	status, ok := p["status"].(map[string]any)
	if !ok {
		return patch, nil
	}
	addresses := []any{}
	for _, a := range after.Status.Addresses {
		addresses = append(addresses, map[string]any{"type": a.Type, "address": a.Address})
	}
	status["addresses"] = append(addresses, map[string]any{"$patch": "replace"})
	return json.Marshal(p)
}

// sameStatus compares but for the times of heartbeats.
func sameStatus(a, b *v1.NodeStatus) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	for _, s := range []*v1.NodeStatus{x, y} {
		for i := range s.Conditions {
			s.Conditions[i].LastHeartbeatTime = metav1.Time{}
		}
	}
	return equality.Semantic.DeepEqual(x, y)
}

// learn takes note of the API's Node.
func (m *Manager) learn(ctx context.Context, n *v1.Node) {
	m.mu.Lock()
	if m.node != nil && m.node.UID == n.UID && m.node.ResourceVersion == n.ResourceVersion {
		m.mu.Unlock()
		return
	}
	m.node = n
	cidr := ""
	if n.Spec.PodCIDR != m.podCIDR {
		cidr, m.podCIDR = n.Spec.PodCIDR, n.Spec.PodCIDR
	}
	m.mu.Unlock()
	m.once.Do(func() { close(m.known) })
	if cidr != "" {
		if len(n.Spec.PodCIDRs) > 1 {
			cidr = n.Spec.PodCIDRs[0] + "," + n.Spec.PodCIDRs[1]
		}
		m.setPodCIDR(ctx, cidr)
	}
	m.Changed(ctx, n)
}

func (m *Manager) setPodCIDR(ctx context.Context, cidr string) {
	err := m.CRI.UpdateRuntimeConfig(ctx, &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: cidr}})
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot tell the runtime the node's pod CIDR", "podCIDR", cidr)
	}
}

// watch follows the API's Node. When somebody deletes it, it is registered anew.
func (m *Manager) watch(ctx context.Context) {
	own := fields.OneTermEqualSelector(metav1.ObjectNameField, m.Name).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = own
			return m.Watch.CoreV1().Nodes().List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = own
			return m.Watch.CoreV1().Nodes().Watch(ctx, o)
		},
	}
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, m.Watch),
		ObjectType:    &v1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { m.seen(ctx, obj) },
			UpdateFunc: func(_, obj any) { m.seen(ctx, obj) },
			DeleteFunc: func(any) {
				m.mu.Lock()
				m.node, m.written = nil, nil
				m.mu.Unlock()
			},
		},
	})
	controller.RunWithContext(ctx)
}

func (m *Manager) seen(ctx context.Context, obj any) {
	m.mu.Lock()
	registered := m.node != nil
	m.mu.Unlock()
	// Until it is registered, what is there was left by somebody else and is corrected first.
	if registered {
		m.learn(ctx, obj.(*v1.Node))
	}
}

// lease renews the node's Lease four times within its duration.
func (m *Manager) lease(ctx context.Context) {
	select {
	case <-m.known:
	case <-ctx.Done():
		return
	}
	duration := time.Duration(m.LeaseSeconds) * time.Second
	own := func(l *coordinationv1.Lease) error {
		n, err := m.Node(ctx)
		if err == nil && len(l.OwnerReferences) == 0 && n.UID != "" {
			l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: m.Name, UID: n.UID}}
		}
		return err
	}
	lease.NewController(clock.RealClock{}, m.Client, m.Name, m.LeaseSeconds, nil, duration/4, m.Name, v1.NamespaceNodeLease, own).Run(ctx)
}
