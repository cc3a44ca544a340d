package apiserver_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// hooks is a server of webhooks. Which webhook it plays, the path says.
type hooks struct {
	*httptest.Server
	mu     sync.Mutex
	called map[string]int
}

func startHooks(t *testing.T) *hooks {
	h := &hooks{called: map[string]int{}}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(h.serve))
	t.Cleanup(h.Close)
	return h
}

func (h *hooks) calls(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.called[path]
}

func (h *hooks) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.Trim(r.URL.Path, "/")
	h.mu.Lock()
	h.called[path]++
	h.mu.Unlock()
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var object corev1.ConfigMap
	if len(review.Request.Object.Raw) > 0 {
		if err := json.Unmarshal(review.Request.Object.Raw, &object); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	answer := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	patch := func(p string) {
		kind := admissionv1.PatchTypeJSONPatch
		answer.Patch, answer.PatchType = []byte(p), &kind
	}
	switch path {
	case "first": // sees whether the second was there before
		patch(fmt.Sprintf(`[{"op":"add","path":"/data/first%d","value":"yes"}]`, len(object.Data)))
	case "second":
		patch(`[{"op":"add","path":"/data/second","value":"yes"}]`)
	case "deny":
		answer.Allowed = false
		answer.Result = &metav1.Status{Message: "no such thing here", Code: http.StatusTeapot}
		answer.Warnings = []string{"think twice"}
	case "warn":
		answer.Warnings = []string{"be careful"}
	case "hang":
		<-r.Context().Done()
		return
	}
	review.Response, review.Request = answer, nil
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

func (h *hooks) client(path string) admissionregistrationv1.WebhookClientConfig {
	url := h.URL + "/" + path
	return admissionregistrationv1.WebhookClientConfig{
		URL: &url, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw}),
	}
}

// onConfigMaps are the rules of all webhooks here. Which webhook is asked about an
// object, the label "hook" says.
var onConfigMaps = []admissionregistrationv1.RuleWithOperations{{
	Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
	Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
}}

func labelled(value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"hook": value}}
}

// warnings collects those of a client.
type warnings struct {
	mu  sync.Mutex
	all []string
}

func (w *warnings) HandleWarningHeader(_ int, _ string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, text)
}

func (w *warnings) has(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.all, func(s string) bool { return strings.Contains(s, text) })
}

func (w *warnings) client(t *testing.T, config *rest.Config) kubernetes.Interface {
	t.Helper()
	config = rest.CopyConfig(config)
	config.WarningHandler = w
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func configMap(name, hook string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"hook": hook}}, Data: map[string]string{"own": "yes"}}
}

// eventually tries until done.
func eventually(t *testing.T, what string, done func(ctx context.Context) bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		return done(ctx), nil
	})
	if err != nil {
		t.Fatalf("waited in vain for %s", what)
	}
}

func TestWebhooks(t *testing.T) {
	c := testcluster.Start(t)
	h, w := startHooks(t), &warnings{}
	client := w.client(t, c.Config)
	maps := client.CoreV1().ConfigMaps("default")

	none, some := admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.SideEffectClassNoneOnDryRun
	ignore, fail := admissionregistrationv1.Ignore, admissionregistrationv1.Fail
	again, second := admissionregistrationv1.IfNeededReinvocationPolicy, int32(1)
	mutating := func(name string, reinvoke *admissionregistrationv1.ReinvocationPolicyType) admissionregistrationv1.MutatingWebhook {
		return admissionregistrationv1.MutatingWebhook{
			Name: name + ".example.com", ClientConfig: h.client(name), Rules: onConfigMaps, ObjectSelector: labelled("mutate"),
			SideEffects: &none, AdmissionReviewVersions: []string{"v1"}, ReinvocationPolicy: reinvoke,
		}
	}
	if _, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "mutating"},
		Webhooks:   []admissionregistrationv1.MutatingWebhook{mutating("first", &again), mutating("second", nil)},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	validating := func(name, path string, policy *admissionregistrationv1.FailurePolicyType, conditions ...admissionregistrationv1.MatchCondition) admissionregistrationv1.ValidatingWebhook {
		return admissionregistrationv1.ValidatingWebhook{
			Name: name + ".hooks.example.com", ClientConfig: h.client(path), Rules: onConfigMaps, ObjectSelector: labelled(name), FailurePolicy: policy,
			SideEffects: &some, AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: &second, MatchConditions: conditions,
		}
	}
	if _, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "validating"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{
			validating("deny", "deny", nil, admissionregistrationv1.MatchCondition{Name: "not-excepted", Expression: "object.metadata.name != 'excepted'"}),
			validating("warn", "warn", nil),
			validating("hang-ignored", "hang", &ignore),
			validating("hang", "hang", &fail),
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	eventually(t, "the webhooks", func(ctx context.Context) bool {
		m, err := maps.Create(ctx, configMap("probe", "mutate"), dry)
		_, denied := maps.Create(ctx, configMap("probe", "deny"), dry)
		return err == nil && m.Data["second"] != "" && denied != nil
	})

	t.Run("mutate, and again after others did", func(t *testing.T) {
		m, err := maps.Create(t.Context(), configMap("mutated", "mutate"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"own", "first1", "second", "first3"} {
			if m.Data[key] != "yes" {
				t.Errorf("%s is missing in %v", key, m.Data)
			}
		}
		read, err := maps.Get(t.Context(), "mutated", metav1.GetOptions{})
		if err != nil || len(read.Data) != 4 {
			t.Errorf("stored %v, %v", read.Data, err)
		}
	})
	t.Run("deny", func(t *testing.T) {
		_, err := maps.Create(t.Context(), configMap("denied", "deny"), metav1.CreateOptions{})
		if status, ok := err.(apierrors.APIStatus); !ok || status.Status().Code != http.StatusTeapot ||
			!strings.Contains(err.Error(), `admission webhook "deny.hooks.example.com" denied the request: no such thing here`) {
			t.Errorf("got %v", err)
		}
		if !w.has("think twice") {
			t.Errorf("warnings: %q", w.all)
		}
		if _, err := maps.Create(t.Context(), configMap("excepted", "deny"), metav1.CreateOptions{}); err != nil {
			t.Errorf("a match condition does not hold: %v", err)
		}
	})
	t.Run("warn", func(t *testing.T) {
		if _, err := maps.Create(t.Context(), configMap("warned", "warn"), metav1.CreateOptions{}); err != nil || !w.has("be careful") {
			t.Errorf("%v, warnings %q", err, w.all)
		}
	})
	t.Run("failure policy", func(t *testing.T) {
		if _, err := maps.Create(t.Context(), configMap("ignored", "hang-ignored"), metav1.CreateOptions{}); err != nil {
			t.Errorf("a webhook that hangs is not ignored: %v", err)
		}
		_, err := maps.Create(t.Context(), configMap("failed", "hang"), metav1.CreateOptions{})
		if !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), `failed calling webhook "hang.hooks.example.com"`) {
			t.Errorf("a webhook that hangs: %v", err)
		}
	})
	t.Run("side effects and dry run", func(t *testing.T) {
		before := h.calls("deny")
		if _, err := maps.Create(t.Context(), configMap("dry", "deny"), dry); err == nil || h.calls("deny") != before+1 {
			t.Errorf("a webhook without side effects on dry run: %v", err)
		}
	})
	t.Run("through a service", func(t *testing.T) { throughService(t, client, h) })
}

// throughService: a webhook that is a Service is called at its cluster IP, which here nobody has.
func throughService(t *testing.T, client kubernetes.Interface, h *hooks) {
	maps := client.CoreV1().ConfigMaps("default")
	none, second := admissionregistrationv1.SideEffectClassNone, int32(1)
	if _, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "service"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "service.hooks.example.com", Rules: onConfigMaps, ObjectSelector: labelled("service"), SideEffects: &none,
			AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: &second,
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				Service:  &admissionregistrationv1.ServiceReference{Namespace: "default", Name: "nobody"},
				CABundle: h.client("").CABundle,
			},
		}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the webhook", func(ctx context.Context) bool {
		_, err := maps.Create(ctx, configMap("service", "service"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), `service "nobody" not found`)
	})
}
