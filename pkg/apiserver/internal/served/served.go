// Package served tells which resources a server has, so that none of its parts
// waits for an informer that can never fill.
package served

import "k8s.io/apimachinery/pkg/runtime/schema"

// Func says whether a resource is served. The nil Func says yes to all.
type Func func(schema.GroupVersionResource) bool

// Has tells whether the resource is served.
func (f Func) Has(gvr schema.GroupVersionResource) bool { return f == nil || f(gvr) }

// Wants is implemented by admission plugins that need to know.
type Wants interface{ SetServed(Func) }
