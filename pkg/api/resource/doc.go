// +k8s:validation-gen=TypesWithSuffix=ResourcePoolStatusRequest
// +k8s:validation-gen-input=k8s.io/api/resource/v1alpha3
// +k8s:validation-gen-scheme-registry=nil

// Package resource knows what is true of the kinds of resource.k8s.io wherever they are
// handled: their defaults ([AddDefaults]), the field selectors that they take
// ([AddFieldLabels]), which fields belong to features that are off (the DropDisabled
// functions) and what makes them invalid (the Validate functions).
//
// Much of the last is declared in the published types, and checked by functions that
// are published with those of v1, and generated here for v1alpha3; here is the rest.
package resource
