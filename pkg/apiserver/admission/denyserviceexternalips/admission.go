// Package denyserviceexternalips lets no Service claim further external IPs, by which its
// author could catch the traffic of others. Those that it has may stay.
package denyserviceexternalips

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
)

// PluginName is the plugin's name in flags.
const PluginName = "DenyServiceExternalIPs"

// Plugin checks Services.
type Plugin struct{ *admission.Handler }

var _ admission.ValidationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin {
	return &Plugin{admission.NewHandler(admission.Create, admission.Update)}
}

// Validate refuses external IPs that the Service did not have before.
func (p *Plugin) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != corev1.Resource("services") {
		return nil
	}
	service, ok := a.GetObject().(*corev1.Service)
	if !ok {
		return apierrors.NewInternalError(fmt.Errorf("Expected Service resource, got: %v", a.GetKind()))
	}
	had := map[string]bool{}
	if old, ok := a.GetOldObject().(*corev1.Service); ok {
		for _, ip := range old.Spec.ExternalIPs {
			had[ip] = true
		}
	}
	if slices.ContainsFunc(service.Spec.ExternalIPs, func(ip string) bool { return !had[ip] }) {
		return admission.NewForbidden(a, errors.New("Use of external IPs is denied by admission control"))
	}
	return nil
}
