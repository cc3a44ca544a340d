package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	dryRun = "?dryRun=All"

	jsonPatch      = "application/json-patch+json"
	mergePatch     = "application/merge-patch+json"
	strategicPatch = "application/strategic-merge-patch+json"
	applyPatch     = "application/apply-patch+yaml"
	protobuf       = "application/vnd.kubernetes.protobuf"

	asTable   = "application/json;as=Table;v=v1;g=meta.k8s.io"
	asPartial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
)

// corpus makes the requests, from what the original says that it serves and from one
// valid object of each resource. It is the same in every run with the same seed.
type corpus struct {
	resources resources
	schemas   *Schemas
	examples  []example
	fixtures  []fixture
	seed      uint32
}

// fixture is an object of the round-trip tests of k8s.io/api, every field of which has a value.
type fixture struct {
	object   map[string]any
	protobuf []byte
}

func body(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("a body of the corpus: %v", err)) // it is made of maps, lists and plain values
	}
	return data
}

// keep is true for one of n, always the same ones.
func (c *corpus) keep(n uint32, what string) bool { return c.number(what)%n == 0 }

func (c *corpus) number(what string) uint32 {
	h := fnv.New32a()
	fmt.Fprint(h, c.seed, what)
	return h.Sum32()
}

// of returns the resource of an example, and whether the original serves it.
func (c *corpus) of(e example) (resource, bool) {
	if e.Path != "" {
		return resource{}, true
	}
	return c.resources.of(kindOf(e.Manifest))
}

func (c *corpus) collection(e example) string {
	if e.Path != "" {
		return e.Path
	}
	r, _ := c.of(e)
	return r.collection()
}

func (c *corpus) path(e example) string {
	return c.collection(e) + "/" + stringAt(e.Manifest, "metadata", "name")
}

// setup creates each example.
func (c *corpus) setup() []Request {
	var all []Request
	for _, e := range c.examples {
		if _, served := c.of(e); served && !e.Transient {
			all = append(all, Request{Group: "objects", Method: http.MethodPost, Path: c.collection(e), Body: body(e.Manifest)})
		}
	}
	return all
}

// creates send each example again, under another name and with each field broken, as dry runs.
func (c *corpus) creates() []Request {
	var all []Request
	seen := map[kind]bool{}
	for _, e := range c.examples {
		if _, served := c.of(e); !served {
			continue
		}
		object := e.toBreak()
		schema := c.schemas.kinds[kindOf(object)]
		add := func(what, query string, o any) {
			all = append(all, Request{Group: "create", What: what, Method: http.MethodPost, Path: c.collection(e) + dryRun + query, Body: body(o)})
		}
		add("", "", object)
		add("strict", "&fieldValidation=Strict", Change{Path: []any{"noSuchField"}, Value: 1}.apply(object))
		add("warn", "&fieldValidation=Warn", Change{Path: []any{"metadata", "noSuchField"}, Value: 1}.apply(object))
		changes := c.schemas.breakages(schema, object, seen[kindOf(object)])
		seen[kindOf(object)] = true
		for _, f := range c.fixtures {
			if kindOf(f.object) == kindOf(object) {
				changes = append(changes, subtrees(f.object)...)
			}
		}
		for _, change := range changes {
			what := change.String()
			if inStatus(change.Path) && !c.keep(4, what) || !c.keep(share(change.Path), c.collection(e)+what) {
				continue
			}
			add(what, "", change.apply(object))
		}
	}
	return all
}

// share is how many changes of a field of an object there are for each one that is
// tried: what all objects have is tried often anyway.
func share(path []any) uint32 {
	switch i := slices.Index(path, any("template")); {
	case path[0] == "metadata":
		return 4
	case i >= 0 && len(path) > i+2:
		return 24
	case slices.Contains(path, any("initContainers")) || slices.Contains(path, any("ephemeralContainers")):
		return 4 // like containers
	}
	return 2
}

func inStatus(path []any) bool { return path[0] == "status" }

// subtrees returns what a fixture has below the top as changes of another object.
func subtrees(fixture map[string]any) []Change {
	var all []Change
	var walk func(path []any, v any)
	walk = func(path []any, v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				if !serverOwned(path, key) {
					walk(append(path[:len(path):len(path)], key), v[key])
				}
			}
		case []any:
			for i, e := range v {
				walk(append(path[:len(path):len(path)], i), e)
			}
		default:
			return
		}
		if len(path) > 0 {
			all = append(all, Change{Path: path, Value: v})
		}
	}
	walk(nil, fixture)
	return all
}

// updates change each stored example in each field, as dry runs by all the ways to change an object.
func (c *corpus) updates() []Request {
	var all []Request
	seen := map[kind]bool{}
	for _, e := range c.examples {
		r, served := c.of(e)
		if !served || e.Transient || !r.has("update") {
			continue
		}
		schema := c.schemas.kinds[kindOf(e.Manifest)]
		changes := c.schemas.breakages(schema, e.Manifest, seen[kindOf(e.Manifest)])
		seen[kindOf(e.Manifest)] = true
		for i, change := range changes {
			what := change.String()
			n := 2 * share(change.Path)
			switch {
			case inStatus(change.Path) && !r.hasSubresource("status"):
			case !c.keep(n, "update"+c.path(e)+what):
			case inStatus(change.Path):
				all = append(all, c.change("status", c.path(e)+"/status", e, change, i))
			default:
				all = append(all, c.change("update", c.path(e), e, change, i))
			}
		}
	}
	return all
}

// change is a request that makes a change in one of five ways.
func (c *corpus) change(group, path string, e example, change Change, way int) Request {
	r := Request{Group: group, What: change.String(), Method: http.MethodPatch, Path: path + dryRun, ContentType: jsonPatch}
	merge, mergeable := change.mergePatch()
	switch {
	case way%5 == 0 || way%5 == 1 && !mergeable:
		r.Method, r.ContentType, r.Of = http.MethodPut, "", c.path(e)
		r.Replace = &change
	case way%5 == 1:
		r.ContentType, r.Body = mergePatch, body(merge)
	case way%5 == 2 && mergeable:
		r.ContentType, r.Body = strategicPatch, body(merge)
	case way%5 == 3 && mergeable:
		merge["apiVersion"], merge["kind"] = e.Manifest["apiVersion"], e.Manifest["kind"]
		if _, ok := merge["metadata"]; !ok {
			merge["metadata"] = map[string]any{"name": stringAt(e.Manifest, "metadata", "name")}
		}
		r.ContentType, r.Body = applyPatch, body(merge)
		r.Path += "&fieldManager=differential&force=true"
	default:
		r.Body = body(change.jsonPatch())
	}
	return r
}

// fixtureRequests create and apply the round-trip fixtures.
func (c *corpus) fixtureRequests() []Request {
	var all []Request
	for _, f := range c.fixtures {
		r, served := c.resources.of(kindOf(f.object))
		if !served || !r.has("create") {
			continue
		}
		path := r.collection()
		add := func(q Request) {
			q.Group = "fixtures"
			all = append(all, q)
		}
		add(Request{What: "as it is", Method: http.MethodPost, Path: path + dryRun, Body: body(f.object)})
		add(Request{What: "protobuf", Method: http.MethodPost, Path: path + dryRun, ContentType: protobuf, Body: f.protobuf})
		o := clone(f.object).(map[string]any)
		meta := o["metadata"].(map[string]any)
		for _, field := range []string{"resourceVersion", "namespace", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "generateName"} {
			delete(meta, field)
		}
		meta["name"] = "fixture"
		meta["finalizers"] = []any{"example.com/finalizer"}
		for _, part := range []string{"", "spec", "status"} {
			if _, has := o[part]; !has && part != "" {
				continue
			}
			sent := clone(o).(map[string]any)
			delete(sent, part)
			what := "without " + part
			add(Request{What: what, Method: http.MethodPost, Path: path + dryRun, Body: body(sent)})
			if !r.has("patch") {
				continue
			}
			item := path + "/fixture" + dryRun
			add(Request{What: what, Method: http.MethodPatch, Path: item + "&fieldManager=differential", ContentType: applyPatch, Body: body(sent)})
			add(Request{What: what, Method: http.MethodPut, Path: item, Body: body(sent)})
		}
	}
	return all
}

// reads are lists, gets and watches, good and bad, of each resource.
func (c *corpus) reads() []Request {
	var all []Request
	seen := map[string]bool{}
	for _, e := range c.examples {
		r, served := c.of(e)
		if !served || e.Transient {
			continue
		}
		get := func(group, path, accept string, query ...string) {
			if len(query) > 0 {
				path += "?" + strings.Join(query, "&")
			}
			all = append(all, Request{Group: group, Method: http.MethodGet, Path: path, Accept: accept})
		}
		item, list := c.path(e), r.collection()
		get("read", item, "")
		for _, accept := range []string{asTable, asPartial, "application/yaml", "text/html", "application/json;as=Table;v=v1beta1;g=meta.k8s.io", "application/json;as=Scale;v=v1;g=autoscaling"} {
			get("read", item, accept)
		}
		get("table", item, asTable, "includeObject=None")
		get("table", item, asTable, "includeObject=Object")
		get("table", item, asTable, "includeObject=Bogus")
		get("read", item, "", "resourceVersion=0")
		get("read", item, "", "resourceVersion=x")
		get("read", item+"x", "")
		get("read", item+"/nosuchsubresource", "")
		for _, s := range r.subresources {
			if slices.Contains(s.Verbs, "get") && !slices.Contains([]string{"log", "exec", "attach", "portforward", "proxy"}, s.Subresource) {
				get("subresource", item+"/"+s.Subresource, "")
				get("subresource", item+"/"+s.Subresource, asTable)
			}
		}
		if seen[list] {
			continue
		}
		seen[list] = true
		get("read", list, "")
		get("table", list, asTable)
		get("table", list, asTable, "includeObject=None")
		for _, accept := range []string{"application/yaml", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"} {
			get("read", list, accept)
		}
		if r.namespaced {
			get("read", r.prefix()+"/"+r.name, "")
			get("table", r.prefix()+"/"+r.name, asTable)
		}
		for _, selector := range selectors {
			get("selector", list, "", selector)
		}
		for _, field := range fieldSelectors {
			get("selector", list, "", "fieldSelector="+url.QueryEscape(field))
		}
		get("watch", list, "", "watch=1", "timeoutSeconds=1")
		get("watch", list, "", "watch=1", "timeoutSeconds=1", "resourceVersion=0")
		get("watch", list, "", "watch=1", "timeoutSeconds=1", "resourceVersion=x")
		get("watch", list, "", "watch=1", "timeoutSeconds=1", "sendInitialEvents=true")
		get("watch", list, "", "watch=1", "timeoutSeconds=1", "sendInitialEvents=true", "resourceVersionMatch=NotOlderThan", "allowWatchBookmarks=true")
		get("watch", list, asTable, "watch=1", "timeoutSeconds=1")
	}
	return all
}

var selectors = []string{
	"labelSelector=app%3Da", "labelSelector=app%21%3Da", "labelSelector=app+in+%28a%2Cb%29", "labelSelector=%21app", "labelSelector=app+in", "labelSelector=A+b",
	"labelSelector=" + strings.Repeat("a", 300), "limit=1", "limit=-1", "limit=x", "limit=1&continue=bogus", "continue=bogus", "resourceVersion=0", "resourceVersion=x",
	"resourceVersion=-1", "resourceVersion=0&resourceVersionMatch=Exact", "resourceVersion=1&resourceVersionMatch=Exact", "resourceVersion=0&resourceVersionMatch=NotOlderThan",
	"resourceVersionMatch=Exact", "resourceVersionMatch=Bogus&resourceVersion=1", "resourceVersion=99999999999", "timeoutSeconds=x", "sendInitialEvents=true", "allowWatchBookmarks=x", "pretty=true",
}

var fieldSelectors = []string{
	"metadata.name=a", "metadata.name!=a", "metadata.namespace=test", "metadata.namespace=default", "metadata.uid=x", "metadata.labels=x", "spec.x=y", "status.phase=Pending", "status.phase=", "spec.nodeName=",
	"spec.nodeName=n1", "spec.schedulerName=default-scheduler", "spec.restartPolicy=Always", "spec.serviceAccountName=default", "spec.hostNetwork=false", "status.podIP=", "status.nominatedNodeName=",
	"spec.unschedulable=false", "type=Opaque", "type=Normal", "reason=Because", "involvedObject.kind=Pod", "regarding.kind=Pod", "source=", "reportingComponent=", "status.successful=0", "status.replicas=0",
	"spec.signerName=", "spec.clusterIP=None", "spec.type=NodePort", "metadata.name", "metadata.name=a,", "=a", "spec.driver=x", "spec.storageClassName=", "spec.parentRef.name=a",
}

// wrongs are requests that are wrong as a whole, whatever the resource.
func (c *corpus) wrongs() []Request {
	var all []Request
	for _, e := range c.examples {
		r, served := c.of(e)
		if !served || e.Transient {
			continue
		}
		add := func(what, method, path, contentType string, b []byte) {
			all = append(all, Request{Group: "wrong", What: what, Method: method, Path: path, ContentType: contentType, Body: b})
		}
		list, item, o := c.collection(e), c.path(e), e.toBreak()
		set := func(value any, path ...any) []byte { return body(Change{Path: path, Value: value}.apply(o)) }
		add("exists", http.MethodPost, list, "", body(e.Manifest))
		for _, text := range []string{"{", "[]", "null", `"x"`, "{}", `{"a":1}`, "a: b", "\x00"} {
			add("body "+text, http.MethodPost, list+dryRun, "", []byte(text))
		}
		add("no body", http.MethodPost, list+dryRun, "", nil)
		add("YAML", http.MethodPost, list+dryRun, "application/yaml", body(o))
		add("protobuf", http.MethodPost, list+dryRun, protobuf, []byte("k8s\x00bogus"))
		add("text", http.MethodPost, list+dryRun, "text/plain", body(o))
		add("kind", http.MethodPost, list+dryRun, "", set("Bogus", "kind"))
		add("other kind", http.MethodPost, list+dryRun, "", set("ConfigMapList", "kind"))
		add("version", http.MethodPost, list+dryRun, "", set("apps/v9", "apiVersion"))
		add("namespace", http.MethodPost, list+dryRun, "", set("other", "metadata", "namespace"))
		add("resourceVersion", http.MethodPost, list+dryRun, "", set("1", "metadata", "resourceVersion"))
		add("uid", http.MethodPost, list+dryRun, "", set("u", "metadata", "uid"))
		add("deletionTimestamp", http.MethodPost, list+dryRun, "", set("2026-01-01T00:00:00Z", "metadata", "deletionTimestamp"))
		add("generation", http.MethodPost, list+dryRun, "", set(7, "metadata", "generation"))
		add("managedFields", http.MethodPost, list+dryRun, "", set([]any{map[string]any{"manager": "x"}}, "metadata", "managedFields"))
		generated := Change{Path: []any{"metadata", "generateName"}, Value: "gen-"}.apply(Change{Path: []any{"metadata", "name"}, Remove: true}.apply(o))
		add("generateName", http.MethodPost, list+dryRun, "", body(generated))
		add("dry run", http.MethodPost, list+"?dryRun=Some", "", body(o))
		add("field validation", http.MethodPost, list+dryRun+"&fieldValidation=Bogus", "", body(o))
		add("field manager", http.MethodPost, list+dryRun+"&fieldManager="+strings.Repeat("m", 200), "", body(o))
		add("duplicate field", http.MethodPost, list+dryRun+"&fieldValidation=Strict", "", []byte(strings.Replace(string(body(o)), "{", `{"kind":"x",`, 1)))
		add("", http.MethodPut, list, "", body(o))
		add("", http.MethodPost, item, "", body(o))
		add("", http.MethodOptions, list, "", nil)
		add("", http.MethodHead, item, "", nil)
		if r.namespaced {
			add("no namespace", http.MethodPost, r.prefix()+"/"+r.name+dryRun, "", body(o))
			add("missing namespace", http.MethodPost, r.prefix()+"/namespaces/nosuch/"+r.name+dryRun, "", set("nosuch", "metadata", "namespace"))
		}
		add("missing", http.MethodPut, item+"x"+dryRun, "", body(Change{Path: []any{"metadata", "name"}, Value: stringAt(e.Manifest, "metadata", "name") + "x"}.apply(o)))
		add("name", http.MethodPut, item+dryRun, "", set("another", "metadata", "name"))
		add("no resourceVersion", http.MethodPut, item+dryRun, "", body(e.Manifest))
		add("conflict", http.MethodPut, item+dryRun, "", body(Change{Path: []any{"metadata", "resourceVersion"}, Value: "1"}.apply(e.Manifest)))
		add("bad resourceVersion", http.MethodPut, item+dryRun, "", body(Change{Path: []any{"metadata", "resourceVersion"}, Value: "x"}.apply(e.Manifest)))
		add("other uid", http.MethodPut, item+dryRun, "", body(Change{Path: []any{"metadata", "uid"}, Value: "x"}.apply(e.Manifest)))
		add("missing", http.MethodPatch, item+"x"+dryRun, mergePatch, []byte("{}"))
		add("empty", http.MethodPatch, item+dryRun, mergePatch, []byte("{}"))
		add("empty", http.MethodPatch, item+dryRun, strategicPatch, []byte("{}"))
		add("type", http.MethodPatch, item+dryRun, "application/json", []byte("{}"))
		add("no list", http.MethodPatch, item+dryRun, jsonPatch, []byte("{}"))
		add("no op", http.MethodPatch, item+dryRun, jsonPatch, []byte(`[{"path":"/a"}]`))
		add("test", http.MethodPatch, item+dryRun, jsonPatch, []byte(`[{"op":"test","path":"/kind","value":"x"}]`))
		add("path", http.MethodPatch, item+dryRun, jsonPatch, []byte(`[{"op":"replace","path":"/no/such","value":"x"}]`))
		add("unknown field", http.MethodPatch, item+dryRun+"&fieldValidation=Strict", mergePatch, []byte(`{"noSuchField":1}`))
		add("directive", http.MethodPatch, item+dryRun, strategicPatch, []byte(`{"metadata":{"labels":{"$patch":"replace","a":"b"}}}`))
		add("bad directive", http.MethodPatch, item+dryRun, strategicPatch, []byte(`{"metadata":{"$patch":"bogus"}}`))
		add("name", http.MethodPatch, item+dryRun, mergePatch, []byte(`{"metadata":{"name":"another"}}`))
		add("no manager", http.MethodPatch, item+dryRun, applyPatch, body(e.Manifest))
		add("conflict", http.MethodPatch, item+dryRun+"&fieldManager=other", applyPatch, body(e.Manifest))
		add("no kind", http.MethodPatch, item+dryRun+"&fieldManager=other", applyPatch, []byte("metadata: {}"))
		add("managed fields", http.MethodPatch, item+dryRun+"&fieldManager=other", applyPatch, []byte(`{"apiVersion":"v1","kind":"X","metadata":{"managedFields":[]}}`))
		add("force", http.MethodPatch, item+dryRun+"&force=true", mergePatch, []byte("{}"))
		add("", http.MethodDelete, item+dryRun, "", nil)
		add("missing", http.MethodDelete, item+"x"+dryRun, "", nil)
		// Options in the body hide those of the query.
		for _, options := range []string{
			`"propagationPolicy":"Bogus"`, `"propagationPolicy":"Foreground"`, `"propagationPolicy":"Orphan"`, `"orphanDependents":true`, `"orphanDependents":true,"propagationPolicy":"Orphan"`,
			`"gracePeriodSeconds":-1`, `"gracePeriodSeconds":0`, `"gracePeriodSeconds":5`, `"preconditions":{"uid":"x"}`, `"preconditions":{"resourceVersion":"1"}`, `"kind":"Bogus"`,
			`"ignoreStoreReadErrorWithClusterBreakingPotential":true`,
		} {
			add(options, http.MethodDelete, item, "", []byte(`{"dryRun":["All"],`+options+`}`))
		}
		add("dry run", http.MethodDelete, item, "", []byte(`{"dryRun":["Some"]}`))
		add("", http.MethodDelete, list+dryRun, "", nil)
		add("selected", http.MethodDelete, list+dryRun+"&labelSelector=app%3Da", "", nil)
		add("none", http.MethodDelete, list+dryRun+"&fieldSelector=metadata.name%3Dnosuch", "", nil)
		add("bad selector", http.MethodDelete, list+dryRun+"&fieldSelector=no.such%3Dx", "", nil)
	}
	return all
}

// lives change the stored examples for real, one request after the other.
func (c *corpus) lives() []Request {
	var all []Request
	for _, e := range c.examples {
		r, served := c.of(e)
		if !served || e.Transient {
			continue
		}
		item := c.path(e)
		add := func(what, method, path, contentType string, b any) {
			all = append(all, Request{Group: "life", What: what, Method: method, Path: path, ContentType: contentType, Body: body(b)})
		}
		if r.has("patch") {
			for _, kind := range []string{mergePatch, strategicPatch} {
				add("label", http.MethodPatch, item, kind, map[string]any{"metadata": map[string]any{"labels": map[string]any{"by": kind[12:17]}}})
			}
			add("annotation", http.MethodPatch, item, jsonPatch, []any{map[string]any{"op": "add", "path": "/metadata/annotations", "value": map[string]any{"a": "b"}}})
			add("again", http.MethodPatch, item+"?fieldManager=life&force=true", applyPatch, e.Manifest)
		}
		if r.hasSubresource("status") {
			for _, f := range c.fixtures {
				if status, has := f.object["status"]; has && kindOf(f.object) == kindOf(e.Manifest) {
					add("status", http.MethodPatch, item+"/status", mergePatch, map[string]any{"status": status})
				}
			}
		}
		if r.hasSubresource("scale") {
			add("scale", http.MethodPatch, item+"/scale", mergePatch, map[string]any{"spec": map[string]any{"replicas": 3}})
			add("scale", http.MethodPatch, item+"/scale", mergePatch, map[string]any{"spec": map[string]any{"replicas": -3}})
		}
		all = append(all, Request{Group: "life", Method: http.MethodGet, Path: item}, Request{Group: "life", Method: http.MethodGet, Path: item, Accept: asTable})
	}
	return all
}

// ends delete the examples, the last one first.
func (c *corpus) ends() []Request {
	var all []Request
	for _, e := range slices.Backward(c.examples) {
		if _, served := c.of(e); served && !e.Transient {
			all = append(all, Request{Group: "objects", Method: http.MethodDelete, Path: c.path(e)}, Request{Group: "objects", Method: http.MethodGet, Path: c.path(e)})
		}
	}
	return all
}

// documents are discovery and OpenAPI.
func (c *corpus) documents(openAPI []string) []Request {
	var all []Request
	add := func(group, path, accept string) {
		all = append(all, Request{Group: group, Method: http.MethodGet, Path: path, Accept: accept})
	}
	for _, root := range []string{"/api", "/apis"} {
		add("discovery", root, "")
		for _, version := range []string{"v2", "v2beta1"} {
			add("discovery", root, "application/json;g=apidiscovery.k8s.io;v="+version+";as=APIGroupDiscoveryList")
		}
	}
	seen := map[string]bool{}
	for _, r := range c.resources {
		for _, path := range []string{r.prefix(), "/apis/" + r.group} {
			if !seen[path] && path != "/apis/" {
				seen[path] = true
				add("discovery", path, "")
			}
		}
	}
	for _, path := range []string{"/", "/version", "/nosuch", "/apis/no.such", "/apis/apps/v9", "/api/v9", "/healthz/nosuch", "/.well-known/openid-configuration", "/openid/v1/jwks"} {
		add("discovery", path, "")
	}
	add("openapi", "/openapi/v2", "")
	add("openapi", "/openapi/v3", "")
	for _, path := range openAPI {
		add("openapi", path, "")
	}
	return all
}
