package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
)

// maxAlike bounds the memory that each of the tables below takes; when one is full, it begins anew.
const maxAlike = 1 << 14

// alike lets pods share what they have in common. Most pods are made from few templates, and each comes from the API
// server with a copy of its own of their labels, requests and tolerations, which are the larger part of it.
type alike struct {
	mu          sync.Mutex
	strings     table[string]
	labels      table[map[string]string]
	resources   table[v1.ResourceList]
	tolerations table[[]v1.Toleration]
}

// table has one value of all that are equal, by a text that tells different ones apart.
type table[T any] map[string]T

func (t *table[T]) one(text string, value T) T {
	if known, ok := (*t)[text]; ok {
		return known
	}
	if *t == nil || len(*t) >= maxAlike {
		*t = table[T]{}
	}
	(*t)[text] = value
	return value
}

// pod makes a pod that has just come share what it has in common with others.
func (a *alike) pod(pod *v1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range []*string{&pod.Namespace, &pod.GenerateName, &pod.Spec.NodeName, &pod.Spec.SchedulerName, &pod.Spec.ServiceAccountName, &pod.Spec.PriorityClassName} {
		*s = a.strings.one(*s, *s)
	}
	if len(pod.Labels) > 0 {
		pod.Labels = a.labels.one(textOf(pod.Labels), pod.Labels)
	}
	if t := pod.Spec.Tolerations; len(t) > 0 {
		pod.Spec.Tolerations = a.tolerations.one(fmt.Sprint(t), t)
	}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			c := &list[i]
			c.Name, c.Image = a.strings.one(c.Name, c.Name), a.strings.one(c.Image, c.Image)
			c.Resources.Requests, c.Resources.Limits = a.list(c.Resources.Requests), a.list(c.Resources.Limits)
		}
	}
}

func (a *alike) list(list v1.ResourceList) v1.ResourceList {
	if len(list) == 0 {
		return list
	}
	amounts := make(map[string]string, len(list))
	for name, q := range list {
		amounts[string(name)] = q.String()
	}
	return a.resources.one(textOf(amounts), list)
}

// textOf writes a map out, so that different ones differ: no key or value of those here has a NUL in it.
func textOf(m map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m)) {
		b.WriteString(key)
		b.WriteByte(0)
		b.WriteString(m[key])
		b.WriteByte(0)
	}
	return b.String()
}
