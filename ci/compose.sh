#!/usr/bin/env bash
# The end-to-end test of Docker Compose for real: an engine, the base images, then ci/compose.py.
#
# Every step leaves alone what is there already, so on a machine with Docker it goes straight to the test. The
# arguments go to compose.py.
set -euo pipefail
cd "$(dirname "$0")/.."
docker compose version >/dev/null 2>&1 || ci/install-docker.sh
ci/start-docker.sh
ci/local-images.sh
exec python3 ci/compose.py "$@"
