// Package csi mounts volumes through the drivers of the Container Storage Interface: drivers that have registered with the
// node are announced in its CSINode, and asked to stage and publish volumes for pods.
//
// What is mounted is known from files beside each volume, under the original's names, so that a restarted kubelet of
// either kind can take down what it finds:
//
//	pods/<uid>/volumes/kubernetes.io~csi/<name>/mount                     a published volume, vol_data.json beside it
//	plugins/kubernetes.io/csi/<driver>/<hash of handle>/globalmount       a staged one, vol_data.json beside it
//	plugins/kubernetes.io/csi/volumeDevices/publish/<name>/<uid>          a published device
//	plugins/kubernetes.io/csi/volumeDevices/staging/<name>                a staged one
//	plugins/kubernetes.io/csi/volumeDevices/<name>/data/vol_data.json     what it is
package csi

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-base/metrics"
	"k8s.io/utils/keymutex"

	"github.com/leme-k8s/leme/pkg/component/files"
	"github.com/leme-k8s/leme/pkg/kubelet/plugins"
)

// Config is what a Manager works with.
type Config struct {
	RootDir  string
	NodeName string
	Client   kubernetes.Interface
	// Node returns the node's object.
	Node func(ctx context.Context) (*v1.Node, error)
}

// A Manager mounts the volumes of drivers.
type Manager struct {
	Config
	volumes keymutex.KeyMutex // one operation a volume
	drivers *plugins.Drivers[*driver]
	calls   *metrics.HistogramVec

	mu    sync.Mutex
	inUse map[v1.UniqueVolumeName]bool
}

// New returns a Manager without drivers.
func New(c Config) *Manager {
	return &Manager{Config: c, volumes: keymutex.NewHashed(64), drivers: &plugins.Drivers[*driver]{}, calls: newCalls(), inUse: map[v1.UniqueVolumeName]bool{}}
}

// A Volume is one of a pod: a persistent one, or one that lives as long as the pod.
type Volume struct {
	// PV is the persistent volume; nil for one that is given inline.
	PV     *v1.PersistentVolume
	Inline *v1.CSIVolumeSource
	// Name is the volume's in the pod.
	Name     string
	ReadOnly bool
}

// Mounted is where a volume is.
type Mounted struct {
	Path string
	// Own says that the pod's fsGroup is to be applied to it.
	Own bool
	// Refresh is when the driver wants to be asked again; zero if never.
	Refresh time.Time
}

// record is what vol_data.json says of a volume.
type record struct {
	Name       string `json:"specVolID"`
	Handle     string `json:"volumeHandle"`
	Driver     string `json:"driverName"`
	Node       string `json:"nodeName"`
	Attachment string `json:"attachmentID"`
	Lifecycle  string `json:"volumeLifecycleMode"`
}

const recordFile = "vol_data.json"

func (r *record) key() string { return r.Driver + "^" + r.Handle }

func (r *record) unique() v1.UniqueVolumeName {
	return v1.UniqueVolumeName("kubernetes.io/csi/" + r.key())
}

// recordOf says what a pod's volume is to its driver.
func (m *Manager) recordOf(pod *v1.Pod, v *Volume) record {
	r := record{Name: v.Name, Node: m.NodeName, Lifecycle: string(storagev1.VolumeLifecycleEphemeral)}
	if v.PV != nil {
		r.Name, r.Driver, r.Handle = v.PV.Name, v.PV.Spec.CSI.Driver, v.PV.Spec.CSI.VolumeHandle
		r.Lifecycle = string(storagev1.VolumeLifecyclePersistent)
	} else {
		r.Driver = v.Inline.Driver
		r.Handle = fmt.Sprintf("csi-%x", sha256.Sum256([]byte(string(pod.UID)+v.Name)))
	}
	r.Attachment = fmt.Sprintf("csi-%x", sha256.Sum256([]byte(r.Handle+r.Driver+r.Node)))
	return r
}

func (m *Manager) pluginDir(parts ...string) string {
	return filepath.Join(append([]string{m.RootDir, "plugins", "kubernetes.io", "csi"}, parts...)...)
}

// places are where a volume is staged and published, and where its records are.
type places struct {
	staging, stagingRecord string
	target, targetRecord   string
}

func (m *Manager) places(uid types.UID, r *record, block bool) places {
	if block {
		data := m.pluginDir("volumeDevices", r.Name, "data")
		return places{
			staging: m.pluginDir("volumeDevices", "staging", r.Name), stagingRecord: data,
			target: m.pluginDir("volumeDevices", "publish", r.Name, string(uid)), targetRecord: data,
		}
	}
	dir := filepath.Join(m.RootDir, "pods", string(uid), "volumes", "kubernetes.io~csi", strings.ReplaceAll(r.Name, "/", "~"))
	stage := m.pluginDir(r.Driver, fmt.Sprintf("%x", sha256.Sum256([]byte(r.Handle))))
	return places{staging: filepath.Join(stage, "globalmount"), stagingRecord: stage, target: filepath.Join(dir, "mount"), targetRecord: dir}
}

func writeRecord(dir string, r record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return files.Replace(filepath.Join(dir, recordFile), raw, 0o600)
}

func readRecord(dir string) (r record, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		return r, fmt.Errorf("reading what a CSI volume is: %w", err)
	}
	return r, nil
}

// published is a volume that a pod has.
type published struct {
	record
	uid    types.UID
	block  bool
	target string
}

// published lists the volumes that pods have.
func (m *Manager) published() ([]published, error) {
	var out []published
	var errs []error
	add := func(pattern string, block bool, from func(path string) (uid, data string)) {
		paths, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, path := range paths {
			uid, data := from(path)
			r, err := readRecord(data)
			if errors.Is(err, fs.ErrNotExist) {
				continue // it was never published
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			out = append(out, published{r, types.UID(uid), block, path})
		}
	}
	add(filepath.Join(m.RootDir, "pods", "*", "volumes", "kubernetes.io~csi", "*"), false, func(path string) (string, string) {
		return filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(path)))), path
	})
	add(m.pluginDir("volumeDevices", "publish", "*", "*"), true, func(path string) (string, string) {
		return filepath.Base(path), m.pluginDir("volumeDevices", filepath.Base(filepath.Dir(path)), "data")
	})
	return out, errors.Join(errs...)
}

// InUse lists the volumes that must not be detached from the node.
func (m *Manager) InUse() []v1.UniqueVolumeName {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.inUse))
}

func (m *Manager) use(r *record, used bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if used {
		m.inUse[r.unique()] = true
	} else {
		delete(m.inUse, r.unique())
	}
}
