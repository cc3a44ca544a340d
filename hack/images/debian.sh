#!/usr/bin/env bash
# Downloads from Debian, the release named here whatever the machine runs, with an
# apt of its own: nothing of the machine's packages is looked at or changed.
#
#   debian.sh DIR PACKAGE…           the packages and all that they depend on
#   debian.sh --source DIR PACKAGE…  their sources, as upstream released them
#
# The mirror is the machine's own, or DEBIAN_MIRROR.
set -euo pipefail

release=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

source=
if [ "$1" = --source ]; then source=yes; shift; fi
mkdir -p "$1"
dir=$(cd "$1" && pwd)
shift

mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1; }
DEBIAN_MIRROR=${DEBIAN_MIRROR:-$(mirror)}
if [ -z "$DEBIAN_MIRROR" ]; then
	apt-get -qq update
	DEBIAN_MIRROR=$(mirror)
fi
if [ -z "$DEBIAN_MIRROR" ] || [ ! -e "$keyring" ]; then
	echo "Debian's packages are needed: install debian-archive-keyring and set DEBIAN_MIRROR to a mirror's URL" >&2
	exit 1
fi

apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt"/{etc/apt.conf.d,etc/preferences.d,state/lists/partial,cache/archives/partial}
touch "$apt/state/status"
for type in deb deb-src; do
	echo "$type [signed-by=$keyring] $DEBIAN_MIRROR $release main"
done >"$apt/etc/sources.list"
cat >"$apt/apt.conf" <<EOF
Dir::Etc "$apt/etc";
Dir::State "$apt/state";
Dir::State::status "$apt/state/status";
Dir::Cache "$apt/cache";
Acquire::Languages "none";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Debug::NoLocking "true";
EOF
export APT_CONFIG=$apt/apt.conf
apt-get -qq update
if [ "$source" ]; then
	cd "$dir" && apt-get -qq source --download-only "$@"
else
	apt-get -qq install -y --download-only "$@"
	rm -f "$dir"/*.deb
	mv "$apt"/cache/archives/*.deb "$dir"
fi
