package scheduler

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Reduce leaves out of a case what can go while differs still says that it shows a difference.
func Reduce(c *Case, differs func(*Case) bool) *Case {
	for changed := true; changed; {
		changed = false
		for _, smaller := range []func(*Case, int) bool{
			func(c *Case, i int) bool { return drop(&c.Pending, i) },
			func(c *Case, i int) bool { return drop(&c.Pods, i) },
			func(c *Case, i int) bool { return len(c.Nodes) > 1 && drop(&c.Nodes, i) },
			func(c *Case, i int) bool { return drop(&c.Objects, i) },
			func(c *Case, i int) bool { return simplify(&c.Pending, i) },
			func(c *Case, i int) bool { return simplify(&c.Pods, i) },
		} {
			for i := 0; ; {
				next := c.copy()
				if !smaller(next, i) {
					break
				}
				if differs(next) {
					c, changed = next, true
				} else {
					i++
				}
			}
		}
	}
	return c
}

func (c *Case) copy() *Case {
	next := &Case{Seed: c.Seed, Root: c.Root, Nodes: slices.Clone(c.Nodes), Objects: slices.Clone([]runtime.Object(c.Objects))}
	for _, p := range c.Pods {
		next.Pods = append(next.Pods, p.DeepCopy())
	}
	for _, p := range c.Pending {
		next.Pending = append(next.Pending, p.DeepCopy())
	}
	return next
}

func drop[T any](list *[]T, i int) bool {
	if i >= len(*list) {
		return false
	}
	*list = slices.Delete(slices.Clone(*list), i, i+1)
	return true
}

// fields are parts of a pod that can be left out; each reports whether it was there.
var fields = []func(*v1.Pod) bool{
	func(p *v1.Pod) bool { return clear(&p.Spec.Affinity) },
	func(p *v1.Pod) bool { return empty(&p.Spec.TopologySpreadConstraints) },
	func(p *v1.Pod) bool { return empty(&p.Spec.Tolerations) },
	func(p *v1.Pod) bool { return empty(&p.Spec.Volumes) },
	func(p *v1.Pod) bool { return empty(&p.Spec.ResourceClaims) },
	func(p *v1.Pod) bool { return empty(&p.Spec.InitContainers) },
	func(p *v1.Pod) bool { return empty(&p.Spec.Containers[0].Ports) },
	func(p *v1.Pod) bool {
		had := len(p.Spec.NodeSelector) > 0
		p.Spec.NodeSelector = nil
		return had
	},
	func(p *v1.Pod) bool { return clear(&p.Spec.Resources) },
	func(p *v1.Pod) bool {
		had := len(p.Spec.Containers[0].Resources.Requests) > 0
		p.Spec.Containers[0].Resources = v1.ResourceRequirements{}
		return had
	},
}

// simplify takes the i-th of all parts that can go out of the pods.
func simplify(pods *[]*v1.Pod, i int) bool {
	for _, p := range *pods {
		for _, f := range fields {
			before := p.DeepCopy()
			if !f(p) {
				continue
			}
			if i == 0 {
				return true
			}
			*p = *before
			i--
		}
	}
	return false
}

func clear[T any](field **T) bool {
	had := *field != nil
	*field = nil
	return had
}

func empty[T any](field *[]T) bool {
	had := len(*field) > 0
	*field = nil
	return had
}
