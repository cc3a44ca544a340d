package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/uuid"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plan"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/defaultpreemption"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
)

// maxRequest is how many bytes a request for a dry run may have.
const maxRequest = 64 << 20

// badRequest is an error of who asked.
type badRequest struct{ error }

// planHandler serves dry runs, one after the other.
func (s *Scheduler) planHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			http.Error(w, "want POST "+plan.Path, http.StatusMethodNotAllowed)
			return
		}
		var request plan.Request
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&request); err != nil {
			http.Error(w, "reading the request: "+err.Error(), http.StatusBadRequest)
			return
		}
		if !s.synced.Load() {
			http.Error(w, "this scheduler does not know the cluster's pods and nodes yet", http.StatusServiceUnavailable)
			return
		}
		answer, err := s.dryRun(r.Context(), &request)
		var bad badRequest
		switch {
		case errors.As(err, &bad):
			http.Error(w, err.Error(), http.StatusBadRequest)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			w.Header().Set("Content-Type", "application/json")
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			_ = e.Encode(answer) // the client is gone
		}
	})
}

// dryRun places pods, one after the other, in a twin of what the scheduler knows.
func (s *Scheduler) dryRun(ctx context.Context, r *plan.Request) (*plan.Plan, error) {
	if err := r.Validate(); err != nil {
		return nil, badRequest{err}
	}
	s.planning.Lock()
	defer s.planning.Unlock()
	t, err := s.twin(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.imagine(r); err != nil {
		return nil, badRequest{err}
	}
	out := &plan.Plan{Pods: make([]plan.Pod, len(r.Pods))}
	seen := sets.New[types.UID]()
	for i := range r.Pods {
		pod := &r.Pods[i]
		if pod.UID == "" || seen.Has(pod.UID) || t.cache.Has(pod.UID) {
			pod.UID = uuid.NewUUID()
		}
		seen.Insert(pod.UID)
		if pod.Spec.SchedulerName == "" {
			pod.Spec.SchedulerName = config.DefaultSchedulerName
		}
		if _, err := cache.NewPodInfo(pod); err != nil {
			return nil, badRequest{fmt.Errorf("pods[%d] (%s): %w", i, pod.Name, err)}
		}
		t.groups.Set(pod)
	}
	d := &dryRun{closedMind: t, tried: sets.New[fwk.EntityKey]()}
	for i := range r.Pods {
		pod := &r.Pods[i]
		if key, ok := podgroup.EntityOf(pod); ok && t.groups != nil && pod.Spec.NodeName == "" {
			err = d.tryGroup(ctx, key, r.Pods, out.Pods)
		} else {
			out.Pods[i], err = d.try(ctx, pod)
		}
		if err != nil {
			return nil, err
		}
		out.Pods[i].Namespace, out.Pods[i].Name = pod.Namespace, pod.Name
	}
	t.cache.UpdateSnapshot(t.snapshot)
	out.Nodes = t.snapshot.Len()
	return out, nil
}

// imagine makes the cluster what the request says.
func (m *closedMind) imagine(r *plan.Request) error {
	for _, name := range r.WithoutNodes {
		obj, ok, err := m.store(&v1.Node{}).GetByKey(name)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("there is no node %q to be without", name)
		}
		if err := m.store(&v1.Node{}).Delete(obj); err != nil {
			return err
		}
		m.cache.RemoveNode(name)
	}
	for i, raw := range r.Objects {
		obj, kind, err := clientscheme.Codecs.UniversalDeserializer().Decode(raw.Raw, nil, nil)
		if err != nil {
			return fmt.Errorf("objects[%d]: %w", i, err)
		}
		o, err := meta.Accessor(obj)
		if err != nil || o.GetName() == "" {
			return fmt.Errorf("objects[%d]: a %s without a name", i, kind.Kind)
		}
		if node, ok := obj.(*v1.Node); ok {
			m.cache.SetNode(node)
		}
		if err := m.store(obj).Add(obj); err != nil {
			return fmt.Errorf("objects[%d]: %w", i, err)
		}
	}
	return nil
}

// dryRun is a dry run that goes on.
type dryRun struct {
	*closedMind
	start int                     // where the next search begins
	tried sets.Set[fwk.EntityKey] // the groups that have been
}

// try finds a pod its node, and takes it to be there.
func (r *dryRun) try(ctx context.Context, pod *v1.Pod) (plan.Pod, error) {
	fw, ok := r.profiles[pod.Spec.SchedulerName]
	if !ok && pod.Spec.NodeName == "" {
		return plan.Pod{Message: fmt.Sprintf("this scheduler has no profile %q, by which the pod asks for it", pod.Spec.SchedulerName)}, nil
	}
	if pod.Spec.NodeName != "" {
		r.cache.SetPod(pod)
		return plan.Pod{Node: pod.Spec.NodeName, Message: "spec.nodeName says so; no scheduler is asked"}, nil
	}
	if s := fw.RunPreEnqueue(ctx, pod); !s.IsSuccess() {
		return plan.Pod{Message: fmt.Sprintf("held back by %s: %s", s.Plugin(), s.Message())}, nil
	}
	if err := r.store(pod).Add(pod); err != nil { // where plugins look it up
		return plan.Pod{}, err
	}
	q := question{fw: fw, state: framework.NewTrialState(), pod: pod, attempt: 1, start: r.start, seed: seedOf(pod, 1)}
	d := r.decide(ctx, q)
	var preempted []string
	if node := d.nominated; d.err != nil && node.Mode() == fwk.ModeOverride && node.NominatedNodeName != "" {
		// It would be promised the node, and tried again when the others have gone.
		preempted = r.evict(pod, node.NominatedNodeName, d.told.Preemption)
		pod = pod.DeepCopy()
		pod.Status.NominatedNodeName = node.NominatedNodeName
		if err := r.store(pod).Update(pod); err != nil {
			return plan.Pod{}, err
		}
		q.state, q.pod, q.attempt = framework.NewTrialState(), pod, 2
		d = r.decide(ctx, q)
	}
	if err := ctx.Err(); err != nil {
		return plan.Pod{}, err
	}
	out := plan.Pod{Node: d.node, Preempted: preempted, Attempt: &d.told, Message: d.told.Message}
	if d.err != nil {
		out.Node = ""
		return out, nil
	}
	r.start = d.next
	return out, r.stay(ctx, fw, q.state, pod, &out)
}

// stay takes the pod to be on the node that was found.
func (r *dryRun) stay(ctx context.Context, fw *framework.Framework, state fwk.CycleState, pod *v1.Pod, out *plan.Pod) error {
	placed, err := r.assume(ctx, pod, out.Node)
	if err != nil {
		return err
	}
	if s := fw.RunReservePluginsReserve(ctx, state, placed, out.Node); !s.IsSuccess() {
		fw.RunReservePluginsUnreserve(ctx, state, placed, out.Node)
		r.unassume(placed)
		out.Node, out.Message = "", s.Message()
	}
	return nil
}

// tryGroup is try, for all pods of a group, and of the tree that it is part of, at the first of them.
func (r *dryRun) tryGroup(ctx context.Context, key fwk.EntityKey, pods []v1.Pod, out []plan.Pod) error {
	root, known, err := r.groups.GetRootKeyForGroup(key)
	if !known || err != nil {
		root = key
	}
	if r.tried.Has(root) {
		return nil
	}
	r.tried.Insert(root)
	q := groupQuestion{trial: true, start: r.start}
	at := map[types.UID]int{} // in pods
	var mates []*v1.Pod
	for i := range pods {
		of, ok := podgroup.EntityOf(&pods[i])
		if !ok || pods[i].Spec.NodeName != "" {
			continue
		}
		if theirs, _, err := r.groups.GetRootKeyForGroup(of); of == key || err == nil && theirs == root {
			at[pods[i].UID] = i
			mates, q.attempts = append(mates, pods[i].DeepCopy()), append(q.attempts, 1)
		}
	}
	q.seed = seedOf(mates[0], 1)
	refuse := func(message string) {
		for _, i := range at {
			out[i].Message = message
		}
	}
	var ok bool
	if q.fw, ok = r.profiles[mates[0].Spec.SchedulerName]; !ok {
		refuse(fmt.Sprintf("this scheduler has no profile %q, by which the pod asks for it", mates[0].Spec.SchedulerName))
		return nil
	}
	for _, pod := range mates {
		if s := q.fw.RunPreEnqueue(ctx, pod); !s.IsSuccess() {
			refuse(fmt.Sprintf("held back by %s: %s", s.Plugin(), s.Message()))
			return nil
		}
		if err := r.store(pod).Add(pod); err != nil { // where plugins look it up
			return err
		}
	}
	if q.group, err = r.groups.Tree(root, mates); err != nil {
		refuse(err.Error())
		return nil
	}
	d := r.decideGroup(ctx, q)
	var preempted []string
	if p := d.told.Preemption; p != nil && !d.status.IsSuccess() {
		for _, c := range p.Candidates {
			preempted = append(preempted, r.evict(q.group.Pods[0], c.Node, p)...)
		}
		for i, pod := range q.group.Pods {
			if n := d.members[i].nominated; n.Mode() == fwk.ModeOverride {
				pod.Status.NominatedNodeName = n.NominatedNodeName
			}
		}
		d = r.decideGroup(ctx, q)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for n, pod := range q.group.Pods {
		i, m := at[pod.UID], &d.members[n]
		m.told.Group = &d.told
		out[i] = plan.Pod{Preempted: preempted, Attempt: &m.told, Message: m.told.Message}
		preempted = nil // they go once
		if d.status.IsSuccess() && m.err == nil {
			r.start = d.next
			out[i].Node = m.node
			m.state.LeaveGroup()
			if err := r.stay(ctx, q.fw, m.state, pod, &out[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// evict takes the victims of a preemption away, and names them. Budgets that protect them
// allow so much less to the next pod, and pods that matter less are promised the node no
// more.
func (r *dryRun) evict(pod *v1.Pod, name string, why *explain.Preemption) []string {
	i := slices.IndexFunc(why.Candidates, func(c explain.Candidate) bool { return c.Node == name })
	if i < 0 {
		return nil
	}
	victims := why.Candidates[i].Victims
	for _, victim := range victims {
		namespace, podName, _ := strings.Cut(victim, "/")
		if v, err := r.pods.Pods(namespace).Get(podName); err == nil {
			r.cache.RemovePod(v.UID)
			r.groups.Delete(v)
			r.disrupt(v)
		}
	}
	for _, p := range r.queue.NominatedPodsForNode(name) {
		if corev1helpers.PodPriority(p.GetPod()) < corev1helpers.PodPriority(pod) {
			r.queue.DeleteNominatedPodIfExists(p.GetPod())
		}
	}
	return victims
}

func (r *dryRun) disrupt(victim *v1.Pod) {
	budgets := r.store(&policyv1.PodDisruptionBudget{})
	for _, obj := range budgets.List() {
		b, ok := obj.(*policyv1.PodDisruptionBudget)
		if !ok || !defaultpreemption.Covers(b, victim) || b.Status.DisruptionsAllowed == 0 {
			continue
		}
		b = b.DeepCopy()
		b.Status.DisruptionsAllowed--
		if err := budgets.Update(b); err != nil {
			klog.Background().Error(err, "Counting a disruption in a dry run", "pdb", klog.KObj(b))
		}
	}
}
