#!/usr/bin/env bash
# Runs the measurements named as arguments (startup, pods, apiserver, scheduler, controllers), all of them without any.
# The original components are built first; ORIGINALS names a directory that has them, and
# with ORIGINALS= (empty) Leme is measured alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${ORIGINALS+set}" ]; then
	ORIGINALS=bin/originals
	make --no-print-directory originals
fi
for b in ${*:-startup pods apiserver scheduler controllers}; do
	echo "== $b"
	go run "./hack/bench/$b" -originals "$ORIGINALS"
done
