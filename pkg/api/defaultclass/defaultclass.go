// Package defaultclass chooses among several classes that say they are the default.
package defaultclass

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Of returns the newest object that has one of the annotations with the value
// "true"; of two equally new ones, the first by name. ok is false if there is none.
func Of[T metav1.Object](objects []T, annotations ...string) (best T, ok bool) {
	for _, o := range objects {
		if !marked(o, annotations) {
			continue
		}
		if !ok || newer(o, best) {
			best, ok = o, true
		}
	}
	return best, ok
}

func marked(o metav1.Object, annotations []string) bool {
	for _, a := range annotations {
		if o.GetAnnotations()[a] == "true" {
			return true
		}
	}
	return false
}

func newer(a, b metav1.Object) bool {
	at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	if at.Equal(&bt) {
		return a.GetName() < b.GetName()
	}
	return bt.Before(&at)
}
