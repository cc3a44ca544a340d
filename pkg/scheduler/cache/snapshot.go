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
	// domains has the nodes by the values of a label, made when first asked for.
	domains map[string]*Domains
	// groups are the pod groups, nil while the GenericWorkload gate is off.
	groups fwk.PodGroupManager
	// tried are the nodes as they were before what is tried on the snapshot, and from where
	// in it a plugin's session goes on; -1 for none.
	tried   []*NodeInfo
	session int
}

// maxLabels bounds the memory that domains take.
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
	_ fwk.SharedLister                = &Snapshot{}
	_ fwk.MutableSnapshotSharedLister = &Snapshot{}
	_ fwk.NodeInfoLister              = &Snapshot{}
	_ topology.Provider               = &Snapshot{}
)

// NewSnapshot returns an empty snapshot.
func NewSnapshot() *Snapshot {
	return &Snapshot{byName: map[string]*entry{}, index: topology.New(), session: -1}
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
			s.domains = nil
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
	s.domains = nil
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

// Domains are the nodes by the values of a label.
type Domains struct {
	// Values are the different ones.
	Values []string
	// Of has the position in Values of the label of each node in the list, NoDomain for
	// one without it.
	Of []int32
}

// NoDomain is for a node without the label.
const NoDomain = -1

// Domains returns the nodes by the values of a label.
func (s *Snapshot) Domains(key string) *Domains {
	if d, ok := s.domains[key]; ok {
		return d
	}
	if s.domains == nil || len(s.domains) >= maxLabels {
		s.domains = map[string]*Domains{}
	}
	d := &Domains{Of: make([]int32, len(s.list))}
	at := map[string]int32{}
	for i, n := range s.list {
		value, ok := n.Node().Labels[key]
		if !ok {
			d.Of[i] = NoDomain
			continue
		}
		domain, ok := at[value]
		if !ok {
			domain = int32(len(d.Values))
			at[value] = domain
			d.Values = append(d.Values, value)
		}
		d.Of[i] = domain
	}
	s.domains[key] = d
	return d
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

// SetGroups makes the snapshot list the pod groups.
func (s *Snapshot) SetGroups(g fwk.PodGroupManager) { s.groups = g }

// Pod groups are served behind a feature gate: while it is off there are none to list.
var errNoPodGroups = errors.New("pod groups are not enabled")

// PodGroupStates lists nothing while the GenericWorkload gate is off.
func (s *Snapshot) PodGroupStates() fwk.PodGroupStateLister {
	if s.groups == nil {
		return noPodGroupStates{}
	}
	return s.groups.PodGroupStates()
}

// PodGroups lists nothing while the GenericWorkload gate is off.
func (s *Snapshot) PodGroups() fwk.PodGroupLister {
	if s.groups == nil {
		return noPodGroups{}
	}
	return s.groups.PodGroups()
}

// CompositePodGroupStates lists nothing while the GenericWorkload gate is off.
func (s *Snapshot) CompositePodGroupStates() fwk.CompositePodGroupStateLister {
	if s.groups == nil {
		return noCompositePodGroupStates{}
	}
	return s.groups.CompositePodGroupStates()
}

// CompositePodGroups lists nothing while the GenericWorkload gate is off.
func (s *Snapshot) CompositePodGroups() fwk.CompositePodGroupLister {
	if s.groups == nil {
		return noCompositePodGroups{}
	}
	return s.groups.CompositePodGroups()
}

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
