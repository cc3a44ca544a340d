// Package imagepolicywebhook asks a webhook whether the images of a pod may be run.
package imagepolicywebhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	imagepolicyv1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// PluginName is the plugin's name in flags.
const PluginName = "ImagePolicyWebhook"

const (
	// annotations of a pod with this in their prefix are told to the webhook.
	annotationDomain = "image-policy.k8s.io/"
	// auditPrefix is that of what the webhook wants in the audit log.
	auditPrefix = "imagepolicywebhook." + annotationDomain
	// failedOpen marks, there, a pod that passed because the webhook did not answer.
	failedOpen = "failed-open"
	// cacheSize is how many answers are kept.
	cacheSize = 1024
)

// Plugin asks the webhook.
type Plugin struct {
	*admission.Handler
	hook         *webhook.GenericWebhook
	settings     settings
	defaultAllow bool
	answers      *cache.LRUExpireCache
}

var _ admission.ValidationInterface = &Plugin{}

// New returns the plugin.
func New(section io.Reader) (*Plugin, error) {
	c, s, err := readConfig(section)
	if err != nil {
		return nil, err
	}
	client, err := webhook.LoadKubeconfig(c.KubeConfigFile, nil)
	if err != nil {
		return nil, fmt.Errorf("imagePolicy.kubeConfigFile: %w", err)
	}
	return newPlugin(client, s, c.DefaultAllow)
}

func newPlugin(client *rest.Config, s settings, defaultAllow bool) (*Plugin, error) {
	types := runtime.NewScheme()
	if err := imagepolicyv1alpha1.AddToScheme(types); err != nil {
		return nil, err
	}
	hook, err := webhook.NewGenericWebhook(types, serializer.NewCodecFactory(types), client,
		[]schema.GroupVersion{imagepolicyv1alpha1.SchemeGroupVersion}, webhook.DefaultRetryBackoffWithInitialDelay(s.backoff))
	if err != nil {
		return nil, err
	}
	return &Plugin{
		Handler: admission.NewHandler(admission.Create, admission.Update), hook: hook,
		settings: s, defaultAllow: defaultAllow, answers: cache.NewLRUExpireCache(cacheSize),
	}, nil
}

// Validate refuses a pod with an image that the webhook refuses.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != corev1.Resource("pods") || a.GetSubresource() != "" && a.GetSubresource() != "ephemeralcontainers" {
		return nil
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return apierrors.NewBadRequest("Resource was marked with kind Pod but was unable to be converted")
	}
	question := question(pod, a.GetSubresource() == "ephemeralcontainers")
	question.Namespace = a.GetNamespace()
	answer, err := p.ask(ctx, question)
	if err != nil {
		return p.unanswered(ctx, pod, a, err)
	}
	for k, v := range answer.AuditAnnotations {
		annotate(ctx, a, k, v)
	}
	switch {
	case answer.Allowed:
		return nil
	case answer.Reason != "":
		return admission.NewForbidden(a, fmt.Errorf("image policy webhook backend denied one or more images: %s", answer.Reason))
	}
	return admission.NewForbidden(a, errors.New("one or more images rejected by webhook backend"))
}

// question is what the webhook is told about a pod.
func question(pod *corev1.Pod, ephemeral bool) imagepolicyv1alpha1.ImageReviewSpec {
	var spec imagepolicyv1alpha1.ImageReviewSpec
	if ephemeral {
		for _, c := range pod.Spec.EphemeralContainers {
			spec.Containers = append(spec.Containers, imagepolicyv1alpha1.ImageReviewContainerSpec{Image: c.Image})
		}
	} else {
		for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
			spec.Containers = append(spec.Containers, imagepolicyv1alpha1.ImageReviewContainerSpec{Image: c.Image})
		}
	}
	for k, v := range pod.Annotations {
		if strings.Contains(k, "."+annotationDomain) {
			if spec.Annotations == nil {
				spec.Annotations = map[string]string{}
			}
			spec.Annotations[k] = v
		}
	}
	return spec
}

// ask returns the webhook's answer, which may be one that it gave before.
func (p *Plugin) ask(ctx context.Context, spec imagepolicyv1alpha1.ImageReviewSpec) (imagepolicyv1alpha1.ImageReviewStatus, error) {
	key, err := json.Marshal(spec)
	if err != nil {
		return imagepolicyv1alpha1.ImageReviewStatus{}, err
	}
	if answer, ok := p.answers.Get(string(key)); ok {
		return answer.(imagepolicyv1alpha1.ImageReviewStatus), nil
	}
	result := p.hook.WithExponentialBackoff(ctx, func() rest.Result {
		return p.hook.RestClient.Post().Body(&imagepolicyv1alpha1.ImageReview{Spec: spec}).Do(ctx)
	})
	if err := result.Error(); err != nil {
		return imagepolicyv1alpha1.ImageReviewStatus{}, err
	}
	var code int
	if result.StatusCode(&code); code < http.StatusOK || code >= http.StatusMultipleChoices {
		return imagepolicyv1alpha1.ImageReviewStatus{}, fmt.Errorf("Error contacting webhook: %d", code)
	}
	var review imagepolicyv1alpha1.ImageReview
	if err := result.Into(&review); err != nil {
		return imagepolicyv1alpha1.ImageReviewStatus{}, err
	}
	p.answers.Add(string(key), review.Status, p.ttl(review.Status.Allowed))
	return review.Status, nil
}

func (p *Plugin) ttl(allowed bool) time.Duration {
	if allowed {
		return p.settings.allowTTL
	}
	return p.settings.denyTTL
}

// unanswered lets the pod pass or not, as the configuration says.
func (p *Plugin) unanswered(ctx context.Context, pod *corev1.Pod, a admission.Attributes, err error) error {
	klog.FromContext(ctx).Error(err, "Asking the image policy webhook", "pod", klog.KObj(pod), "allowed", p.defaultAllow)
	if !p.defaultAllow {
		return admission.NewForbidden(a, err)
	}
	annotate(ctx, a, failedOpen, "true")
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[corev1.ImagePolicyFailedOpenKey] = "true"
	return nil
}

func annotate(ctx context.Context, a admission.Attributes, key, value string) {
	if err := a.AddAnnotation(auditPrefix+key, value); err != nil {
		klog.FromContext(ctx).Error(err, "Annotating the audit event", "key", auditPrefix+key)
	}
}
