package podgroup

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	alphalisters "k8s.io/client-go/listers/scheduling/v1alpha3"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1beta1"
	toolscache "k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"
)

// Groups are all groups that pods name, and the pods. A nil one knows of none: pods are
// of no group while the GenericWorkload gate is off.
type Groups struct {
	lister     schedulinglisters.PodGroupLister
	composites alphalisters.CompositePodGroupLister // nil while the CompositePodGroup gate is off
	// What is below a group is looked up in these.
	groupIndex, compositeIndex toolscache.Indexer

	mu      sync.RWMutex
	members map[types.NamespacedName]map[types.UID]member
}

// member is a pod of a group: with a node if it is assumed or assigned.
type member struct {
	pod     *v1.Pod
	assumed bool
}

var _ fwk.PodGroupManager = &Groups{}

// New returns groups without pods. Whether there are groups of groups is a matter of the
// CompositePodGroup gate.
func New(f informers.SharedInformerFactory, composites bool) (*Groups, error) {
	groups := f.Scheduling().V1beta1().PodGroups()
	g := &Groups{lister: groups.Lister(), members: map[types.NamespacedName]map[types.UID]member{}}
	if !composites {
		return g, nil
	}
	above := f.Scheduling().V1alpha3().CompositePodGroups()
	for _, informer := range []toolscache.SharedIndexInformer{groups.Informer(), above.Informer()} {
		if err := informer.AddIndexers(toolscache.Indexers{byParent: parentIndex}); err != nil {
			return nil, fmt.Errorf("indexing pod groups by what is above them: %w", err)
		}
	}
	g.composites, g.groupIndex, g.compositeIndex = above.Lister(), groups.Informer().GetIndexer(), above.Informer().GetIndexer()
	return g, nil
}

// Set takes a new or changed pod over. One that is assumed stays so until it is seen on a node.
func (g *Groups) Set(pod *v1.Pod) {
	g.change(pod, func(pods map[types.UID]member) {
		if pods[pod.UID].assumed && pod.Spec.NodeName == "" {
			return
		}
		pods[pod.UID] = member{pod: pod}
	})
}

// Delete forgets a pod that is gone.
func (g *Groups) Delete(pod *v1.Pod) {
	g.change(pod, func(pods map[types.UID]member) { delete(pods, pod.UID) })
}

// Assume takes a pod to be on its node.
func (g *Groups) Assume(pod *v1.Pod) {
	g.change(pod, func(pods map[types.UID]member) {
		if _, ok := pods[pod.UID]; ok {
			pods[pod.UID] = member{pod: pod, assumed: true}
		}
	})
}

// Forget takes back that a pod is assumed.
func (g *Groups) Forget(pod *v1.Pod) {
	g.change(pod, func(pods map[types.UID]member) {
		if m := pods[pod.UID]; m.assumed {
			waiting := m.pod.DeepCopy()
			waiting.Spec.NodeName = ""
			pods[pod.UID] = member{pod: waiting}
		}
	})
}

func (g *Groups) change(pod *v1.Pod, f func(map[types.UID]member)) {
	if g == nil {
		return
	}
	key, ok := KeyOf(pod)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	pods := g.members[key]
	if pods == nil {
		pods = map[types.UID]member{}
		g.members[key] = pods
	}
	if f(pods); len(pods) == 0 {
		delete(g.members, key)
	}
}

// TakePodsOf copies the pods that others know.
func (g *Groups) TakePodsOf(other *Groups) {
	if g == nil || other == nil {
		return
	}
	other.mu.RLock()
	defer other.mu.RUnlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, pods := range other.members {
		g.members[key] = map[types.UID]member{}
		for uid, m := range pods {
			g.members[key][uid] = m
		}
	}
}

// Group returns the object of a name.
func (g *Groups) Group(key types.NamespacedName) (*schedulingv1beta1.PodGroup, error) {
	return g.lister.PodGroups(key.Namespace).Get(key.Name)
}

// State returns the pods of a group as they are now.
func (g *Groups) State(key types.NamespacedName) *State {
	g.mu.RLock()
	defer g.mu.RUnlock()
	s := &State{}
	for _, m := range g.members[key] {
		s.members = append(s.members, m)
	}
	slices.SortFunc(s.members, func(a, b member) int { return strings.Compare(a.pod.Name, b.pod.Name) })
	return s
}

// PodGroupStates lists states.
func (g *Groups) PodGroupStates() fwk.PodGroupStateLister { return states{g} }

// PodGroups lists objects.
func (g *Groups) PodGroups() fwk.PodGroupLister { return objects{g} }

// CompositePodGroupStates lists what is below groups of groups.
func (g *Groups) CompositePodGroupStates() fwk.CompositePodGroupStateLister {
	return compositeStates{g}
}

// CompositePodGroups lists groups of groups.
func (g *Groups) CompositePodGroups() fwk.CompositePodGroupLister { return compositeObjects{g} }

type (
	states           struct{ *Groups }
	objects          struct{ *Groups }
	compositeStates  struct{ *Groups }
	compositeObjects struct{ *Groups }
)

func (l states) Get(namespace, name string) (fwk.PodGroupState, error) {
	return l.State(types.NamespacedName{Namespace: namespace, Name: name}), nil
}

func (l objects) Get(namespace, name string) (*schedulingv1beta1.PodGroup, error) {
	return l.Group(types.NamespacedName{Namespace: namespace, Name: name})
}

func (l compositeStates) Get(namespace, name string) (fwk.CompositePodGroupState, error) {
	if l.composites == nil {
		return nil, off(namespace, name)
	}
	return compositeState(l.children(namespace, name)), nil
}

func (l compositeObjects) Get(namespace, name string) (*schedulingv1alpha3.CompositePodGroup, error) {
	if l.composites == nil {
		return nil, off(namespace, name)
	}
	return l.composites.CompositePodGroups(namespace).Get(name)
}

func off(namespace, name string) error {
	return fmt.Errorf("composite pod group %s/%s: the CompositePodGroup feature gate is off", namespace, name)
}

// State is how far the pods of a group have got. It does not change.
type State struct{ members []member }

var _ fwk.PodGroupState = &State{}

func (s *State) uids(which func(member) bool) sets.Set[types.UID] {
	out := sets.New[types.UID]()
	for _, m := range s.members {
		if which(m) {
			out.Insert(m.pod.UID)
		}
	}
	return out
}

// AllPods returns all pods of the group.
func (s *State) AllPods() sets.Set[types.UID] { return s.uids(func(member) bool { return true }) }

// AllPodsCount counts them.
func (s *State) AllPodsCount() int { return len(s.members) }

// UnscheduledPods returns those without a node, by name.
func (s *State) UnscheduledPods() map[string]*v1.Pod {
	out := map[string]*v1.Pod{}
	for _, m := range s.members {
		if m.pod.Spec.NodeName == "" {
			out[m.pod.Name] = m.pod
		}
	}
	return out
}

// Waiting returns those without a node.
func (s *State) Waiting() []types.UID {
	var out []types.UID
	for _, m := range s.members {
		if m.pod.Spec.NodeName == "" {
			out = append(out, m.pod.UID)
		}
	}
	return out
}

// AssumedPods returns those that are taken to be on a node.
func (s *State) AssumedPods() sets.Set[types.UID] {
	return s.uids(func(m member) bool { return m.assumed })
}

// AssignedPods returns those that are on a node.
func (s *State) AssignedPods() sets.Set[types.UID] {
	return s.uids(func(m member) bool { return m.pod.Spec.NodeName != "" && !m.assumed })
}

// ScheduledPods returns those with a node, assumed or assigned.
func (s *State) ScheduledPods() []*v1.Pod {
	var out []*v1.Pod
	for _, m := range s.members {
		if m.pod.Spec.NodeName != "" {
			out = append(out, m.pod)
		}
	}
	return out
}

// ScheduledPodsCount counts them.
func (s *State) ScheduledPodsCount() int { return len(s.ScheduledPods()) }
