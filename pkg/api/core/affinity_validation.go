package core

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (r *report) affinity(a *corev1.Affinity, p *field.Path) {
	if a == nil {
		return
	}
	if na := a.NodeAffinity; na != nil {
		at := p.Child("nodeAffinity")
		if na.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			r.nodeSelector(na.RequiredDuringSchedulingIgnoredDuringExecution, at.Child(required))
		}
		for i, term := range na.PreferredDuringSchedulingIgnoredDuringExecution {
			item := at.Child(preferred).Index(i)
			r.weight(term.Weight, item)
			r.nodeSelectorTerm(&term.Preference, true, item.Child("preference"))
		}
	}
	EachPodAffinityTerm(a, p, func(term *corev1.PodAffinityTerm, weight *int32, p *field.Path) {
		if weight != nil {
			r.weight(*weight, p)
			p = p.Child("podAffinityTerm")
		}
		r.podAffinityTerm(term, p)
	})
}

// Where an affinity's terms are.
const (
	required  = "requiredDuringSchedulingIgnoredDuringExecution"
	preferred = "preferredDuringSchedulingIgnoredDuringExecution"
)

// EachPodAffinityTerm visits the terms of an affinity that are about other pods: those that are required, and, with
// their weights, those that are preferred. p is where the affinity is, and is handed on as where the term, or the weighted term, is.
func EachPodAffinityTerm(a *corev1.Affinity, p *field.Path, visit func(term *corev1.PodAffinityTerm, weight *int32, p *field.Path)) {
	terms := func(must []corev1.PodAffinityTerm, may []corev1.WeightedPodAffinityTerm, p *field.Path) {
		for i := range must {
			visit(&must[i], nil, p.Child(required).Index(i))
		}
		for i := range may {
			visit(&may[i].PodAffinityTerm, &may[i].Weight, p.Child(preferred).Index(i))
		}
	}
	if a != nil && a.PodAffinity != nil {
		terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAffinity"))
	}
	if a != nil && a.PodAntiAffinity != nil {
		terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAntiAffinity"))
	}
}

func (r *report) weight(w int32, p *field.Path) {
	r.invalidIf(w < 1 || w > 100, p.Child("weight"), w, "must be in the range 1-100")
}

// ValidateNodeSelector says what is wrong with a selector of nodes.
func ValidateNodeSelector(selector *corev1.NodeSelector, p *field.Path) field.ErrorList {
	var r report
	r.nodeSelector(selector, p)
	return r.errs
}

func (r *report) nodeSelector(selector *corev1.NodeSelector, p *field.Path) {
	terms := p.Child("nodeSelectorTerms")
	r.requireIf(len(selector.NodeSelectorTerms) == 0, terms, "must have at least one node selector term")
	for i := range selector.NodeSelectorTerms {
		r.nodeSelectorTerm(&selector.NodeSelectorTerms[i], false, terms.Index(i))
	}
}

// nodeSelectorTerm validates one term of a selector of nodes, and, unless they may be any, the values of labels in it.
func (r *report) nodeSelectorTerm(term *corev1.NodeSelectorTerm, anyValue bool, p *field.Path) {
	for i, e := range term.MatchExpressions {
		at := p.Child("matchExpressions").Index(i)
		values := at.Child("values")
		switch e.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			r.requireIf(len(e.Values) == 0, values, "must be specified when `operator` is 'In' or 'NotIn'")
		case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
			r.forbidIf(len(e.Values) > 0, values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
		case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
			r.requireIf(len(e.Values) != 1, values, "must be specified single value when `operator` is 'Lt' or 'Gt'")
		default:
			r.invalid(at.Child("operator"), e.Operator, "not a valid selector operator")
		}
		r.merge(metavalidation.ValidateLabelName(e.Key, at.Child("key")))
		for j, v := range e.Values {
			if !anyValue {
				r.invalid(values.Index(j), v, validation.IsValidLabelValue(v)...)
			}
		}
	}
	for i, e := range term.MatchFields {
		at := p.Child("matchFields").Index(i)
		switch e.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			r.requireIf(len(e.Values) != 1, at.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
		default:
			r.invalid(at.Child("operator"), e.Operator, "not a valid selector operator")
		}
		if !r.invalidIf(e.Key != metav1.ObjectNameField, at.Child("key"), e.Key, "not a valid field selector key") {
			continue
		}
		for j, v := range e.Values {
			r.invalid(at.Child("values").Index(j), v, validation.IsDNS1123Subdomain(v)...)
		}
	}
}

func (r *report) podAffinityTerm(term *corev1.PodAffinityTerm, p *field.Path) {
	r.labelSelector(term.LabelSelector, p.Child("labelSelector"))
	r.labelSelector(term.NamespaceSelector, p.Child("namespaceSelector"))
	for _, ns := range term.Namespaces {
		r.invalid(p.Child("namespace"), ns, apivalidation.ValidateNamespaceName(ns, false)...)
	}
	r.matchLabelKeys(term.MatchLabelKeys, term.LabelSelector, p.Child("matchLabelKeys"))
	r.matchLabelKeys(term.MismatchLabelKeys, term.LabelSelector, p.Child("mismatchLabelKeys"))
	r.keysOnce(term.MatchLabelKeys, term.LabelSelector, p)
	for i, k := range term.MatchLabelKeys {
		r.invalidIf(slices.Contains(term.MismatchLabelKeys, k), p.Child("matchLabelKeys").Index(i), k, "exists in both matchLabelKeys and mismatchLabelKeys")
	}
	topology := p.Child("topologyKey")
	r.requireIf(term.TopologyKey == "", topology, "can not be empty")
	r.merge(metavalidation.ValidateLabelName(term.TopologyKey, topology))
}

func (r *report) labelSelector(s *metav1.LabelSelector, p *field.Path) bool {
	return r.merge(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, p))
}

// matchLabelKeys validates keys that are added to a selector when a pod is made.
func (r *report) matchLabelKeys(keys []string, selector *metav1.LabelSelector, p *field.Path) {
	if len(keys) == 0 {
		return
	}
	if !r.forbidIf(selector == nil, p, "must not be specified when labelSelector is not set") {
		return
	}
	for i, k := range keys {
		r.merge(metavalidation.ValidateLabelName(k, p.Index(i)))
	}
}

// keysOnce says that what MergeMatchLabelKeys wrote into a selector is all that
// the selector says of a key.
func (r *report) keysOnce(keys []string, selector *metav1.LabelSelector, p *field.Path) {
	if selector == nil {
		return
	}
	for i, k := range keys {
		n := 0
		if _, ok := selector.MatchLabels[k]; ok {
			n++
		}
		for _, e := range selector.MatchExpressions {
			if e.Key == k {
				n++
			}
		}
		r.invalidIf(n > 1, p.Index(i), k, "exists in both matchLabelKeys and labelSelector")
	}
}

// spreadConstraints validates how a pod is spread over the cluster.
func (r *report) spreadConstraints(constraints []corev1.TopologySpreadConstraint, p *field.Path) {
	for i, c := range constraints {
		at := p.Index(i)
		const positive = "must be greater than zero"
		r.invalidIf(c.MaxSkew <= 0, at.Child("maxSkew"), c.MaxSkew, positive)
		r.requireIf(c.TopologyKey == "", at.Child("topologyKey"), "can not be empty")
		oneOf(r, c.WhenUnsatisfiable, at.Child("whenUnsatisfiable"), corev1.DoNotSchedule, corev1.ScheduleAnyway)
		if slices.ContainsFunc(constraints[i+1:], func(o corev1.TopologySpreadConstraint) bool {
			return o.TopologyKey == c.TopologyKey && o.WhenUnsatisfiable == c.WhenUnsatisfiable
		}) {
			r.add(field.Duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", c.TopologyKey, c.WhenUnsatisfiable)))
		}
		if c.MinDomains != nil {
			r.invalidIf(*c.MinDomains <= 0, at.Child("minDomains"), *c.MinDomains, positive)
			r.invalidIf(c.WhenUnsatisfiable != corev1.DoNotSchedule, at.Child("minDomains"), *c.MinDomains,
				fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, c.WhenUnsatisfiable))
		}
		optionalOneOf(r, c.NodeAffinityPolicy, at.Child("nodeAffinityPolicy"), corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
		optionalOneOf(r, c.NodeTaintsPolicy, at.Child("nodeTaintsPolicy"), corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
		r.matchLabelKeys(c.MatchLabelKeys, c.LabelSelector, at.Child("matchLabelKeys"))
		r.keysOnce(c.MatchLabelKeys, c.LabelSelector, at)
		r.labelSelector(c.LabelSelector, at.Child("labelSelector"))
	}
}

// ValidateTolerations says what is wrong with tolerations of taints.
func ValidateTolerations(tolerations []corev1.Toleration, p *field.Path) field.ErrorList {
	var r report
	r.tolerations(tolerations, p)
	return r.errs
}

func (r *report) tolerations(tolerations []corev1.Toleration, p *field.Path) {
	for i, t := range tolerations {
		at := p.Index(i)
		if t.Key != "" {
			r.merge(metavalidation.ValidateLabelName(t.Key, at.Child("key")))
		} else {
			r.invalidIf(t.Operator != corev1.TolerationOpExists, at.Child("operator"), t.Operator,
				"operator must be Exists when `key` is empty, which means \"match all values and all keys\"")
		}
		r.invalidIf(t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute, at.Child("effect"), t.Effect,
			"effect must be 'NoExecute' when `tolerationSeconds` is set")
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			r.invalid(at.Child("operator"), t.Value, validation.IsValidLabelValue(t.Value)...)
		case corev1.TolerationOpExists:
			r.invalidIf(t.Value != "", at.Child("operator"), t.Value, "value must be empty when `operator` is 'Exists'")
		case corev1.TolerationOpLt, corev1.TolerationOpGt: // behind a gate that is off
			r.add(field.NotSupported(at.Child("operator"), t.Operator,
				[]corev1.TolerationOperator{corev1.TolerationOpEqual, corev1.TolerationOpExists, corev1.TolerationOpLt, corev1.TolerationOpGt}))
		default:
			oneOf(r, t.Operator, at.Child("operator"), corev1.TolerationOpEqual, corev1.TolerationOpExists)
		}
		if t.Effect != "" {
			oneOf(r, t.Effect, at.Child("effect"), corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
		}
	}
}

// tolerationsUpdate says that tolerations may be added, and only the time of
// those that are there may change.
func (r *report) tolerationsUpdate(tolerations, old []corev1.Toleration, p *field.Path) {
	same := func(a, b corev1.Toleration) bool {
		a.TolerationSeconds, b.TolerationSeconds = nil, nil
		return a == b
	}
	for _, o := range old {
		if !slices.ContainsFunc(tolerations, func(t corev1.Toleration) bool { return same(t, o) }) {
			r.add(field.Forbidden(p, "existing toleration can not be modified except its tolerationSeconds"))
			return
		}
	}
	r.tolerations(tolerations, p)
}

// gatedScheduling says that what a pod asks of its node may only become
// stricter while its scheduling is gated.
func (r *report) gatedScheduling(spec, old *corev1.PodSpec, p *field.Path) {
	for k, v := range old.NodeSelector {
		if now, ok := spec.NodeSelector[k]; !ok || now != v {
			r.invalid(p.Child("nodeSelector"), spec.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)")
			break
		}
	}
	terms := func(s *corev1.PodSpec) []corev1.NodeSelectorTerm {
		if s.Affinity == nil || s.Affinity.NodeAffinity == nil || s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
			return nil
		}
		return s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	now, before := terms(spec), terms(old)
	if len(before) == 0 {
		return
	}
	at := p.Child("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	if !r.invalidIf(len(now) != len(before), at, goNames{now}, "no additions/deletions to non-empty NodeSelectorTerms list are allowed") {
		return
	}
	for i := range now {
		kept := startsWith(now[i].MatchExpressions, before[i].MatchExpressions) && startsWith(now[i].MatchFields, before[i].MatchFields)
		r.invalidIf(!kept || len(before[i].MatchExpressions)+len(before[i].MatchFields) == 0 && !apiequality.Semantic.DeepEqual(now[i], before[i]),
			at.Index(i), goNames{now[i]}, "only additions are allowed (no mutations or deletions)")
	}
}

func startsWith(list, start []corev1.NodeSelectorRequirement) bool {
	return len(list) >= len(start) && (len(start) == 0 || apiequality.Semantic.DeepEqual(list[:len(start)], start))
}

// taints validates the taints of a node.
func (r *report) taints(taints []corev1.Taint, p *field.Path) {
	seen := sets.New[string]()
	for i, t := range taints {
		at := p.Index(i)
		r.merge(metavalidation.ValidateLabelName(t.Key, at.Child("key")))
		r.invalid(at.Child("value"), t.Value, validation.IsValidLabelValue(t.Value)...)
		requiredOneOf(r, t.Effect, at.Child("effect"), corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
		key := t.Key + " " + strconv.Quote(string(t.Effect))
		if seen.Has(key) {
			duplicate := field.Duplicate(at, goNames{t})
			duplicate.Detail = "taints must be unique by key and effect pair"
			r.add(duplicate)
		}
		seen.Insert(key)
	}
}
