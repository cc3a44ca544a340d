// Package params is about the parameters of admission policies: who may name them,
// and how they are printed.
package params

import (
	"context"
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes"

	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// A Guard keeps people from naming parameters that they cannot read themselves: what
// a policy says about a request may show what is in them. What cannot be resolved yet
// takes the right to read everything.
type Guard struct {
	// Policies finds the policy of a binding.
	Policies   Policies
	authorizer authorizer.UnconditionalAuthorizer
	client     kubernetes.Interface
}

// Policies reads policies.
type Policies interface {
	ValidatingAdmissionPolicy(ctx context.Context, name string) (*admissionregistrationv1.ValidatingAdmissionPolicy, error)
	MutatingAdmissionPolicy(ctx context.Context, name string) (*admissionregistrationv1.MutatingAdmissionPolicy, error)
}

// NewGuard returns a Guard that asks the server's authorizer, and the server itself,
// through a client that may do everything.
func NewGuard(a authorizer.UnconditionalAuthorizer, client kubernetes.Interface) *Guard {
	return &Guard{Policies: reader{client}, authorizer: a, client: client}
}

// reader implements Policies.
type reader struct{ client kubernetes.Interface }

func (r reader) ValidatingAdmissionPolicy(ctx context.Context, name string) (*admissionregistrationv1.ValidatingAdmissionPolicy, error) {
	return r.client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(ctx, name, metav1.GetOptions{})
}

func (r reader) MutatingAdmissionPolicy(ctx context.Context, name string) (*admissionregistrationv1.MutatingAdmissionPolicy, error) {
	return r.client.AdmissionregistrationV1().MutatingAdmissionPolicies().Get(ctx, name, metav1.GetOptions{})
}

// everything stands for each group, version, resource, namespace and name.
const everything = "*"

// Kind says why the user of ctx may not write a policy with parameters of a kind.
func (g *Guard) Kind(ctx context.Context, kind *admissionregistrationv1.ParamKind) field.ErrorList {
	u, ok := request.UserFrom(ctx)
	if kind == nil || ok && isMaster(u) {
		return nil
	}
	a := attributes(u, "get")
	if gvr, err := g.resolve(kind); err == nil {
		a.APIGroup, a.APIVersion, a.Resource = gvr.Group, gvr.Version, gvr.Resource
	}
	if g.allows(ctx, a) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec", "paramKind"),
		fmt.Sprintf(`user %v must have "get" permission on all objects of the referenced paramKind (kind=%s, apiVersion=%s)`, u, kind.Kind, kind.APIVersion))}
}

// Ref says why the user of ctx may not bind the policy, whose kind of parameters
// kind returns, to the parameters.
func (g *Guard) Ref(ctx context.Context, policy string, ref *admissionregistrationv1.ParamRef, kind func(context.Context) (*admissionregistrationv1.ParamKind, error)) field.ErrorList {
	u, ok := request.UserFrom(ctx)
	if ref == nil || ok && isMaster(u) {
		return nil
	}
	a := attributes(u, "get")
	if ref.Selector != nil {
		a.Verb = "list"
	}
	if ref.Name != "" {
		a.Name = ref.Name
	}
	if ref.Namespace != "" {
		a.Namespace = ref.Namespace
	}
	unresolved := ""
	switch k, err := kind(ctx); {
	case err != nil:
		unresolved = fmt.Sprintf("unable to get policy %s to determine minimum required permissions", policy)
	case k != nil:
		gvr, err := g.resolve(k)
		if err != nil {
			unresolved = fmt.Sprintf("unable to resolve paramKind &{%s %s} to determine minimum required permissions", k.APIVersion, k.Kind)
			break
		}
		a.APIGroup, a.APIVersion, a.Resource = gvr.Group, gvr.Version, gvr.Resource
	}
	if g.allows(ctx, a) {
		return nil
	}
	message := fmt.Sprintf("user %v does not have %q permission on the object referenced by paramRef", u, a.Verb)
	if unresolved != "" {
		message = fmt.Sprintf("%s and user %v does not have %q permission for all groups, versions and resources", unresolved, u, a.Verb)
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec", "paramRef"), message)}
}

// Policy returns the description of a kind of policies that only those write who may read its parameters.
func Policy[T generic.Object](g *Guard, r generic.Resource[T], kind func(T) *admissionregistrationv1.ParamKind) generic.Resource[T] {
	return guarded(r,
		func(ctx context.Context, p T) field.ErrorList { return g.Kind(ctx, kind(p)) },
		func(p, old T) bool { return equality.Semantic.DeepEqual(kind(p), kind(old)) })
}

// Binding returns the description of a kind of bindings that only those write who may read the parameters that they name.
// named says which policy a binding binds to which parameters, kind of which kind the policy's are.
func Binding[T generic.Object](g *Guard, r generic.Resource[T], named func(T) (policy string, ref *admissionregistrationv1.ParamRef),
	kind func(ctx context.Context, p Policies, policy string) (*admissionregistrationv1.ParamKind, error),
) generic.Resource[T] {
	return guarded(r,
		func(ctx context.Context, b T) field.ErrorList {
			policy, ref := named(b)
			return g.Ref(ctx, policy, ref, func(ctx context.Context) (*admissionregistrationv1.ParamKind, error) {
				return kind(ctx, g.Policies, policy)
			})
		},
		func(b, old T) bool {
			policy, ref := named(b)
			oldPolicy, oldRef := named(old)
			return policy == oldPolicy && equality.Semantic.DeepEqual(ref, oldRef)
		})
}

// guarded asks whether a valid object may be written, unless its parameters are the same as before.
func guarded[T generic.Object](r generic.Resource[T], may func(context.Context, T) field.ErrorList, same func(obj, old T) bool) generic.Resource[T] {
	validate, validateUpdate := r.Validate, r.ValidateUpdate
	r.Validate = func(ctx context.Context, obj T) field.ErrorList {
		if errs := validate(ctx, obj); len(errs) > 0 {
			return errs
		}
		return may(ctx, obj)
	}
	r.ValidateUpdate = func(ctx context.Context, obj, old T) field.ErrorList {
		if errs := validateUpdate(ctx, obj, old); len(errs) > 0 || same(obj, old) {
			return errs
		}
		return may(ctx, obj)
	}
	return r
}

func isMaster(u user.Info) bool { return slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) }

func attributes(u user.Info, verb string) authorizer.AttributesRecord {
	return authorizer.AttributesRecord{
		User: u, Verb: verb, ResourceRequest: true,
		APIGroup: everything, APIVersion: everything, Resource: everything, Namespace: everything, Name: everything,
	}
}

func (g *Guard) allows(ctx context.Context, a authorizer.AttributesRecord) bool {
	decision, _, err := g.authorizer.Authorize(ctx, a)
	return err == nil && decision == authorizer.DecisionAllow
}

// resolve finds the resource of a kind.
func (g *Guard) resolve(kind *admissionregistrationv1.ParamKind) (schema.GroupVersionResource, error) {
	gv, err := schema.ParseGroupVersion(kind.APIVersion)
	if err != nil {
		return schema.GroupVersionResource{}, err
	}
	resources, err := g.client.Discovery().ServerResourcesForGroupVersion(kind.APIVersion)
	if err != nil {
		return schema.GroupVersionResource{}, fmt.Errorf("resources of %s: %w", gv, err)
	}
	for _, r := range resources.APIResources {
		if r.Kind == kind.Kind && !strings.Contains(r.Name, "/") {
			return gv.WithResource(r.Name), nil
		}
	}
	return schema.GroupVersionResource{}, fmt.Errorf("%s has no kind %q", gv, kind.Kind)
}

// BindingColumns are those of a table of bindings.
var BindingColumns = []metav1.TableColumnDefinition{
	generic.NameColumn,
	generic.Column("PolicyName", "string", "PolicyName indicates the policy definition which the policy binding binded to"),
	generic.Column("ParamRef", "string", "ParamRef indicates the param resource which sets the configuration param"),
	generic.AgeColumn,
}

const unset = "<unset>"

// PrintKind prints a kind of parameters.
func PrintKind(k *admissionregistrationv1.ParamKind) string {
	if k == nil {
		return unset
	}
	return k.APIVersion + "/" + k.Kind
}

// PrintRef prints a reference to parameters.
func PrintRef(r *admissionregistrationv1.ParamRef) string {
	switch {
	case r == nil:
		return unset
	case r.Name == "":
		return r.Selector.String()
	case r.Namespace == "":
		return everything + "/" + r.Name
	}
	return r.Namespace + "/" + r.Name
}
