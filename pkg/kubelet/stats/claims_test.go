package stats

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
)

type somePods []*corev1.Pod

func (s somePods) Pods() []*corev1.Pod { return s }

// TestClaims tells of the file systems that two pods have claimed, and of a log.
func TestClaims(t *testing.T) {
	dir := t.TempDir()
	claimed := func(name string, claims ...string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
		for _, c := range claims {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "v-" + c, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c}}})
		}
		return p
	}
	many := claimed("many", "a", "b")
	many.Spec.Volumes = append(many.Spec.Volumes, corev1.Volume{Name: "inline", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}}})
	p := New(Config{
		RootDir: dir, PodLogsDir: filepath.Join(dir, "logs"), Pods: somePods{many, claimed("one", "a"), claimed("none")},
		VolumeOf: func(uid types.UID, pv string) (string, bool) {
			v, ok := map[string]string{"pv-a": "v-a", "pv-b": "v-b"}[pv]
			return v, ok && uid == "many"
		},
	})
	for _, path := range []string{"many/volumes/kubernetes.io~csi/pv-a/mount", "many/volumes/kubernetes.io~csi/inline/mount", "many/volumes/kubernetes.io~local-volume/pv-b", "one/volumes/kubernetes.io~csi/pv-a/mount"} {
		if err := os.MkdirAll(filepath.Join(dir, "pods", path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(dir, "logs", "ns_none_none", "c")
	if err := os.MkdirAll(log, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(log, "0.log"), make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	got := metrictest.New(p).Read(t)
	for _, claim := range []string{"a", "b"} {
		labels := `{namespace="ns",persistentvolumeclaim="` + claim + `"}`
		if got["kubelet_volume_stats_capacity_bytes"+labels] != float64(fs.Blocks)*float64(fs.Frsize) {
			t.Errorf("capacity of %s: %v", claim, got)
		}
		for _, name := range []string{"available_bytes", "used_bytes", "inodes", "inodes_free", "inodes_used"} {
			if _, ok := got["kubelet_volume_stats_"+name+labels]; !ok {
				t.Errorf("no %s of %s", name, claim)
			}
		}
	}
	const own = 2*6 + 1 + 1 // of two claims, a log and the provider
	if used := got[`kubelet_container_log_filesystem_used_bytes{container="c",namespace="ns",pod="none",uid="none"}`]; used < 5000 || len(got) != own || got[`kubelet_metrics_provider{provider="cri"}`] != 1 {
		t.Errorf("%d: %v", len(got), got)
	}
}
