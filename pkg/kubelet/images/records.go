package images

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"

	"github.com/leme-k8s/leme/pkg/component/files"
	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

// Records remembers with whose credentials an image was pulled, so that a pod cannot
// run a private image just because another pod of the node may. It survives restarts
// in files of the original's format below <root-dir>/image_manager:
//
//	pulling/sha256-<of the image's name>   a pull that has begun
//	pulled/sha256-<of the reference>       who pulled what the runtime has under it
//
// An image that is there without either was brought by who set up the node.
type Records struct {
	dir       string
	policy    kubeletconfig.ImagePullCredentialsVerificationPolicy
	allowlist []string

	mu sync.Mutex
	// pulling counts pulls under way for each intent.
	pulling map[string]int
}

// NewRecords opens the records below rootDir.
func NewRecords(rootDir string, policy kubeletconfig.ImagePullCredentialsVerificationPolicy, allowlist []string) (*Records, error) {
	switch policy {
	case "":
		policy = kubeletconfig.NeverVerifyPreloadedImages
	case kubeletconfig.NeverVerify, kubeletconfig.NeverVerifyPreloadedImages, kubeletconfig.NeverVerifyAllowlistedImages, kubeletconfig.AlwaysVerify:
	default:
		return nil, fmt.Errorf("imagePullCredentialsVerificationPolicy: unknown policy %q", policy)
	}
	r := &Records{dir: filepath.Join(rootDir, "image_manager"), policy: policy, allowlist: allowlist, pulling: map[string]int{}}
	for _, d := range []string{"pulling", "pulled"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("making the records of pulled images: %w", err)
		}
	}
	return r, nil
}

// Allowed says whether a pod with these credentials may use an image that is there
// without pulling it.
func (r *Records) Allowed(image, ref string, have []SecretCredential) bool {
	if r.policy == kubeletconfig.NeverVerify {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	record, err := r.read(ref)
	if err != nil {
		return false
	}
	if record == nil {
		if _, err := os.Stat(r.intentFile(image)); err == nil {
			return false // a pull was interrupted: whose it was is not known
		}
		switch r.policy {
		case kubeletconfig.NeverVerifyPreloadedImages:
			return true
		case kubeletconfig.NeverVerifyAllowlistedImages:
			return slices.ContainsFunc(r.allowlist, func(pattern string) bool { return listed(pattern, withoutTag(image)) })
		}
		return false
	}
	creds, ok := record.CredentialMapping[withoutTag(image)]
	if !ok {
		return false
	}
	if creds.NodePodsAccessible {
		return true
	}
	for _, h := range have {
		for _, s := range creds.KubernetesSecrets {
			// The same credentials in another secret are as good; a secret that was
			// changed since has proved nothing.
			if s.CredentialHash == h.Hash {
				return true
			}
		}
	}
	return false
}

// count says how many records there are.
func (r *Records) count(emit metric.Emit) {
	for dir, name := range map[string]string{"pulling": "kubelet_imagemanager_ondisk_pullintents", "pulled": "kubelet_imagemanager_ondisk_pulledrecords"} {
		if entries, err := os.ReadDir(filepath.Join(r.dir, dir)); err == nil {
			emit(name, float64(len(entries)))
		}
	}
}

// listed matches an allow-list's pattern: a name, or a prefix that ends in "/*".
func listed(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "/*"); ok {
		return strings.HasPrefix(name, prefix+"/")
	}
	return pattern == name
}

// Intend notes that a pull begins.
func (r *Records) Intend(image string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pulling[image]++
	return r.write(r.intentFile(image), &kubeletconfig.ImagePullIntent{TypeMeta: typeMeta("ImagePullIntent"), Image: image})
}

// Failed notes that a pull brought nothing.
func (r *Records) Failed(image string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done(image)
}

// Pulled notes what a pull brought. A nil secret means that every pod of the node could have pulled it.
func (r *Records) Pulled(image, ref string, by *SecretCredential, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	record, err := r.read(ref)
	if err != nil || record == nil {
		record = &kubeletconfig.ImagePulledRecord{TypeMeta: typeMeta("ImagePulledRecord"), ImageRef: ref}
	}
	if record.CredentialMapping == nil {
		record.CredentialMapping = map[string]kubeletconfig.ImagePullCredentials{}
	}
	name := withoutTag(image)
	creds := record.CredentialMapping[name]
	switch {
	case by == nil:
		creds = kubeletconfig.ImagePullCredentials{NodePodsAccessible: true}
	case !creds.NodePodsAccessible:
		creds.KubernetesSecrets = slices.DeleteFunc(creds.KubernetesSecrets, func(s kubeletconfig.ImagePullSecret) bool {
			return s.UID == by.UID && s.Namespace == by.Namespace && s.Name == by.Name
		})
		creds.KubernetesSecrets = append(creds.KubernetesSecrets,
			kubeletconfig.ImagePullSecret{UID: by.UID, Namespace: by.Namespace, Name: by.Name, CredentialHash: by.Hash})
	}
	record.CredentialMapping[name] = creds
	record.LastUpdatedTime = metav1.NewTime(now)
	if err := r.write(r.pulledFile(ref), record); err != nil {
		return err
	}
	return r.done(image)
}

// Removed forgets an image that is no longer there.
func (r *Records) Removed(ref string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return removeFile(r.pulledFile(ref))
}

func (r *Records) done(image string) error {
	if r.pulling[image]--; r.pulling[image] > 0 {
		return nil
	}
	delete(r.pulling, image)
	return removeFile(r.intentFile(image))
}

func (r *Records) read(ref string) (*kubeletconfig.ImagePulledRecord, error) {
	b, err := os.ReadFile(r.pulledFile(ref))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	record := &kubeletconfig.ImagePulledRecord{}
	if err := json.Unmarshal(b, record); err != nil {
		return nil, fmt.Errorf("reading the record of image %s: %w", ref, err)
	}
	return record, nil
}

// write replaces a record in one step, so that an interrupted one is never half there.
func (r *Records) write(file string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := files.Replace(file, b, 0o600); err != nil {
		return fmt.Errorf("recording a pull: %w", err)
	}
	return nil
}

func removeFile(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (r *Records) intentFile(image string) string { return r.file("pulling", image) }
func (r *Records) pulledFile(ref string) string   { return r.file("pulled", ref) }

func (r *Records) file(dir, of string) string {
	sum := sha256.Sum256([]byte(of))
	return filepath.Join(r.dir, dir, "sha256-"+hex.EncodeToString(sum[:]))
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{Kind: kind, APIVersion: kubeletconfig.SchemeGroupVersion.String()}
}

// withoutTag takes the tag and the digest off an image's name.
func withoutTag(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		image = image[:i]
	}
	return image
}
