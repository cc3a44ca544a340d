package volumes

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// A file is one of a volume of objects.
type file struct {
	data []byte
	mode int32
	// user owns the file if it is not root.
	user *int64
}

// content computes the files of a volume of objects by their path in it, and when
// they grow stale.
func (m *Manager) content(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (map[string]file, time.Time, error) {
	c := collector{m: m, pod: pod, files: map[string]file{}}
	var err error
	switch {
	case v.ConfigMap != nil:
		c.mode = modeOr(v.ConfigMap.DefaultMode)
		err = c.configMap(ctx, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional)
	case v.Secret != nil:
		c.mode = modeOr(v.Secret.DefaultMode)
		err = c.secret(ctx, v.Secret.SecretName, v.Secret.Items, v.Secret.Optional)
	case v.DownwardAPI != nil:
		c.mode = modeOr(v.DownwardAPI.DefaultMode)
		err = c.downward(v.DownwardAPI.Items)
	default:
		c.mode, c.user = modeOr(v.Projected.DefaultMode), v.Projected.DefaultUser
		var errs []error
		for i := range v.Projected.Sources {
			errs = append(errs, c.projection(ctx, v.Name, i, &v.Projected.Sources[i]))
		}
		err = errors.Join(errs...)
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	for p := range c.files {
		if err := checkPath(p); err != nil {
			return nil, time.Time{}, err
		}
	}
	return c.files, c.refresh, nil
}

type collector struct {
	m       *Manager
	pod     *corev1.Pod
	mode    int32
	user    *int64
	files   map[string]file
	refresh time.Time
}

func modeOr(mode *int32) int32 {
	if mode != nil {
		return *mode
	}
	return 0o644
}

func (c *collector) add(p string, data []byte, mode *int32, user *int64) {
	f := file{data: data, mode: c.mode, user: c.user}
	if mode != nil {
		f.mode = *mode
	}
	if user != nil {
		f.user = user
	}
	c.files[path.Clean(p)] = f
}

func (c *collector) projection(ctx context.Context, volume string, index int, s *corev1.VolumeProjection) error {
	switch {
	case s.ConfigMap != nil:
		return c.configMap(ctx, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional)
	case s.Secret != nil:
		return c.secret(ctx, s.Secret.Name, s.Secret.Items, s.Secret.Optional)
	case s.DownwardAPI != nil:
		return c.downward(s.DownwardAPI.Items)
	case s.ServiceAccountToken != nil:
		return c.token(ctx, s.ServiceAccountToken)
	case s.ClusterTrustBundle != nil:
		return c.trustBundle(ctx, s.ClusterTrustBundle)
	case s.PodCertificate != nil:
		return c.podCertificate(ctx, volume, index, s.PodCertificate)
	}
	return nil
}

func (c *collector) configMap(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool) error {
	cm, err := c.m.cfg.Objects.ConfigMap(ctx, c.pod.Namespace, name)
	if err != nil {
		if isTrue(optional) && apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	return c.keys("configmap", data, items, isTrue(optional))
}

func (c *collector) secret(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool) error {
	s, err := c.m.cfg.Objects.Secret(ctx, c.pod.Namespace, name)
	if err != nil {
		if isTrue(optional) && apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	return c.keys("secret", s.Data, items, isTrue(optional))
}

// keys adds all of an object's keys under their own names, or the chosen ones where they are asked for.
func (c *collector) keys(kind string, data map[string][]byte, items []corev1.KeyToPath, optional bool) error {
	if len(items) == 0 {
		for k, v := range data {
			c.add(k, v, nil, nil)
		}
		return nil
	}
	for i := range items {
		item := &items[i]
		v, ok := data[item.Key]
		if !ok {
			if optional {
				continue
			}
			return fmt.Errorf("%s references non-existent %s key: %s", kind, kind, item.Key)
		}
		c.add(item.Path, v, item.Mode, item.User)
	}
	return nil
}

func (c *collector) downward(items []corev1.DownwardAPIVolumeFile) error {
	for i := range items {
		item := &items[i]
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = kuberuntime.FieldValue(c.pod, item.FieldRef.FieldPath, podIPs(c.pod), c.m.cfg.HostIPs())
		case item.ResourceFieldRef != nil:
			target := kuberuntime.FindContainer(c.pod, item.ResourceFieldRef.ContainerName)
			if target == nil {
				return fmt.Errorf("downward API file %q: the pod has no container %q", item.Path, item.ResourceFieldRef.ContainerName)
			}
			value, err = kuberuntime.ResourceValue(c.pod, target, item.ResourceFieldRef, c.m.cfg.Allocatable())
		}
		if err != nil {
			return fmt.Errorf("downward API file %q: %w", item.Path, err)
		}
		c.add(item.Path, []byte(value), item.Mode, item.User)
	}
	return nil
}

func podIPs(pod *corev1.Pod) []string {
	ips := make([]string, len(pod.Status.PodIPs))
	for i := range pod.Status.PodIPs {
		ips[i] = pod.Status.PodIPs[i].IP
	}
	return ips
}

// defaultTokenSeconds is how long a projected token lives if its source does not say.
const defaultTokenSeconds = 3600

func (c *collector) token(ctx context.Context, s *corev1.ServiceAccountTokenProjection) error {
	seconds := int64(defaultTokenSeconds)
	if s.ExpirationSeconds != nil {
		seconds = *s.ExpirationSeconds
	}
	token, renew, err := c.m.cfg.Objects.Token(ctx, c.pod, s.Audience, seconds)
	if err != nil {
		return fmt.Errorf("getting a token for ServiceAccount %s: %w", c.pod.Spec.ServiceAccountName, err)
	}
	c.refreshAt(renew)
	c.addSecret(s.Path, []byte(token), s.User)
	return nil
}

func (c *collector) podCertificate(ctx context.Context, volume string, index int, p *corev1.PodCertificateProjection) error {
	if c.m.cfg.PodCertificates == nil {
		return errors.New("this kubelet has no API server to ask for a podCertificate")
	}
	got, renew, err := c.m.cfg.PodCertificates.Credential(ctx, c.pod, volume, index, p)
	if err != nil {
		return err
	}
	c.refreshAt(renew)
	for path, data := range map[string][]byte{
		p.CredentialBundlePath: slices.Concat(got.Key, got.Chain), p.KeyPath: got.Key, p.CertificateChainPath: got.Chain,
	} {
		if path != "" {
			c.addSecret(path, data, p.User)
		}
	}
	return nil
}

func (c *collector) refreshAt(t time.Time) {
	if !t.IsZero() && (c.refresh.IsZero() || t.Before(c.refresh)) {
		c.refresh = t
	}
}

// addSecret adds a file that nobody but its reader may read, where it is known who that will be.
func (c *collector) addSecret(path string, data []byte, user *int64) {
	mode := c.mode
	if user == nil {
		user = c.user
	}
	if user == nil {
		user = commonUser(c.pod)
	}
	if user != nil || fsGroup(c.pod) != nil {
		mode = 0o600
	}
	c.add(path, data, &mode, user)
}

func (c *collector) trustBundle(ctx context.Context, p *corev1.ClusterTrustBundleProjection) error {
	if c.m.cfg.TrustBundles == nil {
		return errors.New("this kubelet has no API server to get a clusterTrustBundle from")
	}
	pem, err := c.m.cfg.TrustBundles.TrustBundle(ctx, p)
	if apierrors.IsNotFound(err) && isTrue(p.Optional) {
		pem, err = nil, nil
	}
	if err != nil {
		return err
	}
	c.add(p.Path, pem, nil, p.User)
	return nil
}

// commonUser is the user that all of a pod's containers run as, if that is certain.
func commonUser(pod *corev1.Pod) *int64 {
	var podUser, common *int64
	if pod.Spec.SecurityContext != nil {
		podUser = pod.Spec.SecurityContext.RunAsUser
	}
	seen := false
	same := func(sc *corev1.SecurityContext) bool {
		user := podUser
		if sc != nil && sc.RunAsUser != nil {
			user = sc.RunAsUser
		}
		if user == nil || seen && *user != *common {
			return false
		}
		seen, common = true, user
		return true
	}
	for _, cs := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range cs {
			if !same(cs[i].SecurityContext) {
				return nil
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if !same(pod.Spec.EphemeralContainers[i].SecurityContext) {
			return nil
		}
	}
	return common
}

// checkPath refuses a path that leads out of a volume or into the names that
// updates use.
func checkPath(p string) error {
	switch {
	case p == "" || p == "." || path.IsAbs(p):
		return fmt.Errorf("invalid path %q: must be a relative path", p)
	case p == ".." || strings.HasPrefix(p, "../") || strings.HasPrefix(p, ".."):
		return fmt.Errorf("invalid path %q: must not start with %q", p, "..")
	case len(p) > 4096:
		return fmt.Errorf("invalid path: longer than 4096 bytes")
	}
	for part := range strings.SplitSeq(p, "/") {
		if len(part) > 255 {
			return fmt.Errorf("invalid path %q: a name in it is longer than 255 bytes", p)
		}
	}
	return nil
}

func isTrue(b *bool) bool { return b != nil && *b }
