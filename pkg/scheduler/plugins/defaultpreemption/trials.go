package defaultpreemption

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// outcome is what looking for victims on a node came to.
type outcome struct {
	candidate
	status *fwk.Status
}

// trials remembers where victims were looked for, since many pods that preempt are alike:
// where all filters answer by the node alone, the outcome is the same as long as pod,
// node, promises and budgets are. It belongs to the goroutine that schedules.
type trials struct {
	filters *framework.Filters // of the pod that asks; nil if it cannot share

	signature fwk.PodSignature
	priority  int32
	budgets   []*policyv1.PodDisruptionBudget
	at        map[string]tried // by node
}

type tried struct {
	node     fwk.NodeInfo
	promised []fwk.PodInfo
	outcome  outcome
}

// of prepares for a pod: what is known of pods that are not like it is forgotten.
func (t *trials) of(ctx context.Context, h fwk.Handle, state fwk.CycleState, pod *v1.Pod, budgets []*policyv1.PodDisruptionBudget) *trials {
	if t.filters = framework.FiltersOf(ctx, h, state, pod); t.filters == nil || !t.filters.OnlyByNode() || h.PodGroupManager() != nil {
		t.filters = nil // victims of a group can be on other nodes
		return t
	}
	priority := corev1helpers.PodPriority(pod)
	budgets = slices.SortedFunc(slices.Values(budgets), func(a, b *policyv1.PodDisruptionBudget) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	if t.at == nil || t.priority != priority || !bytes.Equal(t.signature, t.filters.Signature()) || !slices.Equal(t.budgets, budgets) {
		t.signature, t.priority, t.budgets, t.at = t.filters.Signature(), priority, budgets, map[string]tried{}
	}
	return t
}

// known returns what looking for victims on a node as it is came to before.
func (t *trials) known(node fwk.NodeInfo) (outcome, bool) {
	if t.filters == nil {
		return outcome{}, false
	}
	name := node.Node().Name
	before, ok := t.at[name]
	if !ok || before.node != node || !slices.Equal(before.promised, t.filters.Promised(name)) {
		return outcome{}, false
	}
	return before.outcome, true
}

// learn notes what looking for victims on a node came to.
func (t *trials) learn(node fwk.NodeInfo, o outcome) {
	if t.filters == nil || !o.status.IsSuccess() && !o.status.IsRejected() {
		return
	}
	name := node.Node().Name
	t.at[name] = tried{node, t.filters.Promised(name), o}
}
