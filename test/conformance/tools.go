//go:build tools

package main

// The suite. What is built as it is stands in go.mod among the tools.
import _ "k8s.io/kubernetes/test/e2e"
