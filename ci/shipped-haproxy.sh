#!/usr/bin/env bash
# What the compose file ships in front of Galo, attacked: `ci/haproxy.py` and all groups of `cargo xtask hostile` that go through HAProxy,
# with the program of the image that haproxy/Dockerfile names instead of this machine's own.
#
# The program is taken out of its image with the libraries it was linked against, since a container could reach neither the sockets nor the
# processors of such a run. A daemon that runs already is left alone, one that is started here is stopped again. Must never test
# another version than the image's tag says. Needs Docker, or root on Debian (ci/install-docker.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

image=$(sed -nE 's/^FROM docker.io\/library\/(haproxy:[^ ]+)$/\1/p' haproxy/Dockerfile)
[[ $image == haproxy:* && $image != *$'\n'* ]] || { echo "shipped-haproxy.sh: haproxy/Dockerfile names '$image'" >&2; exit 1; }

root=$(mktemp -d) daemon='' container=''
finish() {
	if [ -n "$container" ]; then docker rm "$container" >/dev/null || true; fi
	if [ -n "$daemon" ]; then kill "$daemon" || true; fi
	rm -rf "$root"
}
trap finish EXIT

docker compose version >/dev/null 2>&1 || ci/install-docker.sh
said=$(ci/start-docker.sh)
echo "$said"
daemon=$(sed -nE 's/^dockerd: pid ([0-9]+), .*/\1/p' <<<"$said")
ci/local-images.sh "$image"
container=$(docker create "$image")
# The whole of it but for what only root may make or nobody needs: links lead from one folder to the other.
docker export "$container" | tar -C "$root" --no-same-owner --exclude='dev/*' --exclude='usr/share/*' --exclude='var/*' -xf -

first() { local file; for file; do if [ -f "$file" ]; then echo "$file"; return; fi; done; echo "shipped-haproxy.sh: none of $*" >&2; return 1; }
libraries=usr/lib/$(uname -m)-linux-gnu
program=$(first "$root"/usr/local/sbin/haproxy "$root"/usr/sbin/haproxy)
loader=$(first "$root/$libraries"/ld-linux-*.so.*)
# Under its own name: whoever starts it again, as HAProxy's master does itself, comes through here.
cat >"$root/haproxy" <<WRAPPER
#!/bin/sh
exec "$loader" --argv0 "\$0" --library-path "$root/$libraries:$root/lib/${libraries##*/}:$root/usr/local/lib" "$program" "\$@"
WRAPPER
chmod 755 "$root/haproxy"
version=$("$root/haproxy" -v)
version=${version%%$'\n'*}
echo "$image: $version"
[[ $version == "HAProxy version ${image#*:}"[.-]* ]] || { echo "shipped-haproxy.sh: that is not $image" >&2; exit 1; }

status=0
HAPROXY=$root/haproxy python3 ci/haproxy.py || status=1
cargo xtask hostile --haproxy "$root/haproxy" --only HAProxy --strict --profile fast || status=1
exit $status
