package imagepolicywebhook

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	imagepolicyv1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

func TestSettings(t *testing.T) {
	for name, c := range map[string]struct {
		config config
		want   settings
		err    string
	}{
		"defaults":     {want: settings{5 * time.Minute, 30 * time.Second, 500 * time.Millisecond}},
		"switched off": {config: config{AllowTTL: -1, DenyTTL: -1, RetryBackoff: -1}},
		"numbers":      {config: config{AllowTTL: 50, DenyTTL: 60, RetryBackoff: 70}, want: settings{50 * time.Second, time.Minute, 70 * time.Millisecond}},
		"too long":     {config: config{AllowTTL: 1801}, err: "imagePolicy.allowTTL"},
		"negative":     {config: config{DenyTTL: -2}, err: "imagePolicy.denyTTL"},
		"too slow":     {config: config{RetryBackoff: 300001}, err: "imagePolicy.retryBackoff"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.config.settings()
			admissiontest.Check(t, err, c.err)
			if c.err == "" && got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
	_, err := New(nil)
	admissiontest.Check(t, err, "no config specified")
}

// noting notes the annotations that a plugin wants in the audit log.
type noting struct {
	admission.Attributes
	audit map[string]string
}

func (n noting) AddAnnotation(key, value string) error {
	n.audit[key] = value
	return nil
}

func TestValidate(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		var review imagepolicyv1alpha1.ImageReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Status.Allowed = true
		for _, c := range review.Spec.Containers {
			switch c.Image {
			case "bad":
				review.Status.Allowed = false
			case "worse":
				review.Status.Allowed, review.Status.Reason = false, "it is cursed"
			case "broken":
				http.Error(w, "broken", http.StatusBadRequest)
				return
			}
		}
		review.Status.AuditAnnotations = map[string]string{"namespace": review.Spec.Namespace}
		for k := range review.Spec.Annotations {
			review.Status.AuditAnnotations["saw"] = k
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c}}], current-context: c}", server.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	plugin := func(defaultAllow bool) *Plugin {
		p, err := New(strings.NewReader(fmt.Sprintf("imagePolicy: {kubeConfigFile: %s, retryBackoff: 1, defaultAllow: %t}", kubeconfig, defaultAllow)))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	pod := func(init, main, ephemeral string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Annotations: map[string]string{"mine.image-policy.k8s.io/ticket": "7", "other": "x"}}}
		p.Spec.InitContainers = []corev1.Container{{Image: init}}
		p.Spec.Containers = []corev1.Container{{Image: main}}
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Image: ephemeral}}}
		return p
	}
	audit := map[string]string{auditPrefix + "namespace": "ns", auditPrefix + "saw": "mine.image-policy.k8s.io/ticket"}
	for name, c := range map[string]struct {
		pod          *corev1.Pod
		resource     string
		defaultAllow bool
		err          string
		audit        map[string]string
		failedOpen   bool
	}{
		"good":                       {pod: pod("good", "good", ""), resource: "/pods", audit: audit},
		"bad":                        {pod: pod("good", "bad", ""), resource: "/pods", err: "one or more images rejected by webhook backend", audit: audit},
		"bad first":                  {pod: pod("worse", "good", ""), resource: "/pods", err: "image policy webhook backend denied one or more images: it is cursed", audit: audit},
		"ephemeral, not yet":         {pod: pod("good", "good", "bad"), resource: "/pods", audit: audit},
		"ephemeral":                  {pod: pod("good", "good", "bad"), resource: "/pods/ephemeralcontainers", err: "rejected", audit: audit},
		"ephemeral alone":            {pod: pod("bad", "bad", "good"), resource: "/pods/ephemeralcontainers", audit: audit},
		"the status":                 {pod: pod("bad", "bad", "bad"), resource: "/pods/status"},
		"no answer":                  {pod: pod("good", "broken", ""), resource: "/pods", err: "the server rejected our request"},
		"no answer, and let pass":    {pod: pod("good", "broken", ""), resource: "/pods", defaultAllow: true, audit: map[string]string{auditPrefix + failedOpen: "true"}, failedOpen: true},
		"an answer, though let pass": {pod: pod("good", "bad", ""), resource: "/pods", defaultAllow: true, err: "rejected", audit: audit},
	} {
		t.Run(name, func(t *testing.T) {
			p := plugin(c.defaultAllow)
			a := noting{admissiontest.Request{Resource: c.resource, Object: c.pod}.Attributes(t), map[string]string{}}
			admissiontest.Check(t, admissiontest.Run(t, p, a), c.err)
			if !maps.Equal(a.audit, c.audit) {
				t.Errorf("audit annotations %v, want %v", a.audit, c.audit)
			}
			if got := c.pod.Annotations[corev1.ImagePolicyFailedOpenKey] == "true"; got != c.failedOpen {
				t.Errorf("failed open: %t", got)
			}
		})
	}

	p := plugin(false)
	before := calls.Load()
	for range 3 {
		admissiontest.Check(t, admissiontest.Run(t, p, admissiontest.Request{Resource: "/pods", Object: pod("good", "good", "")}.Attributes(t)), "")
	}
	if n := calls.Load() - before; n != 1 {
		t.Errorf("%d calls, want 1: the answer is kept", n)
	}
}
