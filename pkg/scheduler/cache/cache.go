// Package cache holds what the scheduler knows of the cluster: the nodes, the pods
// on them, and the pods that it has just placed itself and whose binding the API
// server has not shown yet ("assumed" pods).
//
// The cache is changed by watch events from one side and by placements from the
// other. A scheduling cycle reads a Snapshot, which is brought up to date in time that
// depends on what changed and not on the size of the cluster.
package cache

import (
	"fmt"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-helpers/node/topology"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

// Cache is safe for concurrent use.
type Cache struct {
	mu    sync.Mutex
	nodes map[string]*NodeInfo
	// images has what is known of each image, by name; imagesVersion counts the changes of it.
	images        map[string]*image
	imagesVersion int64
	pods          map[types.UID]*podState
	// dirty names the nodes that changed since the last snapshot.
	dirty sets.Set[string]
	// reordered says that nodes came, went or changed zone.
	reordered bool
}

// image is one that nodes hold.
type image struct {
	size  int64
	nodes sets.Set[string]
}

type podState struct {
	info    *PodInfo
	node    string
	assumed bool
}

// New returns an empty cache.
func New() *Cache {
	return &Cache{
		nodes:  map[string]*NodeInfo{},
		images: map[string]*image{},
		pods:   map[types.UID]*podState{},
		dirty:  sets.Set[string]{},
	}
}

// Copy returns a cache that knows the same, assumed pods included, and goes its own way
// from here.
func (c *Cache) Copy() *Cache {
	c.mu.Lock()
	defer c.mu.Unlock()
	other := New()
	other.reordered = true
	for name, n := range c.nodes {
		other.nodes[name] = n.clone()
		other.dirty.Insert(name)
	}
	other.imagesVersion = c.imagesVersion
	for name, i := range c.images {
		other.images[name] = &image{size: i.size, nodes: i.nodes.Clone()}
	}
	for uid, s := range c.pods {
		state := *s
		other.pods[uid] = &state
	}
	return other
}

// AssumePod counts pod as running on pod.Spec.NodeName before the API server says so.
func (c *Cache) AssumePod(info *PodInfo) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.pods[info.Pod.UID]; ok {
		return fmt.Errorf("pod %s is on a node already", klog.KObj(info.Pod))
	}
	c.place(info, true)
	return nil
}

// ForgetPod takes an assumed pod back. A pod that the API server has confirmed stays.
func (c *Cache) ForgetPod(pod *v1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.pods[pod.UID]; ok && s.assumed {
		c.displace(s)
	}
}

// Has reports whether a pod is on a node.
func (c *Cache) Has(uid types.UID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.pods[uid]
	return ok
}

// IsAssumed reports whether pod was placed here and is not confirmed yet.
func (c *Cache) IsAssumed(uid types.UID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.pods[uid]
	return ok && s.assumed
}

// SetPod records a pod that the API server shows on a node: a new one, a changed one,
// or an assumed one that is confirmed, perhaps on another node than the one assumed.
func (c *Cache) SetPod(pod *v1.Pod) {
	info, err := NewPodInfo(pod)
	if err != nil {
		klog.Background().Error(err, "Pod has affinity terms that do not parse", "pod", klog.KObj(pod))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.pods[pod.UID]; ok {
		c.displace(s)
	}
	c.place(info, false)
}

// RemovePod forgets a pod that is gone or has finished.
func (c *Cache) RemovePod(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.pods[uid]; ok {
		c.displace(s)
	}
}

func (c *Cache) place(info *PodInfo, assumed bool) {
	s := &podState{info: info, node: info.Pod.Spec.NodeName, assumed: assumed}
	n, ok := c.nodes[s.node]
	if !ok { // the pod's watch event can come before its node's
		n = NewNodeInfo()
		c.nodes[s.node] = n
	}
	n.AddPodInfo(info)
	c.pods[info.Pod.UID] = s
	c.dirty.Insert(s.node)
}

func (c *Cache) displace(s *podState) {
	delete(c.pods, s.info.Pod.UID)
	n, ok := c.nodes[s.node]
	if !ok {
		return
	}
	if err := n.RemovePod(klog.Background(), s.info.Pod); err != nil {
		panic(fmt.Sprintf("scheduler cache: %v", err)) // the two maps above are changed together, always
	}
	if n.node == nil && len(n.pods) == 0 {
		delete(c.nodes, s.node)
	}
	c.dirty.Insert(s.node)
}

// SetNode adds or updates a node.
func (c *Cache) SetNode(node *v1.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.nodes[node.Name]
	if !ok {
		n = NewNodeInfo()
		c.nodes[node.Name] = n
	}
	if n.node == nil || topology.GetZoneKey(n.node) != topology.GetZoneKey(node) {
		c.reordered = true
	}
	if n.node == nil || !slices.EqualFunc(n.node.Status.Images, node.Status.Images, equalImages) {
		c.forgetImages(n)
		c.addImages(node)
	}
	n.SetNode(node)
	c.dirty.Insert(node.Name)
}

// RemoveNode forgets a node. Its pods stay known until their own deletion is seen.
func (c *Cache) RemoveNode(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.nodes[name]
	if !ok {
		return
	}
	c.forgetImages(n)
	n.node = nil
	if len(n.pods) == 0 {
		delete(c.nodes, name)
	}
	c.dirty.Insert(name)
	c.reordered = true
}

func equalImages(a, b v1.ContainerImage) bool {
	return a.SizeBytes == b.SizeBytes && slices.Equal(a.Names, b.Names)
}

func (c *Cache) addImages(node *v1.Node) {
	for _, i := range node.Status.Images {
		for _, name := range i.Names {
			known, ok := c.images[name]
			if !ok {
				known = &image{size: i.SizeBytes, nodes: sets.Set[string]{}}
				c.images[name] = known
			}
			known.nodes.Insert(node.Name)
		}
	}
	c.imagesVersion++
}

func (c *Cache) forgetImages(n *NodeInfo) {
	if n.node == nil {
		return
	}
	for _, i := range n.node.Status.Images {
		for _, name := range i.Names {
			if known, ok := c.images[name]; ok {
				known.nodes.Delete(n.node.Name)
				if known.nodes.Len() == 0 {
					delete(c.images, name)
				}
			}
		}
	}
	c.imagesVersion++
}

// showImages brings what n says of its images up to date, where that has changed on any node.
func (c *Cache) showImages(n *NodeInfo) {
	if n.imagesVersion == c.imagesVersion {
		return
	}
	n.imagesVersion = c.imagesVersion
	n.imageStates = make(map[string]*fwk.ImageStateSummary, len(n.node.Status.Images))
	for _, i := range n.node.Status.Images {
		for _, name := range i.Names {
			known := c.images[name]
			n.imageStates[name] = &fwk.ImageStateSummary{Size: known.size, NumNodes: known.nodes.Len()}
		}
	}
}

// Counts returns the number of nodes, pods and assumed pods, for metrics.
func (c *Cache) Counts() (nodes, pods, assumed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.pods {
		if s.assumed {
			assumed++
		}
	}
	return len(c.nodes), len(c.pods), assumed
}

// UpdateSnapshot brings s up to date. Node objects that did not change are shared
// with the snapshot before it.
func (c *Cache) UpdateSnapshot(s *Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.dirty) == 0 && !c.reordered {
		return
	}
	for name := range c.dirty {
		if n, ok := c.nodes[name]; ok && n.node != nil {
			c.showImages(n)
			s.set(name, n.clone())
		} else {
			s.delete(name)
		}
	}
	if c.reordered || len(s.list) != len(s.byName) {
		s.order(c.nodeOrder())
	}
	c.dirty = sets.Set[string]{}
	c.reordered = false
	s.lists = lists{}
}

// nodeOrder deals the nodes out zone by zone, so that a search that stops early has
// looked into every zone.
func (c *Cache) nodeOrder() []string {
	zones := map[string][]string{}
	total := 0
	for name, n := range c.nodes {
		if n.node != nil {
			zone := topology.GetZoneKey(n.node)
			zones[zone] = append(zones[zone], name)
			total++
		}
	}
	names := make([]string, 0, len(zones))
	for zone, nodes := range zones {
		slices.Sort(nodes)
		names = append(names, zone)
	}
	slices.Sort(names)
	order := make([]string, 0, total)
	for i := 0; len(order) < total; i++ {
		for _, zone := range names {
			if nodes := zones[zone]; i < len(nodes) {
				order = append(order, nodes[i])
			}
		}
	}
	return order
}
