package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestBadInput wants the original's answers, and a server that still works, after requests
// that are too large, too deep or plain wrong.
func TestBadInput(t *testing.T) {
	c := testcluster.Start(t)
	transport, err := rest.TransportFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client(t).CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "there"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const maps = "/api/v1/namespaces/default/configmaps"
	object := func(rest string) string {
		return `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}` + rest + `}`
	}
	deep := func(n int) string {
		return object(`, "data": ` + strings.Repeat(`{"a":`, n) + `1` + strings.Repeat(`}`, n))
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'j'; i++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", i-1), 9), ","))
	}
	operations := strings.TrimSuffix(strings.Repeat(`{"op":"test","path":"/kind","value":"ConfigMap"},`, 10001), ",")
	explode := `{"op":"add","path":"/data","value":{"a":"` + strings.Repeat("x", 1000) + `"}}`
	for i := range 20 {
		explode += fmt.Sprintf(`,{"op":"copy","from":"/data","path":"/data/%d"}`, i)
	}
	for name, r := range map[string]struct {
		method, path, contentType, body string
		code                            int
		message                         string
	}{
		"too large":                  {http.MethodPost, maps, "application/json", object(`, "data": {"a": "` + strings.Repeat("x", 3<<20) + `"}`), http.StatusRequestEntityTooLarge, "Request entity too large: limit is 3145728"},
		"larger than etcd takes":     {http.MethodPost, maps, "application/json", object(`, "data": {"a": "` + strings.Repeat("x", 2<<20) + `"}`), http.StatusUnprocessableEntity, "Too long"},
		"deep JSON":                  {http.MethodPost, maps, "application/json", deep(20000), http.StatusBadRequest, "exceeded max depth"},
		"less deep JSON":             {http.MethodPost, maps, "application/json", deep(100), http.StatusBadRequest, "cannot unmarshal object into Go struct field ConfigMap.data of type string"},
		"half of JSON":               {http.MethodPost, maps, "application/json", `{"apiVersion": "v1", "kind": "Config`, http.StatusBadRequest, "unexpected end of JSON input"},
		"nothing":                    {http.MethodPost, maps, "application/json", "", http.StatusBadRequest, ""},
		"a YAML bomb":                {http.MethodPost, maps, "application/yaml", bomb, http.StatusBadRequest, "document contains excessive aliasing"},
		"broken protobuf":            {http.MethodPost, maps, "application/vnd.kubernetes.protobuf", "k8s\x00\x0a\xff\xff\xff\xff", http.StatusBadRequest, "unexpected EOF"},
		"protobuf without its mark":  {http.MethodPost, maps, "application/vnd.kubernetes.protobuf", "\x0a\x04", http.StatusBadRequest, "does not appear to be a protobuf message"},
		"an unknown content type":    {http.MethodPost, maps, "text/plain", object(""), http.StatusUnsupportedMediaType, "the body of the request was in an unknown format"},
		"another kind":               {http.MethodPost, maps, "application/json", `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}`, http.StatusBadRequest, "Secret in version \"v1\" cannot be handled as a ConfigMap"},
		"too many operations":        {http.MethodPatch, maps + "/there", "application/json-patch+json", "[" + operations + "]", http.StatusRequestEntityTooLarge, "The allowed maximum operations in a JSON patch is 10000, got 10001"},
		"a patch that explodes":      {http.MethodPatch, maps + "/there", "application/json-patch+json", "[" + explode + "]", http.StatusUnprocessableEntity, "the server rejected our request due to an error in our request"},
		"a patch that is none":       {http.MethodPatch, maps + "/there", "application/merge-patch+json", "[", http.StatusBadRequest, ""},
		"an apply of deep YAML":      {http.MethodPatch, maps + "/x?fieldManager=m", "application/apply-patch+yaml", bomb, http.StatusBadRequest, "document contains excessive aliasing"},
		"a selector that is none":    {http.MethodGet, maps + "?labelSelector=%21%21", "", "", http.StatusBadRequest, "unable to parse requirement"},
		"a huge list of selectors":   {http.MethodGet, maps + "?labelSelector=" + "a+in+(" + strings.TrimSuffix(strings.Repeat("b,", 20000), ",") + ")", "", "", http.StatusOK, ""},
		"a continuation that is not": {http.MethodGet, maps + "?limit=1&continue=nonsense", "", "", http.StatusBadRequest, "continue key is not valid"},
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), r.method, c.Config.Host+r.path, strings.NewReader(r.body))
			if err != nil {
				t.Fatal(err)
			}
			if r.contentType != "" {
				request.Header.Set("Content-Type", r.contentType)
			}
			response, err := transport.RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			if response.StatusCode != r.code || !strings.Contains(string(body), r.message) && !bytes.Contains(body, []byte(strings.ReplaceAll(r.message, `"`, `\"`))) {
				t.Errorf("%d: %.500s\nwant %d with %q", response.StatusCode, body, r.code, r.message)
			}
		})
	}
	if got := get(t.Context(), c.Client(t), "/readyz"); got != "ok" {
		t.Errorf("/readyz afterwards: %s", got)
	}
}

// TestWebhookFaults wants requests to be answered whatever webhooks do.
func TestWebhookFaults(t *testing.T) {
	client := testcluster.Start(t).Client(t)
	hang := make(chan struct{})
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Request struct {
				UID string `json:"uid"`
			} `json:"request"`
		}
		_ = json.NewDecoder(r.Body).Decode(&review)
		answer := func(uid, response string) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": %q, %s}}`, uid, response)
		}
		switch strings.Trim(r.URL.Path, "/") {
		case "hangs":
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		case "another":
			answer("nonsense", `"allowed": true`)
		case "junk":
			_, _ = io.WriteString(w, "junk")
		case "endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
					return
				}
			}
		case "patch":
			answer(review.Request.UID, `"allowed": true, "patchType": "JSONPatch", "patch": "bm9uc2Vuc2U="`)
		case "error":
			http.Error(w, "error", http.StatusInternalServerError)
		}
	}))
	defer hook.Close()
	defer close(hang)
	h := &hooks{Server: hook}
	for path, want := range map[string]string{
		"hangs":   "context deadline exceeded",
		"another": "expected response.uid",
		"junk":    "json parse error",
		"endless": "failed calling webhook",
		"patch":   "invalid character 'o' in literal null",
		"error":   "an error on the server",
	} {
		for _, policy := range []admissionregistrationv1.FailurePolicyType{admissionregistrationv1.Fail, admissionregistrationv1.Ignore} {
			name := strings.ToLower(string(policy)) + "-" + path
			none := admissionregistrationv1.SideEffectClassNone
			if _, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Webhooks: []admissionregistrationv1.MutatingWebhook{{
					Name: path + ".example.com", ClientConfig: h.client(path), Rules: onConfigMaps, ObjectSelector: labelled(name), FailurePolicy: &policy,
					SideEffects: &none, AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: ptr.To[int32](1),
				}},
			}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		create := func(ctx context.Context, policy string) error {
			_, err := client.CoreV1().ConfigMaps("default").Create(ctx, configMap(policy+"-"+path, policy+"-"+path), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		}
		var err error
		eventually(t, "the webhook "+path+" is asked", func(ctx context.Context) bool {
			err = create(ctx, "fail")
			return err != nil
		})
		if !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
		if err := create(t.Context(), "ignore"); err != nil {
			t.Errorf("%s, ignored: %v", path, err)
		}
	}
}

// wire is a way to etcd that can be cut.
type wire struct {
	net.Listener
	to    string
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, to: to}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			go w.connect(a)
		}
	}()
	return w
}

func (w *wire) connect(a net.Conn) {
	defer a.Close()
	w.mu.Lock()
	if w.cut {
		w.mu.Unlock()
		return
	}
	b, err := net.Dial("tcp", w.to)
	if err != nil {
		w.mu.Unlock()
		return
	}
	w.conns = append(w.conns, a, b)
	w.mu.Unlock()
	defer b.Close()
	go func() {
		_, _ = io.Copy(b, a)
		b.Close()
	}()
	_, _ = io.Copy(a, b)
}

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// TestEtcdGoesAndComes cuts a server from etcd, which then compacts its history: the server
// says so, and works again by itself when etcd is back.
func TestEtcdGoesAndComes(t *testing.T) {
	c := testcluster.Start(t)
	first := c.Client(t)
	w := newWire(t, strings.TrimPrefix(c.Etcd.Endpoints()[0], "http://"))
	s := startSecond(t, c, t.TempDir(), "--etcd-servers=http://"+w.Addr().String(), "--endpoint-reconciler-type=none", "--request-timeout=5s")
	// Events are not cached: every list of them comes from etcd.
	for _, name := range []string{"a", "b", "c"} {
		if _, err := s.CoreV1().Events("default").Create(t.Context(), &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: name}, InvolvedObject: corev1.ObjectReference{Namespace: "default"},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	page, err := s.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}

	w.set(true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = s.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "lost"}}, metav1.CreateOptions{})
	if !apierrors.IsInternalError(err) && !apierrors.IsTimeout(err) && !apierrors.IsServerTimeout(err) {
		t.Errorf("a write without etcd: %v", err)
	}
	eventually(t, "the server to notice", func(ctx context.Context) bool {
		return strings.Contains(get(ctx, s, "/readyz?verbose"), "[-]etcd failed")
	})
	if got := get(t.Context(), s, "/version"); !strings.Contains(got, "gitVersion") {
		t.Errorf("/version without etcd: %s", got)
	}

	// What it misses meanwhile it cannot learn from history.
	if _, err := first.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "missed"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := c.Etcd.Get(t.Context(), "/registry/configmaps/default/missed")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Etcd.Compact(t.Context(), r.Header.Revision); err != nil {
		t.Fatal(err)
	}
	w.set(false)
	eventually(t, "the server to be ready again", func(ctx context.Context) bool { return get(ctx, s, "/readyz") == "ok" })
	eventually(t, "the caches to know what was missed", func(ctx context.Context) bool {
		_, err := s.CoreV1().ConfigMaps("default").Get(ctx, "missed", metav1.GetOptions{ResourceVersion: "0"})
		return err == nil
	})
	if _, err := s.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "d"}}, metav1.CreateOptions{}); err != nil {
		t.Errorf("a write afterwards: %v", err)
	}
	if _, err := s.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("a list afterwards: %v", err)
	}
	// Who continues from before the compaction has to begin anew.
	if _, err := s.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{Limit: 1, ResourceVersion: page.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact}); !apierrors.IsResourceExpired(err) {
		t.Errorf("a list of a compacted version: %v", err)
	}
	if _, err := s.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{Limit: 1, Continue: page.Continue}); !apierrors.IsResourceExpired(err) {
		t.Errorf("the next page of a compacted list: %v", err)
	}
	watch, err := s.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{ResourceVersion: "1"})
	if err != nil {
		if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
			t.Errorf("a watch from a compacted version: %v", err)
		}
		return
	}
	defer watch.Stop()
	select {
	case e := <-watch.ResultChan():
		if err := apierrors.FromObject(e.Object); !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
			t.Errorf("a watch from a compacted version: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a watch from a compacted version says nothing")
	}
}
