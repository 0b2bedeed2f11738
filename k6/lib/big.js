// Exact decimals with the part of big.js's interface that a payments script needs: plus, minus, times, round,
// toNumber, toString. For scripts that import big.js from the web, on machines that have none.
//
// A number is a BigInt coefficient and a count of decimals; no operation here rounds except `round`. It takes what String()
// makes of a number, exponents included, so 19.9 is nineteen point nine. It must never guess: anything else throws.

export default class Big {
  constructor(value) {
    if (value instanceof Big) {
      this.coefficient = value.coefficient;
      this.decimals = value.decimals;
      return;
    }
    const match = /^([+-]?)(\d+)(?:\.(\d*))?(?:e([+-]?\d+))?$/i.exec(String(value));
    if (!match) {
      throw new Error(`not a decimal number: ${value}`);
    }
    const [, sign, whole, fraction = "", exponent = "0"] = match;
    const magnitude = BigInt(whole + fraction);
    const decimals = fraction.length - parseInt(exponent, 10);
    this.coefficient = sign === "-" ? -magnitude : magnitude;
    this.decimals = decimals;
    if (decimals < 0) {
      this.coefficient *= 10n ** BigInt(-decimals);
      this.decimals = 0;
    }
  }

  plus(other) {
    const [a, b, decimals] = aligned(this, new Big(other));
    return make(a + b, decimals);
  }

  minus(other) {
    const [a, b, decimals] = aligned(this, new Big(other));
    return make(a - b, decimals);
  }

  times(other) {
    const factor = new Big(other);
    return make(this.coefficient * factor.coefficient, this.decimals + factor.decimals);
  }

  // Half away from zero, which is big.js's own default.
  round(decimals = 0) {
    if (this.decimals <= decimals) {
      return new Big(this);
    }
    const unit = 10n ** BigInt(this.decimals - decimals);
    const magnitude = this.coefficient < 0n ? -this.coefficient : this.coefficient;
    const rounded = (magnitude * 2n + unit) / (unit * 2n);
    return make(this.coefficient < 0n ? -rounded : rounded, decimals);
  }

  toNumber() {
    return Number(this.toString());
  }

  toString() {
    const negative = this.coefficient < 0n;
    const digits = String(negative ? -this.coefficient : this.coefficient).padStart(this.decimals + 1, "0");
    const whole = digits.slice(0, digits.length - this.decimals);
    const fraction = digits.slice(digits.length - this.decimals).replace(/0+$/, "");
    return (negative ? "-" : "") + whole + (fraction ? `.${fraction}` : "");
  }

  toJSON() {
    return this.toString();
  }
}

function make(coefficient, decimals) {
  const result = new Big(0);
  result.coefficient = coefficient;
  result.decimals = decimals;
  return result;
}

// Both coefficients for the same count of decimals.
function aligned(a, b) {
  const decimals = Math.max(a.decimals, b.decimals);
  const lift = (big) => big.coefficient * 10n ** BigInt(decimals - big.decimals);
  return [lift(a), lift(b), decimals];
}
