#!/usr/bin/env bash
# Writes zz_generated.validations.go where a package's doc.go asks for it: the checks of the
# rules that published types declare, for the API groups that do not publish them.
set -euo pipefail
cd "$(dirname "$0")/../.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

go build -modfile=hack/tools/go.mod -o "$copy/validation-gen" k8s.io/code-generator/cmd/validation-gen
packages=$(git grep -l '^// +k8s:validation-gen=' -- 'pkg/*/doc.go' | xargs -n1 dirname | sed 's,^,./,')

# The generator wants to write the rules of the types of meta/v1 as well: into a copy of their module.
cp -r --parents go.mod go.sum pkg/api "$copy"
cp -r "$(go list -m -f '{{.Dir}}' k8s.io/apimachinery)" "$copy/apimachinery"
chmod -R u+w "$copy/apimachinery"
(
  cd "$copy"
  touch empty
  go mod edit -replace k8s.io/apimachinery=./apimachinery
  # shellcheck disable=SC2086 # several
  ./validation-gen \
    --go-header-file empty \
    --output-file zz_generated.validations.go \
    --readonly-pkg time \
    --readonly-pkg k8s.io/api/core/v1 \
    --readonly-pkg k8s.io/apimachinery/pkg/api/resource \
    --readonly-pkg k8s.io/apimachinery/pkg/runtime \
    --readonly-pkg k8s.io/apimachinery/pkg/types \
    --readonly-pkg k8s.io/apimachinery/pkg/util/intstr \
    k8s.io/apimachinery/pkg/apis/meta/v1/validation $packages
)
for package in $packages; do
  cp "$copy/$package/zz_generated.validations.go" "$package"
done
