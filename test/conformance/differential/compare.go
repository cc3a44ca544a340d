package main

import "github.com/leme-k8s/leme/test/conformance/differential/internal/diff"

// compare says how the answer of Leme differs from that of the original. Both are
// normalised.
func compare(original, leme Answer) []string {
	var d diff.Differences
	if original.Code != leme.Code {
		d.Add("code", original.Code, leme.Code)
	}
	if original.ContentType != leme.ContentType {
		d.Add("content type", original.ContentType, leme.ContentType)
	}
	d.Sets("warning", toAny(original.Warnings), toAny(leme.Warnings))
	d.Values("", original.Body, leme.Body)
	return d.Lines
}

func toAny(list []string) []any {
	all := make([]any, len(list))
	for i, s := range list {
		all[i] = s
	}
	return all
}
