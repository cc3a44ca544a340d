package core

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// server is the original that answers are recorded from.
type server struct {
	t      *testing.T
	host   string
	client *http.Client
	asked  int

	warnings []string // of the last answer
}

func newServer(t *testing.T, kubeconfig string) *server {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return &server{t: t, host: config.Host, client: client}
}

// do sends an object and returns the answer: an object, or a Status.
func (s *server) do(method, path string, o any) (map[string]any, *metav1.Status) {
	s.t.Helper()
	s.warnings = nil
	b, err := json.Marshal(o)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.host+path, bytes.NewReader(b))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	headers, errs := utilnet.ParseWarningHeaders(resp.Header["Warning"])
	if len(errs) > 0 {
		s.t.Fatal(errs)
	}
	for _, h := range headers {
		s.warnings = append(s.warnings, h.Text)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode < 300 {
		var answer map[string]any
		if err := json.Unmarshal(body, &answer); err != nil {
			s.t.Fatal(err)
		}
		return answer, nil
	}
	status := &metav1.Status{}
	if err := json.Unmarshal(body, status); err != nil {
		s.t.Fatalf("%s %s: %s", method, path, body)
	}
	return nil, status
}

// ask returns what the original says of one case.
func (s *server) ask(suite *suite, c *change) []string {
	c.Warn = nil
	o, old := suite.objects(s.t, c)
	where := "/api/v1/namespaces/default/" + suite.Resource
	if meta := suite.Base["metadata"].(map[string]any); meta["namespace"] == nil {
		where = "/api/v1/" + suite.Resource
	}
	if c.Update == "" {
		_, status := s.do(http.MethodPost, where+"?dryRun=All", o)
		return s.causes(c, status)
	}
	s.asked++ // finalizers may keep what the last case left behind
	name := fmt.Sprintf("%s-%d-%d", old["metadata"].(map[string]any)["name"], os.Getpid(), s.asked)
	setField(old, []any{"metadata", "name"}, name)
	stored, status := s.do(http.MethodPost, where, old)
	if status != nil {
		s.t.Fatalf("%s: the old object is refused: %s", c.name(), status.Message)
	}
	defer s.do(http.MethodDelete, where+"/"+name, map[string]any{"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})
	if oldStatus := old["status"]; oldStatus != nil {
		stored["status"] = runtime.DeepCopyJSONValue(oldStatus)
		if stored, status = s.do(http.MethodPut, where+"/"+name+"/status", stored); status != nil {
			s.t.Fatalf("%s: the old status is refused: %s", c.name(), status.Message)
		}
	}
	apply(s.t, stored, c.Set)
	path := where + "/" + name
	if c.Update != "spec" {
		path += "/" + c.Update
	}
	_, status = s.do(http.MethodPut, path+"?dryRun=All", stored)
	return s.causes(c, status)
}

func (s *server) causes(c *change, status *metav1.Status) []string {
	if status == nil {
		c.Warn = s.warnings
		return nil
	}
	if status.Reason != metav1.StatusReasonInvalid || status.Details == nil {
		s.t.Errorf("%s: not a question of validation: %s", c.name(), status.Message)
		return []string{status.Message}
	}
	var list []string
	for _, cause := range status.Details.Causes {
		list = append(list, cause.Field+": "+cause.Message)
	}
	return list
}

// record asks the original what it says of each case, and writes it down.
func (s *suite) record(t *testing.T, file string) {
	original := newServer(t, *original)
	for _, c := range s.Cases {
		c.Want = original.ask(s, c)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "kind: %s\nresource: %s\nbase: %s\ncases:\n", s.Kind, s.Resource, compact(t, s.Base))
	for _, c := range s.Cases {
		lead := "- "
		line := func(key string, v any) {
			fmt.Fprintf(&out, "%s%s: %s\n", lead, key, compact(t, v))
			lead = "  "
		}
		if c.Update != "" {
			line("update", c.Update)
		}
		if c.Old != nil {
			line("old", c.Old)
		}
		if c.Set != nil {
			line("set", c.Set)
		}
		lines := func(key string, list []string) {
			fmt.Fprintf(&out, "%s%s:\n", lead, key)
			for _, l := range list {
				fmt.Fprintf(&out, "  - %s\n", compact(t, l))
			}
		}
		switch {
		case len(c.Want) > 0:
			lines("want", c.Want)
		case len(c.Warn) > 0:
			lines("warn", c.Warn)
		default:
			line("want", []string{})
		}
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func compact(t *testing.T, v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}
