//! Money: whole cents, read exactly from a JSON number's own digits and written back exactly.
//!
//! No float ever holds an amount: `19.90` has no binary representation, and converting by way of one was wrong for
//! one amount in fifteen. The value of a JSON number is its digits times a power of ten, so reading it is counting
//! digits; nothing is multiplied before the result is known to fit.
//!
//! It must never panic, loop or allocate, whatever the text: an exponent may have a thousand digits, and so may the
//! number. What is not a positive number of whole cents within [`AmountCents::MAX`] is refused with the reason.

use thiserror::Error;

/// The amount of one payment in cents: 1 to [`AmountCents::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AmountCents(u64);

/// Why a text is no amount. The messages say what was expected, so that they can be shown to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AmountError {
    /// The text does not follow the number grammar of RFC 8259, section 6.
    #[error("expected a JSON number such as 19.90")]
    NotANumber,
    /// Zero, or below.
    #[error("expected an amount above zero")]
    NotPositive,
    /// A fraction of a cent is left over. Zeros beyond the second decimal are none.
    #[error("expected at most two decimals")]
    TooManyDecimals,
    /// Above [`AmountCents::MAX`].
    #[error("expected at most 999999999.99")]
    TooLarge,
}

/// The decimal digits of [`AmountCents::MAX`]. A number of cents with more digits than this is too large.
const MAX_DIGITS: i64 = 11;

/// Enough for the sign, the digits and the point of any `u64` of cents (21 bytes), rounded up.
pub const DECIMAL_TEXT_SIZE: usize = 24;

impl AmountCents {
    /// The largest amount, 999,999,999.99.
    ///
    /// Sums of cents are `u64`: they hold 184 million payments of this size (2^64 / 99,999,999,999), which is more
    /// than the ledger can remember, and many millions of years of ordinary ones. Should a sum overflow all the same,
    /// the overflow check ends the process rather than let a wrong total out.
    pub const MAX: Self = Self(99_999_999_999);

    /// An amount of so many cents, if it is one: 1 to [`Self::MAX`].
    #[must_use]
    pub const fn new(cents: u64) -> Option<Self> {
        if cents >= 1 && cents <= Self::MAX.0 { Some(Self(cents)) } else { None }
    }

    /// The cents.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Reads an amount from the text of a JSON number, and nothing around it: `19.90`, `1e2`, `100000e-3`.
    ///
    /// # Errors
    /// The first of [`AmountError`]'s reasons, in their order there, that applies.
    pub fn parse(text: &[u8]) -> Result<Self, AmountError> {
        let number = Number::scan(text).ok_or(AmountError::NotANumber)?;
        let Some(first) = number.digits().position(|digit| digit != b'0') else {
            return Err(AmountError::NotPositive);
        };
        if number.negative {
            return Err(AmountError::NotPositive);
        }
        let trailing_zeros = number.digits().rev().take_while(|&digit| digit == b'0').count();
        let significant_count = number.digits().count() - first - trailing_zeros;

        // cents = significant digits × 10^scale. The last significant digit is not zero, so that a negative scale
        // always leaves a fraction of a cent.
        let scale = number
            .exponent
            .saturating_sub(length(number.fraction))
            .saturating_add(length_of(trailing_zeros))
            .saturating_add(2);
        if scale < 0 {
            return Err(AmountError::TooManyDecimals);
        }
        if length_of(significant_count).saturating_add(scale) > MAX_DIGITS {
            return Err(AmountError::TooLarge);
        }
        // At most eleven digits in all from here: neither the loop nor the zeros can overflow.
        let significant = number.digits().skip(first).take(significant_count);
        let mut cents = significant.fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
        for _ in 0..scale {
            cents *= 10;
        }
        // Eleven digits are at most `MAX`, and the first is not zero.
        Ok(Self::new(cents).expect("between one and eleven digits, the first not zero"))
    }
}

/// A JSON number taken apart, its digits still where they were.
struct Number<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    /// Held to ±[`EXPONENT_MAX`]: beyond that only its sign matters.
    exponent: i64,
}

/// Far above the length of any text, so that no number of zeros before or after the point can make up for it.
const EXPONENT_MAX: i64 = 1 << 61;

impl<'a> Number<'a> {
    /// `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`, the whole text.
    fn scan(text: &'a [u8]) -> Option<Self> {
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let (integer, text) = split_digits(text);
        if integer.is_empty() || (integer.len() > 1 && integer[0] == b'0') {
            return None;
        }
        let (fraction, text) = match text {
            [b'.', rest @ ..] => match split_digits(rest) {
                ([], _) => return None,
                split => split,
            },
            _ => (&text[..0], text),
        };
        let exponent = match text {
            [] => 0,
            [b'e' | b'E', b'-', digits @ ..] => -scan_exponent(digits)?,
            [b'e' | b'E', b'+', digits @ ..] | [b'e' | b'E', digits @ ..] => scan_exponent(digits)?,
            _ => return None,
        };
        Some(Self { negative, integer, fraction, exponent })
    }

    /// All digits, those before the point and those after it, without the point.
    fn digits(&self) -> impl DoubleEndedIterator<Item = u8> + use<'_> {
        self.integer.iter().chain(self.fraction).copied()
    }
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at(count)
}

fn scan_exponent(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0_i64, |value, digit| {
        value.saturating_mul(10).saturating_add(i64::from(digit - b'0')).min(EXPONENT_MAX)
    });
    Some(value)
}

fn length(text: &[u8]) -> i64 {
    length_of(text.len())
}

fn length_of(count: usize) -> i64 {
    i64::try_from(count).expect("a slice is shorter than isize::MAX")
}

/// Writes cents as a decimal number with two decimals, always both: `1234567.89`, `0.05`, `0.00`.
pub fn write_decimal(cents: u64, out: &mut [u8; DECIMAL_TEXT_SIZE]) -> &str {
    let mut start = out.len();
    let mut rest = cents;
    // From the right: two decimals, the point, and at least one digit before it.
    while rest > 0 || start > DECIMAL_TEXT_SIZE - 4 {
        if start == DECIMAL_TEXT_SIZE - 2 {
            start -= 1;
            out[start] = b'.';
        }
        start -= 1;
        out[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    std::str::from_utf8(&out[start..]).expect("digits and a point are ASCII")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<u64, AmountError> {
        AmountCents::parse(text.as_bytes()).map(AmountCents::get)
    }

    #[test]
    fn reads_what_rfc_8259_calls_a_number() {
        for (text, cents) in [
            ("0.01", 1),
            ("19.9", 1_990),
            ("19.90", 1_990),
            ("1.500", 150),
            ("1.5E+1", 1_500),
            ("1e2", 10_000),
            ("1E2", 10_000),
            ("1e-2", 1),
            ("100000e-3", 10_000),
            ("0.000001e4", 1),
            ("0.0e1", 0),
            ("1234567.89", 123_456_789),
            ("999999999.99", 99_999_999_999),
            ("99999999999e-2", 99_999_999_999),
            ("1e000000000000000000000000000000000002", 10_000),
            ("100e-00", 10_000),
        ] {
            let expected = if cents == 0 { Err(AmountError::NotPositive) } else { Ok(cents) };
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_number() {
        for text in [
            "", "-", "+1", ".5", "1.", "01", "00", "-01", "1.e2", "1e", "1e+", "1e-", "1e1.0", "1 ", " 1",
            "1,5", "0x10", "1_0", "NaN", "Infinity", "--1", "1e--1", "1.2.3", "\u{0661}", "\"1\"", "1e5e5",
            "null", "-e1", "e1", ".", "1\0",
        ] {
            assert_eq!(parse(text), Err(AmountError::NotANumber), "{text:?}");
        }
    }

    #[test]
    fn refuses_zero_and_below() {
        for text in
            ["0", "-0", "0.00", "0e5", "0e999999999999", "-1", "-0.01", "-1e400", "-0.001", "0.000e-9"]
        {
            assert_eq!(parse(text), Err(AmountError::NotPositive), "{text}");
        }
    }

    #[test]
    fn refuses_fractions_of_a_cent() {
        for text in [
            "0.001",
            "1.999",
            "1e-3",
            "19.905",
            "1e-999999999999",
            "1e-99999999999999999999999",
            "0.0100000000000000001",
        ] {
            assert_eq!(parse(text), Err(AmountError::TooManyDecimals), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_too_large() {
        for text in [
            "1000000000",
            "1000000000.00",
            "1e9",
            "1e400",
            "1e999999999999",
            "1e99999999999999999999999",
            "18446744073709551617",
        ] {
            assert_eq!(parse(text), Err(AmountError::TooLarge), "{text}");
        }
    }

    #[test]
    fn long_runs_of_zeros_are_worth_what_they_are_worth() {
        let zeros = "0".repeat(10_000);
        assert_eq!(parse(&format!("1{zeros}e-10000")), Ok(100));
        assert_eq!(parse(&format!("0.{zeros}1e10001")), Ok(100));
        assert_eq!(parse(&format!("1.{zeros}")), Ok(100));
        assert_eq!(parse(&format!("1{zeros}")), Err(AmountError::TooLarge));
        assert_eq!(parse(&format!("1.{zeros}1")), Err(AmountError::TooManyDecimals));
        assert_eq!(parse(&format!("1e{}", "9".repeat(10_000))), Err(AmountError::TooLarge));
    }

    #[test]
    fn new_takes_one_cent_to_max() {
        assert_eq!(AmountCents::new(0), None);
        assert_eq!(AmountCents::new(1).map(AmountCents::get), Some(1));
        assert_eq!(AmountCents::new(AmountCents::MAX.get()), Some(AmountCents::MAX));
        assert_eq!(AmountCents::new(AmountCents::MAX.get() + 1), None);
    }

    #[test]
    fn writes_two_decimals_always() {
        let mut out = [0; DECIMAL_TEXT_SIZE];
        for (cents, text) in [
            (0, "0.00"),
            (5, "0.05"),
            (10, "0.10"),
            (99, "0.99"),
            (100, "1.00"),
            (123_456_789, "1234567.89"),
            (u64::MAX, "184467440737095516.15"),
        ] {
            assert_eq!(write_decimal(cents, &mut out), text);
        }
    }

    /// Every amount up to 10,000.00, and a spread of the rest, through text and back.
    #[test]
    fn written_amounts_read_back_as_themselves() {
        let mut out = [0; DECIMAL_TEXT_SIZE];
        let mut check = |cents: u64| {
            let text = write_decimal(cents, &mut out);
            assert_eq!(text, format!("{}.{:02}", cents / 100, cents % 100));
            assert_eq!(parse(text), Ok(cents));
        };
        (1..=1_000_000).for_each(&mut check);
        (1_000_000..=AmountCents::MAX.get()).step_by(199_999).for_each(&mut check);
        check(AmountCents::MAX.get());
    }

    /// The plain model: digits and exponent as a fraction of `u128`s, for numbers short enough to fit.
    fn model(negative: bool, digits: u64, decimals: u32, exponent: i32) -> Result<u64, AmountError> {
        if negative || digits == 0 {
            return Err(AmountError::NotPositive);
        }
        let power = exponent - i32::try_from(decimals).unwrap() + 2;
        let ten = |power: i32| 10_u128.pow(power.unsigned_abs());
        let (numerator, denominator) =
            if power >= 0 { (u128::from(digits) * ten(power), 1) } else { (u128::from(digits), ten(power)) };
        if !numerator.is_multiple_of(denominator) {
            return Err(AmountError::TooManyDecimals);
        }
        let cents = numerator / denominator;
        if cents > u128::from(AmountCents::MAX.get()) {
            return Err(AmountError::TooLarge);
        }
        Ok(u64::try_from(cents).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn agrees_with_rational_arithmetic(
            negative in prop::bool::weighted(0.1),
            digits in prop_oneof![0..1_000_000_u64, (0..100_000_000_u64).prop_map(|n| n * 1_000), 0..10_000_000_000_000_u64],
            decimals in 0..12_u32,
            exponent in prop::option::of(-14..14_i32),
            plus: bool,
        ) {
            let scale = 10_u64.pow(decimals);
            let mut text = format!("{}{}", if negative { "-" } else { "" }, digits / scale);
            if decimals > 0 {
                text += &format!(".{:0width$}", digits % scale, width = decimals as usize);
            }
            if let Some(exponent) = exponent {
                text += &if plus { format!("E{exponent:+}") } else { format!("e{exponent}") };
            }
            prop_assert_eq!(parse(&text), model(negative, digits, decimals, exponent.unwrap_or(0)), "{}", text);
        }

        #[test]
        fn never_panics(text in prop::collection::vec(prop::sample::select(&b"0019.eE+-x"[..]), 0..24)) {
            let _verdict = AmountCents::parse(&text);
        }
    }
}
