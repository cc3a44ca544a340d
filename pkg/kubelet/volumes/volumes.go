// Package volumes makes the volumes of a node's pods ready: it makes directories,
// mounts and files, keeps their content up to date and takes them down again.
//
// Everything of a pod is below <root-dir>/pods/<uid>, laid out as the original does:
//
//	volumes/kubernetes.io~<kind>/<name>             a volume
//	volume-subpaths/<volume>/<container>/<index>    a part of one, bound for one container
//	etc-hosts, containers/<name>/<id>, plugins      other rooms' files
//
// What files a volume of objects holds is computed first ([content], no file is
// touched) and then written in one step that readers see wholly or not at all.
// Mounts are made with the system call itself: starting mount(8) takes longer than
// all the rest of a pod's volumes.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/leme-k8s/leme/pkg/kubelet/csi"
	"github.com/leme-k8s/leme/pkg/kubelet/podcertificates"
	"github.com/leme-k8s/leme/pkg/kubelet/pods"
	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// Objects gives what volumes are made of. An object that is not there is a
// NotFound error of the API.
type Objects interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	// Token returns a token of the pod's ServiceAccount, bound to the pod, and the
	// time from which on asking again gives a newer one.
	Token(ctx context.Context, pod *corev1.Pod, audience string, expirationSeconds int64) (token string, renew time.Time, err error)
}

// Claims finds the volume behind a claim.
type Claims interface {
	Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	Volume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
}

// TrustBundles gives the certificates that a projection selects, as PEM. Its error
// is NotFound if there are none.
type TrustBundles interface {
	TrustBundle(ctx context.Context, p *corev1.ClusterTrustBundleProjection) ([]byte, error)
}

// PodCertificates gives the keys and certificates that sources of a pod's volumes are to hold, and when to ask for them anew.
// Forget drops those of a pod.
type PodCertificates interface {
	Credential(ctx context.Context, pod *corev1.Pod, volume string, index int, p *corev1.PodCertificateProjection) (podcertificates.Credential, time.Time, error)
	Forget(uid types.UID)
}

// CSI mounts volumes through drivers. Unmount takes down all of a pod's.
type CSI interface {
	Mount(ctx context.Context, pod *corev1.Pod, v csi.Volume) (csi.Mounted, error)
	Unmount(ctx context.Context, uid types.UID) error
}

// Config is what volumes are made from.
type Config struct {
	// RootDir is the kubelet's root directory.
	RootDir      string
	Objects      Objects
	Claims       Claims
	TrustBundles TrustBundles
	// CSI, PodCertificates and TrustBundles are nil without an API server.
	CSI             CSI
	PodCertificates PodCertificates
	// Allocatable is what the node offers: the most that a volume in memory may
	// hold, and the limits of containers that have none.
	Allocatable func() corev1.ResourceList
	// HostIPs are the node's addresses, for downward API files.
	HostIPs func() []string
	// NodeLabels are the node's, for volumes that only some nodes can reach.
	NodeLabels func() map[string]string
}

// Manager implements [pods.Volumes].
type Manager struct {
	cfg     Config
	metrics managerMetrics

	mu   sync.Mutex
	pods map[types.UID]*podVolumes
}

var _ pods.Volumes = (*Manager)(nil)

// New returns a Manager. It touches nothing.
func New(cfg Config) *Manager {
	return &Manager{cfg: cfg, metrics: newMetrics(), pods: map[types.UID]*podVolumes{}}
}

func (m *Manager) podDir(uid types.UID) string {
	return filepath.Join(m.cfg.RootDir, "pods", string(uid))
}

// volumeDir is where the content of a volume lies; kind is the plugin's part of its
// name, such as "configmap".
func (m *Manager) volumeDir(uid types.UID, kind, volume string) string {
	return filepath.Join(m.podDir(uid), "volumes", "kubernetes.io~"+kind, volume)
}

// Mount makes the volumes that a container of the pod mounts, maps or reads.
func (m *Manager) Mount(ctx context.Context, pod *corev1.Pod) (pods.Mounted, error) {
	result := pods.Mounted{Volumes: map[string]kuberuntime.Volume{}}
	used := usedVolumes(pod)
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if !used.Has(v.Name) {
			continue
		}
		from, began := source{plugin: pluginOf(v)}, time.Now()
		mounted, refresh, err := m.mount(ctx, pod, v, &from)
		m.tried(pod.UID, v.Name, from, began, err)
		if err != nil {
			return pods.Mounted{}, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err)
		}
		result.Volumes[v.Name] = mounted
		if !refresh.IsZero() && (result.Refresh.IsZero() || refresh.Before(result.Refresh)) {
			result.Refresh = refresh
		}
	}
	return result, nil
}

// mount mounts one volume, and says in from what a claim is of.
func (m *Manager) mount(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, from *source) (kuberuntime.Volume, time.Time, error) {
	var none time.Time
	switch {
	case v.EmptyDir != nil:
		dir, err := m.emptyDir(pod, v)
		return kuberuntime.Volume{HostPath: dir, Relabel: true}, none, err
	case v.HostPath != nil:
		return kuberuntime.Volume{HostPath: v.HostPath.Path}, none, hostPath(v.HostPath.Path, v.HostPath.Type)
	case v.ConfigMap != nil, v.Secret != nil, v.DownwardAPI != nil, v.Projected != nil:
		dir, refresh, err := m.objects(ctx, pod, v)
		return kuberuntime.Volume{HostPath: dir, ReadOnly: true, Relabel: true}, refresh, err
	case v.Image != nil:
		return kuberuntime.Volume{Image: v.Image.Reference, ReadOnly: true}, none, nil
	case v.PersistentVolumeClaim != nil, v.Ephemeral != nil:
		return m.claim(ctx, pod, v, from)
	case v.CSI != nil:
		return m.csi(ctx, pod, csi.Volume{Inline: v.CSI, Name: v.Name, ReadOnly: isTrue(v.CSI.ReadOnly)})
	case v.NFS != nil:
		mounted, err := m.nfs(ctx, pod, v.Name, v.NFS, false, nil)
		return mounted, none, err
	}
	return kuberuntime.Volume{}, none, fmt.Errorf("this kubelet does not support volumes of type %s", volumeType(&v.VolumeSource))
}

// objects brings the files of a volume of objects up to date.
func (m *Manager) objects(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (string, time.Time, error) {
	kind, inMemory := "projected", true
	switch {
	case v.ConfigMap != nil:
		kind, inMemory = "configmap", false
	case v.Secret != nil:
		kind = "secret"
	case v.DownwardAPI != nil:
		kind = "downward-api"
	}
	// Content before directory: a pod that waits for an object leaves nothing behind.
	files, refresh, err := m.content(ctx, pod, v)
	if err != nil {
		return "", refresh, err
	}
	dir := m.volumeDir(pod.UID, kind, v.Name)
	if inMemory {
		err = m.memory(pod, dir, nil)
	} else {
		err = makeDir(dir, 0o777)
	}
	if err != nil {
		return "", refresh, err
	}
	group := fsGroup(pod)
	changed, err := writeFiles(dir, files, func(fresh string) error {
		if group == nil {
			return nil
		}
		return ownTree(fresh, *group, true)
	})
	if err != nil {
		return "", refresh, err
	}
	if changed && group != nil {
		err = ownRoot(dir, *group, true)
	}
	return dir, refresh, err
}

// UIDs lists the pods that have a directory.
func (m *Manager) UIDs() ([]types.UID, error) {
	entries, err := os.ReadDir(filepath.Join(m.cfg.RootDir, "pods"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing pods' directories: %w", err)
	}
	var uids []types.UID
	for _, e := range entries {
		if e.IsDir() {
			uids = append(uids, types.UID(e.Name()))
		}
	}
	return uids, nil
}

// usedVolumes names the volumes that a container of any kind uses.
func usedVolumes(pod *corev1.Pod) sets.Set[string] {
	used := sets.New[string]()
	add := func(mounts []corev1.VolumeMount, devices []corev1.VolumeDevice, env []corev1.EnvVar) {
		for i := range mounts {
			used.Insert(mounts[i].Name)
		}
		for i := range devices {
			used.Insert(devices[i].Name)
		}
		for i := range env {
			if from := env[i].ValueFrom; from != nil && from.FileKeyRef != nil {
				used.Insert(from.FileKeyRef.VolumeName)
			}
		}
	}
	for _, cs := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range cs {
			add(cs[i].VolumeMounts, cs[i].VolumeDevices, cs[i].Env)
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		c := &pod.Spec.EphemeralContainers[i]
		add(c.VolumeMounts, c.VolumeDevices, c.Env)
	}
	return used
}

// makeDir makes a directory with exactly these permissions; one that is there keeps
// what it has beyond them.
func makeDir(dir string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return err
	}
	if err := os.Mkdir(dir, mode); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	return os.Chmod(dir, mode) // the umask took some away
}
