// Package runtime speaks CRI: it generates the configuration of a pod's sandbox and
// containers, observes what the runtime has of a pod, and follows the runtime's events.
//
// Labels, annotations, names and log paths are the original kubelet's, so that either
// kubelet adopts the other's containers. Only what carries those labels is ever touched.
package runtime
