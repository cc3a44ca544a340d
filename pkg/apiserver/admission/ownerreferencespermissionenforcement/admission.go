// Package ownerreferencespermissionenforcement lets nobody have an object deleted with an
// owner who may not delete it, nor delay the deletion of an owner whose finalizers he may
// not set.
package ownerreferencespermissionenforcement

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// PluginName is the plugin's name in flags.
const PluginName = "OwnerReferencesPermissionEnforcement"

// Plugin asks the authorizer.
type Plugin struct {
	*admission.Handler
	authorizer authorizer.UnconditionalAuthorizer
	mapper     meta.RESTMapper
}

var (
	_ admission.ValidationInterface            = &Plugin{}
	_ initializer.WantsUnconditionalAuthorizer = &Plugin{}
	_ initializer.WantsRESTMapper              = &Plugin{}
)

// New returns the plugin.
func New() *Plugin {
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update)}
}

// SetUnconditionalAuthorizer implements initializer.WantsUnconditionalAuthorizer.
func (p *Plugin) SetUnconditionalAuthorizer(a authorizer.UnconditionalAuthorizer) { p.authorizer = a }

// SetRESTMapper implements initializer.WantsRESTMapper.
func (p *Plugin) SetRESTMapper(m meta.RESTMapper) { p.mapper = m }

// ValidateInitialization implements admission.InitializationValidator.
func (p *Plugin) ValidateInitialization() error {
	if p.authorizer == nil || p.mapper == nil {
		return errors.New("missing authorizer or restMapper")
	}
	return nil
}

// Validate refuses changes of owner references that the user has no right to.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() == corev1.Resource("pods") && a.GetSubresource() == "status" {
		return nil // old kubelets garble references there, and the storage ignores them
	}
	refs := references(a.GetObject())
	var before []metav1.OwnerReference
	if a.GetOperation() == admission.Update {
		if before = references(a.GetOldObject()); equality.Semantic.DeepEqual(before, refs) {
			return nil
		}
		// Who creates an object may have it deleted.
		if err := p.mayDelete(ctx, a); err != nil {
			return err
		}
	}
	return p.mayBlock(ctx, a, newlyBlocking(before, refs))
}

func references(obj runtime.Object) []metav1.OwnerReference {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil // no object, and so without owners
	}
	return m.GetOwnerReferences()
}

// newlyBlocking are the references that delay the owner's deletion and did not before.
func newlyBlocking(before, refs []metav1.OwnerReference) []metav1.OwnerReference {
	blocks := func(r metav1.OwnerReference) bool { return r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion }
	blocked := map[types.UID]bool{}
	for _, r := range before {
		blocked[r.UID] = blocks(r)
	}
	return slices.DeleteFunc(slices.Clone(refs), func(r metav1.OwnerReference) bool { return !blocks(r) || blocked[r.UID] })
}

func (p *Plugin) mayDelete(ctx context.Context, a admission.Attributes) error {
	r := a.GetResource()
	decision, reason, err := p.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: "delete", Namespace: a.GetNamespace(), APIGroup: r.Group, APIVersion: r.Version,
		Resource: r.Resource, Subresource: a.GetSubresource(), Name: a.GetName(), ResourceRequest: true,
	})
	if decision != authorizer.DecisionAllow {
		return admission.NewForbidden(a, fmt.Errorf("cannot set an ownerRef on a resource you can't delete: %v, %v", reason, err)) //nolint:errorlint // mostly nil, and said so
	}
	return nil
}

func (p *Plugin) mayBlock(ctx context.Context, a admission.Attributes, refs []metav1.OwnerReference) error {
	// Most who set such references are controllers with all rights, for whom nothing has
	// to be looked up.
	if len(refs) == 0 || p.maySetFinalizers(ctx, a.GetUserInfo(), authorizer.AttributesRecord{APIGroup: "*", APIVersion: "*", Resource: "*", Name: "*"}) == nil {
		return nil
	}
	for _, ref := range refs {
		owners, err := p.resolve(ref, a.GetNamespace())
		if err != nil {
			return admission.NewForbidden(a, fmt.Errorf("cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %s Kind %s: %w", ref.APIVersion, ref.Kind, err))
		}
		// The kind may be served as several resources: each counts.
		for _, owner := range owners {
			if err := p.maySetFinalizers(ctx, a.GetUserInfo(), owner); err != nil {
				return admission.NewForbidden(a, fmt.Errorf("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %w", err))
			}
		}
	}
	return nil
}

// maySetFinalizers returns the reason why not.
func (p *Plugin) maySetFinalizers(ctx context.Context, u user.Info, owner authorizer.AttributesRecord) error {
	owner.User, owner.Verb, owner.Subresource, owner.ResourceRequest = u, "update", "finalizers", true
	decision, reason, err := p.authorizer.Authorize(ctx, owner)
	if decision != authorizer.DecisionAllow {
		return fmt.Errorf("%v, %v", reason, err) //nolint:errorlint // mostly nil, and said so
	}
	return nil
}

// resolve returns the resources that the reference may mean.
func (p *Plugin) resolve(ref metav1.OwnerReference, namespace string) ([]authorizer.AttributesRecord, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, err
	}
	mappings, err := p.mapper.RESTMappings(schema.GroupKind{Group: gv.Group, Kind: ref.Kind}, gv.Version)
	if err != nil {
		return nil, err
	}
	var all []authorizer.AttributesRecord
	for _, m := range mappings {
		owner := authorizer.AttributesRecord{APIGroup: m.Resource.Group, APIVersion: m.Resource.Version, Resource: m.Resource.Resource, Name: ref.Name}
		if m.Scope.Name() == meta.RESTScopeNameNamespace {
			owner.Namespace = namespace
		}
		all = append(all, owner)
	}
	return all, nil
}
