// Package objects holds the Secrets, ConfigMaps and service account tokens that this
// node's pods refer to.
package objects
