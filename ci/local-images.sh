#!/usr/bin/env bash
# Provides the base images that the Dockerfiles and the compose file name, also where no registry can be reached.
#
#   local-images.sh                        rust:1.95-slim-bookworm and haproxy:3.0
#   local-images.sh debian:bookworm-slim   the named ones
#
# For each: one that is here stays; one that can be pulled is pulled; otherwise a stand-in of the same name and tag is
# made from Debian's packages and from the Rust toolchain installed here. A stand-in has the official image's
# layout (paths, user, entrypoint), not its bytes: for building and testing, not for publishing.
# Needs a running daemon; for stand-ins also root, mmdebstrap and, for rust, rustup with the wanted toolchain.
set -euo pipefail

# A registry that cannot be reached should cost seconds, not the daemon's own patience.
pull_timeout_s=${PULL_TIMEOUT_S:-60}
host=$(uname -m)-unknown-linux-gnu
# A build that breaks halfway must not leave a broken image under a real name: it is made here, and renamed when whole.
unfinished=galo-stand-in:unfinished

slimmed=(--quiet --variant=minbase --aptopt='Acquire::Languages "none"')
for folder in doc info locale man groff lintian linda; do slimmed+=("--dpkgopt=path-exclude=/usr/share/$folder/*"); done
slimmed+=('--dpkgopt=path-include=/usr/share/doc/*/copyright')

debian_stand_in() { # SUITE
	mmdebstrap "${slimmed[@]}" "$1" - | docker import --message 'local stand-in' --change 'CMD ["bash"]' - "$unfinished"
}

rust_stand_in() { # SUITE VERSION
	local suite=$1 wanted=$2 version
	# From /, where no project's rust-toolchain.toml has a say.
	TOOLCHAIN=$(cd / && { rustc "+$wanted" --print sysroot 2>/dev/null || rustc --print sysroot; })
	version=$("$TOOLCHAIN/bin/rustc" --version | cut -d' ' -f2)
	case $version in "$wanted" | "$wanted".*) ;; *) echo "Rust $wanted is wanted, the toolchain here is $version" >&2; return 1 ;; esac
	TOOLCHAIN_NAME=$version-$host
	RUSTUP=$(readlink -f "${CARGO_HOME:-$HOME/.cargo}/bin/rustup")
	export TOOLCHAIN TOOLCHAIN_NAME RUSTUP
	# The second hook: certificates that this machine trusts beyond Debian's own (a company's proxy, a sandbox), for cargo.
	mmdebstrap "${slimmed[@]}" --include=ca-certificates,gcc,libc6-dev \
		--customize-hook='set -e
			toolchain=$1/usr/local/rustup/toolchains/$TOOLCHAIN_NAME; bin=$1/usr/local/cargo/bin
			mkdir -p "$toolchain" "$bin"
			tar -C "$TOOLCHAIN" --exclude=./share --exclude=./lib/rustlib/src --exclude="./bin/*clippy*" --exclude="./bin/*fmt*" -cf - . \
				| tar --no-same-owner -C "$toolchain" -xf -
			cp "$RUSTUP" "$bin/rustup"
			for name in cargo rustc rustdoc; do ln -s rustup "$bin/$name"; done
			printf "version = \"12\"\ndefault_toolchain = \"%s\"\nprofile = \"minimal\"\n\n[overrides]\n" "$TOOLCHAIN_NAME" >"$1/usr/local/rustup/settings.toml"
			chmod -R a+w "$1/usr/local/rustup" "$1/usr/local/cargo"' \
		--customize-hook='if ls /usr/local/share/ca-certificates/*.crt >/dev/null 2>&1; then
			cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/" && chroot "$1" update-ca-certificates >/dev/null; fi' \
		"$suite" - |
		docker import --message 'local stand-in' --change 'CMD ["bash"]' \
			--change 'ENV RUSTUP_HOME=/usr/local/rustup' --change 'ENV CARGO_HOME=/usr/local/cargo' \
			--change 'ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
			--change "ENV RUST_VERSION=$version" - "$unfinished"
}

haproxy_stand_in() { # SUITE VERSION : Debian's package with the official image's user, paths and entrypoint
	provide "debian:$1-slim" >&2
	DOCKER_BUILDKIT=0 docker build --quiet --tag "$unfinished" - 2>/dev/null <<-DOCKERFILE
		FROM debian:$1-slim
		RUN apt-get -qq update \
		 && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends ca-certificates haproxy >/dev/null \
		 && rm -rf /var/lib/apt/lists/* \
		 && haproxy -v | grep -qF 'version $2' \
		 && groupmod -g 99 haproxy && usermod -u 99 haproxy && chown -R haproxy: /var/lib/haproxy \
		 && mkdir -p /usr/local/etc/haproxy && ln -s /etc/haproxy/errors /usr/local/etc/haproxy/errors \
		 && printf '%s\\n' '#!/bin/sh' 'case \$1 in -*) set -- haproxy "\$@" ;; esac' \
		      'if [ "\$1" = haproxy ]; then shift; set -- haproxy -W -db "\$@"; fi' 'exec "\$@"' >/usr/local/bin/docker-entrypoint.sh \
		 && chmod 755 /usr/local/bin/docker-entrypoint.sh
		STOPSIGNAL SIGUSR1
		USER haproxy
		WORKDIR /var/lib/haproxy
		ENTRYPOINT ["docker-entrypoint.sh"]
		CMD ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
	DOCKERFILE
}

stand_in() { # IMAGE
	local tag=${1#*:}
	case $1 in
	debian:bookworm-slim | debian:trixie-slim) debian_stand_in "${tag%-slim}" ;;
	rust:*-slim-bookworm | rust:*-slim-trixie) rust_stand_in "${tag##*-}" "${tag%%-*}" ;;
	haproxy:2.6*) haproxy_stand_in bookworm 2.6 ;;
	haproxy:3.0*) haproxy_stand_in trixie 3.0 ;;
	*) echo "$1 cannot be pulled, and no stand-in is known for it" >&2; return 1 ;;
	esac
}

provide() { # IMAGE
	local start=$SECONDS
	if docker image inspect "$1" >/dev/null 2>&1; then echo "$1: here"; return; fi
	if timeout "$pull_timeout_s" docker pull --quiet "$1" >/dev/null 2>&1; then echo "$1: pulled"; return; fi
	command -v mmdebstrap >/dev/null || { echo "$1 cannot be pulled, and a stand-in needs mmdebstrap (ci/install-docker.sh)" >&2; return 1; }
	stand_in "$1" >/dev/null
	docker tag "$unfinished" "$1"
	docker rmi "$unfinished" >/dev/null
	echo "$1: stand-in made in $((SECONDS - start)) s, $(docker image inspect --format '{{.Size}}' "$1" | numfmt --to=iec)"
}

[ $# -gt 0 ] || set -- rust:1.95-slim-bookworm haproxy:3.0
for image; do provide "$image"; done
