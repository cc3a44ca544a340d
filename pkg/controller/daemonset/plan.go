package daemonset

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	schedulingv1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
	"github.com/leme-k8s/leme/pkg/controller/internal/revision"
)

// input is what is decided on.
type input struct {
	ds    *appsv1.DaemonSet
	hash  string
	nodes []nodePods
	pods  []*corev1.Pod
	// stray are unbound pods for nodes that do not exist.
	stray []*corev1.Pod
	now   time.Time
}

// nodePods is one node with the pods that the DaemonSet has there or means to have.
type nodePods struct {
	name string
	// run says that a pod is to be there; stay that one that is there may remain.
	run, stay bool
	pods      []*corev1.Pod
}

// plan is what to do.
type plan struct {
	create []string // nodes to create a pod for
	remove []*corev1.Pod
	ended  []*corev1.Pod // to be replaced, not too fast
	again  time.Duration
}

func (p *plan) wait(d time.Duration) {
	if p.again == 0 || d < p.again {
		p.again = d
	}
}

func newInput(ds *appsv1.DaemonSet, hash string, nodes []corev1.Node, owned []*corev1.Pod, now time.Time) *input {
	in := &input{ds: ds, hash: hash, pods: owned, now: now}
	byNode := map[string][]*corev1.Pod{}
	for _, p := range owned {
		byNode[pods.Target(p)] = append(byNode[pods.Target(p)], p)
	}
	model := newPod(ds, hash, "")
	affinity := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: ds.Spec.Template.Spec})
	known := map[string]bool{}
	for i := range nodes {
		n := &nodes[i]
		known[n.Name] = true
		run, stay := belongs(model, affinity, n)
		np := nodePods{name: n.Name, run: run, stay: stay, pods: byNode[n.Name]}
		slices.SortStableFunc(np.pods, func(a, b *corev1.Pod) int {
			return cmp.Or(boolCompare(b.Spec.NodeName != "", a.Spec.NodeName != ""), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
		})
		in.nodes = append(in.nodes, np)
	}
	slices.SortFunc(in.nodes, func(a, b nodePods) int { return cmp.Compare(a.name, b.name) })
	for _, p := range owned {
		if p.Spec.NodeName == "" && pods.Target(p) != "" && !known[pods.Target(p)] {
			in.stray = append(in.stray, p)
		}
	}
	return in
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// belongs reports whether a node is to have a pod, and whether it may keep one.
func belongs(model *corev1.Pod, affinity nodeaffinity.RequiredNodeAffinity, n *corev1.Node) (run, stay bool) {
	if model.Spec.NodeName != "" && model.Spec.NodeName != n.Name {
		return false, false
	}
	if ok, err := affinity.Match(n); err != nil || !ok {
		return false, false
	}
	untolerated := func(effects ...corev1.TaintEffect) bool {
		_, found := schedulingv1.FindMatchingUntoleratedTaint(klog.Background(), n.Spec.Taints, model.Spec.Tolerations,
			func(t *corev1.Taint) bool { return slices.Contains(effects, t.Effect) }, true)
		return found
	}
	return !untolerated(corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute), !untolerated(corev1.TaintEffectNoExecute)
}

func (in *input) isFailed(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed }

func (in *input) isNew(p *corev1.Pod) bool {
	return p.Labels[revision.HashLabel] == in.hash
}

func (in *input) available(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && pods.IsAvailable(p, in.ds.Spec.MinReadySeconds, in.now)
}

// limits returns how many nodes may have a second pod, and on how many the pod may be
// missing, while a rolling update is going on.
func (in *input) limits() (surge, unavailable int) {
	r := in.ds.Spec.UpdateStrategy.RollingUpdate
	if in.ds.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || r == nil {
		return 0, 0
	}
	desired := 0
	for _, n := range in.nodes {
		if n.run {
			desired++
		}
	}
	one := intstr.FromInt32(1)
	if r.MaxUnavailable == nil {
		r.MaxUnavailable = &one
	}
	unavailable, _ = intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, desired, true)
	if r.MaxSurge != nil {
		surge, _ = intstr.GetScaledValueFromIntOrPercent(r.MaxSurge, desired, true)
	}
	if surge == 0 && unavailable == 0 && desired > 0 {
		unavailable = 1
	}
	return surge, unavailable
}

// plan decides what to do: first that each node has a pod if it should, then, when
// that is so, the next step of a rolling update.
func (in *input) plan() *plan {
	p := &plan{remove: slices.Clone(in.stray)}
	surge, unavailable := in.limits()
	for i := range in.nodes {
		in.manage(p, &in.nodes[i], surge > 0)
	}
	if in.ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		if surge > 0 {
			in.rollWithSurge(p, surge)
		} else {
			in.roll(p, unavailable)
		}
	}
	return p
}

// manage plans for one node, leaving versions aside.
func (in *input) manage(p *plan, n *nodePods, surge bool) {
	if !n.stay {
		for _, pod := range n.pods {
			if pod.DeletionTimestamp == nil {
				p.remove = append(p.remove, pod)
			}
		}
		return
	}
	var running []*corev1.Pod
	for _, pod := range n.pods {
		switch {
		case pod.DeletionTimestamp != nil:
			// A pod on its way out holds its place, unless a second is allowed.
		case pods.IsTerminated(pod):
			p.ended = append(p.ended, pod)
		default:
			running = append(running, pod)
		}
	}
	if len(n.pods) == 0 && n.run {
		p.create = append(p.create, n.name)
		return
	}
	var old, updated []*corev1.Pod
	for _, pod := range running {
		if in.isNew(pod) {
			updated = append(updated, pod)
		} else {
			old = append(old, pod)
		}
	}
	switch {
	case len(running) <= 1:
	case !surge:
		p.remove = append(p.remove, running[1:]...)
	default: // one of each version at most, and no old one beside an available new one
		p.remove = append(p.remove, updated[min(1, len(updated)):]...)
		p.remove = append(p.remove, old[min(1, len(old)):]...)
		if len(updated) > 0 && len(old) > 0 && in.available(updated[0]) {
			p.remove = append(p.remove, old[0])
		}
	}
}

// versions returns the live pods of a node, by version.
func (in *input) versions(n *nodePods) (old, updated *corev1.Pod) {
	for _, pod := range n.pods {
		switch {
		case !pods.IsActive(pod):
		case in.isNew(pod):
			if updated == nil {
				updated = pod
			}
		case old == nil:
			old = pod
		}
	}
	return old, updated
}

// roll deletes old pods, as many as may be missing at a time. Those that do not
// work anyway cost nothing.
func (in *input) roll(p *plan, unavailable int) {
	missing := 0
	var broken, working []*corev1.Pod
	for i := range in.nodes {
		n := &in.nodes[i]
		old, updated := in.versions(n)
		switch {
		case old != nil && updated != nil: // settled by manage first
		case old != nil && !in.available(old):
			broken = append(broken, old)
			missing++
		case old != nil:
			working = append(working, old)
		case updated != nil && !in.available(updated), updated == nil && n.run:
			missing++
		}
	}
	p.remove = appendNew(p.remove, broken...)
	p.remove = appendNew(p.remove, working[:min(len(working), max(0, unavailable-missing))]...)
}

// rollWithSurge creates new pods beside old ones, on as many nodes as may have two.
func (in *input) rollWithSurge(p *plan, surge int) {
	var broken, working []string
	for i := range in.nodes {
		n := &in.nodes[i]
		old, updated := in.versions(n)
		switch {
		case old == nil:
		case updated != nil:
			if !in.available(updated) {
				surge--
			}
		case !n.run:
		case !in.available(old):
			broken = append(broken, n.name)
		default:
			working = append(working, n.name)
		}
	}
	p.create = append(p.create, broken...)
	p.create = append(p.create, working[:min(len(working), max(0, surge))]...)
}

func appendNew(to []*corev1.Pod, more ...*corev1.Pod) []*corev1.Pod {
	for _, p := range more {
		if !slices.Contains(to, p) {
			to = append(to, p)
		}
	}
	return to
}

// status returns what the status should be, and when to look again because a pod
// becomes available by the mere passing of time.
func (in *input) status() (appsv1.DaemonSetStatus, time.Duration) {
	s := appsv1.DaemonSetStatus{
		ObservedGeneration: in.ds.Generation,
		CollisionCount:     in.ds.Status.CollisionCount,
		Conditions:         in.ds.Status.Conditions,
	}
	var next time.Duration
	for i := range in.nodes {
		n := &in.nodes[i]
		if !n.run {
			if len(n.pods) > 0 {
				s.NumberMisscheduled++
			}
			continue
		}
		s.DesiredNumberScheduled++
		if len(n.pods) == 0 {
			continue
		}
		s.CurrentNumberScheduled++
		// While a new pod starts beside the old one, the old one counts.
		p := slices.MinFunc(n.pods, older)
		wait := pods.AvailableIn(p, in.ds.Spec.MinReadySeconds, in.now)
		if wait > 0 && (next == 0 || wait < next) {
			next = wait
		}
		s.NumberReady += count(wait >= 0)
		s.NumberAvailable += count(wait == 0)
		s.UpdatedNumberScheduled += count(in.isNew(p) && p.DeletionTimestamp == nil)
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	return s, next
}

// older orders the pods of a node: those that are bound, then those that were made before.
func older(a, b *corev1.Pod) int {
	return cmp.Or(int(count(a.Spec.NodeName == "")-count(b.Spec.NodeName == "")), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

func count(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// tolerated is what every daemon stands: it belongs to the node, whatever its state.
var tolerated = []corev1.Toleration{
	{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
	{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
	{Key: corev1.TaintNodeDiskPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodePIDPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodeUnschedulable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
}

// newPod returns the pod for a node. The scheduler binds it, so that it counts and
// preempts like all others, but it has no choice.
func newPod(ds *appsv1.DaemonSet, hash, node string) *corev1.Pod {
	p := pods.FromTemplate(&ds.Spec.Template, ds, kind)
	p.Labels = labels.Merge(p.Labels, labels.Set{revision.HashLabel: hash})
	if g, ok := ds.Annotations[appsv1.DeprecatedTemplateGeneration]; ok {
		p.Labels["pod-template-generation"] = g
	}
	add := tolerated
	if p.Spec.HostNetwork {
		add = append(slices.Clone(add), corev1.Toleration{Key: corev1.TaintNodeNetworkUnavailable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule})
	}
	for _, t := range add {
		if !slices.ContainsFunc(p.Spec.Tolerations, func(have corev1.Toleration) bool { return have.MatchToleration(&t) }) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, t)
		}
	}
	if node == "" {
		return p
	}
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	if p.Spec.Affinity.NodeAffinity == nil {
		p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}},
		}}},
	}
	return p
}
