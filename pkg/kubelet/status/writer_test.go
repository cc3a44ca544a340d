package status

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
)

// An API that counts what is written, and may fail.
func api(fail func(verb string, n int) error, pods ...k8sruntime.Object) (*fake.Clientset, map[string]int) {
	client := fake.NewSimpleClientset(pods...) // NewClientset is slow: it knows managed fields
	count := map[string]int{}
	client.PrependReactor("*", "pods", func(a clienttesting.Action) (bool, k8sruntime.Object, error) {
		count[a.GetVerb()]++
		if fail != nil {
			if err := fail(a.GetVerb(), count[a.GetVerb()]); err != nil {
				return true, nil, err
			}
		}
		return false, nil, nil
	})
	return client, count
}

func running(ip string) v1.PodStatus { return v1.PodStatus{Phase: v1.PodRunning, PodIP: ip} }

func TestWriter(t *testing.T) {
	refused := errors.New("refused")
	for name, test := range map[string]struct {
		fail     func(verb string, n int) error
		do       func(ctx context.Context, w *Writer)
		patches  int
		deletes  int
		phase    v1.PodPhase
		ip       string
		deleted  bool
		noObject bool
	}{
		"what has changed": {
			do:      func(ctx context.Context, w *Writer) { w.Set(ctx, pod(), running("10.0.0.5"), false) },
			patches: 1, phase: v1.PodRunning, ip: "10.0.0.5",
		},
		"nothing has changed": {
			do: func(ctx context.Context, w *Writer) { w.Set(ctx, pod(), v1.PodStatus{}, false) },
		},
		"the same twice is written once": {
			do: func(ctx context.Context, w *Writer) {
				w.Set(ctx, pod(), running("10.0.0.5"), false)
				synctest.Wait()
				w.Set(ctx, withStatus("11", running("10.0.0.5")), running("10.0.0.5"), false)
			},
			patches: 1, phase: v1.PodRunning, ip: "10.0.0.5",
		},
		"back to what it was, while something else is being written": {
			fail: func(verb string, n int) error {
				if verb == "patch" && n == 1 {
					time.Sleep(time.Second)
				}
				return nil
			},
			do: func(ctx context.Context, w *Writer) {
				w.Set(ctx, pod(), running("10.0.0.5"), false)
				synctest.Wait()
				w.Set(ctx, pod(), v1.PodStatus{}, false)
			},
			patches: 2,
		},
		"a failure is tried again": {
			fail: func(verb string, n int) error {
				if verb == "patch" && n < 3 {
					return refused
				}
				return nil
			},
			do:      func(ctx context.Context, w *Writer) { w.Set(ctx, pod(), running("10.0.0.5"), false) },
			patches: 3, phase: v1.PodRunning, ip: "10.0.0.5",
		},
		"a pod that has ended is deleted after its last status": {
			do:      func(ctx context.Context, w *Writer) { w.Set(ctx, pod(), v1.PodStatus{Phase: v1.PodFailed}, true) },
			patches: 1, deletes: 1, deleted: true,
		},
		"and is deleted once": {
			do: func(ctx context.Context, w *Writer) {
				failed := v1.PodStatus{Phase: v1.PodFailed}
				w.Set(ctx, pod(), failed, true)
				synctest.Wait()
				w.Set(ctx, withStatus("11", failed), failed, true)
			},
			patches: 1, deletes: 1, deleted: true,
		},
		"a pod that the API knows no more is left": {
			do: func(ctx context.Context, w *Writer) {
				w.Set(ctx, pod(), running("10.0.0.5"), false)
				synctest.Wait()
				w.Set(ctx, pod(), v1.PodStatus{Phase: v1.PodFailed}, false)
			},
			patches: 1, noObject: true, deleted: true,
		},
		"what is refused is not tried again for a pod that is gone": {
			fail: func(verb string, _ int) error {
				if verb == "patch" {
					return refused
				}
				return nil
			},
			do: func(ctx context.Context, w *Writer) {
				w.Set(ctx, pod(), running("10.0.0.5"), false)
				synctest.Wait()
				w.Forget(pod().UID)
			},
			patches: 1,
		},
		"a conflict is tried again": {
			fail: func(verb string, n int) error {
				if verb == "patch" && n == 1 {
					return apierrors.NewConflict(v1.Resource("pods"), "pod", refused)
				}
				return nil
			},
			do:      func(ctx context.Context, w *Writer) { w.Set(ctx, pod(), running("10.0.0.5"), false) },
			patches: 2, phase: v1.PodRunning, ip: "10.0.0.5",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var objects []k8sruntime.Object
				if !test.noObject {
					objects = append(objects, pod())
				}
				client, count := api(test.fail, objects...)
				w := NewWriter(client, 2)
				test.do(t.Context(), w)
				settle(w)
				if count["patch"] != test.patches || count["delete"] != test.deletes {
					t.Errorf("%v, want %d patches and %d deletes", count, test.patches, test.deletes)
				}
				got, err := client.CoreV1().Pods("ns").Get(t.Context(), "pod", metav1.GetOptions{})
				if (err != nil) != test.deleted {
					t.Fatalf("the pod: %v", err)
				}
				if err == nil && (got.Status.Phase != test.phase || got.Status.PodIP != test.ip) {
					t.Errorf("status: %+v", got.Status)
				}
			})
		})
	}
}

func withStatus(version string, s v1.PodStatus) *v1.Pod {
	return pod(func(p *v1.Pod) { p.ResourceVersion, p.Status = version, s })
}

// settle waits, in the bubble's time, until nothing is being written.
func settle(w *Writer) {
	for {
		synctest.Wait()
		w.mu.Lock()
		busy := false
		for _, e := range w.pods {
			busy = busy || e.writing
		}
		w.mu.Unlock()
		if !busy {
			return
		}
		time.Sleep(time.Second) // of the bubble's clock
	}
}

func TestNewer(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"10", "9", true}, {"9", "10", false}, {"10", "10", true}, {"11", "10", true}, {"", "1", false}} {
		if got := newer(withStatus(c.a, v1.PodStatus{}), withStatus(c.b, v1.PodStatus{})); got != c.want {
			t.Errorf("%q is newer than %q: %t", c.a, c.b, got)
		}
	}
}

// TestSyncDuration: a change that is refused twice is told of when it has been written, with all the time it took.
func TestSyncDuration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _ := api(func(verb string, n int) error {
			if verb == "patch" && n <= 2 {
				return errors.New("refused")
			}
			return nil
		}, pod())
		w := NewWriter(client, 1)
		registry := metrictest.New(w)
		w.Set(t.Context(), pod(), running("10.0.0.5"), false)
		settle(w)
		registry.Expect(t, map[string]float64{"kubelet_pod_status_sync_duration_seconds": 1})
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		if took := families[0].Metric[0].GetHistogram().GetSampleSum(); took != 0.6 { // 0.2 s and 0.4 s
			t.Errorf("took %v s", took)
		}
	})
}
