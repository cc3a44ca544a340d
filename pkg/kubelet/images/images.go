// Package images makes images present on the node, and removes them when the disk
// fills up.
//
// [Manager.Ensure] applies a container's pull policy: it decides whether a pull is
// needed, with whose credentials it may be made, and how long to leave a registry
// alone that has failed. Which pod may use an image that is there already is told by
// [Records], in the original's files. [Collector] removes images that nobody uses.
package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"google.golang.org/grpc/status"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/leme-k8s/leme/pkg/kubelet/pods"
)

// Secrets gives the secrets that pods name to pull with.
type Secrets interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Config is how images are pulled.
type Config struct {
	Images   cri.ImageManagerService
	Secrets  Secrets
	Recorder record.EventRecorder
	Records  *Records
	// NodeCredentials are the node's own, which every pod may use.
	NodeCredentials Credentials
	// Providers are plugins that have more of those; nil for none.
	Providers *Providers
	// Parallel is how many images are pulled at once; 0 is no limit, 1 is one after another.
	Parallel int
	// QPS and Burst limit pulls from registries; a QPS of 0 does not.
	QPS   float32
	Burst int
	Clock clock.WithTicker
}

// The times between attempts to pull an image that cannot be pulled.
const (
	firstBackOff = 10 * time.Second
	maxBackOff   = 300 * time.Second
	// soon is when a pod hears that its failed pull has become a wait.
	soon = time.Second
)

// Manager implements [pods.Images].
type Manager struct {
	cfg     Config
	metrics managerMetrics
	slots   chan struct{}
	limiter flowcontrol.RateLimiter
	backOff *flowcontrol.Backoff

	mu sync.Mutex
	// failures has what to tell those who wait, by back-off key.
	failures map[string]string
}

var _ pods.Images = (*Manager)(nil)

// New returns a Manager.
func New(cfg Config) *Manager {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	m := &Manager{cfg: cfg, metrics: newManagerMetrics(), limiter: flowcontrol.NewFakeAlwaysRateLimiter(), failures: map[string]string{}}
	if cfg.Parallel > 0 {
		m.slots = make(chan struct{}, cfg.Parallel)
	}
	if cfg.QPS > 0 {
		m.limiter = flowcontrol.NewTokenBucketRateLimiter(cfg.QPS, cfg.Burst)
	}
	m.backOff = flowcontrol.NewBackOff(firstBackOff, maxBackOff)
	m.backOff.Clock = cfg.Clock
	return m
}

// The reasons for which a container has no image.
const (
	reasonInvalidName = "InvalidImageName"
	reasonInspect     = "ImageInspectError"
	reasonNeverPull   = "ErrImageNeverPull"
	reasonPull        = "ErrImagePull"
	reasonBackOff     = "ImagePullBackOff"
)

// Error says why an image is not there.
type Error struct {
	reason  string
	message string
	retryAt time.Time
}

func (e *Error) Error() string { return e.message }

// Reason is the reason in the container's status.
func (e *Error) Reason() string { return e.reason }

// RetryAt is when asking again may help; zero if only a change of the pod can.
func (e *Error) RetryAt() time.Time { return e.retryAt }

// Ensure applies the pull policy and returns the image's reference.
func (m *Manager) Ensure(ctx context.Context, req pods.ImageRequest) (string, error) {
	image, err := withTag(req.Image)
	if err != nil {
		m.warn(req, "InspectFailed", "Failed to apply default image tag %q: %v", req.Image, err)
		return "", &Error{reason: reasonInvalidName, message: fmt.Sprintf("Failed to apply default image tag %q: %v", req.Image, err)}
	}
	spec := imageSpec(image, req)
	ref, err := m.present(ctx, spec)
	if err != nil {
		m.metrics.asked(req.Policy, unknown, unknown)
		m.warn(req, "InspectFailed", "Failed to inspect image %q: %v", ref, err)
		return "", &Error{reason: reasonInspect, message: fmt.Sprintf("Failed to inspect image %q: %v", req.Image, err), retryAt: m.cfg.Clock.Now().Add(firstBackOff)}
	}
	switch req.Policy {
	case corev1.PullNever:
		if ref == "" {
			m.metrics.asked(req.Policy, no, unknown)
			m.warn(req, reasonNeverPull, "Container image %q is not present with pull policy of Never", req.Image)
			return "", &Error{reason: reasonNeverPull, message: fmt.Sprintf("Container image %q is not present with pull policy of Never", req.Image)}
		}
		if m.cfg.Records.Allowed(image, ref, secretsOf(m.podCredentials(ctx, req, image))) {
			m.metrics.asked(req.Policy, yes, no)
			return ref, nil
		}
		m.metrics.asked(req.Policy, yes, yes) // and it must not be
		m.warn(req, reasonNeverPull, "Container image %q is present, but the pod has no credentials that it was pulled with", req.Image)
		return "", &Error{reason: reasonNeverPull, message: fmt.Sprintf("Container image %q is present, but the pod has no credentials that it was pulled with", req.Image)}
	case corev1.PullIfNotPresent:
		if ref != "" && m.cfg.Records.Allowed(image, ref, secretsOf(m.podCredentials(ctx, req, image))) {
			m.metrics.asked(req.Policy, yes, no)
			m.event(req, "Pulled", "Container image %q already present on machine and can be accessed by the pod", req.Image)
			return ref, nil
		}
		m.metrics.asked(req.Policy, map[bool]string{true: no, false: yes}[ref == ""], yes)
	default:
		m.metrics.asked(req.Policy, unknown, yes) // it does not matter whether it is there
	}
	return m.pull(ctx, req, image, spec)
}

// pull pulls the image unless it has failed lately.
func (m *Manager) pull(ctx context.Context, req pods.ImageRequest, image string, spec *runtimeapi.ImageSpec) (string, error) {
	key := string(req.Pod.UID) + "_" + req.Image
	now := m.cfg.Clock.Now()
	if m.backOff.IsInBackOffSinceUpdate(key, now) {
		m.mu.Lock()
		last := m.failures[key]
		m.mu.Unlock()
		m.event(req, "BackOff", "Back-off pulling image %q", req.Image)
		return "", &Error{reason: reasonBackOff, message: fmt.Sprintf("Back-off pulling image %q: %s", req.Image, last),
			retryAt: m.retryAt(key, now)}
	}
	ref, size, took, waited, err := m.pullNow(ctx, req, image, spec)
	if err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		m.warn(req, "Failed", "Failed to pull image %q: %v", req.Image, err)
		m.backOff.Next(key, m.cfg.Clock.Now())
		e := &Error{reason: reasonPull, message: err.Error(), retryAt: m.cfg.Clock.Now().Add(soon)}
		for reason, known := range map[string]error{"RegistryUnavailable": crierrors.ErrRegistryUnavailable, "SignatureValidationFailed": crierrors.ErrSignatureValidationFailed} {
			if strings.Contains(err.Error(), known.Error()) {
				e.reason = reason
			}
		}
		m.mu.Lock()
		m.failures[key] = e.reason + ": " + e.message
		m.mu.Unlock()
		return "", e
	}
	m.backOff.DeleteEntry(key)
	m.mu.Lock()
	delete(m.failures, key)
	m.mu.Unlock()
	m.event(req, "Pulled", "Successfully pulled image %q in %v (%v including waiting). Image size: %d bytes.",
		req.Image, took.Round(time.Millisecond), (took + waited).Round(time.Millisecond), size)
	return ref, nil
}

func (m *Manager) retryAt(key string, now time.Time) time.Time {
	return now.Add(m.backOff.Get(key))
}

// pullNow waits for its turn and tries each of the credentials that fit.
func (m *Manager) pullNow(ctx context.Context, req pods.ImageRequest, image string, spec *runtimeapi.ImageSpec) (ref string, size uint64, took, waited time.Duration, err error) {
	asked := m.cfg.Clock.Now()
	if m.slots != nil {
		select {
		case m.slots <- struct{}{}:
			defer func() { <-m.slots }()
		case <-ctx.Done():
			return "", 0, 0, 0, ctx.Err()
		}
	}
	if !m.limiter.TryAccept() {
		return "", 0, 0, 0, errors.New("pull QPS exceeded")
	}
	began := m.cfg.Clock.Now()
	m.event(req, "Pulling", "Pulling image %q", req.Image)

	candidates := slices.Concat(m.podCredentials(ctx, req, image), m.cfg.NodeCredentials.For(image), m.cfg.Providers.For(ctx, image))
	if len(candidates) == 0 {
		candidates = []Credential{{}}
	}
	if err := m.cfg.Records.Intend(image); err != nil {
		return "", 0, 0, 0, err
	}
	var used Credential
	var errs []error
	for _, used = range candidates {
		ref, err = m.cfg.Images.PullImage(ctx, spec, used.auth(), req.Sandbox)
		if err == nil {
			break
		}
		// The status's prefix is of no use to who reads the event.
		if s, ok := status.FromError(err); ok {
			err = fmt.Errorf("rpc error: code = %s desc = %s", s.Code(), s.Message())
		}
		errs = append(errs, err)
	}
	if ref == "" || err != nil {
		return "", 0, 0, 0, errors.Join(append(errs, m.cfg.Records.Failed(image))...)
	}
	if err := m.cfg.Records.Pulled(image, ref, used.secret, m.cfg.Clock.Now()); err != nil {
		klog.FromContext(ctx).Error(err, "Recording who may use an image", "image", image)
	}
	if s, err := m.cfg.Images.ImageStatus(ctx, spec, false); err == nil {
		size = s.GetImage().GetSize()
	}
	took = m.cfg.Clock.Since(began)
	m.metrics.pulled(size, took)
	return ref, size, took, began.Sub(asked), nil
}

func (m *Manager) present(ctx context.Context, spec *runtimeapi.ImageSpec) (string, error) {
	s, err := m.cfg.Images.ImageStatus(ctx, spec, false)
	if err != nil {
		return "", err
	}
	return s.GetImage().GetId(), nil
}

// podCredentials are those in the pod's own secrets that fit the image.
func (m *Manager) podCredentials(ctx context.Context, req pods.ImageRequest, image string) []Credential {
	var all Credentials
	for _, s := range req.Pod.Spec.ImagePullSecrets {
		if s.Name == "" {
			continue
		}
		secret, err := m.cfg.Secrets.Secret(ctx, req.Pod.Namespace, s.Name)
		if err != nil {
			m.cfg.Recorder.Eventf(req.Pod, corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
				"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", s.Name)
			continue
		}
		c, err := ParseSecret(secret)
		if err != nil {
			klog.FromContext(ctx).Info("Unusable image pull secret", "secret", klog.KObj(secret), "err", err)
			continue
		}
		all = append(all, c...)
	}
	return all.For(image)
}

func secretsOf(cs []Credential) []SecretCredential {
	var out []SecretCredential
	for _, c := range cs {
		if c.secret != nil {
			out = append(out, *c.secret)
		}
	}
	return out
}

func (m *Manager) event(req pods.ImageRequest, reason, format string, args ...any) {
	if req.Object != nil {
		m.cfg.Recorder.Eventf(req.Object, corev1.EventTypeNormal, reason, format, args...)
	}
}

func (m *Manager) warn(req pods.ImageRequest, reason, format string, args ...any) {
	if req.Object != nil {
		m.cfg.Recorder.Eventf(req.Object, corev1.EventTypeWarning, reason, format, args...)
	}
}

// Forget drops what is remembered of a pod that is gone.
func (m *Manager) Forget(uid types.UID) {
	m.backOff.GC()
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.failures {
		if strings.HasPrefix(key, string(uid)+"_") {
			delete(m.failures, key)
			m.backOff.DeleteEntry(key)
		}
	}
}

// What a Node shows of its images.
const maxNames = 5

// Lister lists images for the Node's status.
type Lister struct {
	Images cri.ImageManagerService
	// Max is the most images to list; -1 is all.
	Max int
}

// NodeImages lists the node's images, the largest first.
func (l Lister) NodeImages(ctx context.Context) ([]corev1.ContainerImage, error) {
	list, err := l.Images.ListImages(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	slices.SortStableFunc(list, func(a, b *runtimeapi.Image) int {
		switch {
		case a.GetSize() > b.GetSize():
			return -1
		case a.GetSize() < b.GetSize():
			return 1
		}
		return strings.Compare(a.GetId(), b.GetId())
	})
	out := []corev1.ContainerImage{}
	for _, i := range list {
		if l.Max >= 0 && len(out) == l.Max {
			break
		}
		names := slices.Concat(i.GetRepoDigests(), i.GetRepoTags())
		out = append(out, corev1.ContainerImage{Names: names[:min(len(names), maxNames)], SizeBytes: int64(i.GetSize())})
	}
	return out, nil
}

// withTag adds the tag that is meant where none is given.
func withTag(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", fmt.Errorf("couldn't parse image name %q: %w", image, err)
	}
	_, tagged := named.(reference.Tagged)
	_, digested := named.(reference.Digested)
	if !tagged && !digested {
		return image + ":latest", nil
	}
	return image, nil
}

func imageSpec(image string, req pods.ImageRequest) *runtimeapi.ImageSpec {
	return &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: req.Image, Annotations: req.Pod.Annotations}
}
