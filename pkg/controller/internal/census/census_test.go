package census

import (
	"context"
	"errors"
	"strings"
	"testing"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
)

// What is counted is what there is when somebody asks; a count that fails is left out, and nothing else with it.
func TestCensus(t *testing.T) {
	there := map[string]float64{"a": 1, "b": 2}
	things, others := Gauge("zoo", "things", "Number of things", "kind"), Gauge("zoo", "others", "Number of others")
	var fails error
	registry := metrics.NewKubeRegistry()
	registry.CustomMustRegister(&Census{Gauges: []*metrics.Desc{things, others}, Count: func(ctx context.Context, show func(*metrics.Desc, float64, ...string)) error {
		if _, limited := ctx.Deadline(); !limited {
			t.Error("a count may take for ever")
		}
		if fails != nil {
			return fails
		}
		for kind, n := range there {
			show(things, n, kind)
		}
		show(others, 3)
		return nil
	}})
	for name, tc := range map[string]struct {
		change func()
		want   string
	}{
		"at first":            {func() {}, "zoo_others 3\nzoo_things{kind=\"a\"} 1\nzoo_things{kind=\"b\"} 2\n"},
		"when more are there": {func() { there = map[string]float64{"b": 5} }, "zoo_others 3\nzoo_things{kind=\"b\"} 5\n"},
		"when it fails":       {func() { fails = errors.New("no cache") }, ""},
	} {
		fails, there = nil, map[string]float64{"a": 1, "b": 2}
		tc.change()
		var want strings.Builder
		for line := range strings.Lines(tc.want) {
			if metric, _, _ := strings.Cut(line, "{"); !strings.Contains(want.String(), "# TYPE "+strings.Fields(metric)[0]) {
				metric = strings.Fields(metric)[0]
				help := map[string]string{"zoo_things": "Number of things", "zoo_others": "Number of others"}[metric]
				want.WriteString("# HELP " + metric + " [ALPHA] " + help + "\n# TYPE " + metric + " gauge\n")
			}
			want.WriteString(line)
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want.String()), "zoo_things", "zoo_others"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
