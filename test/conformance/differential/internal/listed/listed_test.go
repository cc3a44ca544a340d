package listed

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	list, err := Parse([]byte(`
- {request: "GET /a$", difference: "^code", reason: because}
- {difference: "never", reason: because}
`))
	if err != nil {
		t.Fatal(err)
	}
	r := &Report{Unit: "requests", Known: list}
	r.Add("g", "GET /a", nil)
	r.Add("g", "GET /a", []string{"code: original 1, leme 2"})
	r.Add("g", "GET /b", []string{"code: original 1, leme 2"})
	r.Add("g", "GET /a", []string{"code: original 1, leme 2", "warning: x"})
	var out bytes.Buffer
	if r.Summary(&out) {
		t.Error("it is said to be good")
	}
	if got := strings.Fields(strings.Split(out.String(), "\n")[1]); !slices.Equal(got, []string{"g", "4", "1", "1", "2", "25.00"}) {
		t.Errorf("the counts are %q", got)
	}
	if !strings.Contains(out.String(), `difference "never"`) {
		t.Errorf("what is gone is not said: %s", &out)
	}
	for _, d := range r.different {
		if d.where == "GET /a" && !slices.Equal(d.lines, []string{"warning: x"}) {
			t.Errorf("what is known is reported: %q", d.lines)
		}
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{
		`[{request: a}]`,
		`[{reason: a}]`,
		`[{request: "(", reason: a}]`,
		`[{request: a, reason: b, other: c}]`,
	} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	for _, file := range []string{"../../known.yaml"} {
		if _, err := Load(file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
