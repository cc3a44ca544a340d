package admission

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission/initializer"
	policyloader "k8s.io/apiserver/pkg/admission/plugin/policy/manifest/loader"
	webhookloader "k8s.io/apiserver/pkg/admission/plugin/webhook/manifest/loader"

	"github.com/leme-k8s/leme/pkg/api/admissionregistration"
)

// manifestLoaders read webhooks and policies from files, as the configuration of
// their plugins (--admission-control-config-file) may ask: defaulted and validated as
// if a client had sent them, but for their names, which no client may use.
func manifestLoaders(s *runtime.Scheme) *initializer.ManifestLoaders {
	decoder := serializer.NewCodecFactory(s, serializer.EnableStrict).UniversalDeserializer()
	return &initializer.ManifestLoaders{
		LoadValidatingWebhookManifests: func(dir string) ([]*admissionregistrationv1.ValidatingWebhookConfiguration, string, error) {
			return webhookloader.LoadManifests(dir, decoder, accept(s, admissionregistration.ValidateValidatingWebhookConfigurationUpdate))
		},
		LoadMutatingWebhookManifests: func(dir string) ([]*admissionregistrationv1.MutatingWebhookConfiguration, string, error) {
			return webhookloader.LoadManifests(dir, decoder, accept(s, admissionregistration.ValidateMutatingWebhookConfigurationUpdate))
		},
		LoadValidatingPolicyManifests: func(dir string) ([]*admissionregistrationv1.ValidatingAdmissionPolicy, []*admissionregistrationv1.ValidatingAdmissionPolicyBinding, string, error) {
			return policyloader.LoadPolicyManifests(dir, decoder,
				accept(s, admissionregistration.ValidateValidatingAdmissionPolicyUpdate),
				accept(s, admissionregistration.ValidateValidatingAdmissionPolicyBindingUpdate),
				func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) string { return b.Spec.PolicyName })
		},
		LoadMutatingPolicyManifests: func(dir string) ([]*admissionregistrationv1.MutatingAdmissionPolicy, []*admissionregistrationv1.MutatingAdmissionPolicyBinding, string, error) {
			return policyloader.LoadPolicyManifests(dir, decoder,
				accept(s, admissionregistration.ValidateMutatingAdmissionPolicyUpdate),
				accept(s, admissionregistration.ValidateMutatingAdmissionPolicyBindingUpdate),
				func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) string { return b.Spec.PolicyName })
		},
	}
}

// accept takes objects of one kind, or lists of them, as updates of nothing: that
// validates all but the name.
func accept[T any, P interface {
	*T
	runtime.Object
}](s *runtime.Scheme, validate func(obj, old P) field.ErrorList) func(runtime.Object) ([]P, error) {
	return func(obj runtime.Object) ([]P, error) {
		var all []P
		add := func(obj runtime.Object) error {
			o, ok := obj.(P)
			if !ok {
				return policyloader.ErrUnrecognizedType
			}
			s.Default(o)
			all = append(all, o)
			return validate(o, new(T)).ToAggregate()
		}
		var err error
		if meta.IsListType(obj) {
			err = meta.EachListItem(obj, add)
		} else {
			err = add(obj)
		}
		if err != nil {
			return nil, err
		}
		return all, nil
	}
}
