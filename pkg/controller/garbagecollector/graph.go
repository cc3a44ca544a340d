package garbagecollector

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// identity says which object is meant.
type identity struct {
	schema.GroupVersionKind
	Namespace, Name string
	UID             types.UID
}

// reference returns how an event names the object.
func (id identity) reference() *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: id.GroupVersion().String(), Kind: id.Kind, Namespace: id.Namespace, Name: id.Name, UID: id.UID}
}

// object is what the graph keeps of an object in the cluster.
type object struct {
	identity
	owners []metav1.OwnerReference
	// deleting, with foreground or orphan if its dependents have a say in it.
	deleting, foreground, orphan bool
	// virtual objects have been named as owners and not been seen.
	virtual bool
}

type node struct {
	object
	dependents map[types.UID]*node
	// waits is set once the object has waited for the end of its dependents. They are to go, though it may wait for others alone since.
	waits bool
}

// graph is who owns whom. Its methods return the objects that must be looked at
// because of what has changed.
type graph struct {
	mu    sync.Mutex
	nodes map[types.UID]*node
}

func newGraph() *graph { return &graph{nodes: map[types.UID]*node{}} }

// fromMetadata reads what the graph keeps out of an object's metadata.
func fromMetadata(kind schema.GroupVersionKind, m metav1.Object) object {
	deleting := m.GetDeletionTimestamp() != nil
	return object{
		identity:   identity{kind, m.GetNamespace(), m.GetName(), m.GetUID()},
		owners:     m.GetOwnerReferences(),
		deleting:   deleting,
		foreground: deleting && slices.Contains(m.GetFinalizers(), metav1.FinalizerDeleteDependents),
		orphan:     deleting && slices.Contains(m.GetFinalizers(), metav1.FinalizerOrphanDependents),
	}
}

// observe records an object as it is now.
func (g *graph) observe(o object) (look []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[o.UID]
	if n == nil {
		n = &node{dependents: map[types.UID]*node{}}
		g.nodes[o.UID] = n
	}
	before := n.object
	n.object, n.waits = o, n.waits || o.foreground
	if before.virtual {
		// Those that named another object by this UID are mistaken.
		for uid, d := range n.dependents {
			if ref := refTo(d.owners, o.UID); ref != nil && !names(*ref, o.identity, d.Namespace) {
				look = append(look, uid)
			}
		}
	}
	for _, ref := range before.owners {
		now := refTo(o.owners, ref.UID)
		owner := g.nodes[ref.UID]
		if owner == nil || now != nil && ptr.Deref(now.BlockOwnerDeletion, false) == ptr.Deref(ref.BlockOwnerDeletion, false) {
			continue
		}
		if now == nil {
			g.part(owner, n)
		}
		if owner.foreground {
			look = append(look, owner.UID)
		}
	}
	for _, ref := range o.owners {
		if refTo(before.owners, ref.UID) != nil {
			continue
		}
		owner := g.nodes[ref.UID]
		if owner == nil {
			owner = &node{dependents: map[types.UID]*node{}, object: object{virtual: true, identity: identityOf(ref, o.Namespace)}}
			g.nodes[ref.UID] = owner
			look = append(look, ref.UID)
		} else if !owner.virtual && !names(ref, owner.identity, o.Namespace) {
			look = append(look, o.UID)
		}
		owner.dependents[o.UID] = n
	}
	if o.foreground && !before.foreground { // before the owner stops waiting: others may hold it
		for uid := range n.dependents {
			look = append(look, uid)
		}
	}
	if o.orphan && !before.orphan || o.foreground && !before.foreground {
		look = append(look, o.UID)
	}
	return look
}

// remove forgets an object that is gone.
func (g *graph) remove(uid types.UID) (look []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return nil
	}
	delete(g.nodes, uid)
	for _, ref := range n.owners {
		if owner := g.nodes[ref.UID]; owner != nil {
			g.part(owner, n)
			if owner.foreground {
				look = append(look, owner.UID)
			}
		}
	}
	for d := range n.dependents {
		look = append(look, d)
	}
	return look
}

func (g *graph) part(owner, dependent *node) {
	delete(owner.dependents, dependent.UID)
	if owner.virtual && len(owner.dependents) == 0 {
		delete(g.nodes, owner.UID)
	}
}

// get returns an object and its dependents.
func (g *graph) get(uid types.UID) (o object, dependents []object, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return object{}, nil, false
	}
	for _, d := range n.dependents {
		dependents = append(dependents, d.object)
	}
	return n.object, dependents, true
}

// waited reports whether an object has ever waited for the end of its dependents.
func (g *graph) waited(uid types.UID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	return n != nil && n.waits
}

// misplaced returns the references of an object whose owners have been seen in another
// namespace than the references can mean.
func (g *graph) misplaced(o object) (refs []metav1.OwnerReference) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, ref := range o.owners {
		if owner := g.nodes[ref.UID]; owner != nil && !owner.virtual && owner.Namespace != "" && owner.Namespace != o.Namespace {
			refs = append(refs, ref)
		}
	}
	return refs
}

func refTo(refs []metav1.OwnerReference, uid types.UID) *metav1.OwnerReference {
	for i := range refs {
		if refs[i].UID == uid {
			return &refs[i]
		}
	}
	return nil
}

// identityOf returns whom a reference means. Owners of a cluster-scoped kind have no
// namespace; the one given here is then not looked at.
func identityOf(ref metav1.OwnerReference, namespace string) identity {
	return identity{schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind), namespace, ref.Name, ref.UID}
}

// names reports whether ref, in an object in namespace, means id.
func names(ref metav1.OwnerReference, id identity, namespace string) bool {
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	return gvk.GroupKind() == id.GroupKind() && ref.Name == id.Name && (id.Namespace == "" || id.Namespace == namespace)
}
