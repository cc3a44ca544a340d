package pods

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/leme-k8s/leme/pkg/kubelet/allocation"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// Resize brings what runs of a pod to what has been allocated to it.
type Resize struct {
	// Update has the containers to change while they run: those first that give something back.
	Update []Update
	// Announce says that the runtime hears of the pod's new size, too.
	Announce bool
}

// Update changes the resources of one container.
type Update struct {
	ID, Name string
	// Memory and CPU are by how much its limits change, in bytes and thousandths of a CPU; the first limit is a
	// change from everything.
	Memory, CPU int64
}

// failedResize is the place of a resize among the failures, where no container has its name.
const failedResize = "/resize"

// resized are the resources that may change while a container runs.
var resized = []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory}

// resize plans what is to be done about a running container that has another size than it should. It returns whether
// that is to start it again.
func (in *Input) resize(p *Plan, c *v1.Container, running *runtime.Container) (restart bool) {
	want := allocation.Effective(in.Pod, c)
	had, known := in.Actuated.Containers[c.Name]
	var changes []v1.ResourceName
	for _, name := range resized {
		if !sameQuantity(had.Requests, want.Requests, name) || !sameQuantity(had.Limits, want.Limits, name) {
			changes = append(changes, name)
		}
	}
	if len(changes) == 0 {
		return false
	}
	p.Resizing = true
	// Of a container that was started by who knows whom it is not known whether it has to change at all.
	if known && slices.ContainsFunc(c.ResizePolicy, func(policy v1.ContainerResizePolicy) bool {
		return policy.RestartPolicy == v1.RestartContainer && slices.Contains(changes, policy.ResourceName)
	}) {
		p.Stop = append(p.Stop, Stop{
			ID: running.ID, Name: c.Name, Grace: Grace(in.Pod), Restart: true, Message: fmt.Sprintf("Container %s resize requires restart", c.Name),
		})
		return true
	}
	if p.Resize == nil {
		p.Resize = &Resize{}
	}
	p.Resize.Update = append(p.Resize.Update, Update{
		ID: running.ID, Name: c.Name,
		Memory: change(had.Limits.Memory().Value(), want.Limits.Memory().Value()),
		CPU:    change(had.Limits.Cpu().MilliValue(), want.Limits.Cpu().MilliValue()),
	})
	return false
}

// change is the difference of two limits, of which 0 is none.
func change(had, want int64) int64 {
	const everything = 1 << 60
	if had == 0 && want != 0 {
		return want - everything
	}
	return want - had
}

func sameQuantity(a, b v1.ResourceList, name v1.ResourceName) bool {
	x, y := a[name], b[name]
	return x.Equal(y)
}

// resizePod completes the plan of a resize, or puts it off if it has failed lately.
func (in *Input) resizePod(p *Plan) {
	if whole := in.Pod.Spec.Resources; whole != nil && in.Actuated.Pod != nil {
		for _, name := range resized {
			if !sameQuantity(whole.Requests, in.Actuated.Pod.Requests, name) || !sameQuantity(whole.Limits, in.Actuated.Pod.Limits, name) {
				p.Resizing = true
			}
		}
	}
	if p.Resize == nil {
		if in.Sized {
			return
		}
		p.Resize = &Resize{}
	}
	p.Resize.Announce = p.Resizing
	if f, ok := in.Failed[failedResize]; ok && in.Now.Before(f.Until) {
		p.wake(f.Until)
		p.Resize = nil
		return
	}
	slices.SortStableFunc(p.Resize.Update, func(a, b Update) int {
		return cmp.Or(cmp.Compare(min(a.Memory, 0), min(b.Memory, 0)), cmp.Compare(min(a.CPU, 0), min(b.CPU, 0)))
	})
}

// resizing is what is to be said of a pod's resize in its status.
type resizing struct {
	// pending is a resize that the node has not allocated, progress one that is allocated and not yet in force.
	pending, progress *v1.PodCondition
}

// resizingOf reads what an earlier kubelet has said.
func resizingOf(pod *v1.Pod) (r resizing) {
	for i := range pod.Status.Conditions {
		switch c := &pod.Status.Conditions[i]; c.Type {
		case v1.PodResizePending:
			r.pending = c.DeepCopy()
		case v1.PodResizeInProgress:
			r.progress = c.DeepCopy()
		}
	}
	return r
}

// conditions are those to show.
func (r resizing) conditions() []v1.PodCondition {
	var out []v1.PodCondition
	for _, c := range []*v1.PodCondition{r.pending, r.progress} {
		if c != nil {
			out = append(out, *c)
		}
	}
	return out
}

// resizeCondition returns the condition as it is to be now, and whether there is news in it: another reason, or a later resize.
func resizeCondition(old *v1.PodCondition, t v1.PodConditionType, reason, message string, generation int64, now time.Time) (*v1.PodCondition, bool) {
	at := metav1.NewTime(now).Rfc3339Copy()
	c := &v1.PodCondition{
		Type: t, Status: v1.ConditionTrue, Reason: reason, Message: message, ObservedGeneration: generation, LastProbeTime: at, LastTransitionTime: at,
	}
	if old == nil {
		return c, true
	}
	if old.Reason == reason {
		c.LastTransitionTime = old.LastTransitionTime
		if old.Message == message && old.ObservedGeneration == generation {
			return old, false
		}
	}
	return c, old.Reason != reason || old.ObservedGeneration != generation
}

// A candidate is a pod that waits to be resized.
type candidate struct {
	worker       *worker
	pod, given   *v1.Pod
	waitingSince time.Time
}

// grows tells whether it asks for more than it has.
func (c candidate) grows() bool {
	opts := resourcehelper.PodResourcesOptions{}
	had, want := resourcehelper.PodRequests(c.given, opts), resourcehelper.PodRequests(c.pod, opts)
	return want.Cpu().Cmp(*had.Cpu()) > 0 || want.Memory().Cmp(*had.Memory()) > 0
}

// byUrgency orders candidates: who gives something back, then by priority, then by quality of service, then who has waited longest.
func byUrgency(a, b candidate) int {
	no := func(v bool) int {
		if v {
			return 1
		}
		return 0
	}
	priority := func(p *v1.Pod) int32 {
		if p.Spec.Priority == nil {
			return 0
		}
		return *p.Spec.Priority
	}
	return cmp.Or(
		cmp.Compare(no(a.grows()), no(b.grows())),
		cmp.Compare(priority(b.pod), priority(a.pod)),
		cmp.Compare(no(runtime.QOS(a.pod) != v1.PodQOSGuaranteed), no(runtime.QOS(b.pod) != v1.PodQOSGuaranteed)),
		a.waitingSince.Compare(b.waitingSince),
	)
}

// resizeMessage tells in an event which size is meant.
func resizeMessage(what string, pod *v1.Pod, generation int64, problem string) string {
	type container struct {
		Name      string                  `json:"name"`
		Resources v1.ResourceRequirements `json:"resources"`
	}
	sizes := func(list []v1.Container) []container {
		var out []container
		for i := range list {
			out = append(out, container{list[i].Name, list[i].Resources})
		}
		return out
	}
	details, err := json.Marshal(struct {
		InitContainers []container `json:"initContainers,omitempty"`
		Containers     []container `json:"containers,omitempty"`
		Generation     int64       `json:"generation"`
		Error          string      `json:"error,omitempty"`
	}{sizes(pod.Spec.InitContainers), sizes(pod.Spec.Containers), generation, problem})
	if err != nil {
		return "Pod resize " + what
	}
	return "Pod resize " + what + ": " + string(details)
}
