package abac

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

const line = `{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":`

func load(t testing.TB, content string) (*Authorizer, string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.jsonl")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Load(file)
	return a, file, err
}

func TestAuthorize(t *testing.T) {
	a, _, err := load(t, "# who may do what\n\n"+
		line+`{"user":"alice","namespace":"*","resource":"*","apiGroup":"*"}}`+"\n"+
		line+`{"group":"readers","readonly":true,"namespace":"blue","resource":"pods"}}`+"\n"+
		line+`{"user":"*","readonly":true,"nonResourcePath":"/version*"}}`+"\n"+
		line+`{"namespace":"*","resource":"*","apiGroup":"*"}}`+"\n")
	if err != nil {
		t.Fatal(err)
	}
	alice, reader, nobody := &user.DefaultInfo{Name: "alice"}, &user.DefaultInfo{Name: "bob", Groups: []string{"readers"}}, &user.DefaultInfo{Name: "eve"}
	pods := func(u user.Info, verb, namespace, group string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{User: u, Verb: verb, Namespace: namespace, APIGroup: group, Resource: "pods", ResourceRequest: true}
	}
	path := func(u user.Info, verb, path string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{User: u, Verb: verb, Path: path}
	}
	for _, c := range []struct {
		name string
		of   authorizer.AttributesRecord
		want authorizer.Decision
	}{
		{"all resources", pods(alice, "delete", "red", "metrics.k8s.io"), authorizer.DecisionAllow},
		{"reading in a namespace", pods(reader, "list", "blue", ""), authorizer.DecisionAllow},
		{"writing with a policy for reading", pods(reader, "create", "blue", ""), authorizer.DecisionNoOpinion},
		{"another namespace", pods(reader, "list", "red", ""), authorizer.DecisionNoOpinion},
		{"another group of APIs", pods(reader, "list", "blue", "metrics.k8s.io"), authorizer.DecisionNoOpinion},
		{"a policy without a subject is nobody's", pods(nobody, "get", "red", ""), authorizer.DecisionNoOpinion},
		{"a path below a prefix", path(nobody, "get", "/version/openshift"), authorizer.DecisionAllow},
		{"another path", path(nobody, "get", "/healthz"), authorizer.DecisionNoOpinion},
		{"a policy for resources says nothing of paths", path(alice, "get", "/healthz"), authorizer.DecisionNoOpinion},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := a.Authorize(t.Context(), c.of)
			if err != nil || got != c.want {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("")
	f.Add("# comment\n" + line + `{"user":"*","nonResourcePath":"*"}}`)
	f.Add(line + `{"user":1}}`)
	f.Add(`{"apiVersion":"v1","kind":"Policy"}`)
	f.Add("{")
	f.Fuzz(func(t *testing.T, content string) {
		a, file, err := load(t, content)
		if err != nil {
			if !strings.HasPrefix(err.Error(), file+":") {
				t.Errorf("the error does not name the line: %v", err)
			}
			return
		}
		u := &user.DefaultInfo{Name: "eve", Groups: []string{"g"}}
		for _, of := range []authorizer.AttributesRecord{
			{User: u, Verb: "get", Path: "/"}, {User: u, Verb: "delete", Resource: "pods", ResourceRequest: true},
		} {
			if _, _, err := a.Authorize(t.Context(), of); err != nil {
				t.Error(err)
			}
		}
		if _, _, _, err := a.RulesFor(t.Context(), u, "default"); err != nil {
			t.Error(err)
		}
	})
}
