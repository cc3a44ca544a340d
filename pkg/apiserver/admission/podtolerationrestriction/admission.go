// Package podtolerationrestriction gives pods the tolerations that their namespace's
// annotations or the configuration of the plugin name, and lets them have no others than
// those of a whitelist.
package podtolerationrestriction

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/namespaces"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/pluginconfig"
)

// PluginName is the plugin's name in flags.
const PluginName = "PodTolerationRestriction"

// Annotations of a namespace, lists of tolerations in JSON.
const (
	defaultsAnnotation  = "scheduler.alpha.kubernetes.io/defaultTolerations"
	whitelistAnnotation = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
)

// configKind is the kind of the plugin's section of the configuration file.
var configKind = schema.GroupVersionKind{Group: "podtolerationrestriction.admission.k8s.io", Version: "v1alpha1", Kind: "Configuration"}

// Configuration is for namespaces without the annotations.
type Configuration struct {
	metav1.TypeMeta `json:",inline"`
	Default         []corev1.Toleration `json:"default,omitempty"`
	Whitelist       []corev1.Toleration `json:"whitelist,omitempty"`
}

// Plugin adds and checks tolerations.
type Plugin struct {
	namespaces.Handler
	config Configuration
}

var (
	_ admission.MutationInterface   = &Plugin{}
	_ admission.ValidationInterface = &Plugin{}
)

// New returns the plugin.
func New(section io.Reader) (*Plugin, error) {
	p := &Plugin{Handler: namespaces.NewHandler(admission.Create, admission.Update)}
	return p, pluginconfig.ReadKind(section, configKind, &p.config, &p.config.TypeMeta)
}

// Admit adds the namespace's tolerations to a new pod, and that of memory pressure to
// every pod that has requests or limits.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	pod := podOf(a)
	if pod == nil {
		return nil
	}
	tolerations := pod.Spec.Tolerations
	if a.GetOperation() == admission.Create {
		defaults, _, err := p.of(ctx, a, defaultsAnnotation, p.config.Default)
		if err != nil {
			return err
		}
		if len(defaults) > 0 {
			tolerations = merge(defaults, tolerations)
		}
	}
	if core.PodQOS(pod) != corev1.PodQOSBestEffort {
		tolerations = merge(tolerations, []corev1.Toleration{{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}})
	}
	pod.Spec.Tolerations = tolerations
	return p.Validate(ctx, a, o)
}

// Validate holds the pod to the whitelist.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod := podOf(a)
	if pod == nil || len(pod.Spec.Tolerations) == 0 {
		return nil
	}
	whitelist, scope, err := p.of(ctx, a, whitelistAnnotation, p.config.Whitelist)
	if err != nil {
		return err
	}
	if !within(pod.Spec.Tolerations, whitelist) {
		return fmt.Errorf("pod tolerations (possibly merged with namespace default tolerations) conflict with its %s whitelist", scope)
	}
	return nil
}

func podOf(a admission.Attributes) *corev1.Pod {
	if a.GetResource().GroupResource() != corev1.Resource("pods") || a.GetSubresource() != "" {
		return nil
	}
	pod, _ := a.GetObject().(*corev1.Pod)
	return pod
}

// of returns the tolerations in the annotation, or those of the cluster if the namespace
// has none, and says whose they are.
func (p *Plugin) of(ctx context.Context, a admission.Attributes, annotation string, cluster []corev1.Toleration) ([]corev1.Toleration, string, error) {
	namespace, err := p.Of(ctx, a)
	if err != nil {
		return nil, "", err
	}
	text, ok := namespace.Annotations[annotation]
	if !ok {
		return cluster, "cluster", nil
	}
	tolerations := []corev1.Toleration{}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &tolerations); err != nil {
			return nil, "", apierrors.NewInternalError(fmt.Errorf("annotation %s of namespace %s: %w", annotation, namespace.Name, err))
		}
	}
	return tolerations, "namespace", nil
}
