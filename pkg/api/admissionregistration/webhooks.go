package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/util/webhook"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// reviewVersions are those of AdmissionReview that the API server speaks.
var reviewVersions = []string{"v1", "v1beta1"}

// hook is what the two kinds of webhooks have in common.
type hook = admissionregistrationv1.ValidatingWebhook

func validatingHooks(c *admissionregistrationv1.ValidatingWebhookConfiguration) []hook {
	return c.Webhooks
}

func mutatingHooks(c *admissionregistrationv1.MutatingWebhookConfiguration) []hook {
	var hooks []hook
	for _, w := range c.Webhooks {
		hooks = append(hooks, hook{
			Name: w.Name, ClientConfig: w.ClientConfig, Rules: w.Rules, FailurePolicy: w.FailurePolicy, MatchPolicy: w.MatchPolicy,
			NamespaceSelector: w.NamespaceSelector, ObjectSelector: w.ObjectSelector, SideEffects: w.SideEffects,
			TimeoutSeconds: w.TimeoutSeconds, AdmissionReviewVersions: w.AdmissionReviewVersions, MatchConditions: w.MatchConditions,
		})
	}
	return hooks
}

// ValidateValidatingWebhookConfiguration says what is wrong with a new ValidatingWebhookConfiguration.
func ValidateValidatingWebhookConfiguration(c *admissionregistrationv1.ValidatingWebhookConfiguration) field.ErrorList {
	return append(validateMeta(&c.ObjectMeta), validateHooks(validatingHooks(c), nil)...)
}

// ValidateValidatingWebhookConfigurationUpdate says what is wrong with an update of a ValidatingWebhookConfiguration.
func ValidateValidatingWebhookConfigurationUpdate(c, old *admissionregistrationv1.ValidatingWebhookConfiguration) field.ErrorList {
	return append(validateMeta(&c.ObjectMeta), validateHooks(validatingHooks(c), validatingHooks(old))...)
}

// ValidateMutatingWebhookConfiguration says what is wrong with a new MutatingWebhookConfiguration.
func ValidateMutatingWebhookConfiguration(c *admissionregistrationv1.MutatingWebhookConfiguration) field.ErrorList {
	errs := append(validateMeta(&c.ObjectMeta), validateHooks(mutatingHooks(c), nil)...)
	return append(errs, validateReinvocation(c)...)
}

// ValidateMutatingWebhookConfigurationUpdate says what is wrong with an update of a MutatingWebhookConfiguration.
func ValidateMutatingWebhookConfigurationUpdate(c, old *admissionregistrationv1.MutatingWebhookConfiguration) field.ErrorList {
	errs := append(validateMeta(&c.ObjectMeta), validateHooks(mutatingHooks(c), mutatingHooks(old))...)
	return append(errs, validateReinvocation(c)...)
}

func validateReinvocation(c *admissionregistrationv1.MutatingWebhookConfiguration) field.ErrorList {
	var errs field.ErrorList
	for i, w := range c.Webhooks {
		errs = append(errs, validateOptional(w.ReinvocationPolicy, field.NewPath("webhooks").Index(i).Child("reinvocationPolicy"),
			admissionregistrationv1.IfNeededReinvocationPolicy, admissionregistrationv1.NeverReinvocationPolicy)...)
	}
	return errs
}

// WarnValidatingWebhookConfiguration says which rules have no effect.
func WarnValidatingWebhookConfiguration(c *admissionregistrationv1.ValidatingWebhookConfiguration, excluded []schema.GroupResource) []string {
	return warnAboutHooks(validatingHooks(c), excluded)
}

// WarnMutatingWebhookConfiguration says which rules have no effect.
func WarnMutatingWebhookConfiguration(c *admissionregistrationv1.MutatingWebhookConfiguration, excluded []schema.GroupResource) []string {
	return warnAboutHooks(mutatingHooks(c), excluded)
}

func warnAboutHooks(hooks []hook, excluded []schema.GroupResource) []string {
	var warnings []string
	for i, w := range hooks {
		warnings = append(warnings, warnAboutRules(i, w.Rules, excluded)...)
	}
	return warnings
}

// leniency is what webhooks may go on to have because they had it before there was a rule against it.
type leniency struct {
	unknownVersions, sideEffects, sameNames bool
	conditions                              bool
	stored                                  sets.Set[string]
}

func lenient(hooks, old []hook) leniency {
	l := leniency{stored: sets.New[string](), conditions: len(hooks) == len(old)}
	names := sets.New[string]()
	for i, w := range old {
		l.sameNames = l.sameNames || names.Has(w.Name)
		names.Insert(w.Name)
		l.unknownVersions = l.unknownVersions || !knowsVersion(w.AdmissionReviewVersions)
		l.sideEffects = l.sideEffects || w.SideEffects == nil || !slices.Contains(noSideEffects, *w.SideEffects)
		for _, c := range w.MatchConditions {
			l.stored.Insert(c.Expression)
		}
		l.conditions = l.conditions && equality.Semantic.DeepEqual(w.MatchConditions, hooks[i].MatchConditions)
	}
	return l
}

var noSideEffects = []admissionregistrationv1.SideEffectClass{admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.SideEffectClassNoneOnDryRun}

func knowsVersion(versions []string) bool {
	return slices.ContainsFunc(versions, func(v string) bool { return slices.Contains(reviewVersions, v) })
}

func validateHooks(hooks, old []hook) field.ErrorList {
	l := lenient(hooks, old)
	l.conditions = l.conditions && len(old) > 0
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range hooks {
		w, p := &hooks[i], field.NewPath("webhooks").Index(i)
		errs = append(errs, validateHook(w, p, l)...)
		if w.Name == "" {
			continue
		}
		if names.Has(w.Name) && !l.sameNames {
			errs = append(errs, field.Duplicate(p.Child("name"), w.Name))
		}
		names.Insert(w.Name)
	}
	return errs
}

func validateHook(w *hook, p *field.Path, l leniency) field.ErrorList {
	errs := validation.IsFullyQualifiedName(p.Child("name"), w.Name)
	errs = append(errs, validateFailurePolicy(w.FailurePolicy, p.Child("failurePolicy"))...)
	errs = append(errs, validateMatchPolicy(w.MatchPolicy, p.Child("matchPolicy"))...)
	errs = append(errs, validateSelector(w.NamespaceSelector, p.Child("namespaceSelector"))...)
	errs = append(errs, validateSelector(w.ObjectSelector, p.Child("objectSelector"))...)
	errs = append(errs, validateSideEffects(w.SideEffects, p.Child("sideEffects"), l.sideEffects)...)
	if t := w.TimeoutSeconds; t != nil && (*t < 1 || *t > 30) {
		errs = append(errs, field.Invalid(p.Child("timeoutSeconds"), *t, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, rules.Each(w.Rules, p.Child("rules"), validateRule)...)
	errs = append(errs, validateClientConfig(&w.ClientConfig, p.Child("clientConfig"))...)
	errs = append(errs, validateReviewVersions(w.AdmissionReviewVersions, p.Child("admissionReviewVersions"), l.unknownVersions)...)
	if !l.conditions {
		errs = append(errs, validateMatchConditions(w.MatchConditions, p.Child("matchConditions"), false, l.stored)...)
	}
	return errs
}

func validateSideEffects(s *admissionregistrationv1.SideEffectClass, p *field.Path, any bool) field.ErrorList {
	supported := noSideEffects
	if any {
		supported = append(slices.Clone(supported), admissionregistrationv1.SideEffectClassSome, admissionregistrationv1.SideEffectClassUnknown)
	}
	if s == nil {
		return field.ErrorList{field.Required(p, "must specify one of None, NoneOnDryRun")}
	}
	return rules.OneOf(*s, p, supported...)
}

func validateClientConfig(c *admissionregistrationv1.WebhookClientConfig, p *field.Path) field.ErrorList {
	switch {
	case (c.URL == nil) == (c.Service == nil):
		return field.ErrorList{field.Required(p, "exactly one of url or service is required")}
	case c.URL != nil:
		return webhook.ValidateWebhookURL(p.Child("url"), *c.URL, true)
	}
	port := defaultPort
	if c.Service.Port != nil {
		port = *c.Service.Port
	}
	return webhook.ValidateWebhookService(p.Child("service"), c.Service.Namespace, c.Service.Name, c.Service.Path, port)
}

func validateReviewVersions(versions []string, p *field.Path, unknown bool) field.ErrorList {
	if len(versions) == 0 {
		return field.ErrorList{field.Required(p, "must specify one of "+strings.Join(reviewVersions, ", "))}
	}
	var errs field.ErrorList
	for i, v := range versions {
		if slices.Contains(versions[:i], v) {
			errs = append(errs, field.Invalid(p.Index(i), v, "duplicate version"))
			continue
		}
		errs = append(errs, rules.Messages(p.Index(i), v, validation.IsDNS1035Label(v))...)
	}
	if !unknown && !knowsVersion(versions) {
		errs = append(errs, field.Invalid(p, versions, fmt.Sprintf("must include at least one of %s", strings.Join(reviewVersions, ", "))))
	}
	return errs
}
