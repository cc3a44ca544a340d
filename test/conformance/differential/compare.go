package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// compare says how the answer of Leme differs from that of the original. Both are
// normalised.
func compare(original, leme Answer) []string {
	var d differences
	if original.Code != leme.Code {
		d.add("code", original.Code, leme.Code)
	}
	if original.ContentType != leme.ContentType {
		d.add("content type", original.ContentType, leme.ContentType)
	}
	d.sets("warning", toAny(original.Warnings), toAny(leme.Warnings))
	d.values("", original.Body, leme.Body)
	return d.lines
}

type differences struct{ lines []string }

func (d *differences) add(where string, original, leme any) {
	d.lines = append(d.lines, fmt.Sprintf("%s: original %s, leme %s", where, short(original), short(leme)))
}

func (d *differences) values(path string, original, leme any) {
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
				d.lines = append(d.lines, fmt.Sprintf("%s: leme lacks %s", below, short(ov)))
			case !inOriginal:
				d.lines = append(d.lines, fmt.Sprintf("%s: leme adds %s", below, short(lv)))
			default:
				d.values(below, ov, lv)
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
			d.sets(path, distinct(o), distinct(l))
			return
		case named(o) && named(l), strings.HasSuffix(path, "Rules"): // of a SelfSubjectRulesReview
			d.sets(path, o, l)
			return
		}
		for i := range max(len(o), len(l)) {
			below := fmt.Sprintf("%s[%d]", path, i)
			switch {
			case i >= len(l):
				d.lines = append(d.lines, fmt.Sprintf("%s: leme lacks %s", below, short(o[i])))
			case i >= len(o):
				d.lines = append(d.lines, fmt.Sprintf("%s: leme adds %s", below, short(l[i])))
			default:
				d.values(below, o[i], l[i])
			}
		}
		return
	}
	if !equal(original, leme) {
		d.add(path, original, leme)
	}
}

// sets compares lists whose order says nothing: causes, warnings, and objects that
// have names.
func (d *differences) sets(path string, original, leme []any) {
	rest := slices.Clone(leme)
	for _, o := range original {
		i := slices.IndexFunc(rest, func(l any) bool { return name(o) != "" && name(o) == name(l) || equal(o, l) })
		if i < 0 {
			d.lines = append(d.lines, fmt.Sprintf("%s: leme lacks %s", path, short(o)))
			continue
		}
		d.values(path+"["+name(o)+"]", o, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	for _, l := range rest {
		d.lines = append(d.lines, fmt.Sprintf("%s: leme adds %s", path, short(l)))
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
	for _, path := range [][]any{{"metadata", "name"}, {"object", "metadata", "name"}, {"resource"}, {"subresource"}, {"name"}, {"version"}} {
		if s := stringAt(v, path...); s != "" {
			namespace := stringAt(v, "metadata", "namespace") + stringAt(v, "object", "metadata", "namespace")
			return namespace + "/" + s
		}
	}
	return ""
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

func toAny(list []string) []any {
	all := make([]any, len(list))
	for i, s := range list {
		all[i] = s
	}
	return all
}

// long is what makes names too long in the corpus.
var long = regexp.MustCompile(`(aaaa|bbbb)[ab]{40,}`)

// short prints a value, and of a long one what it starts with.
func short(v any) string {
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
