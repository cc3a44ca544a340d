package statefulset

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
	"github.com/leme-k8s/leme/pkg/controller/internal/revision"
)

// input is what is decided on.
type input struct {
	set *appsv1.StatefulSet
	// current and update are the versions that a rolling update goes from and to.
	current, update version
	pods            []*corev1.Pod
	claims          map[string]*corev1.PersistentVolumeClaim
	now             time.Time
	// oneByOne says that spec.updateStrategy.rollingUpdate.maxUnavailable means nothing.
	oneByOne bool

	replicas []*member // by ordinal, one each
	surplus  []*member // the highest ordinal first
}

// member is one pod, or the place of one.
type member struct {
	ordinal int
	pod     *corev1.Pod
	// missing says that pod is yet to be created.
	missing bool
}

func newInput(set *appsv1.StatefulSet, current, update version, owned []*corev1.Pod, claims map[string]*corev1.PersistentVolumeClaim, now time.Time) *input {
	in := &input{set: set, current: current, update: update, claims: claims, now: now}
	byOrdinal := map[int]*corev1.Pod{}
	for _, p := range owned {
		n, ok := ordinalOf(set, p.Name)
		if !ok {
			continue
		}
		in.pods = append(in.pods, p)
		if wanted(set, n) {
			byOrdinal[n] = p
		} else {
			in.surplus = append(in.surplus, &member{ordinal: n, pod: p})
		}
	}
	slices.SortFunc(in.surplus, func(a, b *member) int { return cmp.Compare(b.ordinal, a.ordinal) })
	for n := first(set); n < end(set); n++ {
		m := &member{ordinal: n, pod: byOrdinal[n]}
		if m.pod == nil {
			m.missing, m.pod = true, newPod(set, in.versionOf(n), n)
		}
		in.replicas = append(in.replicas, m)
	}
	return in
}

// rolling returns the parameters of a rolling update, or nil if there is none.
func (in *input) rolling() *appsv1.RollingUpdateStatefulSetStrategy {
	s := in.set.Spec.UpdateStrategy
	switch {
	case s.Type != appsv1.RollingUpdateStatefulSetStrategyType:
		return nil
	case s.RollingUpdate == nil:
		return &appsv1.RollingUpdateStatefulSetStrategy{}
	}
	return s.RollingUpdate
}

// versionOf returns the version that a new pod has: a pod below the partition comes back as it was.
func (in *input) versionOf(ordinal int) version {
	if r := in.rolling(); r != nil && ordinal < first(in.set)+int(ptr.Deref(r.Partition, 0)) {
		return in.current
	}
	return in.update
}

func (in *input) ordered() bool {
	return in.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
}

// available reports whether a member works, and has for long enough.
func (in *input) available(m *member) bool {
	p := m.pod
	return !m.missing && p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning && pods.IsAvailable(p, in.set.Spec.MinReadySeconds, in.now)
}

// A verb is what is done to a pod.
type verb string

const (
	create  verb = "create"
	repair  verb = "update" // its identity or claims
	remove  verb = "delete"
	replace verb = "replace" // delete because it has ended
)

type step struct {
	verb
	*member
}

// plan is what to do: one phase after the other, as long as nothing fails.
type plan [][]step

// plan decides what to do. With ordered management it stops at the first pod that is not
// as it should be, so that there is one change at a time.
func (in *input) plan() plan {
	if in.set.DeletionTimestamp != nil {
		return nil
	}
	fill, more := in.fill()
	if !more {
		return plan{fill}
	}
	shrink, more := in.shrink()
	if !more {
		return plan{fill, shrink}
	}
	return plan{fill, shrink, in.roll()}
}

// fill creates the pods that are missing, the lowest ordinal first.
func (in *input) fill() (steps []step, more bool) {
	more = true
	for _, m := range in.replicas {
		switch {
		case !m.missing && pods.IsTerminated(m.pod):
			// Its successor has the same name, and so must wait until it is gone.
			if m.pod.DeletionTimestamp == nil {
				steps = append(steps, step{replace, m})
			}
			more = false
		case m.missing && in.doomed(m):
			more = false
		case m.missing:
			steps = append(steps, step{create, m})
			more = more && !in.ordered()
		case in.ordered() && m.pod.DeletionTimestamp != nil:
			more = false
		default:
			if m.pod.DeletionTimestamp == nil && !in.sound(m) {
				steps = append(steps, step{repair, m})
			}
			more = more && (!in.ordered() || in.available(m))
		}
		if !more && in.ordered() {
			return steps, false
		}
	}
	return steps, more
}

// shrink deletes the pods that are too many, the highest ordinal first. With ordered management each
// has to be gone before the next goes, and all must be well before one that is well goes.
func (in *input) shrink() (steps []step, more bool) {
	sick := in.firstSick()
	for _, m := range in.surplus {
		if in.misowned(m) {
			steps = append(steps, step{repair, m})
		}
	}
	for _, m := range in.surplus {
		if m.pod.DeletionTimestamp != nil {
			if in.ordered() {
				return steps, false
			}
			continue
		}
		if in.ordered() && m != sick && !in.available(m) {
			return steps, false
		}
		steps = append(steps, step{remove, m})
		if in.ordered() {
			return steps, false
		}
	}
	return steps, true
}

// firstSick returns the member with the lowest ordinal of those that do not work, or nil.
func (in *input) firstSick() *member {
	var sick *member
	for _, m := range slices.Concat(in.replicas, in.surplus) {
		if !in.available(m) && (sick == nil || m.ordinal < sick.ordinal) {
			sick = m
		}
	}
	return sick
}

// roll deletes pods of other versions, the highest ordinal first, so that fill creates them anew. At
// most maxUnavailable do not work at a time. With parallel management, those that do
// not work anyway cost nothing: a broken version must not stand in the way of its repair.
func (in *input) roll() (steps []step) {
	r := in.rolling()
	if r == nil {
		return nil
	}
	budget := 1
	if !in.oneByOne {
		budget = maxUnavailable(r, len(in.replicas))
	}
	for _, m := range in.replicas {
		if !in.available(m) {
			budget--
		}
	}
	lowest := min(int(ptr.Deref(r.Partition, 0)), len(in.replicas))
	for _, m := range slices.Backward(in.replicas[lowest:]) {
		if m.missing || m.pod.DeletionTimestamp != nil || m.pod.Labels[revision.HashLabel] == in.update.name {
			continue
		}
		if in.ordered() || in.available(m) {
			if budget <= 0 {
				continue
			}
			budget--
		}
		steps = append(steps, step{remove, m})
	}
	return steps
}

// maxUnavailable rounds a percentage down, as no one can tell half a pod; one may always be missing.
func maxUnavailable(r *appsv1.RollingUpdateStatefulSetStrategy, replicas int) int {
	n, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(r.MaxUnavailable, intstr.FromInt32(1)), replicas, false)
	if err != nil {
		return 1
	}
	return max(1, n)
}

func (in *input) isSurplus(m *member) bool { return !wanted(in.set, m.ordinal) }

// doomed reports whether a claim of m is about to be deleted with the last pod of that name.
func (in *input) doomed(m *member) bool {
	if p := in.set.Spec.PersistentVolumeClaimRetentionPolicy; p == nil || p.WhenScaled != appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
		return false // claims are there to be used again
	}
	for _, c := range newClaims(in.set, m.ordinal) {
		if have := in.claims[c.Name]; have != nil && doomed(have, m.pod) {
			return true
		}
	}
	return false
}

// sound reports whether a pod is who it should be and has what it should have.
func (in *input) sound(m *member) bool {
	if !identified(m.pod) || !mounted(in.set, m.pod, m.ordinal) || in.misowned(m) {
		return false
	}
	return m.pod.Status.Phase != corev1.PodPending || len(in.missingClaims(m)) == 0
}

// missingClaims returns the claims of m that do not exist.
func (in *input) missingClaims(m *member) (missing []*corev1.PersistentVolumeClaim) {
	for _, c := range newClaims(in.set, m.ordinal) {
		if in.claims[c.Name] == nil {
			missing = append(missing, c)
		}
	}
	return missing
}

// misowned reports whether a claim of m has not the owner that the retention policy wants.
func (in *input) misowned(m *member) bool {
	for _, c := range newClaims(in.set, m.ordinal) {
		if have := in.claims[c.Name]; have != nil {
			if _, changed := retain(in.set, m.pod, m.ordinal, have); changed {
				return true
			}
		}
	}
	return false
}

// status returns what the status should be, and when to look again because a pod
// becomes available by the mere passing of time.
func (in *input) status() (appsv1.StatefulSetStatus, time.Duration) {
	s := appsv1.StatefulSetStatus{
		ObservedGeneration: in.set.Generation,
		CurrentRevision:    in.current.name,
		UpdateRevision:     in.update.name,
		CollisionCount:     ptr.To(ptr.Deref(in.set.Status.CollisionCount, 0)),
		Conditions:         in.set.Status.Conditions,
	}
	var next time.Duration
	for _, p := range in.pods {
		s.Replicas++
		if p.Status.Phase == corev1.PodRunning {
			switch left := pods.AvailableIn(p, in.set.Spec.MinReadySeconds, in.now); {
			case left == 0:
				s.ReadyReplicas++
				s.AvailableReplicas++
			case left > 0:
				s.ReadyReplicas++
				if next == 0 || left < next {
					next = left
				}
			}
		}
		if p.DeletionTimestamp != nil {
			continue
		}
		switch name := p.Labels[revision.HashLabel]; {
		case name == in.update.name && name == in.current.name:
			s.CurrentReplicas++
			s.UpdatedReplicas++
		case name == in.update.name:
			s.UpdatedReplicas++
		case name == in.current.name:
			s.CurrentReplicas++
		}
	}
	// The update has come to its end: what it went to is what is. While pods are missing there is no telling.
	complete := int(s.Replicas) == len(in.replicas) && s.UpdatedReplicas == s.Replicas && s.ReadyReplicas == s.Replicas
	if in.rolling() != nil && complete && s.UpdateRevision != s.CurrentRevision {
		s.CurrentRevision, s.CurrentReplicas = s.UpdateRevision, s.UpdatedReplicas
	}
	return s, next
}
