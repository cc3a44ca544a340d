package garbagecollector

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// Each line of a scenario is an event, "->" and the objects to look at because of it.
// An event is "+ name owner… flags" or "- name"; an owner with "!" blocks, and flags are
// "foreground" and "orphan".
func TestGraph(t *testing.T) {
	for name, scenario := range map[string]string{
		"a known owner": `
			+ owner ->
			+ child owner ->
			- owner -> child
			- child ->`,
		"an owner that nobody has seen": `
			+ child owner -> owner
			+ other owner ->
			+ owner ->
			- owner -> child other`,
		"an owner that never comes": `
			+ child owner -> owner
			- owner -> child
			- child ->`,
		"the last child of an unseen owner": `
			+ child owner -> owner
			- child ->
			+ child owner -> owner`,
		"foreground": `
			+ owner ->
			+ child owner! ->
			+ owner foreground -> child owner
			- child -> owner
			- owner ->`,
		"a child lets go of a waiting owner": `
			+ owner ->
			+ child owner! ->
			+ owner foreground -> child owner
			+ child owner -> owner
			+ child -> owner`,
		"orphan": `
			+ owner ->
			+ child owner ->
			+ owner orphan -> owner
			+ owner orphan ->
			+ child ->
			- owner ->`,
	} {
		t.Run(name, func(t *testing.T) {
			g := newGraph()
			for line := range strings.Lines(strings.TrimSpace(scenario)) {
				event, want, _ := strings.Cut(strings.TrimSpace(line), "->")
				words := strings.Fields(event)
				var look []types.UID
				if words[0] == "-" {
					look = g.remove(types.UID(words[1]))
				} else {
					o := object{identity: identity{schema.GroupVersionKind{Version: "v1", Kind: "Thing"}, "ns", words[1], types.UID(words[1])}}
					for _, w := range words[2:] {
						switch w {
						case "foreground":
							o.deleting, o.foreground = true, true
						case "orphan":
							o.deleting, o.orphan = true, true
						default:
							owner := strings.TrimSuffix(w, "!")
							o.owners = append(o.owners, metav1.OwnerReference{
								APIVersion: "v1", Kind: "Thing", Name: owner, UID: types.UID(owner), BlockOwnerDeletion: ptr.To(owner != w),
							})
						}
					}
					look = g.observe(o)
				}
				slices.Sort(look)
				if got := strings.Trim(fmt.Sprint(look), "[]"); got != strings.TrimSpace(want) {
					t.Fatalf("%s: look at %q, want %q", event, got, strings.TrimSpace(want))
				}
			}
		})
	}
}

func TestGraphMistakenReference(t *testing.T) {
	g := newGraph()
	thing := schema.GroupVersionKind{Version: "v1", Kind: "Thing"}
	g.observe(object{identity: identity{thing, "ns", "owner", "owner"}})
	for _, ref := range []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "Other", Name: "owner", UID: "owner"},
		{APIVersion: "v1", Kind: "Thing", Name: "another", UID: "owner"},
	} {
		o := object{identity: identity{thing, "ns", "child", "child"}, owners: []metav1.OwnerReference{ref}}
		if look := g.observe(o); !slices.Contains(look, "child") {
			t.Errorf("%v passes for the owner", ref)
		}
		g.remove("child")
	}
}

func TestGraphMisplaced(t *testing.T) {
	g := newGraph()
	thing := schema.GroupVersionKind{Version: "v1", Kind: "Thing"}
	g.observe(object{identity: identity{thing, "ns", "owner", "owner"}})
	g.observe(object{identity: identity{thing, "", "cluster", "cluster"}})
	var refs []metav1.OwnerReference
	for _, name := range []string{"owner", "cluster", "unseen"} {
		refs = append(refs, metav1.OwnerReference{APIVersion: "v1", Kind: "Thing", Name: name, UID: types.UID(name)})
	}
	for namespace, want := range map[string]string{"ns": "", "other": "owner", "": "owner"} {
		o := object{identity: identity{thing, namespace, "child", "child"}, owners: refs}
		g.observe(o)
		var got []string
		for _, r := range g.misplaced(o) {
			got = append(got, r.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("of a child in %q, %q are misplaced, want %q", namespace, got, want)
		}
		g.remove("child")
	}
}
