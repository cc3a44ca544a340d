// Package apitest checks defaults and validation of API kinds against what the
// original API server answered to the same requests.
//
// A kind has one txtar file. Its section "base" is a valid manifest; every other
// section is one case, a YAML merge patch on the base, named by what is done:
//
//	create NAME    the patched base is created
//	update NAME    the base exists and is replaced by the patched base
//	status NAME    the same, through the status subresource
//	approval NAME  the same, through the approval subresource
//
// The section "want NAME" that follows a case holds the answer: one line for
// each cause of a refusal, sorted ("reason field: message"), or, for an accepted
// create, the object without metadata as stored. For an accepted update it is empty.
//
// The answers are recorded, not written: with LEME_RECORD_KUBECONFIG set to the
// kubeconfig of an original server, a test sends its cases there and rewrites the
// file.
package apitest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// Object is a pointer to an API type.
type Object[T any] interface {
	*T
	runtime.Object
	metav1.Object
}

// Kind says where a kind is served and how it is checked.
type Kind[T any, P Object[T]] struct {
	// Path is the URL path of the collection.
	Path string
	// AddDefaults registers the defaulting functions of the group; nil for none.
	AddDefaults func(*runtime.Scheme) error
	// Prepare, if set, does to a new object what the strategy does before
	// validation, as far as the cases depend on it.
	Prepare func(P)
	// Create and the others are the validation functions, nil for what the kind
	// does not have.
	Create   func(P) field.ErrorList
	Update   func(obj, old P) field.ErrorList
	Status   func(obj, old P) field.ErrorList
	Approval func(obj, old P) field.ErrorList
}

// Run checks the kind against the recorded answers in the file.
func Run[T any, P Object[T]](t *testing.T, file string, k Kind[T, P]) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	archive := txtar.Parse(data)
	cases := parse(t, archive)
	if kubeconfig := os.Getenv("LEME_RECORD_KUBECONFIG"); kubeconfig != "" {
		record(t, kubeconfig, k.Path, cases)
		archive.Files = archive.Files[:1]
		for _, c := range cases {
			archive.Files = append(archive.Files,
				txtar.File{Name: c.verb + " " + c.name, Data: c.patch},
				txtar.File{Name: "want " + c.name, Data: []byte(c.want)})
		}
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	scheme := runtime.NewScheme()
	if k.AddDefaults != nil {
		if err := k.AddDefaults(scheme); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range cases {
		t.Run(c.verb+" "+c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, answer(t, scheme, k, c)); diff != "" {
				t.Errorf("-original +ours:\n%s", diff)
			}
		})
	}
}

type testCase struct {
	verb, name string
	patch      []byte
	base, obj  map[string]any
	want       string
}

func parse(t *testing.T, archive *txtar.Archive) []*testCase {
	t.Helper()
	if len(archive.Files) == 0 || archive.Files[0].Name != "base" {
		t.Fatal("the first section is not the base")
	}
	base := func() map[string]any { return unmarshal(t, archive.Files[0].Data) }
	var cases []*testCase
	for _, f := range archive.Files[1:] {
		verb, name, _ := strings.Cut(f.Name, " ")
		if verb == "want" {
			if len(cases) == 0 || cases[len(cases)-1].name != name {
				t.Fatalf("section %q does not follow its case", f.Name)
			}
			cases[len(cases)-1].want = string(f.Data)
			continue
		}
		cases = append(cases, &testCase{verb: verb, name: name, patch: f.Data, base: base(), obj: merge(base(), unmarshal(t, f.Data))})
	}
	return cases
}

func answer[T any, P Object[T]](t *testing.T, scheme *runtime.Scheme, k Kind[T, P], c *testCase) string {
	t.Helper()
	obj := decode[T, P](t, scheme, c.obj)
	old := decode[T, P](t, scheme, c.base)
	for _, o := range []P{obj, old} {
		if k.Prepare != nil {
			k.Prepare(o)
		}
	}
	old.SetResourceVersion("1")
	var errs field.ErrorList
	if c.verb == "create" {
		errs = k.Create(obj)
	} else {
		obj.SetResourceVersion("1")
		errs = map[string]func(obj, old P) field.ErrorList{"update": k.Update, "status": k.Status, "approval": k.Approval}[c.verb](obj, old)
	}
	if len(errs) > 0 || c.verb != "create" {
		var lines []string
		for _, e := range errs {
			lines = append(lines, cause(string(e.Type), e.Field, e.ErrorBody()))
		}
		return join(lines)
	}
	encoded, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return stored(t, encoded)
}

func decode[T any, P Object[T]](t *testing.T, scheme *runtime.Scheme, content map[string]any) P {
	t.Helper()
	obj := P(new(T))
	data, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(data, obj); err != nil {
		t.Fatal(err)
	}
	scheme.Default(obj)
	return obj
}

// record asks the server about every case and puts the answers in want.
func record(t *testing.T, kubeconfig, path string, cases []*testCase) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	send := func(method, url string, content map[string]any) (int, []byte) {
		body, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(context.Background(), method, config.Host+url, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if method == http.MethodPatch {
			req.Header.Set("Content-Type", "application/merge-patch+json")
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, answer
	}
	for _, c := range cases {
		if c.verb == "create" {
			code, answer := send(http.MethodPost, path+"?dryRun=All", c.obj)
			c.want = recorded(t, c, code, answer)
			continue
		}
		code, answer := send(http.MethodPost, path, c.base)
		if code != http.StatusCreated {
			t.Fatalf("create the base: %s", answer)
		}
		created := unmarshal(t, answer)["metadata"].(map[string]any)
		name := path + "/" + created["name"].(string)
		if c.base["status"] != nil {
			code, answer := send(http.MethodPut, name+"/status", c.base)
			if code != http.StatusOK {
				t.Fatalf("set the status of the base: %s", answer)
			}
			created = unmarshal(t, answer)["metadata"].(map[string]any)
		}
		meta := c.obj["metadata"].(map[string]any)
		for _, key := range []string{"uid", "resourceVersion", "creationTimestamp", "generation"} {
			if _, ok := meta[key]; !ok && created[key] != nil {
				meta[key] = created[key]
			}
		}
		sub := ""
		if c.verb != "update" {
			sub = "/" + c.verb
		}
		code, answer = send(http.MethodPut, name+sub+"?dryRun=All", c.obj)
		c.want = recorded(t, c, code, answer)
		send(http.MethodDelete, name, map[string]any{"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"})
		send(http.MethodPatch, name, map[string]any{"metadata": map[string]any{"finalizers": nil}})
		for _, key := range []string{"uid", "resourceVersion", "creationTimestamp", "generation"} {
			delete(meta, key)
		}
	}
}

func recorded(t *testing.T, c *testCase, code int, answer []byte) string {
	t.Helper()
	switch code {
	case http.StatusCreated, http.StatusOK:
		if c.verb != "create" {
			return ""
		}
		return stored(t, answer)
	case http.StatusUnprocessableEntity:
		var status metav1.Status
		if err := json.Unmarshal(answer, &status); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, c := range status.Details.Causes {
			lines = append(lines, cause(string(c.Type), c.Field, c.Message))
		}
		return join(lines)
	}
	t.Errorf("%s %s: %d %s", c.verb, c.name, code, answer)
	return ""
}

// cause renders one cause of a refusal. The original prints a refused struct in
// the field names of its internal types; such values are left out.
func cause(reason, path, message string) string {
	for _, brackets := range []string{"{}", "[]"} {
		head, value, found := strings.Cut(message, ": "+brackets[:1])
		if !found || strings.Contains(head, ":") {
			continue
		}
		end := strings.LastIndex(value, brackets[1:]+": ")
		if end < 0 {
			end = len(value) - 1
		}
		message = head + ": " + brackets[:1] + "…" + value[end:]
	}
	return fmt.Sprintf("%s %s: %s", reason, path, strings.ReplaceAll(message, "\n", " "))
}

func join(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n") + "\n"
}

// stored renders an object without what every server fills in for itself.
func stored(t *testing.T, encoded []byte) string {
	t.Helper()
	content := unmarshal(t, encoded)
	for _, key := range []string{"apiVersion", "kind", "metadata", "status"} {
		delete(content, key)
	}
	dropEmpty(content)
	out, err := yaml.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// dropEmpty removes empty lists and nulls at any depth: which of the two an object
// has depends on the encoding that it has been through.
func dropEmpty(content map[string]any) {
	for key, value := range content {
		switch value := value.(type) {
		case nil:
			delete(content, key)
		case map[string]any:
			dropEmpty(value)
		case []any:
			for _, item := range value {
				if item, ok := item.(map[string]any); ok {
					dropEmpty(item)
				}
			}
			if len(value) == 0 {
				delete(content, key)
			}
		}
	}
}

func unmarshal(t *testing.T, data []byte) map[string]any {
	t.Helper()
	content := map[string]any{}
	if err := yaml.Unmarshal(data, &content); err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	return content
}

// merge applies a merge patch (RFC 7396) to content.
func merge(content, patch map[string]any) map[string]any {
	content = maps.Clone(content)
	if content == nil {
		content = map[string]any{}
	}
	for key, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(content, key)
		case map[string]any:
			inner, _ := content[key].(map[string]any)
			content[key] = merge(inner, value)
		default:
			content[key] = value
		}
	}
	return content
}
