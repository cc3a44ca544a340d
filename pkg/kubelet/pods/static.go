package pods

import (
	"context"
	"crypto/md5" // names a specification, protects nothing
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/kubelet/lookout"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// watchFiles follows the static pods at StaticPodPath.
func (m *Manager) watchFiles(ctx context.Context) {
	logger := klog.FromContext(ctx)
	var have map[types.UID]*v1.Pod
	read := func() {
		pods, err := m.readFiles(ctx)
		if err != nil {
			logger.Error(err, "staticPodPath", "path", m.StaticPodPath)
			return
		}
		for uid, pod := range pods {
			if have[uid] == nil {
				m.set(ctx, pod)
			}
		}
		for uid, pod := range have {
			if pods[uid] == nil {
				m.unset(pod)
			}
		}
		have = pods
		m.sourced(sourceFile)
		m.reconcileMirrors(ctx)
	}
	const rarely = 20 * time.Second
	lookout.Run(ctx, "static pods", rarely, func() ([]string, time.Duration) {
		read()
		return []string{m.StaticPodPath}, 0
	})
}

// readFiles reads every static pod. A file that cannot be understood is reported and left out.
func (m *Manager) readFiles(ctx context.Context) (map[types.UID]*v1.Pod, error) {
	pods := map[types.UID]*v1.Pod{}
	info, err := os.Stat(m.StaticPodPath)
	if errors.Is(err, os.ErrNotExist) {
		return pods, nil
	}
	if err != nil {
		return nil, err
	}
	files := []string{m.StaticPodPath}
	if info.IsDir() {
		entries, err := os.ReadDir(m.StaticPodPath)
		if err != nil {
			return nil, err
		}
		files = nil
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") {
				files = append(files, filepath.Join(m.StaticPodPath, e.Name()))
			}
		}
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || !info.Mode().IsRegular() {
			continue
		}
		pod, err := m.readFile(f)
		if err != nil {
			klog.FromContext(ctx).Error(err, "Cannot read a static pod", "file", f)
			continue
		}
		pods[pod.UID] = pod
	}
	return pods, nil
}

func (m *Manager) readFile(path string) (*v1.Pod, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return StaticPod(raw, path, m.NodeName, time.Now())
}

// StaticPod makes the pod of a file's content.
func StaticPod(raw []byte, path, nodeName string, now time.Time) (*v1.Pod, error) {
	pod := &v1.Pod{}
	if err := yaml.Unmarshal(raw, pod); err != nil {
		return nil, err
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return nil, fmt.Errorf("kind %q of %q is not a v1 Pod", pod.Kind, pod.APIVersion)
	}
	if pod.UID == "" {
		identity, err := json.Marshal(pod)
		if err != nil {
			return nil, err
		}
		h := md5.New()
		fmt.Fprintf(h, "%shost:%sfile:%s", identity, nodeName, path)
		pod.UID = types.UID(hex.EncodeToString(h.Sum(nil)))
	}
	pod.Name += "-" + strings.ToLower(nodeName)
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	pod.Spec.NodeName = nodeName
	if pod.Annotations = maps.Clone(pod.Annotations); pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[runtime.AnnotationConfigHash] = string(pod.UID)
	pod.Annotations[runtime.AnnotationConfigSource] = sourceFile
	pod.Annotations[runtime.AnnotationConfigSeen] = now.Format(time.RFC3339Nano)
	everything := v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute}
	if !slices.Contains(pod.Spec.Tolerations, everything) {
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, everything)
	}
	pod.Status.Phase = v1.PodPending
	core.SetDefaultsPod(pod)
	if errs := core.ValidatePod(pod); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	// Static pods live without the API, so they can name nothing that is in it.
	if pod.Spec.ServiceAccountName != "" {
		return nil, errors.New("spec.serviceAccountName: a static pod has no ServiceAccount")
	}
	if pod.Spec.PriorityClassName == "system-node-critical" && pod.Spec.Priority == nil {
		critical := int32(2_000_001_000)
		pod.Spec.Priority = &critical
	}
	return pod, nil
}
