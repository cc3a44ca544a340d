package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

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
	d := &dryRun{closedMind: t}
	out := &plan.Plan{}
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
		p, err := d.try(ctx, pod)
		if err != nil {
			return nil, err
		}
		p.Namespace, p.Name = pod.Namespace, pod.Name
		out.Pods = append(out.Pods, p)
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
	start int // where the next search begins
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
	placed, err := r.assume(pod, d.node)
	if err != nil {
		return plan.Pod{}, err
	}
	if s := fw.RunReservePluginsReserve(ctx, q.state, placed, d.node); !s.IsSuccess() {
		fw.RunReservePluginsUnreserve(ctx, q.state, placed, d.node)
		r.unassume(placed)
		out.Node, out.Message = "", s.Message()
	}
	return out, nil
}

// evict takes the victims of a preemption away, and names them. Budgets that protect them
// allow so much less to the next pod, and pods that matter less are promised the node no
// more.
func (r *dryRun) evict(pod *v1.Pod, name string, why *explain.Preemption) []string {
	i := slices.IndexFunc(why.Candidates, func(c explain.Candidate) bool { return c.Node == name })
	node, err := r.snapshot.Get(name)
	if i < 0 || err != nil {
		return nil
	}
	victims := why.Candidates[i].Victims
	for _, p := range node.GetPods() {
		if v := p.GetPod(); slices.Contains(victims, v.Namespace+"/"+v.Name) {
			r.cache.RemovePod(v.UID)
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
