package main

import (
	"maps"
	"slices"
	"strings"
)

// maxDepth keeps schemas that contain themselves from being walked without an end.
const maxDepth = 12

// breakages returns each field of a schema broken in each way, as changes of an
// object: what it has is changed, what it has not is added, unless only what is
// present is wanted.
func (s *Schemas) breakages(schema *Schema, object any, onlyPresent bool) []Change {
	w := walk{schemas: s, object: object, onlyPresent: onlyPresent}
	w.value(schema, nil, nil)
	return w.changes
}

type walk struct {
	schemas     *Schemas
	object      any
	onlyPresent bool
	changes     []Change
}

// value breaks one value, and what is in it. within are the schemas around it.
func (w *walk) value(schema *Schema, path []any, within []*Schema) {
	schema = w.schemas.resolve(schema)
	if len(path) > maxDepth || slices.Contains(within, schema) {
		return
	}
	current, present := lookup(w.object, path...)
	if w.onlyPresent && !present {
		return
	}
	within = append(within[:len(within):len(within)], schema)
	if present && len(path) > 0 {
		w.changes = append(w.changes, Change{Path: path, Remove: true})
	}
	if len(path) > 0 {
		for _, v := range w.schemas.badValues(schema, current) {
			w.add(path, v)
		}
	}
	below := func(key any) []any { return append(path[:len(path):len(path)], key) }
	switch {
	case schema.Items != nil:
		w.value(schema.Items, below(0), within)
	case schema.AdditionalProperties != nil:
		key := "k"
		if m, ok := current.(map[string]any); ok && len(m) > 0 {
			key = slices.Min(slices.Collect(maps.Keys(m)))
		}
		w.value(schema.AdditionalProperties, below(key), within)
	}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		if serverOwned(path, name) {
			continue
		}
		w.value(schema.Properties[name], below(name), within)
	}
}

// add adds a change. Where something on the way is missing it is made first, with
// what its schema requires, so that the one field is what is wrong.
func (w *walk) add(path []any, value any) {
	w.changes = append(w.changes, w.schemas.complete(w.object, Change{Path: path, Value: value}))
}

// complete moves a change up to the first ancestor that the object does not have.
func (s *Schemas) complete(object any, c Change) Change {
	for i := 1; i < len(c.Path); i++ {
		if _, ok := lookup(object, c.Path[:i]...); ok {
			continue
		}
		made := s.minimal(s.at(object, c.Path[:i]))
		for j := i + 1; j < len(c.Path); j++ {
			if _, ok := lookup(made, c.Path[i:j]...); !ok {
				made = Change{Path: c.Path[i:j], Value: s.minimal(s.at(object, c.Path[:j]))}.apply(made)
			}
		}
		return Change{Path: c.Path[:i], Value: Change{Path: c.Path[i:], Value: c.Value}.apply(made)}
	}
	return c
}

// at returns the schema of what is at a path of an object.
func (s *Schemas) at(object any, path []any) *Schema {
	schema := s.resolve(s.kinds[kindOf(object)])
	for _, p := range path {
		name, isField := p.(string)
		switch {
		case !isField:
			schema = s.resolve(schema.Items)
		case schema.AdditionalProperties != nil:
			schema = s.resolve(schema.AdditionalProperties)
		default:
			schema = s.resolve(schema.Properties[name])
		}
	}
	return schema
}

// serverOwned says whether a field is what every object has and the server sets, or
// what makes a request another one.
func serverOwned(path []any, name string) bool {
	if len(path) == 0 {
		return name == "apiVersion" || name == "kind"
	}
	if len(path) == 1 && path[0] == "metadata" {
		switch name {
		case "managedFields", "selfLink", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "generation", "namespace":
			return true
		}
	}
	return false
}

// badValues returns values for a field: mostly ones that are wrong in a certain way,
// and the boundaries on both sides.
func (s *Schemas) badValues(schema *Schema, current any) []any {
	schema = s.resolve(schema)
	values := []any{nil}
	switch {
	case len(schema.Enum) > 0:
		values = append(values, "", "Bogus", strings.ToLower(toString(schema.Enum[0])), 1)
		values = append(values, schema.Enum...)
	case schema.Format == "int-or-string":
		values = append(values, -1, 0, 1, 70000, "10%", "150%", "-5%", "a-name", "A_", "")
	case schema.Format == "date-time":
		values = append(values, "", "yesterday", "2026-01-01T00:00:00Z", 1)
	case schema.Format == "byte":
		values = append(values, "", "!", "YQ==")
	case len(schema.OneOf) > 0:
		values = append(values, "0", "-1", "1Gi", "1.5", "1m", "much", "", 2)
	case schema.Type == "integer" || schema.Type == "number":
		values = append(values, -1, 0, 1, 2, 101, 65536, 1<<31, "1", 1.5)
	case schema.Type == "boolean":
		values = append(values, true, false, "true")
	case schema.Type == "string":
		values = append(values, "", "a", "A b_!", "example.com/x", "/abs/../path", "10.0.0.1", strings.Repeat("a", 64), strings.Repeat("b", 300), 1)
	case schema.Type == "array":
		item := s.minimal(schema.Items)
		if l, ok := current.([]any); ok && len(l) > 0 {
			item = l[0]
		}
		values = append(values, []any{}, []any{item}, []any{item, item}, []any{nil}, "list", map[string]any{})
		if s.resolve(schema.Items).Type == "object" {
			values = append(values, []any{map[string]any{}})
		}
	case schema.AdditionalProperties != nil:
		item := s.minimal(schema.AdditionalProperties)
		values = append(values, map[string]any{}, map[string]any{"k": item}, map[string]any{"": item}, map[string]any{"A b_!": item},
			map[string]any{"example.com/x": item}, map[string]any{strings.Repeat("a", 300): item}, []any{})
	case schema.Type == "object":
		values = append(values, map[string]any{}, s.minimal(schema), "object", map[string]any{"noSuchField": 1})
	}
	return values
}

func toString(v any) string {
	s, _ := v.(string)
	return s
}
