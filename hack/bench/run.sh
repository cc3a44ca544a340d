#!/usr/bin/env bash
# Runs the measurements named as arguments (startup, pods, apiserver, scheduler, controllers,
# testcluster), all of them without any. The original components are built first; ORIGINALS names a directory that has them, and
# with ORIGINALS= (empty) Leme is measured alone, as testcluster always is.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "$*" = testcluster ]; then
	ORIGINALS=
elif [ -z "${ORIGINALS+set}" ]; then
	ORIGINALS=bin/originals
	make --no-print-directory originals
fi
for b in ${*:-startup pods apiserver scheduler controllers testcluster}; do
	echo "== $b"
	if [ "$b" = testcluster ]; then
		go run ./hack/bench/testcluster
	else
		go run "./hack/bench/$b" -originals "$ORIGINALS"
	fi
done
