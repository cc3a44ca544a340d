#!/usr/bin/env bash
# Writes zz_generated.deepcopy.go of the packages whose doc.go asks for it with
# +k8s:deepcopy-gen=package.
set -euo pipefail
cd "$(dirname "$0")/../.."

go tool -modfile=hack/tools/go.mod deepcopy-gen \
  --output-file zz_generated.deepcopy.go \
  ./apis/config/v1alpha1
