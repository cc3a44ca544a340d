package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/leme-k8s/leme/test/conformance/differential/internal/listed"
)

func TestScenarios(t *testing.T) {
	all, err := loadScenarios("scenarios")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d scenarios", len(all))
	if len(all) < 300 {
		t.Errorf("there are %d scenarios, and 300 at least are promised", len(all))
	}
	if _, err := listed.Load("known.yaml"); err != nil {
		t.Error(err)
	}
}

func TestParseSuite(t *testing.T) {
	all, err := parseSuite("x", []byte(`
of: pods/a
given: [{kind: A}, {kind: B, spec: {a: 1, b: 2}}]
variants: {plain: {}, big: {spec: {a: 9, b: null}}}
courses: {create: [], gone: [{delete: pods/a}]}
only: {big: [gone]}
`))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range all {
		names = append(names, s.name)
	}
	if want := []string{"x/big/gone", "x/plain/create", "x/plain/gone"}; !slices.Equal(names, want) {
		t.Errorf("the scenarios are %q, want %q", names, want)
	}
	if got := string(all[0].steps[0].Create[1]); got != `{"kind":"B","spec":{"a":9}}` {
		t.Errorf("the variant is %s", got)
	}
	for _, bad := range []string{
		`{courses: {a: [{}]}}`,
		`{courses: {a: [{delete: x, silence: y}]}}`,
		`{courses: {a: []}, variants: {b: {}}}`,
		`{given: [{}], courses: {a: []}, variants: {b: {}}, only: {c: [a]}}`,
		`{given: [{}], courses: {a: []}, variants: {b: {}}, only: {b: [d]}}`,
		`{given: [{}], courses: {a: [], c: []}, variants: {b: {}}, only: {b: [a]}}`,
		`{nothing: 1}`,
	} {
		if _, err := parseSuite("x", []byte(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestFilled(t *testing.T) {
	s := scenario{ns: "t00001"}
	if got := string(s.filled([]byte(`{"a":"$NS-b"}`))); !strings.Contains(got, "t00001-b") {
		t.Error(got)
	}
}
