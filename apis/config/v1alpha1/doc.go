// Package v1alpha1 is the file that `leme up -f` reads: what flags cannot say about
// a cluster.
//
// +groupName=config.leme.dev
// +k8s:deepcopy-gen=package
package v1alpha1
