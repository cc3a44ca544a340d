package deployment

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// Annotations that record a ReplicaSet's part in a rollout.
const (
	// RevisionAnnotation numbers the versions of a Deployment; `kubectl rollout` reads it.
	RevisionAnnotation = "deployment.kubernetes.io/revision"
	// historyAnnotation lists the earlier revisions of a ReplicaSet that was rolled back to.
	historyAnnotation = "deployment.kubernetes.io/revision-history"
	// desiredAnnotation is the size of the Deployment when the ReplicaSet was last sized.
	desiredAnnotation = "deployment.kubernetes.io/desired-replicas"
	// mostAnnotation is the number of pods it could have then, surge included.
	mostAnnotation = "deployment.kubernetes.io/max-replicas"
	// rollbackAnnotation asked for a rollback in an API that is gone.
	rollbackAnnotation = "deprecated.deployment.rollback.to"

	historyLimit = 2000 // characters
)

// state is what is decided on: a Deployment and its ReplicaSets at one moment.
type state struct {
	d   *appsv1.Deployment
	new *appsv1.ReplicaSet   // of the current template; may be nil
	old []*appsv1.ReplicaSet // all others, oldest first
	now time.Time
	// progress is a Progressing condition that an action has brought about.
	progress *appsv1.DeploymentCondition
}

// size is the number of replicas that a ReplicaSet is to have.
type size struct {
	set      *appsv1.ReplicaSet
	replicas int32
}

func newState(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, now time.Time) *state {
	s := &state{d: d, now: now}
	for _, rs := range sortByAge(sets) {
		if s.new == nil && sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			s.new = rs
		} else {
			s.old = append(s.old, rs)
		}
	}
	return s
}

// sameTemplate compares templates without the label that tells them apart.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	x, y := a.ObjectMeta, b.ObjectMeta
	x.Labels, y.Labels = nil, nil
	return contains(a.Labels, b.Labels) && contains(b.Labels, a.Labels) && equality.Semantic.DeepEqual(&x, &y) && equality.Semantic.DeepEqual(&a.Spec, &b.Spec)
}

// contains reports whether labels has all of some others, but for the hash.
func contains(labels, others map[string]string) bool {
	for k, v := range others {
		if got, found := labels[k]; k != appsv1.DefaultDeploymentUniqueLabelKey && (!found || got != v) {
			return false
		}
	}
	return true
}

func (s *state) all() []*appsv1.ReplicaSet {
	if s.new == nil {
		return s.old
	}
	return append(slices.Clone(s.old), s.new)
}

func replicas(rs *appsv1.ReplicaSet) int32 {
	if rs == nil {
		return 0
	}
	return ptr.Deref(rs.Spec.Replicas, 1)
}

// active returns the ReplicaSets that are to have pods.
func active(sets []*appsv1.ReplicaSet) (found []*appsv1.ReplicaSet) {
	for _, rs := range sets {
		if replicas(rs) > 0 {
			found = append(found, rs)
		}
	}
	return found
}

func sum(sets []*appsv1.ReplicaSet, of func(*appsv1.ReplicaSet) int32) (n int32) {
	for _, rs := range sets {
		n += of(rs)
	}
	return n
}

// limits returns how many pods may exist beyond the desired number, and how many
// of them may be missing. Both cannot be none, or nothing could ever move.
func (s *state) limits() (surge, unavailable int32) {
	r := s.d.Spec.Strategy.RollingUpdate
	if s.d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || r == nil {
		return 0, 0
	}
	n := int(*s.d.Spec.Replicas)
	up, _ := intstr.GetScaledValueFromIntOrPercent(ptr.To(ptr.Deref(r.MaxSurge, intstr.FromInt32(0))), n, true)
	down, _ := intstr.GetScaledValueFromIntOrPercent(ptr.To(ptr.Deref(r.MaxUnavailable, intstr.FromInt32(0))), n, false)
	if up == 0 && down == 0 {
		down = 1
	}
	return int32(up), int32(min(down, n))
}

// most is the largest number of pods that the Deployment may have.
func (s *state) most() int32 {
	surge, _ := s.limits()
	return *s.d.Spec.Replicas + surge
}

// resized reports whether the Deployment has changed its size since its
// ReplicaSets were sized, in which case they share the difference. Only a rolling
// update can have several of them.
func (s *state) resized() bool {
	if s.d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return false
	}
	for _, rs := range active(s.all()) {
		if n, ok := intAnnotation(rs, desiredAnnotation); ok && n != *s.d.Spec.Replicas {
			return true
		}
	}
	return false
}

// newSize is the number of replicas that the new ReplicaSet may grow to at once.
func (s *state) newSize() int32 {
	want, have := *s.d.Spec.Replicas, replicas(s.new)
	if s.d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return want
	}
	room := s.most() - sum(s.all(), replicas)
	if room <= 0 {
		return have
	}
	return have + min(room, want-have)
}

// roll returns the next step of a rolling update: the new ReplicaSet grows while
// there is room, else the old ones shrink while enough pods are available.
func (s *state) roll() []size {
	want := *s.d.Spec.Replicas
	if have := replicas(s.new); have > want {
		return []size{{s.new, want}}
	} else if have < want {
		if n := s.newSize(); n != have {
			return []size{{s.new, n}}
		}
	}
	return s.shrinkOld()
}

func (s *state) shrinkOld() []size {
	old := active(s.old)
	if len(old) == 0 {
		return nil
	}
	_, unavailable := s.limits()
	least := *s.d.Spec.Replicas - unavailable
	notYet := replicas(s.new) - s.new.Status.AvailableReplicas
	budget := sum(s.all(), replicas) - least - notYet
	if budget <= 0 {
		return nil
	}
	to := map[*appsv1.ReplicaSet]int32{}
	// Pods that do not work go first: they are missed by nobody.
	for _, rs := range old {
		to[rs] = replicas(rs)
		n := min(budget, max(0, replicas(rs)-rs.Status.AvailableReplicas))
		to[rs] -= n
		budget -= n
	}
	// Then as many as are available beyond the least.
	budget = min(budget, sum(s.all(), func(rs *appsv1.ReplicaSet) int32 { return rs.Status.AvailableReplicas })-least)
	for _, rs := range old {
		if budget <= 0 {
			break
		}
		n := min(budget, to[rs])
		to[rs] -= n
		budget -= n
	}
	var steps []size
	for _, rs := range old {
		if to[rs] != replicas(rs) {
			steps = append(steps, size{rs, to[rs]})
		}
	}
	return steps
}

// proportional returns the sizes that follow a change of the Deployment's own size.
// In the middle of a rollout each ReplicaSet takes its share, so that the risk of the new
// version stays the same.
func (s *state) proportional() []size {
	if one := s.only(); one != nil {
		return []size{{one, *s.d.Spec.Replicas}}
	}
	var sizes []size
	if s.saturated() {
		for _, rs := range active(s.old) {
			sizes = append(sizes, size{rs, 0})
		}
		return sizes
	}
	if s.d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return nil
	}
	sets := active(s.all())
	allowed := int32(0)
	if *s.d.Spec.Replicas > 0 {
		allowed = s.most()
	}
	toAdd := allowed - sum(sets, replicas)
	// The largest is first; among equals the newest grows and the oldest shrinks.
	slices.SortStableFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		age := a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
		if toAdd > 0 {
			age = -age
		}
		return cmp.Or(cmp.Compare(replicas(b), replicas(a)), age)
	})
	added := int32(0)
	for _, rs := range sets {
		n := int32(0)
		if left := toAdd - added; left > 0 {
			n = min(max(s.share(rs), 0), left)
		} else if left < 0 {
			n = max(min(s.share(rs), 0), left)
		}
		sizes = append(sizes, size{rs, replicas(rs) + n})
		added += n
	}
	if len(sizes) > 0 { // what rounding has left
		sizes[0].replicas = max(0, sizes[0].replicas+toAdd-added)
	}
	return sizes
}

// only returns the ReplicaSet that simply gets the Deployment's size: the only one
// with pods, or the newest if none has.
func (s *state) only() *appsv1.ReplicaSet {
	switch sets := active(s.all()); {
	case len(sets) == 1:
		return sets[0]
	case len(sets) > 1:
		return nil
	case s.new != nil:
		return s.new
	case len(s.old) > 0:
		return s.old[len(s.old)-1]
	}
	return nil
}

// saturated reports whether the new ReplicaSet has all the pods, all available.
func (s *state) saturated() bool {
	if s.new == nil {
		return false
	}
	want := *s.d.Spec.Replicas
	n, ok := intAnnotation(s.new, desiredAnnotation)
	return ok && n == want && replicas(s.new) == want && s.new.Status.AvailableReplicas == want
}

// share is what a ReplicaSet gains (or loses) when the Deployment's largest size
// changes from what it was when the ReplicaSet was sized.
func (s *state) share(rs *appsv1.ReplicaSet) int32 {
	if *s.d.Spec.Replicas == 0 {
		return -replicas(rs)
	}
	before, ok := intAnnotation(rs, mostAnnotation)
	if !ok || before == 0 {
		if before = s.d.Status.Replicas; before == 0 {
			return 0
		}
	}
	return int32(math.Round(float64(replicas(rs))*float64(s.most())/float64(before))) - replicas(rs)
}

// nextRevision is one more than that of any old ReplicaSet.
func (s *state) nextRevision() int64 {
	latest := int64(0)
	for _, rs := range s.old {
		latest = max(latest, revision(rs))
	}
	return latest + 1
}

func revision(rs *appsv1.ReplicaSet) int64 {
	n, _ := strconv.ParseInt(rs.Annotations[RevisionAnnotation], 10, 64)
	return n
}

// wantNew returns the ReplicaSet for the current template.
func (s *state) wantNew() *appsv1.ReplicaSet {
	hash := pods.TemplateHash(&s.d.Spec.Template, s.d.Status.CollisionCount)
	template := *s.d.Spec.Template.DeepCopy()
	template.Labels = with(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	selector := s.d.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name:            s.d.Name + "-" + hash,
			Namespace:       s.d.Namespace,
			Labels:          template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(s.d, kind)},
		},
		Spec: appsv1.ReplicaSetSpec{
			Replicas:        ptr.To(s.newSize()),
			MinReadySeconds: s.d.Spec.MinReadySeconds,
			Selector:        selector,
			Template:        template,
		},
	}
	annotate(rs, s.d, s.nextRevision(), false)
	setSizeAnnotations(rs, *s.d.Spec.Replicas, s.most())
	return rs
}

func with(m map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	for k, v := range m {
		if k != key {
			out[k] = v
		}
	}
	return out
}

// annotate passes the Deployment's annotations on to rs and raises its revision. It
// reports whether anything has changed.
func annotate(rs *appsv1.ReplicaSet, d *appsv1.Deployment, next int64, exists bool) bool {
	changed := false
	set := func(k, v string) {
		if got, ok := rs.Annotations[k]; !ok || got != v {
			metav1.SetMetaDataAnnotation(&rs.ObjectMeta, k, v)
			changed = true
		}
	}
	for k, v := range d.Annotations {
		switch k {
		case corev1.LastAppliedConfigAnnotation, RevisionAnnotation, historyAnnotation, desiredAnnotation, mostAnnotation, rollbackAnnotation:
		default:
			set(k, v)
		}
	}
	before := rs.Annotations[RevisionAnnotation]
	if revision(rs) >= next {
		return changed
	}
	set(RevisionAnnotation, strconv.FormatInt(next, 10))
	if exists && before != "" {
		history := append(strings.FieldsFunc(rs.Annotations[historyAnnotation], func(r rune) bool { return r == ',' }), before)
		for len(strings.Join(history, ",")) > historyLimit {
			history = history[1:]
		}
		set(historyAnnotation, strings.Join(history, ","))
	}
	return changed
}

func setSizeAnnotations(rs *appsv1.ReplicaSet, desired, most int32) bool {
	changed := false
	for k, n := range map[string]int32{desiredAnnotation: desired, mostAnnotation: most} {
		if v := strconv.Itoa(int(n)); rs.Annotations[k] != v {
			metav1.SetMetaDataAnnotation(&rs.ObjectMeta, k, v)
			changed = true
		}
	}
	return changed
}

func intAnnotation(rs *appsv1.ReplicaSet, key string) (int32, bool) {
	n, err := strconv.ParseInt(rs.Annotations[key], 10, 32)
	return int32(n), err == nil
}

// obsolete returns the old ReplicaSets that the history has no place for.
func (s *state) obsolete() []*appsv1.ReplicaSet {
	limit := s.d.Spec.RevisionHistoryLimit
	if limit == nil || *limit == math.MaxInt32 {
		return nil
	}
	var kept []*appsv1.ReplicaSet
	for _, rs := range s.old {
		if rs.DeletionTimestamp == nil {
			kept = append(kept, rs)
		}
	}
	excess := len(kept) - int(*limit)
	if excess <= 0 {
		return nil
	}
	slices.SortStableFunc(kept, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revision(a), revision(b)) })
	var gone []*appsv1.ReplicaSet
	for _, rs := range kept[:excess] {
		if rs.Status.Replicas == 0 && replicas(rs) == 0 && rs.Generation <= rs.Status.ObservedGeneration {
			gone = append(gone, rs)
		}
	}
	return gone
}
