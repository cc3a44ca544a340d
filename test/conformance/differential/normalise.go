package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"
)

// What two servers cannot agree on, in any text.
var (
	timestamp = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$`)
	uuid      = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	generated = regexp.MustCompile(`(kube-api-access-|generateNameValue|gen-)[a-z0-9]{5}\b`)
	current   = regexp.MustCompile(`(Too large resource version: \d+, current: )\d+`)
	internal  = regexp.MustCompile(`\((\w+\.)?[a-z0-9]+\.([A-Z]\w+)\)`) // a Go type, the original's being internal ones
	revision  = regexp.MustCompile(`(ResourceVersion in (?:object meta: |record \())\d+`)
	hash      = regexp.MustCompile(`\?hash=[^"&]+`)
	ipRange   = regexp.MustCompile(`(The range of valid IPs is )\S+?(")?$`) // any one of several
	serviceIP = regexp.MustCompile(`^10\.9[67]\.\d+\.\d+$`)
	nodePort  = regexp.MustCompile(`^3[0-2]\d{3}$`)
	mapped    = regexp.MustCompile(`:3[0-2]\d{3}/(TCP|UDP|SCTP)`) // in a cell
	// What is printed of a Go struct: the original prints its internal types, which have
	// other names for fields. What is wrong with the value is said before and behind it.
	printed = regexp.MustCompile(`(?s)((?:Invalid|Unsupported|Duplicate) value: |Not found: )("?[\[{]).*[\]}]`)
	age     = regexp.MustCompile(`^\d+[smh](\d+s)?$`)
)

// normaliser takes out of answers what differs between any two servers.
type normaliser struct {
	port string // of the server
	// today are the dates of timestamps that were made during the run.
	today []string
}

func (n normaliser) answer(a Answer) Answer {
	if events, ok := a.Body.([]any); ok { // whether a bookmark comes before the watch ends is chance
		a.Body = slices.DeleteFunc(events, func(e any) bool { return stringAt(e, "type") == "BOOKMARK" })
	}
	a.Body = n.value("", a.Body)
	for i, w := range a.Warnings {
		a.Warnings[i] = n.text(w)
	}
	if status, ok := a.Body.(map[string]any); ok && status["kind"] == "Status" {
		withoutCauses(status)
	}
	return a
}

// withoutCauses shortens the message of a Status to what its causes do not repeat:
// their order is that of a map in some places.
func withoutCauses(status map[string]any) {
	causes, _ := lookup(status, "details", "causes")
	message := stringAt(status, "message")
	if list, _ := causes.([]any); len(list) > 0 {
		head, _, found := strings.Cut(message, " is invalid: ")
		if found {
			status["message"] = head + " is invalid"
		}
	}
}

func (n normaliser) value(field string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = n.value(k, e)
		}
	case []any:
		for i, e := range v {
			v[i] = n.value(field, e)
		}
	case string:
		if v != "" && v == n.port {
			return "the server's port"
		}
		switch field {
		case "gitTreeState", "gitCommit", "buildDate", "goVersion": // of a build, not of a version
			return "…"
		case "resourceVersion", "continue", "token":
			if v != "" && v != "0" {
				return "…"
			}
		case "clusterIP", "clusterIPs":
			return serviceIP.ReplaceAllString(v, "a service's IP")
		case "cells":
			return n.text(age.ReplaceAllString(serviceIP.ReplaceAllString(v, "a service's IP"), "an age"))
		}
		return n.text(v)
	case json.Number:
		switch {
		case (field == "nodePort" || field == "healthCheckNodePort") && nodePort.MatchString(v.String()):
			return "a node port"
		case v.String() == n.port:
			return "the server's port"
		}
	}
	return v
}

func (n normaliser) text(s string) string {
	if timestamp.MatchString(s) && slices.Contains(n.today, s[:len(time.DateOnly)]) {
		return "now"
	}
	s = revision.ReplaceAllString(s, "$1…")
	s = current.ReplaceAllString(s, "$1…")
	s = internal.ReplaceAllString(s, "($2)")
	s = uuid.ReplaceAllString(s, "a UID")
	s = generated.ReplaceAllString(s, "$1…")
	s = printed.ReplaceAllString(s, "$1{…}")
	if strings.Contains(s, "may not change fields other than") {
		s, _, _ = strings.Cut(s, "\n") // then it prints both structs
	}
	s = mapped.ReplaceAllString(s, ":a node port/$1")
	s = hash.ReplaceAllString(s, "")
	s = ipRange.ReplaceAllString(s, "$1…")
	if n.port != "" {
		s = strings.ReplaceAll(s, ":"+n.port, ":the server's port")
	}
	return s
}
