package controllertest

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// LaggingAPI stores objects as an API server does, and lets a test hold back what
// its watches tell: the one thing that a real one cannot be made to do.
type LaggingAPI struct {
	mu        sync.Mutex
	changed   *sync.Cond
	version   int
	resources map[string]*resource // by the last part of the path, such as "pods"
	closed    bool
	url       string
}

type resource struct {
	apiVersion, kind string
	objects          map[string]*unstructured.Unstructured
	log              []logged
	until            int            // the last version that watches tell
	writes           map[string]int // by method
}

type logged struct {
	version int
	kind    string
	object  []byte
}

// StartLaggingAPI serves the given resources: their names and "apiVersion/Kind".
func StartLaggingAPI(t testing.TB, kinds map[string]string) *LaggingAPI {
	a := &LaggingAPI{version: 1, resources: map[string]*resource{}}
	a.changed = sync.NewCond(&a.mu)
	for name, kind := range kinds {
		i := strings.LastIndex(kind, "/")
		a.resources[name] = &resource{apiVersion: kind[:i], kind: kind[i+1:], until: math.MaxInt, objects: map[string]*unstructured.Unstructured{}, writes: map[string]int{}}
	}
	s := httptest.NewServer(a)
	a.url = s.URL
	t.Cleanup(func() {
		a.mu.Lock()
		a.closed = true
		a.changed.Broadcast()
		a.mu.Unlock()
		s.Close()
	})
	return a
}

// Config returns how to reach the API.
func (a *LaggingAPI) Config() *rest.Config {
	return &rest.Config{Host: a.url, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json", AcceptContentTypes: "application/json"}}
}

// Hold keeps the watches of a resource from telling anything that happens from now on, until Release.
func (a *LaggingAPI) Hold(resource string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.resources[resource].until = a.version
}

// Release lets the watches of a resource tell what they have kept, and all that follows.
func (a *LaggingAPI) Release(resource string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.resources[resource].until = math.MaxInt
	a.changed.Broadcast()
}

// Writes returns how many requests of a method have changed a resource.
func (a *LaggingAPI) Writes(resource, method string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.resources[resource].writes[method]
}

// ServeHTTP implements http.Handler.
func (a *LaggingAPI) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	namespace, name, sub := "", "", ""
	for i, p := range parts {
		if r := a.resources[p]; r != nil {
			if i >= 2 && parts[i-2] == "namespaces" {
				namespace = parts[i-1]
			}
			if len(parts) > i+1 {
				name = parts[i+1]
			}
			if len(parts) > i+2 {
				sub = parts[i+2]
			}
			if req.Method == http.MethodGet && req.URL.Query().Get("watch") != "" {
				a.watch(w, req, r)
				return
			}
			a.serve(w, req, r, namespace, name, sub)
			return
		}
	}
	http.NotFound(w, req)
}

func (a *LaggingAPI) serve(w http.ResponseWriter, req *http.Request, r *resource, namespace, name, sub string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	status := func(code int, reason string) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q}`, code, reason)
	}
	current := r.objects[namespace+"/"+name]
	if name != "" && current == nil {
		status(http.StatusNotFound, "NotFound")
		return
	}
	var in unstructured.Unstructured
	if req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch {
		if err := json.NewDecoder(req.Body).Decode(&in.Object); err != nil {
			status(http.StatusBadRequest, "BadRequest")
			return
		}
	}
	switch req.Method {
	case http.MethodGet:
		if name != "" {
			a.reply(w, current)
			return
		}
		list := map[string]any{"kind": r.kind + "List", "apiVersion": r.apiVersion, "metadata": map[string]any{"resourceVersion": strconv.Itoa(a.version)}}
		items := []any{}
		for _, o := range r.objects {
			items = append(items, o.Object)
		}
		list["items"] = items
		_ = json.NewEncoder(w).Encode(list)
		return
	case http.MethodPost:
		if in.GetName() == "" {
			in.SetName(fmt.Sprintf("%s%05d", in.GetGenerateName(), a.version))
		}
		in.SetNamespace(namespace)
		in.SetUID(types.UID(fmt.Sprint("uid-", a.version)))
		in.SetAPIVersion(r.apiVersion)
		in.SetKind(r.kind)
		in.SetGeneration(1)
		a.record(r, "ADDED", &in)
		r.writes[req.Method]++
		a.reply(w, &in)
	case http.MethodPut, http.MethodPatch:
		if req.Method == http.MethodPatch { // merge patches, and lists that lose values, are all that is sent here
			in.Object = merged(current.DeepCopy().Object, in.Object)
		}
		if v := in.GetResourceVersion(); v != "" && v != current.GetResourceVersion() {
			status(http.StatusConflict, "Conflict")
			return
		}
		next := current.DeepCopy()
		if sub == "status" {
			next.Object["status"] = in.Object["status"]
		} else {
			next.Object["spec"] = in.Object["spec"]
			next.SetAnnotations(in.GetAnnotations())
			next.SetFinalizers(in.GetFinalizers())
		}
		a.record(r, "MODIFIED", next)
		r.writes[req.Method]++
		a.reply(w, next)
	case http.MethodDelete:
		a.record(r, "DELETED", current)
		delete(r.objects, namespace+"/"+name)
		r.writes[req.Method]++
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	default:
		status(http.StatusMethodNotAllowed, "MethodNotAllowed")
	}
}

// merged returns an object with a patch.
func merged(o, patch map[string]any) map[string]any {
	for key, value := range patch {
		if list, found := strings.CutPrefix(key, "$deleteFromPrimitiveList/"); found {
			have, _ := o[list].([]any)
			gone, _ := value.([]any)
			o[list] = slices.DeleteFunc(have, func(v any) bool { return slices.Contains(gone, v) })
			continue
		}
		inner, isMap := value.(map[string]any)
		old, wasMap := o[key].(map[string]any)
		switch {
		case value == nil:
			delete(o, key)
		case isMap && wasMap:
			o[key] = merged(old, inner)
		default:
			o[key] = value
		}
	}
	return o
}

func (a *LaggingAPI) reply(w http.ResponseWriter, o *unstructured.Unstructured) {
	_ = json.NewEncoder(w).Encode(o.Object)
}

func (a *LaggingAPI) record(r *resource, kind string, o *unstructured.Unstructured) {
	a.version++
	o.SetResourceVersion(strconv.Itoa(a.version))
	data, _ := json.Marshal(o.Object)
	r.log = append(r.log, logged{a.version, kind, data})
	r.objects[o.GetNamespace()+"/"+o.GetName()] = o
	a.changed.Broadcast()
}

func (a *LaggingAPI) watch(w http.ResponseWriter, req *http.Request, r *resource) {
	if req.URL.Query().Get("sendInitialEvents") != "" { // clients then list
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":422,"reason":"Invalid"}`)
		return
	}
	from, _ := strconv.Atoi(req.URL.Query().Get("resourceVersion"))
	w.Header().Set("Content-Type", "application/json")
	w.(http.Flusher).Flush()
	go func() { // wakes the loop below when the client goes
		<-req.Context().Done()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.changed.Broadcast()
	}()
	for {
		a.mu.Lock()
		var events []logged
		for !a.closed && req.Context().Err() == nil {
			for _, e := range r.log {
				if e.version > from && e.version <= r.until {
					events = append(events, e)
				}
			}
			if len(events) > 0 {
				break
			}
			a.changed.Wait()
		}
		a.mu.Unlock()
		if len(events) == 0 {
			return
		}
		for _, e := range events {
			fmt.Fprintf(w, `{"type":%q,"object":%s}`+"\n", e.kind, e.object)
			from = e.version
		}
		w.(http.Flusher).Flush()
	}
}
