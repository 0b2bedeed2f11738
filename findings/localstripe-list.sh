#!/usr/bin/env bash
# localstripe 1.15.10 (PyPI, with aiohttp 3.14.5): its lists come in the other order than Stripe's, and know no time.
#
# - GET /v1/payment_intents gives the oldest first. Stripe gives "the most recently created PaymentIntents" first
#   (https://docs.stripe.com/api/payment_intents/list).
# - `created[gte]`, a documented filter of that list, is refused with 400 "Unexpected created".
# - `limit` and `starting_after` work, so a list can be read to its end; `ending_before` is refused, too.
#
# Why it matters: a program that looks for what became of a recent payment finds it on the first page at Stripe and on the last one here, and
# one that narrows the list by time gets an error. To look a payment up, all pages must be read; each entry takes about 2.7 KB.
#
# Exits non-zero if the behaviour is another one. Needs python3 with pip, curl, and PyPI.
set -euo pipefail

folder=$(mktemp -d) pickle=/tmp/localstripe.pickle server=
[ -e "$pickle" ] && had_pickle=1 || had_pickle=
# It writes its store there whatever it is told.
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"; [ -n "$had_pickle" ] || rm -f "$pickle"' EXIT
python3 -m pip install --quiet --target "$folder" localstripe==1.15.10 aiohttp==3.14.5 2>"$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
PYTHONPATH=$folder python3 -m localstripe --from-scratch --port "$port" >"$folder/log" 2>&1 &
server=$!

call() { curl --silent --max-time 10 --globoff --header 'Authorization: Bearer sk_test_12345' "$@"; }
url=http://127.0.0.1:$port/v1
call --retry 50 --retry-delay 1 --retry-connrefused "$url/customers" >/dev/null
read_json() { python3 -c "import json, sys; it = json.load(sys.stdin); print($1)"; }
expect() { echo "$1: $2"; [ "$2" = "$3" ] || { echo "expected: $3"; exit 1; }; }

for amount in 101 102 103; do
	call --data "amount=$amount&currency=brl&confirm=true&payment_method=pm_card_visa" "$url/payment_intents" >/dev/null
done
amounts='" ".join(str(entry["amount"]) for entry in it["data"]), it["has_more"]'
expect "the list" "$(call "$url/payment_intents" | read_json "$amounts")" "101 102 103 False"
expect "its first two" "$(call "$url/payment_intents?limit=2" | read_json "$amounts")" "101 102 True"
expect "with created[gte]" "$(call "$url/payment_intents?created[gte]=0" | read_json 'it["error"]["message"]')" "Unexpected created"
expect "with ending_before" "$(call "$url/payment_intents?ending_before=pi_1" | read_json 'it["error"]["message"]')" "Unexpected ending_before"
