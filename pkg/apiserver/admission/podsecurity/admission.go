// Package podsecurity holds pods to the Pod Security Standard that their namespace's
// labels ask for.
package podsecurity

import (
	"context"
	"errors"
	"fmt"
	"io"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	podsecurity "k8s.io/pod-security-admission/admission"
	"k8s.io/pod-security-admission/admission/api/load"
	"k8s.io/pod-security-admission/api"
	podsecuritymetrics "k8s.io/pod-security-admission/metrics"
	"k8s.io/pod-security-admission/policy"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/listing"
)

// PluginName is the plugin's name in flags.
const PluginName = "PodSecurity"

// Plugin lets the published library decide.
type Plugin struct {
	*admission.Handler
	delegate  *podsecurity.Admission
	client    kubernetes.Interface
	informers informers.SharedInformerFactory
}

var (
	_ admission.ValidationInterface                = &Plugin{}
	_ initializer.WantsExternalKubeClientSet       = &Plugin{}
	_ initializer.WantsExternalKubeInformerFactory = &Plugin{}
)

// New returns the plugin, configured by a PodSecurityConfiguration; nil is its default.
func New(config io.Reader) (*Plugin, error) {
	c, err := load.LoadFromReader(config)
	if err != nil {
		return nil, fmt.Errorf("reading the PodSecurityConfiguration: %w", err)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, fmt.Errorf("assembling the Pod Security Standards: %w", err)
	}
	recorder := podsecuritymetrics.NewPrometheusRecorder(api.GetAPIVersion())
	recorder.MustRegister(func(all ...metrics.Registerable) {
		for _, m := range all {
			// A second server in the process does not add to the first one's numbers.
			_ = legacyregistry.Register(m)
		}
	})
	return &Plugin{
		Handler:  admission.NewHandler(admission.Create, admission.Update),
		delegate: &podsecurity.Admission{Configuration: c, Evaluator: evaluator, Metrics: recorder, PodSpecExtractor: podsecurity.DefaultPodSpecExtractor{}},
	}, nil
}

// SetExternalKubeClientSet implements initializer.WantsExternalKubeClientSet.
func (p *Plugin) SetExternalKubeClientSet(c kubernetes.Interface) { p.client = c }

// SetExternalKubeInformerFactory implements initializer.WantsExternalKubeInformerFactory.
func (p *Plugin) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	p.informers = f
	namespaces, pods := f.Core().V1().Namespaces().Informer().HasSynced, f.Core().V1().Pods().Informer().HasSynced
	p.SetReadyFunc(func() bool { return namespaces() && pods() })
}

// ValidateInitialization implements admission.InitializationValidator.
func (p *Plugin) ValidateInitialization() error {
	if p.client == nil || p.informers == nil {
		return errors.New("missing client or informers")
	}
	core := p.informers.Core().V1()
	p.delegate.NamespaceGetter = podsecurity.NamespaceGetterFromListerAndClient(core.Namespaces().Lister(), p.client)
	p.delegate.PodLister = podsecurity.PodListerFromInformer(core.Pods().Lister())
	if err := p.delegate.CompleteConfiguration(); err != nil {
		return err
	}
	return p.delegate.ValidateConfiguration()
}

// Validate refuses pods that violate their namespace's standard, and warns of
// controllers whose pods would.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	resource := a.GetResource().GroupResource()
	if resource != corev1.Resource("namespaces") && resource != corev1.Resource("pods") && !p.delegate.PodSpecExtractor.HasPodSpec(resource) {
		return nil
	}
	if err := listing.Ready(p.Handler, a); err != nil {
		return err
	}
	result := p.delegate.Validate(ctx, attributes{a})
	for _, w := range result.Warnings {
		warning.AddWarning(ctx, "", w)
	}
	for k, v := range result.AuditAnnotations {
		audit.AddAuditAnnotation(ctx, api.AuditAnnotationPrefix+k, v)
	}
	if result.Allowed {
		return nil
	}
	if result.Result != nil {
		return &apierrors.StatusError{ErrStatus: *result.Result}
	}
	return admission.NewForbidden(a, errors.New("not allowed by PodSecurity"))
}

// attributes of the request in the library's terms.
type attributes struct{ admission.Attributes }

func (a attributes) GetObject() (runtime.Object, error)    { return a.Attributes.GetObject(), nil }
func (a attributes) GetOldObject() (runtime.Object, error) { return a.Attributes.GetOldObject(), nil }
func (a attributes) GetUserName() string                   { return a.GetUserInfo().GetName() }
func (a attributes) GetOperation() admissionv1.Operation {
	return admissionv1.Operation(a.Attributes.GetOperation())
}
