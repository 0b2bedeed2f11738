#!/usr/bin/env bash
# Installs a Docker engine with Compose v2 and buildx, and what local-images.sh needs, on Debian bookworm, as root.
#
# Bookworm's own engine is too old (no Compose v2), so the engine comes from Debian's next release, pinned: nothing else of
# that release gets in. Run again it does nothing; an engine installed by other means is left alone. It must never start a
# daemon: start-docker.sh does.
set -euo pipefail

missing=()
command -v dockerd >/dev/null && docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1 || missing=(docker.io docker-cli docker-compose docker-buildx)
for tool in mmdebstrap iptables jq curl; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [ ${#missing[@]} -eq 0 ]; then echo "docker: here, $(docker --version)"; exit 0; fi

[ "$(id -u)" = 0 ] || { echo "install-docker.sh: not root, and missing: ${missing[*]}" >&2; exit 1; }
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
if [ "$codename" != bookworm ]; then
	echo "install-docker.sh knows Debian bookworm, this is '${codename:-unknown}'; install: ${missing[*]}" >&2; exit 1
fi

apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null; }
apt update
case " ${missing[*]} " in *" docker.io "*)
	# From whichever mirror this machine uses already.
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' 'Component: main' | head -n1)
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >/etc/apt/sources.list.d/galo-trixie.list
	cat >/etc/apt/preferences.d/galo-trixie <<-'PIN'
		Package: *
		Pin: release n=trixie
		Pin-Priority: -1

		Package: docker.io docker-cli docker-compose docker-buildx
		Pin: release n=trixie
		Pin-Priority: 990
	PIN
	apt update ;;
esac
apt install --no-install-recommends ca-certificates "${missing[@]}"
docker --version && docker compose version
