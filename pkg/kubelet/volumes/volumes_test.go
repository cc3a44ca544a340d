package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/leme-k8s/leme/pkg/kubelet/podcertificates"
	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// world is an API of few objects.
type world struct {
	secrets    map[string]*corev1.Secret
	configMaps map[string]*corev1.ConfigMap
	claims     map[string]*corev1.PersistentVolumeClaim
	volumes    map[string]*corev1.PersistentVolume
	token      string
	renew      time.Time
	forgotten  []types.UID // of whom no credentials are needed any more
}

func get[T any](m map[string]*T, kind, name string) (*T, error) {
	if o, ok := m[name]; ok {
		return o, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource(kind), name)
}

func (w *world) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	return get(w.secrets, "secrets", name)
}

func (w *world) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	return get(w.configMaps, "configmaps", name)
}

func (w *world) Token(_ context.Context, pod *corev1.Pod, audience string, seconds int64) (string, time.Time, error) {
	return fmt.Sprintf("%s for %s at %q, %d s", w.token, pod.Name, audience, seconds), w.renew, nil
}

func (w *world) Claim(_ context.Context, _, name string) (*corev1.PersistentVolumeClaim, error) {
	return get(w.claims, "persistentvolumeclaims", name)
}

func (w *world) Volume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	return get(w.volumes, "persistentvolumes", name)
}

func (w *world) TrustBundle(_ context.Context, p *corev1.ClusterTrustBundleProjection) ([]byte, error) {
	if p.Name != nil && *p.Name == "roots" {
		return []byte("PEM"), nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("clustertrustbundles"), "x")
}

func (w *world) Credential(_ context.Context, pod *corev1.Pod, volume string, index int, p *corev1.PodCertificateProjection) (podcertificates.Credential, time.Time, error) {
	if p.SignerName == "slow" {
		return podcertificates.Credential{}, time.Time{}, errors.New("not issued yet")
	}
	return podcertificates.Credential{Key: []byte("key "), Chain: fmt.Appendf(nil, "of %s/%s/%d", pod.Name, volume, index)}, w.renew, nil
}

func (w *world) Forget(uid types.UID) { w.forgotten = append(w.forgotten, uid) }

func manager(t *testing.T, w *world) *Manager {
	t.Helper()
	root := t.TempDir()
	m := New(Config{RootDir: root, Objects: w, Claims: w, TrustBundles: w, PodCertificates: w,
		Allocatable: func() corev1.ResourceList {
			return corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi"), corev1.ResourceCPU: resource.MustParse("2")}
		},
		HostIPs:    func() []string { return []string{"10.0.0.1"} },
		NodeLabels: func() map[string]string { return map[string]string{"kubernetes.io/hostname": "here"} },
	})
	t.Cleanup(func() { // before the directory is removed, even if the test failed half-way
		uids, err := m.UIDs()
		if err != nil {
			t.Error(err)
		}
		for _, uid := range uids {
			if err := m.Unmount(context.Background(), uid); err != nil {
				t.Error(err)
			}
		}
	})
	return m
}

// podWith mounts each of the volumes in one container.
func podWith(volumes ...corev1.Volume) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "uid-1", Labels: map[string]string{"app": "x"}}}
	p.Spec.ServiceAccountName = "sa"
	p.Spec.Volumes = volumes
	c := corev1.Container{Name: "main"}
	for _, v := range volumes {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
	}
	p.Spec.Containers = []corev1.Container{c}
	return p
}

func mountOne(t *testing.T, m *Manager, pod *corev1.Pod) (kuberuntime.Volume, time.Time) {
	t.Helper()
	mounted, err := m.Mount(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	return mounted.Volumes[pod.Spec.Volumes[0].Name], mounted.Refresh
}

// tree lists the files that a reader sees in a volume, with mode, owner and content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	var walk func(string)
	walk = func(rel string) {
		entries, err := os.ReadDir(filepath.Join(dir, rel))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "..") {
				continue
			}
			p := filepath.Join(rel, e.Name())
			info, err := os.Stat(filepath.Join(dir, p))
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				walk(p)
				continue
			}
			b, err := os.ReadFile(filepath.Join(dir, p))
			if err != nil {
				t.Fatal(err)
			}
			st := info.Sys().(*syscall.Stat_t)
			got[p] = fmt.Sprintf("%04o %d:%d %s", info.Mode().Perm(), st.Uid, st.Gid, b)
		}
	}
	walk("")
	return got
}

func ptr[T any](v T) *T { return &v }

func TestContent(t *testing.T) {
	renew := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := &world{token: "token", renew: renew,
		secrets:    map[string]*corev1.Secret{"s": {Data: map[string][]byte{"user": []byte("me"), "pass": []byte("word")}}},
		configMaps: map[string]*corev1.ConfigMap{"c": {Data: map[string]string{"a": "1", "b": "2"}, BinaryData: map[string][]byte{"bin": {1}}}},
	}
	withGroup := func(p *corev1.Pod) *corev1.Pod {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr(int64(1234))}
		return p
	}
	asUser := func(p *corev1.Pod) *corev1.Pod {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1000))}
		return p
	}
	secret := func(s corev1.SecretVolumeSource) corev1.Volume {
		return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &s}}
	}
	configMap := func(name string, s corev1.ConfigMapVolumeSource) corev1.Volume {
		s.Name = name
		return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &s}}
	}
	projected := func(sources ...corev1.VolumeProjection) corev1.Volume {
		return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}}
	}
	limited := podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
		{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}},
		{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}, Mode: ptr(int32(0o400))},
		{Path: "cpu", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "main", Resource: "limits.cpu"}},
	}}}})

	for _, tc := range []struct {
		name    string
		pod     *corev1.Pod
		want    map[string]string
		refresh time.Time
		err     string
	}{
		{name: "secret", pod: podWith(secret(corev1.SecretVolumeSource{SecretName: "s", DefaultMode: ptr(int32(0o400))})),
			want: map[string]string{"user": "0400 0:0 me", "pass": "0400 0:0 word"}},
		{name: "fsGroup reads", pod: withGroup(podWith(secret(corev1.SecretVolumeSource{SecretName: "s", DefaultMode: ptr(int32(0o400))}))),
			want: map[string]string{"user": "0440 0:1234 me", "pass": "0440 0:1234 word"}},
		{name: "items", pod: podWith(configMap("c", corev1.ConfigMapVolumeSource{Items: []corev1.KeyToPath{{Key: "a", Path: "x/y/z", Mode: ptr(int32(0o600))}, {Key: "b", Path: "x/b"}}})),
			want: map[string]string{"x/y/z": "0600 0:0 1", "x/b": "0644 0:0 2"}},
		{name: "binary", pod: podWith(configMap("c", corev1.ConfigMapVolumeSource{})),
			want: map[string]string{"a": "0644 0:0 1", "b": "0644 0:0 2", "bin": "0644 0:0 \x01"}},
		{name: "missing", pod: podWith(configMap("none", corev1.ConfigMapVolumeSource{})), err: `configmaps "none" not found`},
		{name: "missing key", pod: podWith(configMap("c", corev1.ConfigMapVolumeSource{Items: []corev1.KeyToPath{{Key: "no", Path: "no"}}})), err: "non-existent configmap key: no"},
		{name: "optional", pod: podWith(configMap("none", corev1.ConfigMapVolumeSource{Optional: ptr(true)})), want: map[string]string{}},
		{name: "out of the volume", pod: podWith(configMap("c", corev1.ConfigMapVolumeSource{Items: []corev1.KeyToPath{{Key: "a", Path: "x/../../y"}}})), err: "invalid path"},
		{name: "downward API", pod: limited, want: map[string]string{"name": "0644 0:0 pod", "labels": `0400 0:0 app="x"`, "cpu": "0644 0:0 2"}},
		{name: "token", pod: podWith(projected(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "a"}})),
			want: map[string]string{"token": `0644 0:0 token for pod at "a", 3600 s`}, refresh: renew},
		{name: "token for one user", pod: asUser(podWith(projected(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr(int64(600))}}))),
			want: map[string]string{"token": `0600 1000:0 token for pod at "", 600 s`}, refresh: renew},
		{name: "projected", pod: podWith(projected(
			corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Items: []corev1.KeyToPath{{Key: "user", Path: "s/user"}}}},
			corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Items: []corev1.KeyToPath{{Key: "a", Path: "s/a"}}}},
			corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: ptr("roots"), Path: "ca.pem"}},
			corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: ptr("none"), Path: "none.pem", Optional: ptr(true)}},
		)), want: map[string]string{"s/user": "0644 0:0 me", "s/a": "0644 0:0 1", "ca.pem": "0644 0:0 PEM", "none.pem": "0644 0:0 "}},
		{name: "certificate", pod: podWith(projected(
			corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: ptr("roots"), Path: "ca.pem"}},
			corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{CredentialBundlePath: "all", KeyPath: "key", CertificateChainPath: "chain"}},
		)), want: map[string]string{"ca.pem": "0644 0:0 PEM", "all": "0644 0:0 key of pod/v/1", "key": "0644 0:0 key ", "chain": "0644 0:0 of pod/v/1"}, refresh: renew},
		{name: "certificate for one user", pod: asUser(podWith(projected(corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{CredentialBundlePath: "all"}}))),
			want: map[string]string{"all": "0600 1000:0 key of pod/v/0"}, refresh: renew},
		{name: "certificate to come", pod: podWith(projected(corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{SignerName: "slow", KeyPath: "key"}})), err: "not issued yet"},
		{name: "unsupported", pod: podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{}}}),
			err: "does not support volumes of type iscsi"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := manager(t, w)
			mounted, err := m.Mount(t.Context(), tc.pod)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				if _, err := os.Stat(m.podDir(tc.pod.UID)); !os.IsNotExist(err) {
					t.Error("something was left behind")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !mounted.Volumes["v"].ReadOnly {
				t.Error("not read-only")
			}
			if d := cmp.Diff(tc.want, tree(t, mounted.Volumes["v"].HostPath)); d != "" {
				t.Error(d)
			}
			if !mounted.Refresh.Equal(tc.refresh) {
				t.Errorf("refresh at %v", mounted.Refresh)
			}
		})
	}
}

func TestUpdate(t *testing.T) {
	cm := &corev1.ConfigMap{Data: map[string]string{"a": "1", "b": "2"}}
	w := &world{configMaps: map[string]*corev1.ConfigMap{"c": cm}}
	m := manager(t, w)
	pod := podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}})
	v, _ := mountOne(t, m, pod)
	if !strings.HasSuffix(v.HostPath, "/pods/uid-1/volumes/kubernetes.io~configmap/v") {
		t.Errorf("it is at %s", v.HostPath)
	}
	data := func() string {
		t.Helper()
		link, err := os.Readlink(filepath.Join(v.HostPath, "..data"))
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	first := data()
	mountOne(t, m, pod)
	if data() != first {
		t.Error("rewritten without a change")
	}
	// A subPath keeps the file that it was made of.
	sub, err := m.SubPath(t.Context(), pod, &pod.Spec.Containers[0], 0, v, "a")
	if err != nil {
		t.Fatal(err)
	}

	cm.Data = map[string]string{"a": "3", "new": "4"}
	mountOne(t, m, pod)
	if d := cmp.Diff(map[string]string{"a": "0644 0:0 3", "new": "0644 0:0 4"}, tree(t, v.HostPath)); d != "" {
		t.Error(d)
	}
	if _, err := os.Stat(filepath.Join(v.HostPath, first)); !os.IsNotExist(err) {
		t.Error("the old files are still there")
	}
	if b, err := os.ReadFile(sub); err != nil || string(b) != "1" {
		t.Errorf("the subPath has %q, %v", b, err)
	}
	// The next container gets the new file.
	if sub, err = m.SubPath(t.Context(), pod, &pod.Spec.Containers[0], 0, v, "a"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(sub); err != nil || string(b) != "3" {
		t.Errorf("the new subPath has %q, %v", b, err)
	}
}

func TestEmptyDir(t *testing.T) {
	for _, tc := range []struct {
		name  string
		empty corev1.EmptyDirVolumeSource
		group *int64
		mode  string
		size  uint64 // of a tmpfs; 0 for a directory
	}{
		{name: "disk", mode: "drwxrwxrwx"},
		{name: "fsGroup", group: ptr(int64(123)), mode: "dgrwxrwxrwx"},
		{name: "memory", empty: corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}, mode: "dtrwxrwxrwx", size: 64 << 20},
		{name: "memory with fsGroup", empty: corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}, group: ptr(int64(123)), mode: "dgtrwxrwxrwx", size: 64 << 20},
		{name: "memory with a limit", empty: corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr(resource.MustParse("1Mi"))},
			mode: "dtrwxrwxrwx", size: 1 << 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := manager(t, &world{})
			pod := podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &tc.empty}})
			if tc.group != nil {
				pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: tc.group}
			}
			for range 2 {
				v, _ := mountOne(t, m, pod)
				info, err := os.Stat(v.HostPath)
				if err != nil {
					t.Fatal(err)
				}
				if got := info.Mode().String(); got != tc.mode {
					t.Errorf("mode %s, want %s", got, tc.mode)
				}
				if tc.group != nil && int64(info.Sys().(*syscall.Stat_t).Gid) != *tc.group {
					t.Error("not the group's")
				}
				var fs unix.Statfs_t
				if err := unix.Statfs(v.HostPath, &fs); err != nil {
					t.Fatal(err)
				}
				if isTmpfs := fs.Type == unix.TMPFS_MAGIC; tc.size != 0 && (!isTmpfs || fs.Blocks*uint64(fs.Bsize) != tc.size) {
					t.Errorf("tmpfs %v of %d bytes", isTmpfs, fs.Blocks*uint64(fs.Bsize))
				}
				if err := os.WriteFile(filepath.Join(v.HostPath, "kept"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			mounts, err := mountsBelow(m.podDir(pod.UID))
			if err != nil || tc.size != 0 && len(mounts) != 1 {
				t.Errorf("mounts %v, %v", mounts, err)
			}
		})
	}
}

func TestHostPath(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path string
		kind corev1.HostPathType
		err  string
	}{
		{"/no/such", corev1.HostPathUnset, ""},
		{dir, corev1.HostPathDirectory, ""},
		{file, corev1.HostPathFile, ""},
		{file, corev1.HostPathDirectory, "is not a directory"},
		{dir, corev1.HostPathFile, "is not a file"},
		{"/no/such", corev1.HostPathFile, "is not a file"},
		{"/dev/null", corev1.HostPathCharDev, ""},
		{"/dev/null", corev1.HostPathBlockDev, "is not a block device"},
		{file, corev1.HostPathSocket, "is not a socket file"},
		{filepath.Join(dir, "made/deep"), corev1.HostPathDirectoryOrCreate, ""},
		{filepath.Join(dir, "made/file"), corev1.HostPathFileOrCreate, ""},
		{dir, "Other", "invalid volume type"},
	} {
		err := hostPath(tc.path, &tc.kind)
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s %s: %v, want %q", tc.path, tc.kind, err, tc.err)
		}
	}
}

func TestLocalVolume(t *testing.T) {
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "data"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	local := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv", Annotations: map[string]string{groupAnnotation: "1234"}}}
	local.Spec.Local = &corev1.LocalVolumeSource{Path: source}
	local.Spec.ClaimRef = &corev1.ObjectReference{UID: "claim"}
	bound := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: "claim"}}
	bound.Spec.VolumeName = "pv"
	bound.Status.Phase = corev1.ClaimBound
	w := &world{claims: map[string]*corev1.PersistentVolumeClaim{"bound": bound, "waiting": {}},
		volumes: map[string]*corev1.PersistentVolume{"pv": local}}
	m := manager(t, w)
	claim := func(name string) *corev1.Pod {
		return podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
	}
	v, _ := mountOne(t, m, claim("bound"))
	if _, err := os.Stat(filepath.Join(v.HostPath, "data")); err != nil {
		t.Error(err)
	}
	if v.SupplementalGroup == nil || *v.SupplementalGroup != 1234 {
		t.Errorf("its group is %v", v.SupplementalGroup)
	}
	local.Annotations[groupAnnotation] = "staff"
	if v, _ := mountOne(t, m, claim("bound")); v.SupplementalGroup != nil {
		t.Errorf("the group that is no number is %d", *v.SupplementalGroup)
	}
	if _, err := m.Mount(t.Context(), claim("waiting")); err == nil || !strings.Contains(err.Error(), "not bound") {
		t.Errorf("waiting: %v", err)
	}
	// Taking it down leaves the data where it is.
	if err := m.Unmount(t.Context(), "uid-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(source, "data")); err != nil {
		t.Error(err)
	}
	if len(w.forgotten) != 1 || w.forgotten[0] != "uid-1" {
		t.Errorf("the credentials of %v are forgotten", w.forgotten)
	}
	local.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "kubernetes.io/hostname", Operator: corev1.NodeSelectorOpIn, Values: []string{"there"}}}}}}}
	if _, err := m.Mount(t.Context(), claim("bound")); err == nil || !strings.Contains(err.Error(), "not for this node") {
		t.Errorf("on another node: %v", err)
	}
}

func TestSubPath(t *testing.T) {
	m := manager(t, &world{})
	pod := podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	v, _ := mountOne(t, m, pod)
	in := func(p string) string { return filepath.Join(v.HostPath, p) }
	for link, target := range map[string]string{"out": "/etc", "up": "../..", "inside": "dir", "nowhere": "missing"} {
		if err := os.Symlink(target, in(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(in("dir/deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("dir/file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		sub, same, err string
	}{
		{sub: "dir", same: "dir"},
		{sub: "dir/file", same: "dir/file"},
		{sub: "inside/deep", same: "dir/deep"},
		{sub: "new/below", same: "new/below"},
		{sub: ".", same: "."},
		{sub: "out", err: "leads out of the volume"},
		{sub: "out/passwd", err: "leads out of the volume"},
		{sub: "out/missing", err: "leads out of the volume"},
		{sub: "up", err: "leads out of the volume"},
		{sub: "nowhere", err: "symbolic link to nothing"},
		{sub: "nowhere/x", err: "symbolic link to nothing"},
		{sub: "../x", err: "must not contain"},
		{sub: "/x", err: "absolute"},
		{sub: "dir/file/x", err: "not a directory"},
	} {
		target, err := m.SubPath(t.Context(), pod, &pod.Spec.Containers[0], 0, v, tc.sub)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: %v, want %q", tc.sub, err, tc.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.sub, err)
			continue
		}
		got, err1 := os.Stat(target)
		want, err2 := os.Stat(in(tc.same))
		if err1 != nil || err2 != nil || !os.SameFile(got, want) {
			t.Errorf("%s is not %s: %v %v", tc.sub, tc.same, err1, err2)
		}
	}
	info, err := os.Stat(in("new/below"))
	if err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("made with %v, %v", info.Mode(), err)
	}
}

func TestUnmount(t *testing.T) {
	w := &world{secrets: map[string]*corev1.Secret{"s": {Data: map[string][]byte{"a": []byte("1")}}}}
	m := manager(t, w)
	pod := podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}})
	v, _ := mountOne(t, m, pod)
	if _, err := m.SubPath(t.Context(), pod, &pod.Spec.Containers[0], 0, v, "a"); err != nil {
		t.Fatal(err)
	}
	// Somebody looks into the volume, and somebody mounted the host's data in it.
	held, err := os.Open(v.HostPath)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	precious := t.TempDir()
	if err := os.WriteFile(filepath.Join(precious, "data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inner := filepath.Join(m.podDir(pod.UID), "containers")
	if err := os.MkdirAll(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := unix.Mount(precious, inner, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	uids, err := m.UIDs()
	if err != nil || len(uids) != 1 || uids[0] != pod.UID {
		t.Errorf("UIDs %v, %v", uids, err)
	}
	for range 2 {
		if err := m.Unmount(t.Context(), pod.UID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(m.podDir(pod.UID)); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(precious, "data")); err != nil {
		t.Errorf("deleted through a mount: %v", err)
	}
	for _, bad := range []types.UID{"", "..", "a/b"} {
		if err := m.Unmount(t.Context(), bad); err == nil {
			t.Errorf("unmounting %q went well", bad)
		}
	}
}

func BenchmarkMount(b *testing.B) {
	w := &world{token: "t", configMaps: map[string]*corev1.ConfigMap{"c": {Data: map[string]string{"ca.crt": "PEM"}}}}
	m := New(Config{RootDir: b.TempDir(), Objects: w, Allocatable: func() corev1.ResourceList { return nil }})
	pod := podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}},
	}}}})
	for b.Loop() {
		if _, err := m.Mount(b.Context(), pod); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := m.Unmount(b.Context(), pod.UID); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
