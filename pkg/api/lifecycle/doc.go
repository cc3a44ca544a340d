// +k8s:validation-gen=TypesWithField=TypeMeta
// +k8s:validation-gen-input=k8s.io/api/lifecycle/v1alpha1
// +k8s:validation-gen-scheme-registry=nil

// Package lifecycle knows what is true of the kinds of lifecycle.k8s.io wherever they are
// handled: what makes them invalid (the Validate functions). Most of it is declared in the published types; their rules are
// checked by zz_generated.validations.go.
//
//	lifecycle.go   EvictionRequests and Evictions
//	responders.go  what an update of an Eviction's status may do to its responders
package lifecycle
