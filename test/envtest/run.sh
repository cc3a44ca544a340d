#!/usr/bin/env bash
# Runs the tests of the packages given as arguments with the programs in KUBEBUILDER_ASSETS.
# What fails is run once more, by itself: some of these tests expect one goroutine to be
# faster than another.
set -uo pipefail
cd "$(dirname "$0")"
run() { go test -mod=readonly -count=1 -timeout 15m -p 2 -skip '/aggregatedDiscovery=false' "$@"; }

TMPDIR=$(mktemp -d)
export TMPDIR
# Two of the packages leave their servers running.
clean_up() {
	for process in /proc/[0-9]*; do
		case $(tr '\0' ' ' 2>/dev/null <"$process/cmdline") in
		"$KUBEBUILDER_ASSETS"/*) kill "${process#/proc/}" ;;
		esac
	done 2>/dev/null
	rm -rf "$TMPDIR"
}
trap clean_up EXIT

run "$@" 2>&1 | tee "$TMPDIR/log" && exit 0
failed=$(sed -n 's/^FAIL\t\([^ \t]*\)\t.*/\1/p' "$TMPDIR/log")
[ -n "$failed" ] || exit 1 # it does not even compile
echo "once more: $failed"
# shellcheck disable=SC2086 # words
run -p 1 $failed
