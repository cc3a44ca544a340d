package cache

import (
	"errors"
	"fmt"
	"maps"

	v1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/topology"
)

// Snapshot is the cluster as one scheduling cycle sees it. It belongs to the
// goroutine that schedules and changes only between cycles.
type Snapshot struct {
	byName map[string]*entry
	list   []fwk.NodeInfo
	lists  lists
	index  *topology.Index
	// labelled has the positions in list of the nodes by the values of a label, in order,
	// made when first asked for.
	labelled map[string]map[string][]int
}

// maxLabels bounds the memory that labelled takes.
const maxLabels = 16

type entry struct {
	info *NodeInfo
	pos  int // in list
}

// lists are the parts of the node list that plugins ask for, made when first asked.
type lists struct {
	affinity, antiAffinity, nonHostScopedAntiAffinity []fwk.NodeInfo
	made                                              bool
}

var (
	_ fwk.SharedLister   = &Snapshot{}
	_ fwk.NodeInfoLister = &Snapshot{}
	_ topology.Provider  = &Snapshot{}
)

// NewSnapshot returns an empty snapshot.
func NewSnapshot() *Snapshot {
	return &Snapshot{byName: map[string]*entry{}, index: topology.New()}
}

// NewSnapshotOf returns a snapshot of the given nodes and pods.
func NewSnapshotOf(nodes []*v1.Node, pods []*v1.Pod) *Snapshot {
	c, s := New(), NewSnapshot()
	for _, n := range nodes {
		c.SetNode(n)
	}
	for _, p := range pods {
		c.SetPod(p)
	}
	c.UpdateSnapshot(s)
	return s
}

func (s *Snapshot) set(name string, n *NodeInfo) {
	if e, ok := s.byName[name]; ok {
		s.index.Update(e.info, n)
		if e.info.node != n.node && !maps.Equal(e.info.node.Labels, n.node.Labels) {
			s.labelled = nil
		}
		e.info = n
		s.list[e.pos] = n
		return
	}
	s.index.Update(nil, n)
	s.byName[name] = &entry{info: n, pos: len(s.list)}
	s.list = append(s.list, n)
}

func (s *Snapshot) delete(name string) {
	if e, ok := s.byName[name]; ok {
		s.index.Update(e.info, nil)
		delete(s.byName, name)
	}
}

func (s *Snapshot) order(names []string) {
	s.labelled = nil
	s.list = make([]fwk.NodeInfo, len(names))
	for i, name := range names {
		e := s.byName[name]
		e.pos = i
		s.list[i] = e.info
	}
}

func (s *Snapshot) part() *lists {
	l := &s.lists
	if l.made {
		return l
	}
	l.made = true
	for _, n := range s.list {
		if len(n.GetPodsWithAffinity()) > 0 {
			l.affinity = append(l.affinity, n)
		}
		if len(n.GetPodsWithRequiredAntiAffinity()) > 0 {
			l.antiAffinity = append(l.antiAffinity, n)
		}
		if len(n.GetPodsWithRequiredNonHostScopedAntiAffinity()) > 0 {
			l.nonHostScopedAntiAffinity = append(l.nonHostScopedAntiAffinity, n)
		}
	}
	return l
}

// Labelled returns where in the list the nodes are that have each value of a label.
func (s *Snapshot) Labelled(key string) map[string][]int {
	if at, ok := s.labelled[key]; ok {
		return at
	}
	if s.labelled == nil || len(s.labelled) >= maxLabels {
		s.labelled = map[string]map[string][]int{}
	}
	at := map[string][]int{}
	for i, n := range s.list {
		if value, ok := n.Node().Labels[key]; ok {
			at[value] = append(at[value], i)
		}
	}
	s.labelled[key] = at
	return at
}

// Topology returns what is counted over nodes and pods.
func (s *Snapshot) Topology() *topology.Index { return s.index }

// Len returns the number of nodes.
func (s *Snapshot) Len() int { return len(s.list) }

// List returns all nodes, zones in turn.
func (s *Snapshot) List() ([]fwk.NodeInfo, error) { return s.list, nil }

// HavePodsWithAffinityList returns the nodes with pods that have any pod (anti-)affinity.
func (s *Snapshot) HavePodsWithAffinityList() ([]fwk.NodeInfo, error) { return s.part().affinity, nil }

// HavePodsWithRequiredAntiAffinityList returns the nodes with pods that have required anti-affinity.
func (s *Snapshot) HavePodsWithRequiredAntiAffinityList() ([]fwk.NodeInfo, error) {
	return s.part().antiAffinity, nil
}

// HavePodsWithRequiredNonHostScopedAntiAffinityList is the above, for anti-affinity that reaches beyond a node.
func (s *Snapshot) HavePodsWithRequiredNonHostScopedAntiAffinityList() ([]fwk.NodeInfo, error) {
	return s.part().nonHostScopedAntiAffinity, nil
}

// Get returns one node.
func (s *Snapshot) Get(name string) (fwk.NodeInfo, error) {
	if e, ok := s.byName[name]; ok {
		return e.info, nil
	}
	return nil, fmt.Errorf("node %q is not known to the scheduler", name)
}

// NodeInfos returns the nodes.
func (s *Snapshot) NodeInfos() fwk.NodeInfoLister { return s }

// StorageInfos returns what is known of claims.
func (s *Snapshot) StorageInfos() fwk.StorageInfoLister { return s }

// IsPVCUsedByPods reports whether a pod on any node uses the claim namespace/name.
func (s *Snapshot) IsPVCUsedByPods(key string) bool {
	for _, n := range s.list {
		if n.GetPVCRefCounts()[key] > 0 {
			return true
		}
	}
	return false
}

// Pod groups are served behind a feature gate that is off: there are none to list.
var errNoPodGroups = errors.New("pod groups are not enabled")

// PodGroupStates lists nothing while the GenericWorkload gate is off.
func (s *Snapshot) PodGroupStates() fwk.PodGroupStateLister { return noPodGroupStates{} }

// PodGroups lists nothing while the GenericWorkload gate is off.
func (s *Snapshot) PodGroups() fwk.PodGroupLister { return noPodGroups{} }

// CompositePodGroupStates lists nothing while the GenericWorkload gate is off.
func (s *Snapshot) CompositePodGroupStates() fwk.CompositePodGroupStateLister {
	return noCompositePodGroupStates{}
}

// CompositePodGroups lists nothing while the GenericWorkload gate is off.
func (s *Snapshot) CompositePodGroups() fwk.CompositePodGroupLister { return noCompositePodGroups{} }

type (
	noPodGroupStates          struct{}
	noPodGroups               struct{}
	noCompositePodGroupStates struct{}
	noCompositePodGroups      struct{}
)

func (noPodGroupStates) Get(_, _ string) (fwk.PodGroupState, error) { return nil, errNoPodGroups }
func (noPodGroups) Get(_, _ string) (*schedulingv1beta1.PodGroup, error) {
	return nil, errNoPodGroups
}
func (noCompositePodGroupStates) Get(_, _ string) (fwk.CompositePodGroupState, error) {
	return nil, errNoPodGroups
}
func (noCompositePodGroups) Get(_, _ string) (*schedulingv1alpha3.CompositePodGroup, error) {
	return nil, errNoPodGroups
}
