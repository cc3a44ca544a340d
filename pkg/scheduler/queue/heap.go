package queue

import (
	stdheap "container/heap"

	"k8s.io/apimachinery/pkg/types"
)

// podHeap is a priority queue in which a pod can also be found by its UID.
type podHeap struct {
	less func(a, b *Pod) bool
	pods []*Pod
	pos  map[types.UID]int
}

func newPodHeap(less func(a, b *Pod) bool) *podHeap {
	return &podHeap{less: less, pos: map[types.UID]int{}}
}

// Len, Less, Swap, Push and Pop are for container/heap.
func (h *podHeap) Len() int           { return len(h.pods) }
func (h *podHeap) Less(i, j int) bool { return h.less(h.pods[i], h.pods[j]) }
func (h *podHeap) Swap(i, j int) {
	h.pods[i], h.pods[j] = h.pods[j], h.pods[i]
	h.pos[h.pods[i].Pod.UID], h.pos[h.pods[j].Pod.UID] = i, j
}
func (h *podHeap) Push(x any) {
	p := x.(*Pod)
	h.pos[p.Pod.UID] = len(h.pods)
	h.pods = append(h.pods, p)
}
func (h *podHeap) Pop() any {
	last := len(h.pods) - 1
	p := h.pods[last]
	h.pods[last] = nil
	h.pods = h.pods[:last]
	delete(h.pos, p.Pod.UID)
	return p
}

// set adds p, or puts it in its new place if it is there.
func (h *podHeap) set(p *Pod) {
	if i, ok := h.pos[p.Pod.UID]; ok {
		h.pods[i] = p
		stdheap.Fix(h, i)
		return
	}
	stdheap.Push(h, p)
}

func (h *podHeap) get(uid types.UID) *Pod {
	if i, ok := h.pos[uid]; ok {
		return h.pods[i]
	}
	return nil
}

func (h *podHeap) remove(uid types.UID) *Pod {
	if i, ok := h.pos[uid]; ok {
		return stdheap.Remove(h, i).(*Pod)
	}
	return nil
}

func (h *podHeap) peek() *Pod {
	if len(h.pods) == 0 {
		return nil
	}
	return h.pods[0]
}

func (h *podHeap) pop() *Pod {
	if len(h.pods) == 0 {
		return nil
	}
	return stdheap.Pop(h).(*Pod)
}
