// Package serviceaccount runs every pod as a ServiceAccount, mounts its API
// credentials into the pod's containers, and gives it the account's image pull
// secrets. Where an account is annotated so, its pods may use only the Secrets
// that it lists.
package serviceaccount

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/core/podrefs"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/listing"
)

const (
	// PluginName is the plugin's name in flags.
	PluginName = "ServiceAccount"

	defaultAccount      = "default"
	mountPath           = "/var/run/secrets/kubernetes.io/serviceaccount"
	volumePrefix        = "kube-api-access-"
	rootCAConfigMap     = "kube-root-ca.crt"
	enforceMountable    = "kubernetes.io/enforce-mountable-secrets"
	tokenExpiration     = 60*60 + 7 // known to the token issuer, which lets these tokens live longer
	projectedFileMode   = 0o644
	defaultAccountTries = 10
)

// Plugin gives pods their ServiceAccount.
type Plugin struct {
	listing.ClientHandler[corelisters.ServiceAccountLister]
	generate names.NameGenerator
}

var (
	_ admission.MutationInterface   = &Plugin{}
	_ admission.ValidationInterface = &Plugin{}
)

// New returns the plugin.
func New() *Plugin {
	return &Plugin{ClientHandler: listing.NewClientHandler(func(f informers.SharedInformerFactory) listing.Informer[corelisters.ServiceAccountLister] {
		return f.Core().V1().ServiceAccounts()
	}, admission.Create, admission.Update), generate: names.SimpleNameGenerator}
}

// concerns returns the pod that is created, or whose ephemeral containers are
// written, if that is what the request does.
func concerns(a admission.Attributes) (*corev1.Pod, bool) {
	if a.GetResource().GroupResource() != corev1.Resource("pods") {
		return nil, false
	}
	create := a.GetOperation() == admission.Create && a.GetSubresource() == ""
	debug := a.GetOperation() == admission.Update && a.GetSubresource() == "ephemeralcontainers"
	pod, ok := a.GetObject().(*corev1.Pod)
	return pod, ok && (create || debug)
}

// Admit completes a new pod.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := concerns(a)
	// A mirror pod shows what already runs: it is taken as it is.
	if !ok || a.GetOperation() != admission.Create || isMirror(pod) {
		return nil
	}
	if err := p.Ready(a); err != nil {
		return err
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	// The field's old name follows, as it does in defaulting.
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	account, err := p.account(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err))
	}
	if automount(account, pod) {
		p.mount(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = slices.Clone(account.ImagePullSecrets)
	}
	return nil
}

func isMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// account finds the ServiceAccount, for the cache may be behind. "default" is made
// by a controller a moment after its namespace, and is waited for.
func (p *Plugin) account(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	account, err := p.Lister.ServiceAccounts(namespace).Get(name)
	if !apierrors.IsNotFound(err) {
		return account, err
	}
	backoff := wait.Backoff{Duration: 100 * time.Millisecond, Jitter: 0.5, Steps: 1}
	if name == defaultAccount {
		backoff.Steps = defaultAccountTries
	}
	var last error
	waitErr := wait.ExponentialBackoffWithContext(ctx, backoff, func(ctx context.Context) (bool, error) {
		account, last = p.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(last) {
			return false, nil
		}
		return true, last
	})
	if apierrors.IsNotFound(last) {
		return nil, apierrors.NewNotFound(corev1.Resource("serviceaccount"), name)
	} else if last != nil {
		return nil, last
	}
	return account, waitErr
}

func automount(account *corev1.ServiceAccount, pod *corev1.Pod) bool {
	if pod.Spec.AutomountServiceAccountToken != nil {
		return *pod.Spec.AutomountServiceAccountToken
	}
	return ptr.Deref(account.AutomountServiceAccountToken, true)
}

// mount adds the volume with the API credentials to all containers that have
// nothing at its place.
func (p *Plugin) mount(pod *corev1.Pod) {
	name, exists := "", false
	for _, v := range pod.Spec.Volumes {
		if strings.HasPrefix(v.Name, volumePrefix) {
			name, exists = v.Name, true
			break
		}
	}
	if !exists {
		name = p.generate.GenerateName(volumePrefix)
	}
	needed := false
	add := func(containers []corev1.Container) {
		for i := range containers {
			c := &containers[i]
			if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == mountPath }) {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: mountPath})
				needed = true
			}
		}
	}
	add(pod.Spec.InitContainers)
	add(pod.Spec.Containers)
	if needed && !exists {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: credentials()}})
	}
}

// credentials are the token, the CA of the API server and the pod's namespace.
func credentials() *corev1.ProjectedVolumeSource {
	return &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To[int32](projectedFileMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](tokenExpiration)}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCAConfigMap},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}
}

// Validate refuses mirror pods that would gain credentials, pods whose account is
// not there, and Secrets that the account does not list, if it must.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := concerns(a)
	if !ok {
		return nil
	}
	if err := p.Ready(a); err != nil {
		return err
	}
	if a.GetOperation() == admission.Create && isMirror(pod) {
		return validateMirror(pod, a)
	}
	account, err := p.account(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err))
	}
	if enforce, err := strconv.ParseBool(account.Annotations[enforceMountable]); err != nil || !enforce {
		return nil
	}
	if err := limitSecrets(account, pod); err != nil {
		return admission.NewForbidden(a, err)
	}
	return nil
}

func validateMirror(pod *corev1.Pod, a admission.Attributes) error {
	if pod.Spec.ServiceAccountName != "" {
		return admission.NewForbidden(a, errors.New("a mirror pod may not reference service accounts"))
	}
	if len(podrefs.Secrets(&pod.Spec)) > 0 {
		return admission.NewForbidden(a, errors.New("a mirror pod may not reference secrets"))
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if source.ServiceAccountToken != nil {
				return admission.NewForbidden(a, errors.New("a mirror pod may not use ServiceAccountToken volume projections"))
			}
		}
	}
	return nil
}

func limitSecrets(account *corev1.ServiceAccount, pod *corev1.Pod) error {
	mountable := map[string]bool{}
	for _, s := range account.Secrets {
		mountable[s.Name] = true
	}
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil && !mountable[v.Secret.SecretName] {
			return fmt.Errorf("volume with secret.secretName=%q is not allowed because service account %s does not reference that secret", v.Secret.SecretName, account.Name)
		}
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if source.Secret != nil && !mountable[source.Secret.Name] {
				return fmt.Errorf("volume with projected secret %q is not allowed because service account %s does not reference that secret", source.Secret.Name, account.Name)
			}
		}
	}
	check := func(kind, name string, env []corev1.EnvVar, from []corev1.EnvFromSource) error {
		for _, e := range env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && !mountable[e.ValueFrom.SecretKeyRef.Name] {
				return fmt.Errorf("%s %s with envVar %s referencing secret.secretName=%q is not allowed because service account %s does not reference that secret", kind, name, e.Name, e.ValueFrom.SecretKeyRef.Name, account.Name)
			}
		}
		for _, f := range from {
			if f.SecretRef != nil && !mountable[f.SecretRef.Name] {
				return fmt.Errorf("%s %s with envFrom referencing secret.secretName=%q is not allowed because service account %s does not reference that secret", kind, name, f.SecretRef.Name, account.Name)
			}
		}
		return nil
	}
	for _, c := range pod.Spec.InitContainers {
		if err := check("init container", c.Name, c.Env, c.EnvFrom); err != nil {
			return err
		}
	}
	for _, c := range pod.Spec.Containers {
		if err := check("container", c.Name, c.Env, c.EnvFrom); err != nil {
			return err
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		if err := check("ephemeral container", c.Name, c.Env, c.EnvFrom); err != nil {
			return err
		}
	}
	for i, ref := range pod.Spec.ImagePullSecrets {
		if !slices.Contains(account.ImagePullSecrets, ref) {
			return fmt.Errorf("imagePullSecrets[%d].name=%q is not allowed because service account %s does not reference that imagePullSecret", i, ref.Name, account.Name)
		}
	}
	return nil
}
