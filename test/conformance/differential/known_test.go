package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	list, err := parseKnown([]byte(`
- {request: "GET /a$", difference: "^code", reason: because}
- {difference: "never", reason: because}
`))
	if err != nil {
		t.Fatal(err)
	}
	r := &report{known: list}
	r.add("g", "GET /a", nil)
	r.add("g", "GET /a", []string{"code: original 1, leme 2"})
	r.add("g", "GET /b", []string{"code: original 1, leme 2"})
	r.add("g", "GET /a", []string{"code: original 1, leme 2", "warning: x"})
	var out bytes.Buffer
	if r.summary(&out) {
		t.Error("it is said to be good")
	}
	if got := strings.Fields(strings.Split(out.String(), "\n")[1]); !slices.Equal(got, []string{"g", "4", "1", "1", "2", "25.00"}) {
		t.Errorf("the counts are %q", got)
	}
	if !strings.Contains(out.String(), `difference "never"`) {
		t.Errorf("what is gone is not said: %s", &out)
	}
	for _, d := range r.different {
		if d.request == "GET /a" && !slices.Equal(d.lines, []string{"warning: x"}) {
			t.Errorf("what is known is reported: %q", d.lines)
		}
	}
}

func TestParseKnown(t *testing.T) {
	for _, bad := range []string{
		`[{request: a}]`,
		`[{reason: a}]`,
		`[{request: "(", reason: a}]`,
		`[{request: a, reason: b, other: c}]`,
	} {
		if _, err := parseKnown([]byte(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if _, err := loadKnown("known.yaml"); err != nil {
		t.Errorf("known.yaml: %v", err)
	}
}
