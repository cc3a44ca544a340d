package framework

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
)

// A Keeper is a plugin that keeps something in memory from one decision to the next, such
// as what it has reserved. Reserve changes it as part of a decision; a change at any
// other time, or by something that a trial leaves out, goes through Note, so that a
// recording has it.
type Keeper interface {
	fwk.Plugin
	// Memory returns notes that make another plugin of the kind know what this one does.
	Memory() []Note
	// Recall takes a note over.
	Recall(Note) error
}

// Note is a change of a plugin's memory.
type Note struct {
	// What happened, in the plugin's own words.
	What string
	// Object that it happened to.
	Object runtime.Object
}

// Notes is where notes are written down. It makes the change as well, at a time when
// nothing else changes what decisions are made from.
type Notes func(ctx context.Context, profile, plugin string, n Note, change func())

// TakeNote makes a change of the memory of a plugin whose handle is h.
func TakeNote(ctx context.Context, h fwk.Handle, plugin string, n Note, change func()) {
	if f, ok := h.(*Framework); ok && f.Notes != nil && ctx.Value(withoutNotesKey{}) == nil {
		f.Notes(ctx, f.profile, plugin, n, change)
		return
	}
	change()
}

type withoutNotesKey struct{}

// WithoutNotes returns a context for reservations that are tried and taken back within
// one decision, of which a recording need not know.
func WithoutNotes(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutNotesKey{}, true)
}

// TakeMemoryOf makes the plugins know what those of another framework of the same
// profile do.
func (f *Framework) TakeMemoryOf(other *Framework) error {
	for name, k := range other.keepers {
		for _, n := range k.Memory() {
			if err := f.Recall(name, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// Recall makes a plugin take a note over. A plugin that is not in the profile has
// nothing to remember.
func (f *Framework) Recall(plugin string, n Note) error {
	k, ok := f.keepers[plugin]
	if !ok {
		return nil
	}
	if err := k.Recall(n); err != nil {
		return fmt.Errorf("plugin %q: %w", plugin, err)
	}
	return nil
}
