// Package policies runs admission policies, which k8s.io/apiserver publishes, and
// lets them sleep until the first policy is bound: an awake plugin looks every second
// whether policies have changed and fetches the index of OpenAPI documents every
// five, for which the server would have to build them all.
package policies

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// The names of the plugins.
const (
	Mutating   = mutating.PluginName
	Validating = validating.PluginName
)

// syncTimeout is how long a request waits for what the server knows at its start.
const syncTimeout = 10 * time.Second

// sleeper wakes a plugin when there is a binding.
type sleeper struct {
	bindings cache.SharedIndexInformer
	wake     func() error
}

// needed wakes the plugin, if it has to do with the request at all.
func (s *sleeper) needed(ctx context.Context, a admission.Attributes) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	select {
	case <-s.bindings.HasSyncedChecker().Done():
	case <-ctx.Done():
		return false, admission.NewForbidden(a, fmt.Errorf("not yet ready to handle request"))
	}
	if len(s.bindings.GetStore().ListKeys()) == 0 {
		return false, nil
	}
	return true, s.wake()
}

// initialize checks that the plugin has all that it needs. One that reads policies
// from files never sleeps.
func (s *sleeper) initialize(files string) error {
	if s.bindings == nil {
		return fmt.Errorf("missing informer factory")
	}
	if files != "" {
		return s.wake()
	}
	return nil
}

// mutatingPlugin is the library's, asleep.
type mutatingPlugin struct {
	*mutating.Plugin
	sleeper
}

// NewMutating returns the plugin for MutatingAdmissionPolicies.
func NewMutating(config io.Reader) (admission.Interface, error) {
	p, err := mutating.NewPlugin(config)
	if err != nil {
		return nil, err
	}
	return &mutatingPlugin{Plugin: p, sleeper: sleeper{wake: sync.OnceValue(p.ValidateInitialization)}}, nil
}

// SetExternalKubeInformerFactory implements initializer.WantsExternalKubeInformerFactory. What an awake plugin
// asks is known from the start.
func (p *mutatingPlugin) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	p.Plugin.SetExternalKubeInformerFactory(f)
	f.Core().V1().Namespaces().Informer()
	f.Admissionregistration().V1().MutatingAdmissionPolicies().Informer()
	p.bindings = f.Admissionregistration().V1().MutatingAdmissionPolicyBindings().Informer()
}

// ValidateInitialization implements admission.InitializationValidator.
func (p *mutatingPlugin) ValidateInitialization() error {
	return p.initialize(p.GetStaticManifestsDir())
}

// Admit implements admission.MutationInterface.
func (p *mutatingPlugin) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if p.GetStaticManifestsDir() == "" {
		if needed, err := p.needed(ctx, a); !needed || err != nil {
			return err
		}
	}
	return p.Plugin.Admit(ctx, a, o)
}

// validatingPlugin is the library's, asleep.
type validatingPlugin struct {
	*validating.Plugin
	sleeper
}

// NewValidating returns the plugin for ValidatingAdmissionPolicies.
func NewValidating(config io.Reader) (admission.Interface, error) {
	p, err := validating.NewPlugin(config)
	if err != nil {
		return nil, err
	}
	return &validatingPlugin{Plugin: p, sleeper: sleeper{wake: sync.OnceValue(p.ValidateInitialization)}}, nil
}

// SetExternalKubeInformerFactory implements initializer.WantsExternalKubeInformerFactory. What an awake plugin
// asks is known from the start.
func (p *validatingPlugin) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	p.Plugin.SetExternalKubeInformerFactory(f)
	f.Core().V1().Namespaces().Informer()
	f.Admissionregistration().V1().ValidatingAdmissionPolicies().Informer()
	p.bindings = f.Admissionregistration().V1().ValidatingAdmissionPolicyBindings().Informer()
}

// ValidateInitialization implements admission.InitializationValidator.
func (p *validatingPlugin) ValidateInitialization() error {
	return p.initialize(p.GetStaticManifestsDir())
}

// Validate implements admission.ValidationInterface.
func (p *validatingPlugin) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if p.GetStaticManifestsDir() == "" {
		if needed, err := p.needed(ctx, a); !needed || err != nil {
			return err
		}
	}
	return p.Plugin.Validate(ctx, a, o)
}
