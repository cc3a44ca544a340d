package main

import (
	"os"
	"reflect"
	"testing"

	discovery "k8s.io/api/apidiscovery/v2"
)

func testCorpus(t *testing.T) *corpus {
	t.Helper()
	s := &Schemas{}
	if err := s.add([]byte(document)); err != nil {
		t.Fatal(err)
	}
	return &corpus{
		schemas: s, seed: 1,
		resources: resources{{
			group: "example.com", version: "v1", name: "things", kind: "Thing", namespaced: true, verbs: []string{"create", "get", "list", "update", "patch", "delete"},
			subresources: []discovery.APISubresourceDiscovery{{Subresource: "scale", Verbs: []string{"get"}}},
		}},
		examples: []example{
			{Manifest: map[string]any{"apiVersion": "example.com/v1", "kind": "Thing", "metadata": map[string]any{"name": "a", "namespace": namespace}, "spec": map[string]any{"size": 3}}},
			{Manifest: map[string]any{"apiVersion": "example.com/v1", "kind": "NotServed", "metadata": map[string]any{"name": "a"}}},
		},
	}
}

func (c *corpus) all() [][]Request {
	return [][]Request{c.documents(nil), c.setup(), c.reads(), c.wrongs(), c.creates(), c.updates(), c.lives(), c.ends()}
}

func TestCorpusIsTheSameEachTime(t *testing.T) {
	a, b := testCorpus(t).all(), testCorpus(t).all()
	if !reflect.DeepEqual(a, b) {
		t.Error("two corpora with the same seed differ")
	}
	for i, stage := range a {
		if len(stage) == 0 {
			t.Errorf("stage %d is empty", i)
		}
	}
}

func TestCreatesUseAnotherName(t *testing.T) {
	for _, r := range testCorpus(t).creates() {
		if o := decode(r.Body); stringAt(o, "metadata", "name") == "a" {
			t.Errorf("%v creates what exists", r)
		}
	}
}

func TestExamples(t *testing.T) {
	var files [][]byte
	for _, name := range []string{"testdata/examples.yaml", "../../../pkg/apiserver/testdata/resources.yaml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, data)
	}
	examples, err := parseExamples(files...)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range examples {
		k := kindOf(e.Manifest)
		if k.Kind == "" || k.Version == "" {
			t.Errorf("%v is of no kind", e.Manifest)
		}
		id := k.Group + k.Kind + stringAt(e.Manifest, "metadata", "name")
		if seen[id] && !e.Transient {
			t.Errorf("%s is there twice", id)
		}
		seen[id] = true
		if stringAt(e.toBreak(), "metadata", "name") == stringAt(e.Manifest, "metadata", "name") && !e.Transient {
			t.Errorf("%s is broken under its own name", id)
		}
	}
}
