package main

import (
	"github.com/leme-k8s/leme/pkg/cluster"
)

// components are what `leme up` can run inside its own process.
var components = cluster.Components{}
