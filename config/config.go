// Package config holds the manifests that a cluster of Leme is given.
package config

import "embed"

// Addons are the manifests of what every cluster runs. $(DNS_IP), $(DNS_DOMAIN) and
// $(DNS_FORWARD) stand for what differs between clusters.
//
//go:embed addons/*.yaml
var Addons embed.FS
