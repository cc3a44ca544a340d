// Package admissionregistration knows what is true of the kinds of
// admissionregistration.k8s.io/v1 wherever they are handled: defaults, and what makes
// them invalid (the Validate functions). An expression that was stored before it
// could not be written any more stays valid until somebody changes it.
package admissionregistration

import (
	"fmt"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	admissionregistrationv1alpha1 "k8s.io/api/admissionregistration/v1alpha1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission/plugin/manifest"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// AddDefaults registers the defaulting functions of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, defaultValidatingWebhooks)
	rules.Default(s, defaultMutatingWebhooks)
	rules.Default(s, func(p *admissionregistrationv1.ValidatingAdmissionPolicy) {
		rules.SetPtr(&p.Spec.FailurePolicy, admissionregistrationv1.Fail)
		defaultMatchResources(p.Spec.MatchConstraints)
	})
	rules.Default(s, func(p *admissionregistrationv1.MutatingAdmissionPolicy) {
		rules.SetPtr(&p.Spec.FailurePolicy, admissionregistrationv1.Fail)
		defaultMatchResources(p.Spec.MatchConstraints)
	})
	rules.Default(s, func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) {
		defaultMatchResources(b.Spec.MatchResources)
	})
	rules.Default(s, func(b *admissionregistrationv1alpha1.MutatingAdmissionPolicyBinding) {
		if b.Spec.ParamRef != nil {
			rules.SetPtr(&b.Spec.ParamRef.ParameterNotFoundAction, admissionregistrationv1alpha1.DenyAction)
		}
	})
	rules.Default(s, func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) {
		defaultMatchResources(b.Spec.MatchResources)
	})
	return nil
}

func defaultValidatingWebhooks(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		rules.SetPtr(&w.FailurePolicy, admissionregistrationv1.Fail)
		rules.SetPtr(&w.MatchPolicy, admissionregistrationv1.Equivalent)
		rules.SetPtr(&w.NamespaceSelector, metav1.LabelSelector{})
		rules.SetPtr(&w.ObjectSelector, metav1.LabelSelector{})
		rules.SetPtr(&w.TimeoutSeconds, defaultTimeoutSeconds)
		defaultService(w.ClientConfig.Service)
		defaultRules(w.Rules)
	}
}

func defaultMutatingWebhooks(c *admissionregistrationv1.MutatingWebhookConfiguration) {
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		rules.SetPtr(&w.FailurePolicy, admissionregistrationv1.Fail)
		rules.SetPtr(&w.MatchPolicy, admissionregistrationv1.Equivalent)
		rules.SetPtr(&w.NamespaceSelector, metav1.LabelSelector{})
		rules.SetPtr(&w.ObjectSelector, metav1.LabelSelector{})
		rules.SetPtr(&w.TimeoutSeconds, defaultTimeoutSeconds)
		rules.SetPtr(&w.ReinvocationPolicy, admissionregistrationv1.NeverReinvocationPolicy)
		defaultService(w.ClientConfig.Service)
		defaultRules(w.Rules)
	}
}

const (
	defaultTimeoutSeconds int32 = 10
	defaultPort           int32 = 443
)

func defaultService(s *admissionregistrationv1.ServiceReference) {
	if s != nil {
		rules.SetPtr(&s.Port, defaultPort)
	}
}

func defaultRules(all []admissionregistrationv1.RuleWithOperations) {
	for i := range all {
		rules.SetPtr(&all[i].Scope, admissionregistrationv1.AllScopes)
	}
}

func defaultMatchResources(m *admissionregistrationv1.MatchResources) {
	if m == nil {
		return
	}
	rules.SetPtr(&m.MatchPolicy, admissionregistrationv1.Equivalent)
	rules.SetPtr(&m.NamespaceSelector, metav1.LabelSelector{})
	rules.SetPtr(&m.ObjectSelector, metav1.LabelSelector{})
	for _, named := range [][]admissionregistrationv1.NamedRuleWithOperations{m.ResourceRules, m.ExcludeResourceRules} {
		for i := range named {
			rules.SetPtr(&named[i].Scope, admissionregistrationv1.AllScopes)
		}
	}
}

var specPath = field.NewPath("spec")

// validateMeta checks the metadata of a new object. Some names belong to objects that
// the server reads from files.
func validateMeta(m *metav1.ObjectMeta) field.ErrorList {
	errs := apivalidation.ValidateObjectMeta(m, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata")) // any finalizer
	if strings.HasSuffix(m.Name, manifest.StaticConfigSuffix) {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), m.Name,
			fmt.Sprintf("names ending with %q are reserved for static manifest-based configurations and cannot be managed via the API", manifest.StaticConfigSuffix)))
	}
	return errs
}

// validateOptional checks a value that may be missing.
func validateOptional[T ~string](value *T, p *field.Path, supported ...T) field.ErrorList {
	if value == nil {
		return nil
	}
	return rules.OneOf(*value, p, supported...)
}

func validateFailurePolicy(policy *admissionregistrationv1.FailurePolicyType, p *field.Path) field.ErrorList {
	return validateOptional(policy, p, admissionregistrationv1.Fail, admissionregistrationv1.Ignore)
}

func validateMatchPolicy(policy *admissionregistrationv1.MatchPolicyType, p *field.Path) field.ErrorList {
	return validateOptional(policy, p, admissionregistrationv1.Equivalent, admissionregistrationv1.Exact)
}

// validateSelector checks a selector that may be missing.
func validateSelector(s *metav1.LabelSelector, p *field.Path) field.ErrorList {
	if s == nil {
		return nil
	}
	return rules.LabelSelector(s, p)
}
