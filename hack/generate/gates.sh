#!/usr/bin/env bash
# Writes the list of Kubernetes' feature gates and their defaults, as the original has them.
set -euo pipefail
cd "$(dirname "$0")/../.."

list=$(go -C test/conformance run ./gates)
echo "$list" >pkg/component/gates.txt
