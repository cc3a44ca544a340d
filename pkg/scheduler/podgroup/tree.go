package podgroup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"
)

// Groups make trees: a PodGroup can name a CompositePodGroup above it, and that another
// (KEP-6012). A group with nothing above it is a root, and what is decided together.

// maxDepth is how many groups of groups there can be above a PodGroup.
const maxDepth = schedulingv1alpha3.WorkloadMaxTreeDepth

var errTooDeep = fmt.Errorf("composite pod groups are nested in a circle, or more than %d deep", maxDepth)

// byParent is the index of groups by the namespace and name of the one above.
const byParent = "parent"

func parentIndex(obj any) ([]string, error) {
	o, ok := obj.(metav1.Object)
	if parent := parentOf(obj); ok && parent != nil {
		return []string{o.GetNamespace() + "/" + *parent}, nil
	}
	return nil, nil
}

// parentOf names the group above; nil if there is none.
func parentOf(group any) *string {
	switch g := group.(type) {
	case *schedulingv1beta1.PodGroup:
		return g.Spec.ParentCompositePodGroupName
	case *schedulingv1alpha3.CompositePodGroup:
		return g.Spec.ParentCompositePodGroupName
	}
	return nil
}

// EntityOf returns the key of the group that a pod is of; false if it is of none.
func EntityOf(pod *v1.Pod) (fwk.EntityKey, bool) {
	key, ok := KeyOf(pod)
	return fwk.PodGroupKey(key.Namespace, key.Name), ok
}

// GetRootKeyForGroup returns the root above a group, which may be itself. It returns false,
// and how far it has come, if a group on the way is not there.
func (g *Groups) GetRootKeyForGroup(key fwk.EntityKey) (fwk.EntityKey, bool, error) {
	if g.composites == nil {
		return key, true, nil
	}
	for range maxDepth + 1 {
		group, err := g.object(key)
		if err != nil {
			if apierrors.IsNotFound(err) {
				err = nil
			}
			return key, false, err
		}
		parent := parentOf(group)
		if parent == nil {
			return key, true, nil
		}
		key = fwk.CompositePodGroupKey(key.Namespace, *parent)
	}
	return key, false, errTooDeep
}

func (g *Groups) object(key fwk.EntityKey) (any, error) {
	if key.Type == fwk.CompositePodGroupKeyType {
		return g.CompositePodGroups().Get(key.Namespace, key.Name)
	}
	return g.PodGroups().Get(key.Namespace, key.Name)
}

// BuildHierarchySnapshotFromPod returns the groups, if all above a pod are there.
func (g *Groups) BuildHierarchySnapshotFromPod(pod *v1.Pod) (fwk.PodGroupManager, error) {
	key, ok := EntityOf(pod)
	if !ok {
		return nil, errors.New("the pod is of no pod group")
	}
	root, ok, err := g.GetRootKeyForGroup(key)
	if err == nil && !ok {
		err = fmt.Errorf("%s is not there", root)
	}
	if err != nil {
		return nil, err
	}
	if _, err := g.object(root); err != nil {
		return nil, err
	}
	return g, nil
}

// children are the groups right below one, the oldest first.
func (g *Groups) children(namespace, name string) []fwk.EntityKey {
	type child struct {
		metav1.Object
		key fwk.EntityKey
	}
	var below []child
	for _, index := range []toolscache.Indexer{g.groupIndex, g.compositeIndex} {
		found, err := index.ByIndex(byParent, namespace+"/"+name)
		if err != nil {
			continue // there is the index: New makes it
		}
		for _, obj := range found {
			switch o := obj.(type) {
			case *schedulingv1beta1.PodGroup:
				below = append(below, child{o, fwk.PodGroupKey(o.Namespace, o.Name)})
			case *schedulingv1alpha3.CompositePodGroup:
				below = append(below, child{o, fwk.CompositePodGroupKey(o.Namespace, o.Name)})
			}
		}
	}
	slices.SortFunc(below, func(a, b child) int {
		x, y := a.GetCreationTimestamp(), b.GetCreationTimestamp()
		return cmp.Or(x.Compare(y.Time), strings.Compare(a.GetName(), b.GetName()), cmp.Compare(a.key.Type, b.key.Type))
	})
	keys := make([]fwk.EntityKey, len(below))
	for i, c := range below {
		keys[i] = c.key
	}
	return keys
}

// Tree returns a root with all that is below it, and those of the pods that each PodGroup
// has, in the order in which they are to be tried.
func (g *Groups) Tree(root fwk.EntityKey, pods []*v1.Pod) (*Info, error) {
	of := map[types.NamespacedName][]*v1.Pod{}
	for _, p := range pods {
		if key, ok := KeyOf(p); ok {
			of[key] = append(of[key], p)
		}
	}
	return g.tree(root, of)
}

func (g *Groups) tree(key fwk.EntityKey, pods map[types.NamespacedName][]*v1.Pod) (*Info, error) {
	if key.Type == fwk.PodGroupKeyType {
		name := types.NamespacedName{Namespace: key.Namespace, Name: key.Name}
		group, err := g.Group(name)
		return &Info{Group: group, Pods: pods[name]}, err
	}
	composite, err := g.CompositePodGroups().Get(key.Namespace, key.Name)
	if err != nil {
		return nil, err
	}
	info := &Info{Composite: composite}
	for _, child := range g.children(key.Namespace, key.Name) {
		below, err := g.tree(child, pods)
		if err != nil {
			return nil, err
		}
		info.Children, info.Pods = append(info.Children, below), append(info.Pods, below.Pods...)
	}
	return info, nil
}

// Listers are what is known of the states of groups.
type Listers interface {
	PodGroupStates() fwk.PodGroupStateLister
	CompositePodGroupStates() fwk.CompositePodGroupStateLister
}

// States returns the state of a PodGroup, or of all below a group of groups.
func States(l Listers, key fwk.EntityKey) ([]fwk.PodGroupState, error) {
	if key.Type == fwk.PodGroupKeyType {
		s, err := l.PodGroupStates().Get(key.Namespace, key.Name)
		return []fwk.PodGroupState{s}, err
	}
	composite, err := l.CompositePodGroupStates().Get(key.Namespace, key.Name)
	if err != nil {
		return nil, err
	}
	var states []fwk.PodGroupState
	for _, child := range composite.GetChildren() {
		below, err := States(l, child)
		if err != nil {
			return nil, err
		}
		states = append(states, below...)
	}
	return states, nil
}

// ScheduledPods returns the pods of a group, or of all below it, that have a node.
func ScheduledPods(l Listers, key fwk.EntityKey) ([]*v1.Pod, error) {
	states, err := States(l, key)
	var pods []*v1.Pod
	for _, s := range states {
		if s != nil {
			pods = append(pods, s.ScheduledPods()...)
		}
	}
	return pods, err
}

// Waiting returns the pods of a group, or of all below it, that have no node.
func (g *Groups) Waiting(key fwk.EntityKey) []types.UID {
	if key.Type == fwk.PodGroupKeyType {
		return g.State(types.NamespacedName{Namespace: key.Namespace, Name: key.Name}).Waiting()
	}
	var pods []types.UID
	for _, child := range g.children(key.Namespace, key.Name) {
		pods = append(pods, g.Waiting(child)...)
	}
	return pods
}

// Mates returns the pods that are tried with those of a group: those of its tree that have no node.
func (g *Groups) Mates(key fwk.EntityKey) []types.UID {
	root, ok, err := g.GetRootKeyForGroup(key)
	if !ok || err != nil {
		return g.Waiting(key)
	}
	return g.Waiting(root)
}

// Related reports whether two groups are of one tree, or wait for the same group above them.
func Related(m fwk.PodGroupManager, a, b fwk.EntityKey) bool {
	if a == b {
		return true
	}
	x, _, err := m.GetRootKeyForGroup(a)
	if err != nil {
		return false
	}
	y, _, err := m.GetRootKeyForGroup(b)
	return err == nil && x == y
}

// Mate is a hint: a pod that comes or goes matters to those that are tried with it.
func Mate(m fwk.PodGroupManager, pod *v1.Pod, other any) bool {
	mine, ok := EntityOf(pod)
	if o, is := other.(*v1.Pod); ok && is {
		theirs, grouped := EntityOf(o)
		return grouped && Related(m, mine, theirs)
	}
	return false
}

// compositeState is what is below a group of groups.
type compositeState []fwk.EntityKey

// GetChildren returns it.
func (s compositeState) GetChildren() []fwk.EntityKey { return s }
