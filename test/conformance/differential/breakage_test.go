package main

import (
	"slices"
	"testing"
)

const document = `{"components":{"schemas":{
	"Thing":{"type":"object","x-kubernetes-group-version-kind":[{"group":"example.com","version":"v1","kind":"Thing"}],"properties":{
		"apiVersion":{"type":"string"},"kind":{"type":"string"},
		"spec":{"allOf":[{"$ref":"#/components/schemas/ThingSpec"}]}}},
	"ThingSpec":{"type":"object","properties":{
		"size":{"type":"integer","format":"int32"},
		"mode":{"type":"string","enum":["Fast","Slow"]},
		"inner":{"$ref":"#/components/schemas/ThingSpec"},
		"volumes":{"type":"array","items":{"$ref":"#/components/schemas/Volume"}}}},
	"Volume":{"type":"object","required":["name"],"properties":{
		"name":{"type":"string"},
		"disk":{"type":"object","required":["path"],"properties":{"path":{"type":"string"},"readOnly":{"type":"boolean"}}}}}
}}}`

func TestBreakages(t *testing.T) {
	s := &Schemas{}
	if err := s.add([]byte(document)); err != nil {
		t.Fatal(err)
	}
	object := decode([]byte(`{"apiVersion":"example.com/v1","kind":"Thing","spec":{"size":3}}`))
	var all []string
	for _, c := range s.breakages(s.kinds[kindOf(object)], object, false) {
		all = append(all, c.String())
	}
	for _, c := range s.breakages(s.kinds[kindOf(object)], object, true) {
		if pathString(c.Path) != "spec" && pathString(c.Path) != "spec.size" {
			t.Errorf("%v changes what is not there", c)
		}
	}
	for _, want := range []string{
		"spec removed", "spec.size removed", "spec.size: -1", `spec.size: "1"`, "spec.size: null", `spec.mode: "Bogus"`, `spec.mode: "Slow"`,
		// What is on the way is made, with what it needs.
		`spec.volumes: [{"disk":{"path":"a","readOnly":true},"name":"a"}]`,
		`spec.volumes: [{"disk":{"path":""},"name":"a"}]`,
		`spec.volumes: [{"name":"a"},{"name":"a"}]`,
	} {
		if !slices.Contains(all, want) {
			t.Errorf("%s is missing in %q", want, all)
		}
	}
	for _, not := range []string{"spec.mode removed", "kind removed", "spec.inner.size: -1"} {
		if slices.Contains(all, not) {
			t.Errorf("%s is there", not)
		}
	}
}
