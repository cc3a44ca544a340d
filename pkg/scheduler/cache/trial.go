package cache

import (
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

// What would be if pods came and went is tried on the snapshot itself, so that all that
// is made from it sees that, and taken back before the next cycle. It costs what changes.

// Mark returns the point to which Revert can go back.
func (s *Snapshot) Mark() int { return len(s.tried) }

// Revert takes back what was tried since a mark.
func (s *Snapshot) Revert(mark int) {
	for i := len(s.tried) - 1; i >= mark; i-- {
		s.set(s.tried[i].node.Name, s.tried[i])
		s.tried[i] = nil
	}
	s.tried = s.tried[:mark]
	s.lists = lists{}
}

// AddPod takes a pod to be on a node.
func (s *Snapshot) AddPod(info fwk.PodInfo, node string) error {
	return s.try(node, func(n *NodeInfo) error {
		n.AddPodInfo(info)
		return nil
	})
}

// RemovePod takes a pod to be gone from a node.
func (s *Snapshot) RemovePod(logger klog.Logger, pod *v1.Pod, node string) error {
	return s.try(node, func(n *NodeInfo) error { return n.RemovePod(logger, pod) })
}

func (s *Snapshot) try(node string, change func(*NodeInfo) error) error {
	e, ok := s.byName[node]
	if !ok {
		return fmt.Errorf("node %q is not known to the scheduler", node)
	}
	changed := e.info.clone()
	if err := change(changed); err != nil {
		return err
	}
	s.tried = append(s.tried, e.info)
	s.set(node, changed)
	s.lists = lists{}
	return nil
}

// Position returns where in the list a node is; -1 if it is not known.
func (s *Snapshot) Position(node string) int {
	if e, ok := s.byName[node]; ok {
		return e.pos
	}
	return -1
}

// StartMutations begins what a plugin tries.
func (s *Snapshot) StartMutations() error {
	if s.session >= 0 {
		return errors.New("mutations of the snapshot go on already")
	}
	s.session = s.Mark()
	return nil
}

// EndMutations takes back what the plugin tried.
func (s *Snapshot) EndMutations() error {
	if s.session < 0 {
		return errors.New("no mutations of the snapshot go on")
	}
	s.Revert(s.session)
	s.session = -1
	return nil
}
