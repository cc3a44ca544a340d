package flowcontrol

import (
	"fmt"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/util/shufflesharding"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const maxQueues = 10 * 1000 * 1000

// ValidatePriorityLevelConfiguration says what is wrong with a new PriorityLevelConfiguration.
func ValidatePriorityLevelConfiguration(c *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	return append(rules.ClusterScoped(&c.ObjectMeta, apivalidation.NameIsDNSSubdomain), validateLevel(c)...)
}

// ValidatePriorityLevelConfigurationUpdate says what is wrong with an update of a PriorityLevelConfiguration.
func ValidatePriorityLevelConfigurationUpdate(c, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	return ValidatePriorityLevelConfiguration(c)
}

// ValidatePriorityLevelConfigurationStatusUpdate says what is wrong with an update of the status of a PriorityLevelConfiguration.
func ValidatePriorityLevelConfigurationStatusUpdate(c, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	var types []flowcontrolv1.PriorityLevelConfigurationConditionType
	for _, condition := range c.Status.Conditions {
		types = append(types, condition.Type)
	}
	return validateConditionTypes(types)
}

func validateLevel(c *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	spec := &c.Spec
	errs := validateFixed(c)
	p := specPath.Child("type")
	limited := spec.Type == flowcontrolv1.PriorityLevelEnablementLimited
	exempt := spec.Type == flowcontrolv1.PriorityLevelEnablementExempt
	errs = append(errs, rules.RequiredOneOf(spec.Type, p, flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited)...)
	if (limited || exempt) && exempt != (c.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt) {
		errs = append(errs, field.Invalid(p, spec.Type, "must be 'Exempt' if and only if `name` is 'exempt'"))
	}
	if spec.Limited != nil {
		errs = append(errs, validateResponse(&spec.Limited.LimitResponse, specPath.Child("limited", "limitResponse"))...)
	}
	switch p := specPath.Child("limited"); {
	case limited && spec.Limited == nil:
		errs = append(errs, field.Required(p, ""))
	case limited:
		errs = append(errs, validateLimited(spec.Limited, p)...)
	case spec.Limited != nil:
		errs = append(errs, field.Forbidden(p, ""))
	}
	switch p := specPath.Child("exempt"); {
	case spec.Exempt == nil:
	case exempt:
		errs = append(errs, validateShares(spec.Exempt.NominalConcurrencyShares, spec.Exempt.LendablePercent, p)...)
	default:
		errs = append(errs, field.Forbidden(p, ""))
	}
	return errs
}

// validateFixed checks the two mandatory levels. How much the exempt one lends is up
// to administrators.
func validateFixed(c *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	for _, fixed := range bootstrap.MandatoryPriorityLevelConfigurations {
		if c.Name != fixed.Name {
			continue
		}
		want, detail := fixed.Spec, fmt.Sprintf("spec of '%s' must equal the fixed value", c.Name)
		if c.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt {
			want.Exempt, detail = c.Spec.Exempt, "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value"
		}
		if !equality.Semantic.DeepEqual(c.Spec, want) {
			return field.ErrorList{field.Invalid(specPath, c.Spec, detail)}
		}
	}
	return nil
}

func validateShares(shares, lendable *int32, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if shares != nil && *shares < 0 {
		errs = append(errs, field.Invalid(p.Child("nominalConcurrencyShares"), *shares, "must be a non-negative integer"))
	}
	if lendable != nil && (*lendable < 0 || *lendable > 100) {
		errs = append(errs, field.Invalid(p.Child("lendablePercent"), *lendable, "must be between 0 and 100, inclusive"))
	}
	return errs
}

func validateLimited(l *flowcontrolv1.LimitedPriorityLevelConfiguration, p *field.Path) field.ErrorList {
	errs := validateShares(l.NominalConcurrencyShares, l.LendablePercent, p)
	if b := l.BorrowingLimitPercent; b != nil && *b < 0 {
		errs = append(errs, field.Invalid(p.Child("borrowingLimitPercent"), *b, "if specified, must be a non-negative integer"))
	}
	r, p := &l.LimitResponse, p.Child("limitResponse")
	if r.Type != "" {
		errs = append(errs, rules.OneOf(r.Type, p.Child("type"), flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject)...)
	}
	if r.Queuing != nil && r.Type == flowcontrolv1.LimitResponseTypeQueue {
		errs = append(errs, validateQueuing(r.Queuing, p.Child("queuing"))...)
	}
	return errs
}

// validateResponse says that queues are described where, and only where, requests are
// queued: even at a level that is not limited.
func validateResponse(r *flowcontrolv1.LimitResponse, p *field.Path) field.ErrorList {
	queue := r.Type == flowcontrolv1.LimitResponseTypeQueue
	var errs field.ErrorList
	switch {
	case r.Type == "":
		errs = append(errs, field.Required(p.Child("type"), ""))
	case queue && r.Queuing == nil:
		errs = append(errs, field.Required(p.Child("queuing"), ""))
	}
	if r.Queuing != nil && !queue {
		errs = append(errs, field.Forbidden(p.Child("queuing"), ""))
	}
	return errs
}

func validateQueuing(q *flowcontrolv1.QueuingConfiguration, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	const positive = "must be positive"
	if q.QueueLengthLimit <= 0 {
		errs = append(errs, field.Invalid(p.Child("queueLengthLimit"), q.QueueLengthLimit, positive))
	}
	if q.Queues <= 0 {
		errs = append(errs, field.Invalid(p.Child("queues"), q.Queues, positive))
	} else if q.Queues > maxQueues {
		errs = append(errs, field.Invalid(p.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", maxQueues)))
	}
	hand := p.Child("handSize")
	switch bits := shufflesharding.RequiredEntropyBits(int(q.Queues), int(q.HandSize)); {
	case q.HandSize <= 0:
		errs = append(errs, field.Invalid(hand, q.HandSize, positive))
	case q.HandSize > q.Queues:
		errs = append(errs, field.Invalid(hand, q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
	case bits > shufflesharding.MaxHashBits:
		errs = append(errs, field.Invalid(hand, q.HandSize,
			fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, shufflesharding.MaxHashBits)))
	}
	return errs
}
