package podtopologyspread

import (
	"encoding/json"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler/topology"
)

// constraint is a TopologySpreadConstraint with its selector parsed.
type constraint struct {
	key           string
	maxSkew       int
	minDomains    int
	selector      labels.Selector
	honorAffinity bool // count only nodes that the pod's node affinity matches
	honorTaints   bool // count only nodes whose taints the pod tolerates
}

// constraints returns the pod's constraints with an action, or the cluster's defaults.
func (p *Plugin) constraints(pod *v1.Pod, action v1.UnsatisfiableConstraintAction) ([]constraint, error) {
	if len(pod.Spec.TopologySpreadConstraints) > 0 {
		return parse(pod, pod.Spec.TopologySpreadConstraints, action)
	}
	list, err := parse(pod, p.defaults, action)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	selector := p.owners.selector(pod)
	if selector.Empty() {
		return nil, nil // nothing tells which pods are like this one
	}
	for i := range list {
		list[i].selector = selector
	}
	return list, nil
}

func parse(pod *v1.Pod, list []v1.TopologySpreadConstraint, action v1.UnsatisfiableConstraintAction) ([]constraint, error) {
	var out []constraint
	for i := range list {
		c := &list[i]
		if c.WhenUnsatisfiable != action {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(c.LabelSelector)
		if err != nil {
			return nil, fmt.Errorf("topologySpreadConstraints[%d].labelSelector: %w", i, err)
		}
		if selector, err = withLabels(selector, pod, c.MatchLabelKeys); err != nil {
			return nil, fmt.Errorf("topologySpreadConstraints[%d].matchLabelKeys: %w", i, err)
		}
		out = append(out, constraint{
			key:           c.TopologyKey,
			maxSkew:       int(c.MaxSkew),
			minDomains:    int(ptr.Deref(c.MinDomains, 1)),
			selector:      selector,
			honorAffinity: ptr.Deref(c.NodeAffinityPolicy, v1.NodeInclusionPolicyHonor) == v1.NodeInclusionPolicyHonor,
			honorTaints:   ptr.Deref(c.NodeTaintsPolicy, v1.NodeInclusionPolicyIgnore) == v1.NodeInclusionPolicyHonor,
		})
	}
	return out, nil
}

// withLabels narrows a selector to pods that have the same values as pod under some
// keys. A key that pod does not have is ignored, and so are all where nothing is selected.
func withLabels(selector labels.Selector, pod *v1.Pod, keys []string) (labels.Selector, error) {
	if _, selectable := selector.Requirements(); !selectable {
		return selector, nil
	}
	for _, key := range keys {
		value, ok := pod.Labels[key]
		if !ok {
			continue
		}
		r, err := labels.NewRequirement(key, selection.In, []string{value})
		if err != nil {
			return nil, err
		}
		selector = selector.Add(*r)
	}
	return selector, nil
}

func keys(list []constraint) []string {
	var out []string
	for _, c := range list {
		out = append(out, c.key)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// pods are those that the constraint counts. An empty selector counts none.
func (c *constraint) pods(namespace string) topology.Pods {
	selector := c.selector
	if selector.Empty() {
		selector = labels.Nothing()
	}
	return topology.Pods{Groups: []topology.Group{{Namespaces: sets.New(namespace), Selector: selector}}, Lasting: true}
}

// nodes are those on which the constraint counts: with all of some labels, and such as
// its policies let pass.
func (c *constraint) nodes(pod *v1.Pod, required []string) topology.Nodes {
	n := topology.Nodes{Labels: required}
	affinity := c.honorAffinity && (len(pod.Spec.NodeSelector) > 0 || pod.Spec.Affinity != nil && pod.Spec.Affinity.NodeAffinity != nil)
	if !affinity && !c.honorTaints {
		return n
	}
	var id struct {
		Selector    map[string]string
		Required    *v1.NodeSelector
		Taints      bool
		Tolerations []v1.Toleration
	}
	if affinity {
		id.Selector = pod.Spec.NodeSelector
		if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
			id.Required = a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		}
	}
	if c.honorTaints {
		id.Taints, id.Tolerations = true, pod.Spec.Tolerations
	}
	text, err := json.Marshal(id)
	if err != nil { // nothing in there can fail; a pod of its own would be the answer
		text = []byte(pod.UID)
	}
	n.ID = string(text)
	term := nodeaffinity.GetRequiredNodeAffinity(pod)
	n.Test = func(node *v1.Node) bool {
		if affinity {
			if ok, _ := term.Match(node); !ok {
				return false
			}
		}
		return !c.honorTaints || tolerated(node, pod)
	}
	return n
}

func tolerated(node *v1.Node, pod *v1.Pod) bool {
	_, untolerated := corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations, func(t *v1.Taint) bool {
		return t.Effect == v1.TaintEffectNoSchedule || t.Effect == v1.TaintEffectNoExecute
	}, false)
	return !untolerated
}
