package nft

import (
	"slices"
	"strings"
)

// Element identifies an element of a map or set: its container and its key.
type Element struct{ Container, Key string }

// Elements are elements with their values; that of a set's element is empty. Keys and
// values of several parts are joined with sep.
type Elements map[Element]string

const sep = " . "

func (e Elements) add(container string, value []string, key ...string) {
	e[Element{container, strings.Join(key, sep)}] = strings.Join(value, sep)
}

// A Change is an element to remove, to put in place, or both.
type Change struct {
	Element
	Old, New string
	// Had and Has say whether the element was there before and will be.
	Had, Has bool
}

// Plan is what has to change in the kernel, in a fixed order, so that it can be read
// and compared.
type Plan []Change

// String lists the plan, a line for each change.
func (p Plan) String() string {
	var b strings.Builder
	for _, c := range p {
		switch {
		case !c.Has:
			b.WriteString("- " + c.line(c.Old))
		case !c.Had:
			b.WriteString("+ " + c.line(c.New))
		default:
			b.WriteString("~ " + c.line(c.New))
		}
	}
	return b.String()
}

func (c Change) line(value string) string {
	line := c.Container + " { " + c.Key
	if value != "" {
		line += " : " + value
	}
	return line + " }\n"
}

// State is what the maps and sets should hold: the elements that each owner, a
// Service, wants. Owners that want the same element share it; where they want it with
// different values, the one that came first has it until it goes.
type State struct {
	byOwner map[string]Elements
	claims  map[Element][]claim
	pending map[Element]string // elements that changed since the last plan, with the value they had
	absent  map[Element]bool   // those of pending that were not there
}

type claim struct{ owner, value string }

// NewState returns an empty state.
func NewState() *State {
	return &State{
		byOwner: map[string]Elements{},
		claims:  map[Element][]claim{},
		pending: map[Element]string{},
		absent:  map[Element]bool{},
	}
}

// Set replaces what an owner wants; nothing, if wanted is empty.
func (s *State) Set(owner string, wanted Elements) {
	old := s.byOwner[owner]
	for e := range old {
		if _, still := wanted[e]; !still {
			s.change(e, func(c []claim) []claim {
				return slices.DeleteFunc(c, func(c claim) bool { return c.owner == owner })
			})
		}
	}
	for e, value := range wanted {
		if was, had := old[e]; had && was == value {
			continue
		}
		s.change(e, func(c []claim) []claim {
			if i := slices.IndexFunc(c, func(c claim) bool { return c.owner == owner }); i >= 0 {
				c[i].value = value
				return c
			}
			return append(c, claim{owner, value})
		})
	}
	if len(wanted) == 0 {
		delete(s.byOwner, owner)
	} else {
		s.byOwner[owner] = wanted
	}
}

func (s *State) change(e Element, f func([]claim) []claim) {
	before := s.claims[e]
	if _, noted := s.pending[e]; !noted && !s.absent[e] {
		if len(before) > 0 {
			s.pending[e] = before[0].value
		} else {
			s.absent[e] = true
		}
	}
	if after := f(before); len(after) > 0 {
		s.claims[e] = after
	} else {
		delete(s.claims, e)
	}
}

// Plan returns what changed since the last Committed.
func (s *State) Plan() Plan {
	var p Plan
	note := func(e Element, old string, had bool) {
		c := Change{Element: e, Old: old, Had: had}
		if claims := s.claims[e]; len(claims) > 0 {
			c.New, c.Has = claims[0].value, true
		}
		if c.Had != c.Has || c.Old != c.New {
			p = append(p, c)
		}
	}
	for e, old := range s.pending {
		note(e, old, true)
	}
	for e := range s.absent {
		note(e, "", false)
	}
	p.sort()
	return p
}

// All returns the plan that builds everything from nothing.
func (s *State) All() Plan {
	p := make(Plan, 0, len(s.claims))
	for e, c := range s.claims {
		p = append(p, Change{Element: e, New: c[0].value, Has: true})
	}
	p.sort()
	return p
}

// Committed says that the kernel holds the state as it is now.
func (s *State) Committed() {
	clear(s.pending)
	clear(s.absent)
}

// Len returns the number of elements.
func (s *State) Len() int { return len(s.claims) }

func (p Plan) sort() {
	slices.SortFunc(p, func(a, b Change) int {
		if c := strings.Compare(a.Container, b.Container); c != 0 {
			return c
		}
		return strings.Compare(a.Key, b.Key)
	})
}
