package node

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/leme-k8s/leme/pkg/api/core/podrefs"
)

type kind byte

const (
	configMaps kind = iota
	secrets
	serviceAccounts
	volumeClaims
	resourceClaims
)

// An object that pods refer to.
type object struct {
	kind kind
	types.NamespacedName
}

// placement is a pod's node and all that it refers to.
type placement struct {
	uid  types.UID
	node string
	refs []object
}

// volume is a PersistentVolume's claim and the Secrets that mount it.
type volume struct {
	claim   types.NamespacedName
	secrets []types.NamespacedName
}

// index knows which node needs which object.
type index struct {
	mu   sync.RWMutex
	pods map[types.NamespacedName]placement
	// users counts, for each object, the pods of each node that refer to it.
	users   map[object]map[string]int
	volumes map[string]volume
	// volumesOf a Secret are the PersistentVolumes that it mounts.
	volumesOf map[types.NamespacedName]map[string]struct{}
	// owners are the nodes of the objects that belong to exactly one.
	owners map[owned]string
}

type ownedKind byte

const (
	volumeAttachments ownedKind = iota
	resourceSlices
	podCertificateRequests
)

// owned is an object that names its node itself.
type owned struct {
	kind ownedKind
	types.NamespacedName
}

func newIndex() *index {
	return &index{
		pods:      map[types.NamespacedName]placement{},
		users:     map[object]map[string]int{},
		volumes:   map[string]volume{},
		volumesOf: map[types.NamespacedName]map[string]struct{}{},
		owners:    map[owned]string{},
	}
}

// references is what the pod lets its node read. A mirror pod lets it read nothing:
// nodes create these themselves, and must not gain anything by it.
func references(pod *corev1.Pod) []object {
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return nil
	}
	var refs []object
	add := func(k kind, names ...string) {
		for _, name := range names {
			refs = append(refs, object{k, types.NamespacedName{Namespace: pod.Namespace, Name: name}})
		}
	}
	if pod.Spec.ServiceAccountName != "" {
		add(serviceAccounts, pod.Spec.ServiceAccountName)
	}
	add(secrets, podrefs.Secrets(&pod.Spec)...)
	add(configMaps, podrefs.ConfigMaps(&pod.Spec)...)
	add(volumeClaims, podrefs.VolumeClaims(pod)...)
	add(resourceClaims, podrefs.ResourceClaims(pod)...)
	return refs
}

func (x *index) setPod(pod *corev1.Pod) {
	name := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	if pod.Spec.NodeName == "" {
		x.deletePod(name) // of an earlier one whose end went unseen
		return
	}
	p := placement{uid: pod.UID, node: pod.Spec.NodeName, refs: references(pod)}
	x.mu.Lock()
	defer x.mu.Unlock()
	if old, ok := x.pods[name]; ok && old.uid == p.uid && old.node == p.node && slices.Equal(old.refs, p.refs) {
		return // most updates of a pod are of its status
	}
	x.forget(name)
	x.pods[name] = p
	for _, ref := range p.refs {
		if x.users[ref] == nil {
			x.users[ref] = map[string]int{}
		}
		x.users[ref][p.node]++
	}
}

func (x *index) deletePod(name types.NamespacedName) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(name)
}

func (x *index) forget(pod types.NamespacedName) {
	p, ok := x.pods[pod]
	if !ok {
		return
	}
	delete(x.pods, pod)
	for _, ref := range p.refs {
		if x.users[ref][p.node]--; x.users[ref][p.node] == 0 {
			delete(x.users[ref], p.node)
		}
		if len(x.users[ref]) == 0 {
			delete(x.users, ref)
		}
	}
}

func (x *index) setVolume(pv *corev1.PersistentVolume) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forgetVolume(pv.Name)
	if pv.Spec.ClaimRef == nil {
		return // nobody uses it
	}
	v := volume{
		claim:   types.NamespacedName{Namespace: pv.Spec.ClaimRef.Namespace, Name: pv.Spec.ClaimRef.Name},
		secrets: podrefs.VolumeSecrets(pv),
	}
	x.volumes[pv.Name] = v
	for _, secret := range v.secrets {
		if x.volumesOf[secret] == nil {
			x.volumesOf[secret] = map[string]struct{}{}
		}
		x.volumesOf[secret][pv.Name] = struct{}{}
	}
}

func (x *index) deleteVolume(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forgetVolume(name)
}

func (x *index) forgetVolume(name string) {
	for _, secret := range x.volumes[name].secrets {
		delete(x.volumesOf[secret], name)
		if len(x.volumesOf[secret]) == 0 {
			delete(x.volumesOf, secret)
		}
	}
	delete(x.volumes, name)
}

func (x *index) setOwner(o owned, node string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if node == "" {
		delete(x.owners, o)
		return
	}
	x.owners[o] = node
}

// needs tells whether a pod on the node refers to the object, or, for a Secret,
// to a volume that the Secret mounts.
func (x *index) needs(node string, o object) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.users[o][node] > 0 {
		return true
	}
	if o.kind == secrets {
		for name := range x.volumesOf[o.NamespacedName] {
			if x.users[object{volumeClaims, x.volumes[name].claim}][node] > 0 {
				return true
			}
		}
	}
	return false
}

func (x *index) needsVolume(node, name string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	v, ok := x.volumes[name]
	return ok && x.users[object{volumeClaims, v.claim}][node] > 0
}

func (x *index) runs(node string, pod types.NamespacedName) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	p, ok := x.pods[pod]
	return ok && p.node == node
}

func (x *index) owns(node string, o owned) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	owner, ok := x.owners[o]
	return ok && owner == node
}
