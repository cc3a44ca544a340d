package main

import "testing"

func TestChange(t *testing.T) {
	object := decode([]byte(`{"spec":{"list":[{"a":1},{"a":2}],"name":"x"}}`))
	for _, c := range []struct {
		change             Change
		applied, patch     string
		merge              string
		withoutMergedPatch bool
	}{
		{
			change:  Change{Path: []any{"spec", "name"}, Value: "y"},
			applied: `{"spec":{"list":[{"a":1},{"a":2}],"name":"y"}}`,
			patch:   `[{"op":"add","path":"/spec/name","value":"y"}]`,
			merge:   `{"spec":{"name":"y"}}`,
		},
		{
			change:  Change{Path: []any{"spec", "name"}, Remove: true},
			applied: `{"spec":{"list":[{"a":1},{"a":2}]}}`,
			patch:   `[{"op":"remove","path":"/spec/name"}]`,
			merge:   `{"spec":{"name":null}}`,
		},
		{
			change:             Change{Path: []any{"spec", "list", 1, "a"}, Value: -1},
			applied:            `{"spec":{"list":[{"a":1},{"a":-1}],"name":"x"}}`,
			patch:              `[{"op":"add","path":"/spec/list/1/a","value":-1}]`,
			withoutMergedPatch: true,
		},
		{
			change:             Change{Path: []any{"spec", "list", 0}, Remove: true},
			applied:            `{"spec":{"list":[{"a":2}],"name":"x"}}`,
			patch:              `[{"op":"remove","path":"/spec/list/0"}]`,
			withoutMergedPatch: true,
		},
		{
			change:  Change{Path: []any{"metadata", "labels", "a/b"}, Value: "c"},
			applied: `{"metadata":{"labels":{"a/b":"c"}},"spec":{"list":[{"a":1},{"a":2}],"name":"x"}}`,
			patch:   `[{"op":"add","path":"/metadata/labels/a~1b","value":"c"}]`,
			merge:   `{"metadata":{"labels":{"a/b":"c"}}}`,
		},
	} {
		t.Run(c.change.String(), func(t *testing.T) {
			if got := string(body(c.change.apply(object))); got != c.applied {
				t.Errorf("applied: %s, want %s", got, c.applied)
			}
			if got := string(body(c.change.jsonPatch())); got != c.patch {
				t.Errorf("JSON patch: %s, want %s", got, c.patch)
			}
			merge, ok := c.change.mergePatch()
			if ok == c.withoutMergedPatch {
				t.Fatalf("there is a merge patch: %v", ok)
			}
			if got := string(body(merge)); ok && got != c.merge {
				t.Errorf("merge patch: %s, want %s", got, c.merge)
			}
		})
	}
	if got := string(body(object)); got != `{"spec":{"list":[{"a":1},{"a":2}],"name":"x"}}` {
		t.Errorf("the object itself was changed: %s", got)
	}
}
