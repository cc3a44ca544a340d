package admissionregistration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const maxMatchConditions = 64

// conditionCompiler compiles expressions that see no variables. Making one takes
// milliseconds, which most processes never need.
var conditionCompiler = sync.OnceValue(func() plugincel.Compiler { return plugincel.NewCompiler(celEnvironment()) })

var celEnvironment = sync.OnceValue(func() *environment.EnvSet {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
})

// compilation is how the expressions of an object are compiled.
type compilation struct {
	compiler plugincel.Compiler
	// params says that there are parameters.
	params bool
	// stored are expressions that the object already had.
	stored sets.Set[string]
}

// check compiles an expression and says what is wrong with it.
func (c compilation) check(e plugincel.ExpressionAccessor, options plugincel.OptionalVariableDeclarations, p *field.Path) field.ErrorList {
	options.HasParams = c.params
	return celError(c.compiler.CompileCELExpression(e, options, c.mode(e.GetExpression())).Error, e.GetExpression(), p)
}

func (c compilation) mode(expression string) environment.Type {
	if c.stored.Has(expression) {
		return environment.StoredExpressions
	}
	return environment.NewExpressions
}

func celError(err *apiservercel.Error, expression string, p *field.Path) field.ErrorList {
	switch {
	case err == nil:
		return nil
	case err.Type == apiservercel.ErrorTypeRequired:
		return field.ErrorList{field.Required(p, err.Detail)}
	case err.Type == apiservercel.ErrorTypeInvalid:
		return field.ErrorList{field.Invalid(p, expression, err.Detail)}
	}
	return field.ErrorList{field.InternalError(p, err)}
}

func validateMatchConditions(conditions []admissionregistrationv1.MatchCondition, p *field.Path, params bool, stored sets.Set[string]) field.ErrorList {
	var errs field.ErrorList
	if len(conditions) > maxMatchConditions {
		errs = append(errs, field.TooMany(p, len(conditions), maxMatchConditions))
	}
	for i := range conditions {
		c, at := conditions[i], p.Index(i)
		if strings.TrimSpace(c.Expression) == "" {
			errs = append(errs, field.Required(at.Child("expression"), ""))
		} else {
			compile := compilation{compiler: conditionCompiler(), params: params, stored: stored}
			errs = append(errs, compile.check((*matchconditions.MatchCondition)(&c), withAuthorizer, at.Child("expression"))...)
		}
		switch {
		case c.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
			continue
		case slices.ContainsFunc(conditions[:i], func(other admissionregistrationv1.MatchCondition) bool { return other.Name == c.Name }):
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		default:
			errs = append(errs, rules.QualifiedName(c.Name, at.Child("name"))...)
		}
	}
	return errs
}

var (
	withAuthorizer = plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	withPatchTypes = plugincel.OptionalVariableDeclarations{HasAuthorizer: true, HasPatchTypes: true}
)

var celIdentifier = regexp.MustCompile(`^[_a-zA-Z][_a-zA-Z0-9]*$`)

// isIdentifier reports whether expressions can call something name.
func isIdentifier(name string) bool {
	escaped, ok := apiservercel.Escape(name)
	reserved := ok && escaped == "__"+name+"__"
	return celIdentifier.MatchString(name) && !reserved
}

// validateVariables checks variables in their order: each sees those before it. It
// returns the compiler of what sees all.
func validateVariables(variables []admissionregistrationv1.Variable, p *field.Path, params bool, stored sets.Set[string]) (compilation, field.ErrorList) {
	c := compilation{params: params, stored: stored}
	compiler, err := plugincel.NewCompositedCompiler(celEnvironment())
	if err != nil {
		return c, field.ErrorList{field.InternalError(p, fmt.Errorf("making a compiler: %w", err))}
	}
	c.compiler = compiler
	var errs field.ErrorList
	for i, v := range variables {
		at := p.Index(i)
		switch {
		case v.Name == "":
			errs = append(errs, field.Required(at.Child("name"), "name is not specified"))
		case !isIdentifier(v.Name):
			errs = append(errs, field.Invalid(at.Child("name"), v.Name, "must be a valid CEL identifier"))
		}
		if strings.TrimSpace(v.Expression) == "" {
			errs = append(errs, field.Required(at.Child("expression"), "expression is not specified"))
			continue
		}
		options := withAuthorizer
		options.HasParams = params
		result := compiler.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, options, c.mode(v.Expression))
		errs = append(errs, celError(result.Error, v.Expression, at.Child("expression"))...)
	}
	return c, errs
}

func (c compilation) validation(v *admissionregistrationv1.Validation, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if strings.TrimSpace(v.Expression) == "" {
		errs = append(errs, field.Required(p.Child("expression"), "expression is not specified"))
	} else {
		errs = append(errs, c.check(&validating.ValidationCondition{Expression: v.Expression}, withAuthorizer, p.Child("expression"))...)
	}
	const empty = "must be non-empty if specified"
	switch {
	case v.MessageExpression == "":
	case strings.TrimSpace(v.MessageExpression) == "":
		errs = append(errs, field.Invalid(p.Child("messageExpression"), v.MessageExpression, empty))
	default:
		errs = append(errs, c.check(&validating.MessageExpressionCondition{MessageExpression: v.MessageExpression},
			plugincel.OptionalVariableDeclarations{}, p.Child("messageExpression"))...)
	}
	switch text := strings.TrimSpace(v.Message); {
	case v.Message != "" && text == "":
		errs = append(errs, field.Invalid(p.Child("message"), v.Message, empty))
	case strings.ContainsAny(text, "\r\n"):
		errs = append(errs, field.Invalid(p.Child("message"), v.Message, "must not contain line breaks"))
	}
	return append(errs, validateOptional(v.Reason, p.Child("reason"), validationReasons...)...)
}

const maxAnnotationExpression = 5 * 1024

// annotation checks an audit annotation of the policy called name.
func (c compilation) annotation(a *admissionregistrationv1.AuditAnnotation, name string, p *field.Path) field.ErrorList {
	errs := rules.QualifiedName(name+"/"+a.Key, p.Child("key"))
	at := p.Child("valueExpression")
	switch text := strings.TrimSpace(a.ValueExpression); {
	case text == "":
		return append(errs, field.Required(at, "valueExpression is not specified"))
	case len(text) > maxAnnotationExpression:
		return append(errs, field.Required(at, fmt.Sprintf("must not exceed %d bytes in length", maxAnnotationExpression)))
	default:
		found := c.check(&validating.AuditAnnotationCondition{ValueExpression: text}, withAuthorizer, at)
		for _, err := range found {
			err.BadValue = a.ValueExpression
		}
		return append(errs, found...)
	}
}

func (c compilation) mutation(m *admissionregistrationv1.Mutation, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	misplaced := func(given bool, name string) {
		if given {
			errs = append(errs, field.Invalid(p.Child(name), "{"+name+"}", fmt.Sprintf("must not be specified when patchType is %s", m.PatchType)))
		}
	}
	missing := func(name string) {
		errs = append(errs, field.Required(p.Child(name), fmt.Sprintf("must be specified when patchType is %s", m.PatchType)))
	}
	compile := func(e plugincel.ExpressionAccessor, name string) {
		at := p.Child(name, "expression")
		if strings.TrimSpace(e.GetExpression()) == "" {
			errs = append(errs, field.Required(at, ""))
			return
		}
		errs = append(errs, c.check(e, withPatchTypes, at)...)
	}
	const apply, jsonPatch = "applyConfiguration", "jsonPatch"
	switch m.PatchType {
	case "":
		errs = append(errs, field.Required(p.Child("patchType"), ""))
	case admissionregistrationv1.PatchTypeApplyConfiguration:
		misplaced(m.JSONPatch != nil, jsonPatch)
		if m.ApplyConfiguration == nil {
			missing(apply)
		} else {
			compile(&patch.ApplyConfigurationCondition{Expression: m.ApplyConfiguration.Expression}, apply)
		}
	case admissionregistrationv1.PatchTypeJSONPatch:
		misplaced(m.ApplyConfiguration != nil, apply)
		if m.JSONPatch == nil {
			missing(jsonPatch)
		} else {
			compile(&patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}, jsonPatch)
		}
	default:
		errs = append(errs, rules.OneOf(m.PatchType, p.Child("patchType"), admissionregistrationv1.PatchTypeApplyConfiguration, admissionregistrationv1.PatchTypeJSONPatch)...)
	}
	return errs
}
