#!/usr/bin/env bash
# Starts dockerd where no service manager does, and waits until it answers; one that runs already is left alone.
#
# Published ports go by DNAT (--userland-proxy=false): through docker-proxy p99 is twice as high. The daemon gets its own
# session, so that it outlives the caller's terminal. Its log: $DOCKERD_LOG, by default /tmp/dockerd.log.
set -euo pipefail

log=${DOCKERD_LOG:-/tmp/dockerd.log}
if docker info >/dev/null 2>&1; then echo "dockerd: running already"; exit 0; fi
[ "$(id -u)" = 0 ] || { echo "start-docker.sh: dockerd does not run, and only root can start it" >&2; exit 1; }

setsid dockerd --userland-proxy=false >"$log" 2>&1 </dev/null &
daemon=$!
for ((tenths = 0; tenths < 600; tenths++)); do
	if docker info >/dev/null 2>&1; then echo "dockerd: pid $daemon, answers after $((tenths / 10)).$((tenths % 10)) s"; exit 0; fi
	if ! kill -0 "$daemon" 2>/dev/null; then echo "start-docker.sh: dockerd ended, its log's last lines:" >&2; tail -n 15 "$log" >&2; exit 1; fi
	sleep 0.1
done
echo "start-docker.sh: dockerd (pid $daemon) does not answer within 60 s; see $log" >&2
exit 1
