package controller

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
)

// writes is a sink that notes what is written, and answers a patch as the test says.
type writes struct {
	record.EventSink
	noted  []string
	answer error
}

func (w *writes) Create(e *corev1.Event) (*corev1.Event, error) {
	w.noted = append(w.noted, "create "+e.Name+e.ResourceVersion)
	return e, nil
}

func (w *writes) Patch(e *corev1.Event, patch []byte) (*corev1.Event, error) {
	w.noted = append(w.noted, "patch "+e.Name+" "+string(patch))
	return e, w.answer
}

func TestGatherer(t *testing.T) {
	gone := apierrors.NewNotFound(corev1.Resource("events"), "a")
	for _, c := range []struct {
		name string
		// answers are what the API server answers to the patches of each second.
		answers []error
		// patches come within each second.
		patches [][]string
		want    []string
	}{
		{"several become the newest", []error{nil}, [][]string{{"1", "2", "3"}}, []string{"patch a 3"}},
		{"later ones are written too", []error{nil, nil}, [][]string{{"1", "2"}, {"3"}}, []string{"patch a 2", "patch a 3"}},
		{"an event that is gone", []error{gone}, [][]string{{"1", "2"}}, []string{"patch a 2", "create a"}},
		{"no answer", []error{errors.New("down"), nil}, [][]string{{"1"}, nil}, []string{"patch a 1", "patch a 1"}},
		{"no answer, and then a newer one", []error{errors.New("down"), nil}, [][]string{{"1"}, {"2"}}, []string{"patch a 1", "patch a 2"}},
		{"a refusal", []error{apierrors.NewForbidden(corev1.Resource("events"), "a", nil), nil}, [][]string{{"1"}, nil}, []string{"patch a 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &writes{}
				g := &gatherer{EventSink: w, ctx: t.Context(), newest: map[types.NamespacedName]repetition{}}
				for i, patches := range c.patches {
					w.answer = c.answers[i]
					for _, p := range patches {
						if _, err := g.Patch(&corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: "7"}}, []byte(p)); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(gathering)
					synctest.Wait()
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if !slices.Equal(w.noted, c.want) {
					t.Errorf("%q, want %q", w.noted, c.want)
				}
			})
		})
	}
}
