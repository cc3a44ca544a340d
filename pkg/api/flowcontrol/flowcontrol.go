// Package flowcontrol knows what is true of FlowSchema and
// PriorityLevelConfiguration wherever they are handled: defaults, and what makes
// them invalid (the Validate functions). Two objects of each kind are mandatory and
// have to say what the API server expects of them.
package flowcontrol

import (
	"cmp"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// AddDefaults registers the defaulting functions of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, func(f *flowcontrolv1.FlowSchema) {
		f.Spec.MatchingPrecedence = cmp.Or(f.Spec.MatchingPrecedence, 1000)
	})
	rules.Default(s, func(p *flowcontrolv1.PriorityLevelConfiguration) {
		if e := p.Spec.Exempt; e != nil {
			rules.SetPtr(&e.NominalConcurrencyShares, 0)
			rules.SetPtr(&e.LendablePercent, 0)
		}
		l := p.Spec.Limited
		if l == nil {
			return
		}
		rules.SetPtr(&l.NominalConcurrencyShares, 30)
		rules.SetPtr(&l.LendablePercent, 0)
		if q := l.LimitResponse.Queuing; q != nil {
			q.Queues = cmp.Or(q.Queues, 64)
			q.HandSize = cmp.Or(q.HandSize, 8)
			q.QueueLengthLimit = cmp.Or(q.QueueLengthLimit, 50)
		}
	})
	return nil
}

var specPath = field.NewPath("spec")

// validateConditionTypes wants a type in each condition, and no type twice.
func validateConditionTypes[T ~string](types []T) field.ErrorList {
	var errs field.ErrorList
	seen := map[T]bool{}
	for i, t := range types {
		p := field.NewPath("status", "conditions").Index(i).Child("type")
		switch {
		case t == "":
			errs = append(errs, field.Required(p, ""))
		case seen[t]:
			errs = append(errs, field.Duplicate(p, t))
		}
		seen[t] = true
	}
	return errs
}
