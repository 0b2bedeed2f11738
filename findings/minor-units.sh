#!/usr/bin/env bash
# stockholm 0.5.7 (PyPI) and @dinero.js/currencies 2.0.0-alpha.15 (npm), beside ISO 4217's table of 1 January 2026 (iso4217 1.16.20260101, PyPI):
# "the amount in minor units" is three different numbers.
#
# - stockholm's `sub_units` and `from_sub_units` mean hundredths in every currency: 5 KWD are 500, 5 JPY are 500, 5000 KWD "from sub units" are 50.00 KWD, though the library
#   knows that KWD has three digits and JPY none. Of BHD (3) and BIF (0) it says 2.
# - dinero counts the ariary and the ouguiya in fifths, as their coins are: base 5, exponent 1. ISO 4217 gives both the exponent 2, and so do currency-codes and iso4217:
#   5 MRU are 25 there and 500 here.
# - XCG, in use since March 2025, is in neither of the two.
#
# Why it matters: payment providers take integers in *their* minor units and say nothing when a number is ten, twenty or a hundred times too large: it is a valid amount. A gateway that got the exponent
# from a library would charge by whichever library its client used. The exponent is part of a provider's contract, to be written down for each provider and currency, and looked up nowhere else.
#
# Exits non-zero if the behaviour is another one. Needs python3 with venv, node, npm, PyPI and npm's registry.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check stockholm==0.5.7 iso4217==1.16.20260101
npm install --silent --no-fund --no-audit @dinero.js/currencies@2.0.0-alpha.15

cat >python.py <<'PY'
import iso4217, stockholm

iso = {it.code: it.exponent for it in iso4217.Currency if it.exponent is not None}
known = {code: getattr(stockholm.Currency, code, None) for code in iso}
for code in ("JPY", "KWD"):
    money = stockholm.Money(5, code)
    five = 5 * 10 ** iso[code]
    print(f"5 {code}: ISO 4217 {five}, stockholm {money.sub_units}; {five} sub units are {stockholm.Money.from_sub_units(five, code)}")
differ = [f"{code} {known[code].decimal_digits} not {digits}" for code, digits in sorted(iso.items())
          if known[code] is not None and known[code].decimal_digits != digits]
print("stockholm's digits differ:", ", ".join(differ), "; XCG known:", known["XCG"] is not None)
PY

cat >node.js <<'JS'
const currencies = require("@dinero.js/currencies");
const units = ({ base, exponent }) => base ** exponent;
console.log(["MGA", "MRU", "KWD", "JPY"].map((code) => `5 ${code}: dinero ${5 * units(currencies[code])}`).join(", "), "; XCG known:", "XCG" in currencies);
JS

expect() { echo "$1"; [ "$1" = "$2" ] || { echo "expected: $2"; exit 1; }; }
mapfile -t lines < <(python/bin/python python.py)
expect "${lines[0]}" "5 JPY: ISO 4217 5, stockholm 500; 5 sub units are 0.05 JPY"
expect "${lines[1]}" "5 KWD: ISO 4217 5000, stockholm 500; 5000 sub units are 50.00 KWD"
expect "${lines[2]}" "stockholm's digits differ: BHD 2 not 3, BIF 2 not 0 ; XCG known: False"
expect "$(node node.js)" "5 MGA: dinero 25, 5 MRU: dinero 25, 5 KWD: dinero 5000, 5 JPY: dinero 5 ; XCG known: false"
