package nft

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStatePlan(t *testing.T) {
	s := NewState()
	el := func(pairs ...string) Elements {
		e := Elements{}
		for i := 0; i < len(pairs); i += 2 {
			e[Element{"services", pairs[i]}] = pairs[i+1]
		}
		return e
	}
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"a first service", func() { s.Set("a", el("k1", "v1", "k2", "v2")) }, "+ services { k1 : v1 }\n+ services { k2 : v2 }\n"},
		{"nothing new", func() { s.Set("a", el("k1", "v1", "k2", "v2")) }, ""},
		{"one value changes", func() { s.Set("a", el("k1", "v1", "k2", "v3")) }, "~ services { k2 : v3 }\n"},
		{"changed and changed back", func() { s.Set("a", el("k1", "x")); s.Set("a", el("k1", "v1", "k2", "v3")) }, ""},
		{"another wants the same: the first keeps it", func() { s.Set("b", el("k1", "other")) }, ""},
		{"the first goes: the other has it", func() { s.Set("a", nil) }, "~ services { k1 : other }\n- services { k2 : v3 }\n"},
		{"came and went", func() { s.Set("c", el("k9", "v")); s.Set("c", nil) }, ""},
		{"all gone", func() { s.Set("b", nil) }, "- services { k1 : other }\n"},
	} {
		step.do()
		if diff := cmp.Diff(step.want, s.Plan().String()); diff != "" {
			t.Errorf("%s: plan (-want +got)\n%s", step.name, diff)
		}
		s.Committed()
	}
	if s.Len() != 0 {
		t.Errorf("%d elements are left", s.Len())
	}
}

func TestClassOf(t *testing.T) {
	for n, want := range map[int]int{0: 0, 1: 1, 16: 16, 17: 1024, 16 * 4: 1024, 65: 4096, 5000: 1 << 18} {
		got := classOf(n)
		if n > exactClasses && got < min(16*n, 1<<16) {
			t.Errorf("classOf(%d) = %d, fewer than 16 buckets an endpoint", n, got)
		}
		if n <= exactClasses && got != want {
			t.Errorf("classOf(%d) = %d, want %d", n, got, want)
		}
	}
}
