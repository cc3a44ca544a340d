package allocation

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

func list(kv ...string) v1.ResourceList {
	l := v1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		l[v1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return l
}

func podOf(cpu ...string) *v1.Pod {
	p := &v1.Pod{}
	for i, c := range cpu {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: string(rune('a' + i)), Resources: v1.ResourceRequirements{Requests: list("cpu", c)}})
	}
	return p
}

func TestApply(t *testing.T) {
	asked, given := podOf("2", "1"), podOf("1", "1")
	given.Spec.Resources = &v1.ResourceRequirements{Limits: list("cpu", "3")}
	r := Of(given)
	if r.Fits(asked) || !r.Fits(given) {
		t.Error("the pod asks for more, and that is not seen")
	}
	got := r.Apply(asked)
	if diff := cmp.Diff(given.Spec, got.Spec); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if cpu := asked.Spec.Containers[0].Resources.Requests.Cpu().String(); cpu != "2" {
		t.Errorf("the pod that was asked for was changed to %s", cpu)
	}
	// A container that was never given anything keeps what it asks for.
	asked.Spec.Containers = append(asked.Spec.Containers, v1.Container{Name: "new", Resources: v1.ResourceRequirements{Requests: list("cpu", "7")}})
	if got := r.Apply(asked).Spec.Containers[2].Resources.Requests.Cpu().String(); got != "7" {
		t.Errorf("a new container has %s", got)
	}
	if same := r.Apply(given); same != given {
		t.Error("copied for nothing")
	}
}

func TestEffective(t *testing.T) {
	p := podOf("1")
	if got := Effective(p, &p.Spec.Containers[0]); got.Limits != nil {
		t.Errorf("limits from nowhere: %v", got.Limits)
	}
	p.Spec.Resources = &v1.ResourceRequirements{Limits: list("cpu", "3", "memory", "1Gi")}
	p.Spec.Containers[0].Resources.Limits = list("cpu", "2")
	got := Effective(p, &p.Spec.Containers[0])
	if !apiequality.Semantic.DeepEqual(got.Limits, list("cpu", "2", "memory", "1Gi")) {
		t.Errorf("limits %v", got.Limits)
	}
	if len(p.Spec.Containers[0].Resources.Limits) != 1 {
		t.Error("the container was changed")
	}
}

// TestOriginal reads a file as the original writes it.
func TestOriginal(t *testing.T) {
	path := filepath.Join(t.TempDir(), AllocatedFile)
	const original = `{"data":"{\"entries\":{\"u\":{\"ContainerResources\":{\"c\":{\"limits\":{\"memory\":\"64Mi\"},\"requests\":{\"cpu\":\"100m\",\"memory\":\"64Mi\"}}},` +
		`\"PodLevelResources\":null,\"EmptyDirVolumeLimits\":null}}}","checksum":3771572825}`
	if err := os.WriteFile(path, []byte(original), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := s.Get("u")
	want := v1.ResourceRequirements{Requests: list("cpu", "100m", "memory", "64Mi"), Limits: list("memory", "64Mi")}
	if !ok || !apiequality.Semantic.DeepEqual(got.Containers["c"], want) {
		t.Errorf("got %v", got)
	}
	// Written back, it is the same file.
	if err := s.Set("u", got); err != nil {
		t.Fatal(err)
	}
	if raw, _ := os.ReadFile(path); string(raw) != original {
		t.Errorf("written as\n%s\nwant\n%s", raw, original)
	}
}

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), ActuatedFile)
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		s.Set("a", Of(podOf("1"))), s.SetContainer("b", "c", v1.ResourceRequirements{Limits: list("cpu", "2")}),
		s.SetPod("b", &v1.ResourceRequirements{Limits: list("cpu", "4")}), s.Set("gone", Of(podOf("1"))), s.Remove("gone"), s.Remove("unknown"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[types.UID]string{"a": "", "b": "4", "gone": "none"} {
		got := "none"
		if r, ok := again.Get(uid); ok {
			if got = ""; r.Pod != nil {
				got = r.Pod.Limits.Cpu().String()
			}
		}
		if got != want {
			t.Errorf("pod %s: %q, want %q", uid, got, want)
		}
	}
	if b, _ := again.Get("b"); cpuLimit(b.Containers["c"]) != "2" {
		t.Errorf("container: %v", b.Containers)
	}
	if err := os.WriteFile(path, []byte(`{"data":"{}","checksum":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(path); err == nil || s == nil {
		t.Error("a damaged file goes unnoticed, or stops the kubelet")
	}
}

func cpuLimit(r v1.ResourceRequirements) string { return r.Limits.Cpu().String() }
