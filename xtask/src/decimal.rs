//! Decimals read from their own digits, as whole numbers of a smaller unit: cents of an amount, milliseconds of seconds.
//!
//! A float would hide a wrong last digit; here what does not fit is refused, never rounded.

/// `text` times ten to the power of `places`: `scaled("19.9", 2)` is 1990. `None` for a sign, an exponent, or a digit
/// other than zero behind `places` decimals.
pub(crate) fn scaled(text: &str, places: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > places {
        return None;
    }
    format!("{whole}{fraction:0<places$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_exact_or_refused() {
        for (text, places, expected) in [
            ("0", 2, 0),
            ("19.9", 2, 1990),
            ("0.01", 2, 1),
            ("1234567.89", 2, 123_456_789),
            ("12345678901.23", 2, 1_234_567_890_123),
            ("12.5", 3, 12_500),
            ("60.0", 3, 60_000),
            ("7.000", 0, 7),
        ] {
            assert_eq!(scaled(text, places), Some(expected), "{text}");
        }
        for text in [
            "0.001",
            "-1",
            "+1",
            "1.+1",
            "\"1\"",
            "1e2",
            "19.900000000000002",
            ".5",
            "",
            "99999999999999999999",
        ] {
            assert_eq!(scaled(text, 2), None, "{text}");
        }
    }
}
