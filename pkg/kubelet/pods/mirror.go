package pods

import (
	"context"
	"maps"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

func nameOf(pod *v1.Pod) types.NamespacedName {
	return types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
}

// setMirror notes the newest version of a mirror pod.
func (m *Manager) setMirror(ctx context.Context, mirror *v1.Pod) {
	m.mu.Lock()
	m.mirrors[nameOf(mirror)] = mirror
	m.mu.Unlock()
	m.mirrorChanged(ctx, nameOf(mirror))
}

func (m *Manager) unsetMirror(mirror *v1.Pod) {
	m.mu.Lock()
	if have := m.mirrors[nameOf(mirror)]; have != nil && have.UID == mirror.UID {
		delete(m.mirrors, nameOf(mirror))
	}
	m.mu.Unlock()
	m.Status.Forget(mirror.UID)
	m.mirrorChanged(m.ctx(context.Background()), nameOf(mirror))
}

// mirrorChanged looks after one mirror and the static pod behind it.
func (m *Manager) mirrorChanged(ctx context.Context, name types.NamespacedName) {
	if !m.allSynced() {
		return
	}
	m.running.Go(func() { m.reconcileMirror(ctx, name) })
}

// reconcileMirrors gives every static pod its mirror and removes mirrors without one.
func (m *Manager) reconcileMirrors(ctx context.Context) {
	if m.Client == nil || !m.allSynced() {
		return
	}
	m.mu.Lock()
	names := map[types.NamespacedName]bool{}
	for name := range m.mirrors {
		names[name] = true
	}
	workers := maps.Clone(m.workers)
	m.mu.Unlock()
	for _, w := range workers {
		if pod := w.desired(); pod != nil && runtime.IsStatic(pod) {
			names[nameOf(pod)] = true
		}
	}
	for name := range names {
		m.reconcileMirror(ctx, name)
	}
}

// staticPod returns the static pod of a name that is still wanted.
func (m *Manager) staticPod(name types.NamespacedName) (*v1.Pod, *worker) {
	for _, w := range m.all() {
		w.mu.Lock()
		pod, removed := w.pod, w.removed
		w.mu.Unlock()
		if !removed && runtime.IsStatic(pod) && nameOf(pod) == name {
			return pod, w
		}
	}
	return nil, nil
}

func (m *Manager) reconcileMirror(ctx context.Context, name types.NamespacedName) {
	static, w := m.staticPod(name)
	m.mu.Lock()
	mirror := m.mirrors[name]
	m.mu.Unlock()
	logger := klog.FromContext(ctx)
	if mirror != nil && (static == nil || mirror.Annotations[runtime.AnnotationConfigMirror] != static.Annotations[runtime.AnnotationConfigHash] || mirror.DeletionTimestamp != nil) {
		zero := int64(0)
		err := m.Client.CoreV1().Pods(name.Namespace).Delete(ctx, name.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &mirror.UID},
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
			logger.Error(err, "Cannot delete a mirror pod", "pod", name)
		}
		return // the watch tells when it is gone
	}
	if static == nil || m.Client == nil {
		return
	}
	if mirror == nil {
		m.createMirror(ctx, static)
		return
	}
	w.poke() // to report its status
}

func (m *Manager) createMirror(ctx context.Context, static *v1.Pod) {
	mirror := static.DeepCopy()
	mirror.UID, mirror.ResourceVersion = "", ""
	mirror.Status = v1.PodStatus{}
	mirror.Annotations[runtime.AnnotationConfigMirror] = static.Annotations[runtime.AnnotationConfigHash]
	node, err := m.Node(ctx)
	if err != nil {
		klog.FromContext(ctx).Info("Cannot create a mirror pod before the node is there", "pod", klog.KObj(static), "err", err)
		return
	}
	controller := true
	mirror.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: &controller}}
	if _, err := m.Client.CoreV1().Pods(mirror.Namespace).Create(ctx, mirror, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Cannot create a mirror pod", "pod", klog.KObj(static))
	}
}

// NodeChanged lets what waited for the node's object go on.
func (m *Manager) NodeChanged(ctx context.Context) {
	m.reconcileMirrors(ctx)
	m.pokeResizes()
}
