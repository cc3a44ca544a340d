package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"sigs.k8s.io/yaml"
)

// A suite is one file of scenarios: each variant of what is given goes through each
// course of steps.
type suite struct {
	// Of is the object that a step is about unless it says otherwise, such as "deployments/web".
	Of string `json:"of,omitempty"`
	// Given is created at the start; a variant is a merge patch of its last object.
	Given []json.RawMessage `json:"given,omitempty"`
	// Variants are the ways that the last given object can be; none is one that is as given.
	Variants map[string]json.RawMessage `json:"variants,omitempty"`
	// Courses are what happens then.
	Courses map[string][]step `json:"courses"`
	// Only names the courses that a variant goes through; all, unless it is named here.
	Only map[string][]string `json:"only,omitempty"`
	// Slow scenarios start first.
	Slow bool `json:"slow,omitempty"`
	// Feature is a feature gate that they need, and that is not on in every run.
	Feature string `json:"feature,omitempty"`
}

// A step is one thing that happens; then the scenario goes on when all is quiet. One
// field is set, beside those that say what it is about.
type step struct {
	// Create makes objects.
	Create []json.RawMessage `json:"create,omitempty"`
	// Merge patches the object Of, or its subresource Sub.
	Merge json.RawMessage `json:"merge,omitempty"`
	// Delete deletes an object, with Propagation if it is set.
	Delete string `json:"delete,omitempty"`
	// Pods makes something of pods.
	Pods *podStep `json:"pods,omitempty"`
	// Await waits until the object Of has these fields, or is gone if it is the word "gone".
	Await json.RawMessage `json:"await,omitempty"`
	// Node adds a played node; Silence ends the heartbeats of one.
	Node    *nodeStep `json:"node,omitempty"`
	Silence string    `json:"silence,omitempty"`

	Of          string `json:"of,omitempty"`
	Sub         string `json:"sub,omitempty"`
	Propagation string `json:"propagation,omitempty"`
	// As is the user that asks, with the groups As is given with: "system:node:a,system:nodes".
	As string `json:"as,omitempty"`
	// Soon goes on without waiting for quiet.
	Soon bool `json:"soon,omitempty"`
	// Refused says that the API server refuses it.
	Refused bool `json:"refused,omitempty"`
}

type podStep struct {
	// Labels select pods, as kubectl -l does; Name names one.
	Labels string `json:"labels,omitempty"`
	Name   string `json:"name,omitempty"`
	// Take is how many of them, by node and the oldest first; all if it is zero.
	Take int `json:"take,omitempty"`
	// Become is one of the images of nodes.go; Status and Merge patch them; Delete deletes them.
	Become string          `json:"become,omitempty"`
	Status json.RawMessage `json:"status,omitempty"`
	Merge  json.RawMessage `json:"merge,omitempty"`
	Delete bool            `json:"delete,omitempty"`
}

type nodeStep struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
}

// A scenario is what is done in one namespace, whose name stands for $NS in it.
type scenario struct {
	name    string
	ns      string
	of      string
	slow    bool
	feature string
	steps   []step
}

// group is the file that a scenario comes from.
func (s *scenario) group() string {
	group, _, _ := strings.Cut(s.name, "/")
	return group
}

// mixed orders scenarios by chance, the same in every run.
func (s *scenario) mixed() string {
	h := fnv.New32a()
	h.Write([]byte(s.name))
	return fmt.Sprintf("%08x", h.Sum32())
}

// loadScenarios reads all files of a directory. Each scenario gets a namespace, the
// same in every run.
func loadScenarios(dir string) ([]*scenario, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no scenarios in %q", dir)
	}
	var all []*scenario
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		list, err := parseSuite(strings.TrimSuffix(filepath.Base(file), ".yaml"), data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, list...)
	}
	for i, s := range all {
		s.ns = fmt.Sprintf("t%05d", i)
	}
	return all, nil
}

func parseSuite(name string, data []byte) ([]*scenario, error) {
	var q suite
	if err := yaml.UnmarshalStrict(data, &q); err != nil {
		return nil, err
	}
	if len(q.Variants) == 0 {
		q.Variants = map[string]json.RawMessage{"": nil}
	}
	for variant, courses := range q.Only {
		if _, ok := q.Variants[variant]; !ok {
			return nil, fmt.Errorf("only: there is no variant %q", variant)
		}
		for _, c := range courses {
			if _, ok := q.Courses[c]; !ok {
				return nil, fmt.Errorf("only: there is no course %q", c)
			}
		}
	}
	var all []*scenario
	used := map[string]bool{}
	for _, variant := range slices.Sorted(maps.Keys(q.Variants)) {
		given := slices.Clone(q.Given)
		if patch := q.Variants[variant]; patch != nil {
			if len(given) == 0 {
				return nil, fmt.Errorf("variant %q: nothing is given that it could be of", variant)
			}
			last, err := jsonpatch.MergePatch(given[len(given)-1], patch)
			if err != nil {
				return nil, fmt.Errorf("variant %q: %w", variant, err)
			}
			given[len(given)-1] = last
		}
		for _, course := range slices.Sorted(maps.Keys(q.Courses)) {
			if only, ok := q.Only[variant]; ok && !slices.Contains(only, course) {
				continue
			}
			used[course] = true
			s := &scenario{name: strings.ReplaceAll(name+"/"+variant+"/"+course, "//", "/"), of: q.Of, slow: q.Slow, feature: q.Feature}
			if len(given) > 0 {
				s.steps = []step{{Create: given}}
			}
			for i, st := range q.Courses[course] {
				if err := st.validate(); err != nil {
					return nil, fmt.Errorf("course %q, step %d: %w", course, i+1, err)
				}
				s.steps = append(s.steps, st)
			}
			if len(s.steps) == 0 || s.steps[len(s.steps)-1].Soon {
				return nil, fmt.Errorf("course %q does not end with a step that is waited for", course)
			}
			all = append(all, s)
		}
	}
	for course := range q.Courses {
		if !used[course] {
			return nil, fmt.Errorf("course %q is that of no variant", course)
		}
	}
	return all, nil
}

func (s *step) validate() error {
	n := 0
	for _, set := range []bool{s.Create != nil, s.Merge != nil, s.Delete != "", s.Pods != nil, s.Await != nil, s.Node != nil, s.Silence != ""} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("it does %d things, not one", n)
	}
	return nil
}

// filled returns the text of a step with the namespace put in.
func (s *scenario) filled(raw []byte) []byte {
	return []byte(strings.ReplaceAll(string(raw), "$NS", s.ns))
}
