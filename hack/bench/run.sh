#!/usr/bin/env bash
# Runs the measurements named as arguments (startup, pods), all of them without any.
# The original components are built first, from the module in originals/; with
# ORIGINALS= (empty) Leme is measured alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
originals=${ORIGINALS-bin/originals}
if [ -n "$originals" ]; then
	mkdir -p "$originals"
	version=$(sed -n 's,^require k8s.io/kubernetes \(v[^ ]*\).*,\1,p' hack/bench/originals/go.mod)
	for c in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do
		CGO_ENABLED=0 go build -C hack/bench/originals -trimpath -o "$PWD/$originals/$c" \
			-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37" \
			"k8s.io/kubernetes/cmd/$c"
	done
fi
for b in ${*:-startup pods}; do
	echo "== $b"
	go run "./hack/bench/$b" -originals "$originals"
done
