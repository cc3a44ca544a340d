// Package mutatingwebhook lets webhooks change what is written. k8s.io/apiserver publishes the plugin; it copies
// each object, to see later whether other plugins have changed it since, even if there is no webhook. Here it is asked only if there is one.
package mutatingwebhook

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/config"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// PluginName is the plugin's name in flags.
const PluginName = mutating.PluginName

// Plugin is the library's.
type Plugin struct {
	*mutating.Plugin
	fromFiles      bool // there are webhooks beside those that clients register
	configurations cache.SharedIndexInformer
}

var _ admission.MutationInterface = &Plugin{}

// New returns the plugin, configured by a WebhookAdmissionConfiguration; nil is its default.
func New(section io.Reader) (*Plugin, error) {
	var again io.Reader
	if section != nil {
		text, err := io.ReadAll(section)
		if err != nil {
			return nil, fmt.Errorf("reading the WebhookAdmissionConfiguration: %w", err)
		}
		section, again = bytes.NewReader(text), bytes.NewReader(text)
	}
	c, err := config.LoadConfig(section)
	if err != nil {
		return nil, err
	}
	p, err := mutating.NewMutatingWebhook(again)
	return &Plugin{Plugin: p, fromFiles: c.StaticManifestsDir != ""}, err
}

// SetExternalKubeInformerFactory implements initializer.WantsExternalKubeInformerFactory.
func (p *Plugin) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	p.Plugin.SetExternalKubeInformerFactory(f)
	p.configurations = f.Admissionregistration().V1().MutatingWebhookConfigurations().Informer()
}

// Admit implements admission.MutationInterface.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if !p.fromFiles && p.configurations.HasSynced() && len(p.configurations.GetStore().ListKeys()) == 0 {
		return nil
	}
	return p.Plugin.Admit(ctx, a, o)
}
