#!/usr/bin/env bash
# Runs the tests of the packages given as arguments. What fails is run once more, by itself:
# some of these tests expect one goroutine to be faster than another.
set -uo pipefail
cd "$(dirname "$0")"
run() { go test -mod=readonly -count=1 -timeout 15m -p 2 -skip '/aggregatedDiscovery=false' "$@"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run "$@" 2>&1 | tee "$log" && exit 0
failed=$(sed -n 's/^FAIL\t\([^ \t]*\)\t.*/\1/p' "$log")
[ -n "$failed" ] || exit 1 # it does not even compile
echo "once more: $failed"
# shellcheck disable=SC2086 # words
run -p 1 $failed
