package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/leme-k8s/leme/test/conformance/differential/internal/diff"
)

// What no two runs have in common, in any text.
var (
	timestamp = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`)
	uuid      = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	podIP     = regexp.MustCompile(`\b10\.88\.\d+\.\d+\b`)
	nodeCIDR  = regexp.MustCompile(`\b10\.244\.\d+\.0/24\b`)
	serviceIP = regexp.MustCompile(`\b(10\.96\.\d+|192\.168\.7[789])\.\d+\b`) // the others are those of cluster.yaml
	shared    = regexp.MustCompile(`\bnode-[12]\b`)
	volume    = regexp.MustCompile(`kube-api-access-[a-z0-9]{5}\b`)
	jobGroup  = regexp.MustCompile(`\b([a-z0-9-]+?)-` + hash + `-([a-z0-9-]+-pgt-0)-` + hash + `\b`)
	workload  = regexp.MustCompile(`\b(Workload(?:\.scheduling\.k8s\.io)? "?[a-z0-9-]+)-` + hash + `\b`)
	hashed    = regexp.MustCompile(`-` + hash + `$`)
	minute    = regexp.MustCompile(`-[23]\d{7}\b`) // in the name of a CronJob's Job
)

// hash is what the names of the Workloads and PodGroups of Jobs end with, which comes from UIDs.
const hash = `[bcdfghjklmnpqrstvwxz2456789]{6,10}`

// combined begins the message of an event that stands for many.
const combined = "(combined from similar events): "

// A normaliser takes that out of the objects of a scenario.
type normaliser struct {
	ns        string
	generated *regexp.Regexp // nil if there are no generated names
}

// newNormaliser returns the one for a namespace and what generated names in it start with.
func newNormaliser(ns string, prefixes []string) *normaliser {
	n := &normaliser{ns: ns}
	if len(prefixes) == 0 {
		return n
	}
	longestFirst := slices.SortedFunc(slices.Values(prefixes), func(a, b string) int {
		return cmp.Or(len(b)-len(a), strings.Compare(a, b))
	})
	for i, p := range longestFirst {
		longestFirst[i] = regexp.QuoteMeta(p)
	}
	// The letters are those that the API server draws from.
	n.generated = regexp.MustCompile(`\b(` + strings.Join(longestFirst, "|") + `)[bcdfghjklmnpqrstvwxz2456789]{5}\b`)
	return n
}

func (n *normaliser) text(s string) string {
	s = strings.TrimPrefix(s, combined)
	if n.generated != nil {
		s = n.generated.ReplaceAllString(s, "$1…")
		s = n.generated.ReplaceAllString(s, "$1…") // what the rest of the name was generated from
	}
	s = strings.ReplaceAll(s, n.ns, "$NS")
	s = uuid.ReplaceAllString(s, "a UID")
	s = timestamp.ReplaceAllString(s, "a time")
	s = podIP.ReplaceAllString(s, "a pod's IP")
	s = serviceIP.ReplaceAllString(s, "a Service's IP")
	s = nodeCIDR.ReplaceAllString(s, "a node's CIDR")
	s = shared.ReplaceAllString(s, "a shared node")
	s = volume.ReplaceAllString(s, "kube-api-access-…")
	s = jobGroup.ReplaceAllString(s, "$1-…-$2-…")
	s = workload.ReplaceAllString(s, "$1-…")
	return minute.ReplaceAllString(s, "-minute")
}

// name is that of an object, or of a reference to one.
func (n *normaliser) name(kind, name string) string {
	if kind == "Workload" {
		name = hashed.ReplaceAllString(name, "-…")
	}
	return n.text(name)
}

// objects returns objects by kind and name, several of one name numbered, and events by
// what they are about and their reason.
func (n *normaliser) objects(list []*unstructured.Unstructured) map[string]any {
	same := map[string][]any{}
	events := map[string]*told{}
	for _, u := range list {
		if u.GetKind() == "Event" {
			n.event(events, u)
			continue
		}
		k := u.GetKind() + "/" + n.name(u.GetKind(), u.GetName())
		same[k] = append(same[k], n.object(u))
	}
	all := map[string]any{}
	for k, objects := range same {
		slices.SortFunc(objects, func(a, b any) int { return strings.Compare(text(a), text(b)) })
		for i, o := range objects {
			if i > 0 {
				all[fmt.Sprintf("%s #%d", k, i+1)] = o
			} else {
				all[k] = o
			}
		}
	}
	for k, e := range events {
		all[k] = e.value()
	}
	return all
}

// told is what events of one reason say of one object.
type told struct {
	kind, component string
	messages        map[string]bool
	times           int64
}

func (n *normaliser) event(all map[string]*told, u *unstructured.Unstructured) {
	at := func(fields ...string) string {
		s, _, _ := unstructured.NestedString(u.Object, fields...)
		return n.text(s)
	}
	k := fmt.Sprintf("Event of %s/%s: %s", at("involvedObject", "kind"), at("involvedObject", "name"), at("reason"))
	t := all[k]
	if t == nil {
		t = &told{messages: map[string]bool{}}
		all[k] = t
	}
	t.kind, t.component = at("type"), cmp.Or(at("source", "component"), at("reportingComponent"))
	t.messages[at("message")] = true
	count, _, _ := unstructured.NestedInt64(u.Object, "count")
	t.times += max(count, 1)
}

func (t *told) value() any {
	times := "once"
	if t.times > 1 {
		times = "several times"
	}
	var messages []any
	for _, m := range slices.Sorted(maps.Keys(t.messages)) {
		messages = append(messages, m)
	}
	return map[string]any{"type": t.kind, "component": t.component, "messages": messages, "times": times}
}

// object returns what is compared of an object.
func (n *normaliser) object(u *unstructured.Unstructured) any {
	generation := u.GetGeneration()
	v, _ := n.value("", u.Object, generation).(map[string]any)
	if m, ok := v["metadata"].(map[string]any); ok {
		for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "selfLink"} {
			delete(m, field)
		}
		m["name"] = n.name(u.GetKind(), u.GetName())
	}
	if kind := u.GetKind(); kind == "Endpoints" || kind == "EndpointSlice" {
		// It is left out by either side when a change was seen together with another.
		unstructured.RemoveNestedField(v, "metadata", "annotations", "endpoints.kubernetes.io/last-change-trigger-time")
		if annotations, _, _ := unstructured.NestedMap(v, "metadata", "annotations"); len(annotations) == 0 {
			unstructured.RemoveNestedField(v, "metadata", "annotations")
		}
	}
	if s, ok := v["status"].(map[string]any); ok && u.GetKind() == "CertificateSigningRequest" && s["certificate"] != nil {
		s["certificate"] = "a certificate"
	}
	if data, ok := v["data"].(map[string]any); ok && u.GetKind() == "Secret" && data["token"] != nil && v["type"] == "kubernetes.io/service-account-token" {
		data["token"] = "a token"
	}
	return v
}

func (n *normaliser) value(field string, v any, generation int64) any {
	switch v := v.(type) {
	case map[string]any:
		all := make(map[string]any, len(v))
		for k, e := range v {
			all[n.text(k)] = n.value(k, e, generation)
		}
		if name, ok := v["name"].(string); ok && v["kind"] == "Workload" {
			all["name"] = n.name("Workload", name)
		}
		if name, ok := v["workloadName"].(string); ok {
			all["workloadName"] = n.name("Workload", name)
		}
		return all
	case []any:
		list := make([]any, 0, len(v))
		for _, e := range v {
			list = append(list, n.value("", e, generation))
		}
		switch field {
		case "conditions":
			return byType(list)
		case "addresses", "notReadyAddresses", "endpoints", "ownerReferences", "finalizers", "taints": // whose order says nothing
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(text(a), text(b)) })
		}
		return list
	case string:
		if field == "resourceVersion" {
			return "…"
		}
		return n.text(v)
	case int64:
		if field == "observedGeneration" {
			if v == generation {
				return "current"
			}
			return "old"
		}
		if field == "nodePort" && v >= 30000 {
			return "a node port"
		}
	}
	return v
}

// byType makes a map of conditions.
func byType(list []any) any {
	all := map[string]any{}
	for _, c := range list {
		m, _ := c.(map[string]any)
		t, _ := m["type"].(string)
		if t == "" || all[t] != nil {
			return list
		}
		all[t] = m
	}
	return all
}

func text(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}

// compare says how a scenario has ended differently. What has gone wrong on both sides
// is wrong in the scenario.
func compare(original, leme outcome) []string {
	var d diff.Differences
	for i := range max(len(original.trouble), len(leme.trouble)) {
		switch {
		case i >= len(original.trouble):
			d.Lines = append(d.Lines, "trouble: leme adds "+leme.trouble[i])
		case i >= len(leme.trouble):
			d.Lines = append(d.Lines, "trouble: leme lacks "+original.trouble[i])
		default:
			d.Lines = append(d.Lines, "the scenario is wrong: "+original.trouble[i])
		}
	}
	keys := maps.Clone(original.objects)
	maps.Copy(keys, leme.objects)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		o, inOriginal := original.objects[k]
		l, inLeme := leme.objects[k]
		switch {
		case !inLeme:
			d.Lines = append(d.Lines, fmt.Sprintf("%s: leme lacks %s", k, diff.Short(o)))
		case !inOriginal:
			d.Lines = append(d.Lines, fmt.Sprintf("%s: leme adds %s", k, diff.Short(l)))
		default:
			d.Values(k, o, l)
		}
	}
	return d.Lines
}
