package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	discovery "k8s.io/api/apidiscovery/v2"
	"sigs.k8s.io/yaml"
)

// namespace is where the objects of a run are.
const namespace = "test"

// resource is one that the original serves.
type resource struct {
	group, version, name, kind string
	namespaced                 bool
	verbs                      []string
	subresources               []discovery.APISubresourceDiscovery
}

// resources are all of them.
type resources []resource

// parseResources reads an aggregated discovery document.
func parseResources(documents ...[]byte) (resources, error) {
	var all resources
	for _, data := range documents {
		var list discovery.APIGroupDiscoveryList
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
		for _, group := range list.Items {
			for _, version := range group.Versions {
				for _, r := range version.Resources {
					// Kinds that are made in the name of another group (Scale, Eviction) are subresources.
					all = append(all, resource{
						group: group.Name, version: version.Version, name: r.Resource, kind: r.ResponseKind.Kind,
						namespaced: r.Scope == discovery.ScopeNamespace, verbs: r.Verbs, subresources: r.Subresources,
					})
				}
			}
		}
	}
	return all, nil
}

// prefix is the path of a group version.
func (r resource) prefix() string {
	if r.group == "" {
		return "/api/" + r.version
	}
	return "/apis/" + r.group + "/" + r.version
}

// collection is the path of its objects, in a namespace if they are in namespaces.
func (r resource) collection() string {
	if r.namespaced {
		return r.prefix() + "/namespaces/" + namespace + "/" + r.name
	}
	return r.prefix() + "/" + r.name
}

func (r resource) has(verb string) bool { return slices.Contains(r.verbs, verb) }

func (r resource) hasSubresource(name string) bool {
	return slices.ContainsFunc(r.subresources, func(s discovery.APISubresourceDiscovery) bool { return s.Subresource == name })
}

// of returns the resource of a kind.
func (all resources) of(k kind) (resource, bool) {
	for _, r := range all {
		if r.group == k.Group && r.version == k.Version && r.kind == k.Kind {
			return r, true
		}
	}
	return resource{}, false
}

// kindOf returns the kind that an object says it is of.
func kindOf(object any) kind {
	group, version, found := strings.Cut(stringAt(object, "apiVersion"), "/")
	if !found {
		group, version = "", group
	}
	return kind{group, version, stringAt(object, "kind")}
}

// example is one valid object of a resource.
type example struct {
	Manifest map[string]any
	// Path is where it is posted to, if not to the collection of its resource.
	Path string
	// Broken is a valid object to break, where the stored one with another name would be none.
	Broken map[string]any
	// Transient says that there is nothing to store: a review, or a subresource.
	Transient bool
}

func parseExamples(files ...[]byte) ([]example, error) {
	var all []example
	for _, data := range files {
		var list []struct {
			example
			Key string // in etcd: of no use here
		}
		if err := yaml.UnmarshalStrict(data, &list); err != nil {
			return nil, fmt.Errorf("examples: %w", err)
		}
		for _, e := range list {
			all = append(all, e.example)
		}
	}
	return all, nil
}

// toBreak returns an object like the example, but with the name of one that does not exist.
func (e example) toBreak() map[string]any {
	if e.Broken != nil {
		return e.Broken
	}
	o := clone(e.Manifest).(map[string]any)
	if name := stringAt(o, "metadata", "name"); name != "" && !e.Transient {
		other := "x" + name
		if name[0] >= '0' && name[0] <= '9' { // an IP address
			other = name + "0"
		}
		o["metadata"].(map[string]any)["name"] = other
	}
	return o
}
