package componentstatus

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

func TestStatuses(t *testing.T) {
	code := http.StatusOK
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = w.Write([]byte("ok"))
	}))
	defer server.Close()
	components := Components([]func(*http.Request) error{
		func(*http.Request) error { return nil },
		func(*http.Request) error { return errors.New("gone") },
	})
	components[0].Check, components[1].Check = healthz(server.Client(), server.URL), healthz(server.Client(), "https://127.0.0.1:1")
	s := &store{components: components}
	ask := func(options *metainternalversion.ListOptions) map[string][]string {
		list, err := s.List(context.Background(), options)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][]string{}
		for _, item := range list.(*corev1.ComponentStatusList).Items {
			var cells []string
			for _, cell := range table.Cells(&item)[1:] {
				cells = append(cells, cell.(string))
			}
			got[item.Name] = cells
		}
		return got
	}
	got := ask(nil)
	if message := got["controller-manager"][1]; message == "" {
		t.Error("a component that does not listen has no message")
	}
	got["controller-manager"][1] = ""
	want := map[string][]string{
		"scheduler": {"Healthy", "ok", ""}, "controller-manager": {"Unhealthy", "", ""}, "etcd-0": {"Healthy", "ok", ""}, "etcd-1": {"Unhealthy", "", "gone"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	code = http.StatusInternalServerError
	got = ask(&metainternalversion.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", "scheduler")})
	if diff := cmp.Diff(map[string][]string{"scheduler": {"Unhealthy", "HTTP probe failed with statuscode: 500", ""}}, got); diff != "" {
		t.Error(diff)
	}
	if got := ask(&metainternalversion.ListOptions{LabelSelector: labels.SelectorFromSet(labels.Set{"a": "b"})}); len(got) > 0 {
		t.Errorf("a label selects %v", got)
	}
	if _, err := s.Get(context.Background(), "nope", &metav1.GetOptions{}); !apierrors.IsNotFound(err) || err.Error() != `componentstatus "nope" not found` {
		t.Error(err)
	}
	if _, err := s.Get(context.Background(), "etcd-0", &metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}
