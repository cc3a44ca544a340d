#!/usr/bin/env bash
# Checks that generated files are what the generators make, that the code is formatted
# and that modules are tidy. It works on a copy, so your tree stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then
	printf 'not formatted (run gofmt -w):\n%s\n' "$unformatted"
	bad=1
fi
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$copy"
# Modules that use this one need what it needs.
for module in . $(dirname $(git grep -l '^replace github.com/leme-k8s/leme =>' -- '*go.mod')); do
	if ! (cd "$copy/$module" && go mod tidy -diff); then
		echo "$module/go.mod is not tidy: run go mod tidy there"
		bad=1
	fi
done
(cd "$copy" && git init -q . && git add -A && make -s generate && git add -A -N)
if ! git -C "$copy" diff --exit-code --stat; then
	echo 'generated files are out of date: run make generate'
	bad=1
fi
exit $bad
