package rules

import (
	"reflect"
	"testing"
)

func TestCopyFields(t *testing.T) {
	type mode string
	type part struct{ A int32 }
	type otherPart struct {
		A int32
		B string
	}
	type from struct {
		Same   map[string]int
		Mode   string
		Given  string
		Parts  []part
		Empty  []part
		None   []part
		Named  map[string]part
		Part   *part
		Alone  int
		Absent *part
	}
	type to struct {
		Same   map[string]int
		Mode   mode
		Given  *string
		Parts  []otherPart
		Empty  []otherPart
		None   []otherPart
		Named  map[mode]otherPart
		Part   *otherPart
		Absent *otherPart
		Kept   string
	}
	given := "g"
	in := from{
		Same: map[string]int{"a": 1}, Mode: "m", Given: given, Parts: []part{{1}, {2}}, Empty: []part{}, Named: map[string]part{"x": {3}}, Part: &part{4}, Alone: 5,
	}
	want := to{
		Same: map[string]int{"a": 1}, Mode: "m", Given: &given, Parts: []otherPart{{A: 1}, {A: 2}}, Empty: []otherPart{}, Named: map[mode]otherPart{"x": {A: 3}},
		Part: &otherPart{A: 4}, Kept: "k",
	}
	out := to{Kept: "k", Absent: &otherPart{}}
	CopyFields(&in, &out)
	if !reflect.DeepEqual(out, want) {
		t.Errorf("got %+v, want %+v", out, want)
	}
	var back from
	CopyFields(&out, &back)
	in.Alone = 0
	if !reflect.DeepEqual(back, in) {
		t.Errorf("back it is %+v, want %+v", back, in)
	}
}
