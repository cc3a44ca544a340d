// Package diff says in lines how one value that was JSON differs from another.
package diff

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Differences are those of what the original has and of what Leme has.
type Differences struct{ Lines []string }

// Add adds a value that is another.
func (d *Differences) Add(where string, original, leme any) {
	d.Lines = append(d.Lines, fmt.Sprintf("%s: original %s, leme %s", where, Short(original), Short(leme)))
}

// Values compares two values, which are found below a path.
func (d *Differences) Values(path string, original, leme any) {
	switch o := original.(type) {
	case map[string]any:
		l, ok := leme.(map[string]any)
		if !ok {
			break
		}
		for _, key := range union(o, l) {
			below := path + "." + key
			ov, inOriginal := o[key]
			lv, inLeme := l[key]
			switch {
			case !inLeme:
				d.Lines = append(d.Lines, fmt.Sprintf("%s: leme lacks %s", below, Short(ov)))
			case !inOriginal:
				d.Lines = append(d.Lines, fmt.Sprintf("%s: leme adds %s", below, Short(lv)))
			default:
				d.Values(below, ov, lv)
			}
		}
		return
	case []any:
		l, ok := leme.([]any)
		if !ok {
			break
		}
		switch {
		case strings.HasSuffix(path, ".causes"): // how often something is said does not matter
			d.Sets(path, distinct(o), distinct(l))
			return
		case named(o) && named(l), strings.HasSuffix(path, "Rules"): // of a SelfSubjectRulesReview
			d.Sets(path, o, l)
			return
		}
		for i := range max(len(o), len(l)) {
			below := fmt.Sprintf("%s[%d]", path, i)
			switch {
			case i >= len(l):
				d.Lines = append(d.Lines, fmt.Sprintf("%s: leme lacks %s", below, Short(o[i])))
			case i >= len(o):
				d.Lines = append(d.Lines, fmt.Sprintf("%s: leme adds %s", below, Short(l[i])))
			default:
				d.Values(below, o[i], l[i])
			}
		}
		return
	}
	if !equal(original, leme) {
		d.Add(path, original, leme)
	}
}

// Sets compares lists whose order says nothing: causes, warnings, and objects that
// have names.
func (d *Differences) Sets(path string, original, leme []any) {
	rest := slices.Clone(leme)
	for _, o := range original {
		i := slices.IndexFunc(rest, func(l any) bool { return name(o) != "" && name(o) == name(l) || equal(o, l) })
		if i < 0 {
			d.Lines = append(d.Lines, fmt.Sprintf("%s: leme lacks %s", path, Short(o)))
			continue
		}
		d.Values(path+"["+name(o)+"]", o, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	for _, l := range rest {
		d.Lines = append(d.Lines, fmt.Sprintf("%s: leme adds %s", path, Short(l)))
	}
}

func distinct(list []any) []any {
	var all []any
	for _, v := range list {
		if !slices.ContainsFunc(all, func(o any) bool { return equal(o, v) }) {
			all = append(all, v)
		}
	}
	return all
}

// named says whether a list is one of objects with names: resources of a discovery
// document, or objects of a list.
func named(list []any) bool {
	return len(list) > 0 && !slices.ContainsFunc(list, func(v any) bool { return name(v) == "" })
}

// name is what an item of a list is found by.
func name(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	item, _ := v.(map[string]any)
	for _, named := range []any{item["metadata"], inner(item["object"])["metadata"]} {
		if s := text(named, "name"); s != "" {
			return text(named, "namespace") + "/" + s
		}
	}
	for _, key := range []string{"resource", "subresource", "name", "version"} {
		if s := text(item, key); s != "" {
			return "/" + s
		}
	}
	return ""
}

func inner(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func text(v any, key string) string {
	s, _ := inner(v)[key].(string)
	return s
}

func equal(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

func union(a, b map[string]any) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

// long is what makes names too long in the corpus.
var long = regexp.MustCompile(`(aaaa|bbbb)[ab]{40,}`)

// Short prints a value, and of a long one what it starts with.
func Short(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	const most = 400
	text := long.ReplaceAllString(string(data), "$1…")
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
