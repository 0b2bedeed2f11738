#!/usr/bin/env bash
# What the programs are made of: sources, licences, advisories, and the list of it all (SBOM).
#
# Sources are checked always, from the lock files alone. Bans and licences need cargo-deny, advisories cargo-deny or cargo-audit and the
# RustSec database, the SBOM cargo-cyclonedx. What is missing is said in a line that begins with SKIP and is not counted; with --strict, cargo-deny or
# cargo-cyclonedx missing is a failure. The database needs GitHub, so it may be out of reach even then. ADVISORY_DB may name a
# checkout of https://github.com/rustsec/advisory-db where it is. --install compiles what is missing of the tools named behind it, or of all of them,
# first, which takes two to three minutes for each.
# The exceptions stand in deny.toml, each with its reason, and nowhere else: cargo-audit is told the same ones.
# Changes nothing but target/sbom.
set -uo pipefail
cd "$(dirname "$0")/.."

passed=0 failed=0
check() { # check NAME COMMAND...
	local name=$1 output
	shift
	if output=$("$@" 2>&1); then
		passed=$((passed + 1))
		echo "PASS  $name${output:+: $(tail -n1 <<<"$output")}"
	else
		failed=$((failed + 1))
		echo "FAIL  $name"
		tail -n40 <<<"$output" | sed 's/^/      /'
	fi
}
skip() { echo "SKIP  $1: $2"; }
missing() { # what cannot be checked for want of a tool
	if [ -z "$strict" ]; then skip "$@"; return; fi
	failed=$((failed + 1))
	echo "FAIL  $1: $2"
}
has() { command -v "$1" >/dev/null; }

strict=''
if [ "${1:-}" = --strict ]; then
	strict=yes
	shift
fi
if [ "${1:-}" = --install ]; then
	shift
	[ $# -gt 0 ] || set -- cargo-deny cargo-audit cargo-cyclonedx
	for tool; do
		# It runs for a second, so to optimise it would take longer than it saves.
		profile=$([ "$tool" != cargo-cyclonedx ] || echo --debug)
		has "$tool" || nice cargo install --quiet --locked ${profile:+"$profile"} "$tool" || skip "$tool" "cannot be installed"
	done
elif [ $# -gt 0 ]; then
	echo "supply-chain.sh [--strict] [--install [TOOL...]], not $*" >&2
	exit 2
fi

# A package without a source is our own; any other must come from crates.io and carry its checksum.
sources() {
	awk -v RS= '
		/^\[\[package\]\]/ && /\nsource = / {
			count++
			# The line with a checksum of 64 digits has 78 bytes, its line feed before it included.
			known = $0 ~ /\nsource = "registry\+https:\/\/github.com\/rust-lang\/crates.io-index"\n/
			summed = match($0, /\nchecksum = "[0-9a-f]+"/) && RLENGTH == 78
			if (!known || !summed) { print FILENAME ": " $0; bad = 1 }
		}
		END { print count " crates"; exit bad || count == 0 }' "$@"
}
check "every crate is crates.io's, with its checksum" sources Cargo.lock fuzz/Cargo.lock
for folder in . fuzz; do
	# Not --offline: it reads the manifests of all crates, those of other platforms too, which no build here has fetched.
	check "$folder/Cargo.lock fits its manifests" sh -c "cd $folder && cargo metadata --locked --format-version 1 >/dev/null"
done

ignored=$(sed -nE 's/.*id = "(RUSTSEC-[0-9-]+)".*/\1/p' deny.toml)
reasons=$(grep -cE 'id = "RUSTSEC-[0-9-]+", reason = "[^"]{20,}"' deny.toml)
check "every exception has its reason" test "$reasons" = "$(wc -w <<<"$ignored")"

if has cargo-deny; then
	check "licences, bans and sources" cargo deny --offline check --hide-inclusion-graph bans licenses sources
else
	missing "licences and bans" "no cargo-deny (cargo install --locked cargo-deny)"
fi

reachable() { timeout 10 git ls-remote --quiet https://github.com/rustsec/advisory-db HEAD >/dev/null 2>&1; }
database=()
if [ -n "${ADVISORY_DB:-}" ]; then database=(--db "$ADVISORY_DB" --no-fetch); fi
if ! has cargo-audit; then
	# cargo-deny, below, asks the same database.
	skip "advisories, by cargo-audit" "no cargo-audit (cargo install --locked cargo-audit)"
elif [ ${#database[@]} = 0 ] && ! reachable; then
	skip "advisories, by cargo-audit" "the database is out of reach (ADVISORY_DB may name a checkout)"
else
	for lock in Cargo.lock fuzz/Cargo.lock; do
		check "advisories, by cargo-audit: $lock" cargo audit --quiet --file "$lock" "${database[@]}" $(printf -- '--ignore %s ' $ignored)
	done
fi
if ! has cargo-deny; then
	:
elif ! reachable; then
	skip "advisories, by cargo-deny" "the database is out of reach"
else
	check "advisories, by cargo-deny" cargo deny check --hide-inclusion-graph advisories
fi

# One CycloneDX file for each program, of what is compiled into it. Made anew each time and never committed.
sbom() {
	mkdir -p target/sbom || return
	local program
	for program in gateway aggregator; do
		cargo cyclonedx --quiet --manifest-path "$program/Cargo.toml" --format json --override-filename "galo-$program.cdx" || return
		mv "$program/galo-$program.cdx.json" target/sbom/ || return
		# The others of the workspace get one too, beside their manifests.
		find . -path ./target -prune -o -name "galo-$program.cdx.json" -exec rm -f {} +
	done
	echo "target/sbom: $(jq -r '.components | length' target/sbom/galo-gateway.cdx.json) and $(jq -r '.components | length' target/sbom/galo-aggregator.cdx.json) components"
}
if has cargo-cyclonedx; then check "SBOM" sbom; else missing "SBOM" "no cargo-cyclonedx (cargo install --locked cargo-cyclonedx)"; fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
