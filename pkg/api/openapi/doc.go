// Package openapi holds the OpenAPI definitions of all served types, which `make
// generate` makes from the published packages.
package openapi
