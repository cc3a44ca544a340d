package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/leme-k8s/leme/test/conformance/differential/internal/diff"
)

// Change is one thing done to an object: a field set, or removed.
type Change struct {
	// Path has a string for each field or key and an int for each index.
	Path   []any
	Value  any
	Remove bool
}

func (c Change) String() string {
	if c.Remove {
		return pathString(c.Path) + " removed"
	}
	return pathString(c.Path) + ": " + diff.Short(c.Value)
}

// apply returns a changed copy of an object. What is on the way and is missing is made.
func (c Change) apply(object any) any { return c.at(clone(object), c.Path) }

func (c Change) at(v any, path []any) any {
	if len(path) == 0 {
		return clone(c.Value)
	}
	last := len(path) == 1
	switch key := path[0].(type) {
	case string:
		m, ok := v.(map[string]any)
		if !ok {
			m = map[string]any{}
		}
		if last && c.Remove {
			delete(m, key)
		} else {
			m[key] = c.at(m[key], path[1:])
		}
		return m
	case int:
		l, _ := v.([]any)
		if last && c.Remove {
			if key < len(l) {
				l = append(l[:key:key], l[key+1:]...)
			}
			return l
		}
		for len(l) <= key {
			l = append(l, nil)
		}
		l[key] = c.at(l[key], path[1:])
		return l
	}
	panic(fmt.Sprintf("a path has a %T", path[0]))
}

// jsonPatch returns the change as a JSON patch.
func (c Change) jsonPatch() any {
	var pointer strings.Builder
	for _, p := range c.Path {
		pointer.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(fmt.Sprint(p)))
	}
	op := map[string]any{"op": "add", "path": pointer.String(), "value": c.Value}
	if c.Remove {
		op = map[string]any{"op": "remove", "path": pointer.String()}
	}
	return []any{op}
}

// mergePatch returns the change as an object that has nothing else. ok is false for
// a change within a list, which such an object cannot express.
func (c Change) mergePatch() (patch map[string]any, ok bool) {
	for _, p := range c.Path {
		if _, isIndex := p.(int); isIndex {
			return nil, false
		}
	}
	set := Change{Path: c.Path, Value: c.Value}
	if c.Remove {
		set.Value = nil
	}
	patch, ok = set.apply(map[string]any{}).(map[string]any)
	return patch, ok
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = clone(e)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = clone(e)
		}
		return l
	}
	return v
}

// lookup returns what an object has at a path.
func lookup(v any, path ...any) (any, bool) {
	for _, p := range path {
		switch key := p.(type) {
		case string:
			m, ok := v.(map[string]any)
			if !ok {
				return nil, false
			}
			if v, ok = m[key]; !ok {
				return nil, false
			}
		case int:
			l, ok := v.([]any)
			if !ok || key >= len(l) {
				return nil, false
			}
			v = l[key]
		}
	}
	return v, true
}

func stringAt(v any, path ...any) string {
	found, _ := lookup(v, path...)
	s, _ := found.(string)
	return s
}

func pathString(path []any) string {
	var b strings.Builder
	for _, p := range path {
		switch p := p.(type) {
		case int:
			b.WriteString("[" + strconv.Itoa(p) + "]")
		case string:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(p)
		}
	}
	return b.String()
}
