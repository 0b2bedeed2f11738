//! Money as the processors keep it: read exactly from the request's digits, rounded to whole cents when stored.
//!
//! The real processors read `amount` into a base-10 decimal and round it to two places with .NET's default, half to
//! even: 0.125 becomes 0.12 and 0.135 becomes 0.14. The same digits give the same cents here. No value passes
//! through a binary float, on the way in or out.
//!
//! One bound is narrower than theirs: an amount beyond ±2^63 cents is refused, where .NET stops at about 7.9e28.

use std::fmt;
use std::str::FromStr;

/// Text that is no amount, or one that this model cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not a decimal number as JSON writes it.
    #[error("not a decimal number")]
    Malformed,
    /// More than ±2^63 cents.
    #[error("too large")]
    TooLarge,
}

/// Reads a JSON number as cents, rounding half to even.
///
/// # Errors
///
/// Says whether the text is no number or the number too large.
pub fn parse_cents(text: &str) -> Result<i64, AmountError> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return Err(AmountError::Malformed),
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return Err(AmountError::Malformed);
    }

    let digits = || whole.bytes().chain(fraction.bytes()).map(|byte| i64::from(byte - b'0'));
    let whole_len = i64::try_from(whole.len()).map_err(|_| AmountError::TooLarge)?;
    // How many of the digits, read from the left, stand before the end of the cents.
    let kept_len = whole_len + exponent + 2;
    let Ok(kept_len) = usize::try_from(kept_len) else {
        return Ok(0); // Smaller than a tenth of a cent.
    };

    let mut cents = 0_i64;
    for digit in digits().take(kept_len) {
        cents = shift_in(cents, digit)?;
    }
    let missing_len = kept_len.saturating_sub(whole.len() + fraction.len());
    for _ in 0..if cents == 0 { 0 } else { missing_len } {
        cents = shift_in(cents, 0)?;
    }

    let mut rest = digits().skip(kept_len);
    let first = rest.next().unwrap_or(0);
    let beyond_half = first > 5 || (first == 5 && rest.any(|digit| digit != 0));
    let exactly_half = first == 5 && !beyond_half;
    if beyond_half || (exactly_half && cents % 2 == 1) {
        cents = cents.checked_add(1).ok_or(AmountError::TooLarge)?;
    }
    Ok(if negative { -cents } else { cents })
}

fn shift_in(cents: i64, digit: i64) -> Result<i64, AmountError> {
    cents.checked_mul(10).and_then(|cents| cents.checked_add(digit)).ok_or(AmountError::TooLarge)
}

/// An exponent, cut to a range in which every amount is already zero or too large.
fn parse_exponent(text: &str) -> Result<i64, AmountError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AmountError::Malformed);
    }
    let size = digits.parse::<i64>().unwrap_or(i64::MAX).min(1_000_000);
    Ok(if text.starts_with('-') { -size } else { size })
}

/// What a processor keeps of each payment, as an exact decimal fraction: 0.05 is five per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fee {
    units: u32,
    scale: u32,
}

impl Fee {
    /// The fee on a sum of cents, in currency, exact: five per cent of 1990 cents is `0.9950`.
    #[must_use]
    pub fn of_cents(self, cents: i128) -> Decimal {
        Decimal { units: cents * i128::from(self.units), scale: self.scale + 2 }
    }
}

impl FromStr for Fee {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a fraction from 0 to 1 with at most 6 decimals, such as 0.05";
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let well_formed = matches!(whole, "0" | "1")
            && fraction.len() <= 6
            && (fraction.is_empty() != text.contains('.'))
            && fraction.bytes().all(|byte| byte.is_ascii_digit());
        if !well_formed {
            return Err(EXPECTED);
        }
        let scale = u32::try_from(fraction.len()).map_err(|_| EXPECTED)?;
        let units = format!("{whole}{fraction}").parse::<u32>().map_err(|_| EXPECTED)?;
        if units > 10_u32.pow(scale) {
            return Err(EXPECTED);
        }
        Ok(Fee { units, scale })
    }
}

impl fmt::Display for Fee {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Decimal { units: i128::from(self.units), scale: self.scale }.fmt(out)
    }
}

/// An exact decimal: `units` divided by ten to the power of `scale`. Displays with all `scale` digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    units: i128,
    scale: u32,
}

impl Decimal {
    /// A sum of cents as currency with two decimals.
    #[must_use]
    pub fn from_cents(cents: i128) -> Self {
        Decimal { units: cents, scale: 2 }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.units < 0 { "-" } else { "" };
        let units = self.units.unsigned_abs();
        if self.scale == 0 {
            return write!(out, "{sign}{units}");
        }
        let divisor = 10_u128.pow(self.scale);
        let width = usize::try_from(self.scale).map_err(|_| fmt::Error)?;
        write!(out, "{sign}{}.{:0width$}", units / divisor, units % divisor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_way_of_writing_an_amount() {
        for (text, cents) in [
            ("0.01", 1),
            ("19.9", 1990),
            ("19.90", 1990),
            ("1234567.89", 123_456_789),
            ("1e2", 10_000),
            ("1.5E+1", 1500),
            ("1990e-2", 1990),
            ("0", 0),
            ("0e999999999999999999999", 0),
            ("1e-999999999999999999999", 0),
            ("-3.5", -350),
            ("77.8299999999999982946974341757595539093017578125", 7783),
            ("92233720368547758.07", i64::MAX),
        ] {
            assert_eq!(parse_cents(text), Ok(cents), "{text}");
        }
    }

    #[test]
    fn rounds_half_to_even() {
        for (text, cents) in [
            ("0.125", 12),
            ("0.135", 14),
            ("0.1250000001", 13),
            ("0.005", 0),
            ("0.015", 2),
            ("0.0051", 1),
            ("0.0049", 0),
            ("0.0009", 0),
            ("5e-3", 0),
            ("6e-3", 1),
            ("99.995", 10_000),
            ("-0.135", -14),
        ] {
            assert_eq!(parse_cents(text), Ok(cents), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_amount() {
        for text in
            ["", "-", ".5", "5.", "1e", "1e+", "1.2.3", "0x1", "NaN", " 1", "1 ", "+1", "--1", "1e2.5"]
        {
            assert_eq!(parse_cents(text), Err(AmountError::Malformed), "{text:?}");
        }
        for text in ["92233720368547758.08", "1e17", "1e999999999999999999999", "92233720368547758.075"] {
            assert_eq!(parse_cents(text), Err(AmountError::TooLarge), "{text}");
        }
    }

    proptest! {
        #[test]
        fn cents_survive_a_round_trip(cents in any::<i32>()) {
            let text = Decimal::from_cents(i128::from(cents)).to_string();
            prop_assert_eq!(parse_cents(&text), Ok(i64::from(cents)));
        }

        #[test]
        fn never_panics(text in "[-+0-9.eE]{0,40}") {
            prop_assert!(parse_cents(&text).map_or(true, |cents| cents > i64::MIN));
        }
    }

    #[test]
    fn a_fee_is_exact() {
        let fee: Fee = "0.05".parse().unwrap();
        assert_eq!(fee.to_string(), "0.05");
        assert_eq!(fee.of_cents(1990).to_string(), "0.9950");
        assert_eq!("0.15".parse::<Fee>().unwrap().of_cents(1).to_string(), "0.0015");
        assert_eq!("1".parse::<Fee>().unwrap().of_cents(250).to_string(), "2.50");
        for text in ["", "5%", "1.01", "2", "-0.1", "0.", ".05", "0.0000001", "0,05"] {
            assert!(text.parse::<Fee>().is_err(), "{text:?}");
        }
    }
}
