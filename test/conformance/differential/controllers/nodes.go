package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
)

// What the image of a pod's first container says becomes of the pod once it is on a node.
// Every other image runs and is ready.
const (
	imagePending = "pending" // never starts
	imageUnready = "unready" // runs and is not ready
	imageSucceed = "succeed" // ends well
	imageFail    = "fail"    // ends with exit code 1
	imageExit    = "exit-"   // ends with the exit code that follows
	imageStuck   = "stuck"   // runs, and does not end when it is deleted
)

const (
	heartbeat = 3 * time.Second
	// sharedNode is where pods go that say nothing else.
	sharedNode = "node-1"
)

// nodes play a scheduler and the kubelets of all nodes.
type nodes struct {
	cs    kubernetes.Interface
	queue workqueue.TypedInterface[types.NamespacedName]

	mu    sync.Mutex
	pods  map[types.NamespacedName]*unstructured.Unstructured
	nodes map[string]labels.Set // those that are alive
	ips   int
}

func newNodes(cs kubernetes.Interface) *nodes {
	return &nodes{
		cs: cs, queue: workqueue.NewTyped[types.NamespacedName](),
		pods: map[types.NamespacedName]*unstructured.Unstructured{}, nodes: map[string]labels.Set{},
	}
}

// run works on pods and sends heartbeats until ctx is done.
func (n *nodes) run(ctx context.Context) error {
	const workers = 16
	for range workers {
		go func() {
			for {
				k, done := n.queue.Get()
				if done {
					return
				}
				n.sync(ctx, k)
				n.queue.Done(k)
			}
		}()
	}
	go func() {
		for pause(ctx, heartbeat) == nil {
			n.beat(ctx)
		}
		n.queue.ShutDown()
	}()
	for _, name := range []string{sharedNode, "node-2"} {
		if err := n.add(ctx, name, map[string]string{"pool": "shared"}); err != nil {
			return err
		}
	}
	return nil
}

// add makes a node that is ready.
func (n *nodes) add(ctx context.Context, name string, set map[string]string) error {
	all := labels.Merge(set, labels.Set{corev1.LabelHostname: name})
	room := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("500"), corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi")}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: all}}
	if _, err := n.cs.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		return err
	}
	now := metav1.Now()
	status := corev1.NodeStatus{Capacity: room, Allocatable: room, Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.10"}}}
	for _, t := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure, corev1.NodeReady} {
		c := corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: "Played", LastHeartbeatTime: now, LastTransitionTime: now}
		if t == corev1.NodeReady {
			c.Status = corev1.ConditionTrue
		}
		status.Conditions = append(status.Conditions, c)
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	if _, err := n.cs.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	n.mu.Lock()
	n.nodes[name] = all
	for k := range n.pods {
		n.queue.Add(k)
	}
	n.mu.Unlock()
	n.beat(ctx)
	return nil
}

// silence ends the life of a node, without a word to the API server.
func (n *nodes) silence(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.nodes, name)
}

// beat renews the lease of every node.
func (n *nodes) beat(ctx context.Context) {
	n.mu.Lock()
	var names []string
	for name := range n.nodes {
		names = append(names, name)
	}
	n.mu.Unlock()
	api := n.cs.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	for _, name := range names {
		spec := coordinationv1.LeaseSpec{HolderIdentity: ptr.To(name), LeaseDurationSeconds: ptr.To[int32](40), RenewTime: ptr.To(metav1.NowMicro())}
		patch, _ := json.Marshal(map[string]any{"spec": spec}) // cannot fail
		_, err := api.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
		if apierrors.IsNotFound(err) {
			_, _ = api.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
		}
	}
}

// see notes what has become of a pod.
func (n *nodes) see(u *unstructured.Unstructured) {
	k := types.NamespacedName{Namespace: u.GetNamespace(), Name: u.GetName()}
	n.mu.Lock()
	n.pods[k] = u
	n.mu.Unlock()
	n.queue.Add(k)
}

// sync takes a pod one step further. Errors are those of a stale pod, of which a newer
// version is on its way.
func (n *nodes) sync(ctx context.Context, k types.NamespacedName) {
	n.mu.Lock()
	u := n.pods[k]
	delete(n.pods, k)
	n.mu.Unlock()
	if u == nil {
		return
	}
	var p corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &p); err != nil {
		return
	}
	api := n.cs.CoreV1().Pods(p.Namespace)
	if p.Spec.NodeName == "" {
		if p.DeletionTimestamp != nil || len(p.Spec.SchedulingGates) > 0 {
			return
		}
		if node := n.nodeFor(&p); node != "" {
			_ = api.Bind(ctx, &corev1.Binding{
				ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID},
				Target:     corev1.ObjectReference{Kind: "Node", Name: node},
			}, metav1.CreateOptions{})
			return
		}
		n.wait(k, u)
		return
	}
	n.mu.Lock()
	_, alive := n.nodes[p.Spec.NodeName]
	n.mu.Unlock()
	if !alive {
		n.wait(k, u)
		return
	}
	image := p.Spec.Containers[0].Image
	ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	switch {
	case p.DeletionTimestamp != nil && image == imageStuck:
	case p.DeletionTimestamp != nil && p.Status.Phase == corev1.PodRunning:
		n.become(&p, imageExit+"137")
		_, _ = api.UpdateStatus(ctx, &p, metav1.UpdateOptions{})
	case p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil && *p.DeletionGracePeriodSeconds == 0:
	case p.DeletionTimestamp != nil:
		o := metav1.NewDeleteOptions(0)
		o.Preconditions = metav1.NewUIDPreconditions(string(p.UID))
		_ = api.Delete(ctx, p.Name, *o)
	case !ended && p.Status.PodIP == "" && image != imagePending:
		n.become(&p, image)
		_, _ = api.UpdateStatus(ctx, &p, metav1.UpdateOptions{})
	}
}

// wait keeps a pod for the day that a node is there for it.
func (n *nodes) wait(k types.NamespacedName, u *unstructured.Unstructured) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pods[k] == nil {
		n.pods[k] = u
	}
}

// become writes into the status of a pod what its image says.
func (n *nodes) become(p *corev1.Pod, image string) {
	now := metav1.Now()
	s := &p.Status
	if s.PodIP == "" {
		n.mu.Lock()
		n.ips++
		s.PodIP = fmt.Sprintf("10.88.%d.%d", n.ips/250, n.ips%250+1)
		n.mu.Unlock()
		s.PodIPs, s.HostIP, s.HostIPs, s.StartTime = []corev1.PodIP{{IP: s.PodIP}}, "192.0.2.10", []corev1.HostIP{{IP: "192.0.2.10"}}, &now
	}
	s.Phase = corev1.PodRunning
	ready := true
	state := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	code, exits := 0, image == imageSucceed
	switch {
	case image == imageUnready:
		ready = false
	case image == imageFail:
		code, exits = 1, true
	case strings.HasPrefix(image, imageExit):
		code, _ = strconv.Atoi(image[len(imageExit):])
		exits = true
	}
	reason := ""
	if exits {
		ready, reason = false, "PodCompleted"
		s.Phase = corev1.PodSucceeded
		why := "Completed"
		if code != 0 {
			s.Phase, reason, why = corev1.PodFailed, "PodFailed", "Error"
		}
		state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: int32(code), Reason: why, StartedAt: now, FinishedAt: now}}
	}
	s.ContainerStatuses = nil
	for _, c := range p.Spec.Containers {
		s.ContainerStatuses = append(s.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, ImageID: "played", ContainerID: "played://" + c.Name, Ready: ready, Started: ptr.To(!exits), State: state,
		})
	}
	setCondition(s, corev1.PodInitialized, true, "", now)
	setCondition(s, corev1.ContainersReady, ready, reason, now)
	setCondition(s, corev1.PodReady, ready, reason, now)
}

func setCondition(s *corev1.PodStatus, t corev1.PodConditionType, yes bool, reason string, now metav1.Time) {
	status := corev1.ConditionFalse
	if yes {
		status = corev1.ConditionTrue
	}
	for i := range s.Conditions {
		if c := &s.Conditions[i]; c.Type == t {
			if c.Status != status {
				c.LastTransitionTime = now
			}
			c.Status, c.Reason = status, reason
			return
		}
	}
	s.Conditions = append(s.Conditions, corev1.PodCondition{Type: t, Status: status, Reason: reason, LastTransitionTime: now})
}

// nodeFor returns the node of a pod: the one that it is pinned to, the shared one, or
// the one that its selector says.
func (n *nodes) nodeFor(p *corev1.Pod) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if wanted := pinned(p); wanted != "" {
		if _, ok := n.nodes[wanted]; ok {
			return wanted
		}
		return ""
	}
	if len(p.Spec.NodeSelector) == 0 {
		return sharedNode
	}
	best := ""
	for name, set := range n.nodes {
		if labels.SelectorFromSet(p.Spec.NodeSelector).Matches(set) && (best == "" || name < best) {
			best = name
		}
	}
	return best
}

// pinned returns the node that a DaemonSet's pod is made for.
func pinned(p *corev1.Pod) string {
	if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil || p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, term := range p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range term.MatchFields {
			if f.Key == metav1.ObjectNameField {
				return f.Values[0]
			}
		}
	}
	return ""
}
