#!/usr/bin/env bash
# busybox.sh OUT: builds busybox, with all its applets and linked statically, from the
# source that upstream released. Debian's own build is not used: one of its patches
# drops variables from `env` whose names have a dash in them, and it needs libraries.
set -euo pipefail

version=1.37.0
sha256=3311dff32e746499f4df0d5df04d7eb396382d7e108bb9250e7b519b837043a4

here=$(cd "$(dirname "$0")" && pwd)
out=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

archive=busybox_$version.orig.tar.bz2
"$here/debian.sh" --source "$work" busybox
echo "$sha256  $work/$archive" | sha256sum --check --quiet
tar -C "$work" -xjf "$work/$archive"
cd "$work/busybox-$version"

make -s defconfig >/dev/null
# tc does not compile with the headers of newer kernels.
sed -i -e 's/^# CONFIG_STATIC is not set/CONFIG_STATIC=y/' -e 's/^CONFIG_TC=y/# CONFIG_TC is not set/' .config
make -s oldconfig >/dev/null < <(yes "") # takes the default of every new question
if ! KCONFIG_NOTIMESTAMP=1 SOURCE_DATE_EPOCH=0 make -s -j"$(nproc)" busybox >build.log 2>&1; then
	tail -n 20 build.log >&2
	exit 1
fi
install -D busybox "$out"
