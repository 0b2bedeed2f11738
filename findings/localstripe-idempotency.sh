#!/usr/bin/env bash
# localstripe 1.15.10 (PyPI, with aiohttp 3.14.5): what a client of Stripe may rely on and what it does not get here.
#
# - `Idempotency-Key` is ignored: the same POST /v1/payment_intents with the same key charges twice. Stripe answers the second one with
#   the first one's answer ("Idempotent requests", https://docs.stripe.com/api/idempotent_requests).
# - `pm_card_visa_chargeDeclined`, which Stripe's documentation on testing lists as a card whose charge is declined, is charged: the
#   answer is 200 and "succeeded". It is declined only when it is attached to a customer.
# - A card that is declined (4000 0000 0000 0341) is 402, as with Stripe, but "type" is invalid_request_error; with Stripe it is card_error.
#
# Why it matters: code that repeats a request when an answer is lost passes its tests against Stripe's test mode and charges twice here, and
# code whose tests need a decline finds none. What was lost must be looked up in the list instead.
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

call() { curl --silent --max-time 10 --header 'Authorization: Bearer sk_test_12345' "$@"; }
url=http://127.0.0.1:$port/v1
call --retry 50 --retry-delay 1 --retry-connrefused "$url/customers" >/dev/null
field() { python3 -c 'import json, sys; value = json.load(sys.stdin)
for key in sys.argv[1].split("."): value = value[int(key) if key.isdigit() else key]
print(value)' "$1"; }
expect() { echo "$1: $2"; [ "$2" = "$3" ] || { echo "expected: $3"; exit 1; }; }

pay() { call --header 'Idempotency-Key: order-1' --data "amount=1990&currency=brl&confirm=true&payment_method=$1&metadata[order_id]=order-1" "$url/payment_intents"; }
pay pm_card_visa | field status >"$folder/first"
pay pm_card_visa | field status >"$folder/second"
expect "the same key twice says" "$(cat "$folder/first" "$folder/second" | xargs)" "succeeded succeeded"
expect "charges made" "$(call "$url/charges" | field data | grep -o "'id': 'ch_" | wc -l)" 2
expect "pm_card_visa_chargeDeclined says" "$(pay pm_card_visa_chargeDeclined | field status)" succeeded
expect "a declined card's error" "$(pay pm_card_chargeCustomerFail | field error.type)" invalid_request_error
