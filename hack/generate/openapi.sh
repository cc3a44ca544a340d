#!/usr/bin/env bash
# Writes pkg/api/openapi/zz_generated.openapi.go: the OpenAPI definitions of every
# type that the API server serves.
set -euo pipefail
cd "$(dirname "$0")/../.."

empty=$(mktemp)
trap 'rm -f "$empty"' EXIT

go tool -modfile=hack/tools/go.mod openapi-gen \
  --go-header-file "$empty" \
  --report-filename /dev/null \
  --output-dir pkg/api/openapi \
  --output-pkg github.com/leme-k8s/leme/pkg/api/openapi \
  --output-file zz_generated.openapi.go \
  k8s.io/apimachinery/pkg/api/resource \
  k8s.io/apimachinery/pkg/apis/meta/v1 \
  k8s.io/apimachinery/pkg/runtime \
  k8s.io/apimachinery/pkg/util/intstr \
  k8s.io/apimachinery/pkg/version \
  k8s.io/api/admissionregistration/v1 \
  k8s.io/api/admissionregistration/v1alpha1 \
  k8s.io/api/admissionregistration/v1beta1 \
  k8s.io/api/apiserverinternal/v1alpha1 \
  k8s.io/api/apps/v1 \
  k8s.io/api/authentication/v1 \
  k8s.io/api/authorization/v1 \
  k8s.io/api/autoscaling/v1 \
  k8s.io/api/autoscaling/v2 \
  k8s.io/api/batch/v1 \
  k8s.io/api/certificates/v1 \
  k8s.io/api/certificates/v1beta1 \
  k8s.io/api/coordination/v1 \
  k8s.io/api/coordination/v1alpha2 \
  k8s.io/api/coordination/v1beta1 \
  k8s.io/api/core/v1 \
  k8s.io/api/discovery/v1 \
  k8s.io/api/events/v1 \
  k8s.io/api/flowcontrol/v1 \
  k8s.io/api/lifecycle/v1alpha1 \
  k8s.io/api/networking/v1 \
  k8s.io/api/node/v1 \
  k8s.io/api/policy/v1 \
  k8s.io/api/rbac/v1 \
  k8s.io/api/resource/v1 \
  k8s.io/api/resource/v1alpha3 \
  k8s.io/api/resource/v1beta1 \
  k8s.io/api/resource/v1beta2 \
  k8s.io/api/scheduling/v1 \
  k8s.io/api/scheduling/v1alpha3 \
  k8s.io/api/scheduling/v1beta1 \
  k8s.io/api/storage/v1 \
  k8s.io/api/storagemigration/v1 \
  k8s.io/api/storagemigration/v1beta1 \
  k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1 \
  k8s.io/kube-aggregator/pkg/apis/apiregistration/v1
