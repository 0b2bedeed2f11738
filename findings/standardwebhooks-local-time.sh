#!/usr/bin/env bash
# standardwebhooks 1.1.0 (PyPI), beside standardwebhooks 1.1.1 (npm): the Python library signs the clock on the wall, not the moment.
#
# - `Webhook.sign(id, timestamp, data)` takes a `datetime`. Of one with an offset it drops the offset and signs the rest as UTC: 10:00−03:00 is signed as
#   10:00 UTC, three hours before the moment that `timestamp.timestamp()` gives for the header `webhook-timestamp`.
# - So whoever signs with `datetime.now(ZoneInfo("America/Sao_Paulo"))` sends what no receiver verifies: neither npm's library nor this one itself. With
#   `datetime.now(timezone.utc)` both agree to the byte.
#
# Why it matters: the error is "No matching signature found", which reads like a wrong secret; it goes unseen where tests run in UTC, and comes with the
# first server that does not. A receiver cannot tell it from a forgery and must refuse it. A sender signs the decimal seconds that it puts into the header, and
# nothing that is derived from a calendar a second time.
#
# Exits non-zero if the behaviour is another one. Needs python3 with venv, node, npm, PyPI and npm's registry.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check standardwebhooks==1.1.0 tzdata==2025.2
npm install --silent --no-fund --no-audit standardwebhooks@1.1.1

cat >send.py <<'PY'
import datetime, sys, zoneinfo
from standardwebhooks.webhooks import Webhook

zone = datetime.timezone.utc if sys.argv[1] == "UTC" else zoneinfo.ZoneInfo(sys.argv[1])
moment = datetime.datetime.fromtimestamp(int(sys.argv[2]), zone)
sender = Webhook("whsec_Z2Fsby1maW5kaW5nLXNlY3JldA==")
print(int(moment.timestamp()), sender.sign("msg_1", moment, '{"amount":1990}'))
PY

cat >verify.py <<'PY'
import sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

headers = {"webhook-id": "msg_1", "webhook-timestamp": sys.argv[1], "webhook-signature": sys.argv[2]}
try:
    Webhook("whsec_Z2Fsby1maW5kaW5nLXNlY3JldA==").verify('{"amount":1990}', headers)
    print("verified")
except WebhookVerificationError as error:
    print(error)
PY

cat >verify.js <<'JS'
const { Webhook } = require("standardwebhooks");
const headers = { "webhook-id": "msg_1", "webhook-timestamp": process.argv[2], "webhook-signature": process.argv[3] };
try {
	new Webhook("whsec_Z2Fsby1maW5kaW5nLXNlY3JldA==").verify('{"amount":1990}', headers);
	console.log("verified");
} catch (error) {
	console.log(error.message);
}
JS

expect() { echo "$1: $2"; [ "$2" = "$3" ] || { echo "expected: $3"; exit 1; }; }
now=$(date +%s)
read -r utc_stamp utc_signature <<<"$(python/bin/python send.py UTC "$now")"
read -r local_stamp local_signature <<<"$(python/bin/python send.py America/Sao_Paulo "$now")"
read -r _ shifted_signature <<<"$(python/bin/python send.py UTC "$((now - 3 * 3600))")"

expect "the same moment, as the header has it" "$([ "$utc_stamp" = "$local_stamp" ] && echo equal || echo different)" equal
expect "signed in UTC: npm's library" "$(node verify.js "$utc_stamp" "$utc_signature")" verified
expect "signed in UTC: PyPI's library" "$(python/bin/python verify.py "$utc_stamp" "$utc_signature")" verified
expect "signed at UTC-3: npm's library" "$(node verify.js "$local_stamp" "$local_signature")" "No matching signature found"
expect "signed at UTC-3: PyPI's library" "$(python/bin/python verify.py "$local_stamp" "$local_signature")" "No matching signature found"
expect "it is the signature of three hours before" "$([ "$local_signature" = "$shifted_signature" ] && echo yes || echo no)" yes
