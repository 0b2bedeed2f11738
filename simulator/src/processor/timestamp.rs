//! Instants as the processors read and write them, kept as whole milliseconds since the Unix epoch, in UTC.
//!
//! Read: ISO 8601 with a `T`, with `Z`, an offset, or nothing, which means UTC. Written back by `GET /payments/{id}`:
//! **without a `Z`** and without the fraction's trailing zeros (`2025-07-15T12:34:56.12`), since the real column has
//! no time zone and .NET trims it so. Who reads it back must know both.
//!
//! The real column keeps microseconds. This one keeps milliseconds, the finest that Galo sends; a finer
//! `requestedAt` is cut. A finer bound is not cut but moved inwards, so that a range never gains a millisecond.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Milliseconds of an instant, anything finer cut off. `None` if the text is no timestamp.
#[must_use]
pub fn parse_ms(text: &str) -> Option<i64> {
    Some(floor_ms(parse(text)?))
}

/// The first whole millisecond that is not before the instant.
#[must_use]
pub fn parse_ms_from(text: &str) -> Option<i64> {
    let instant = parse(text)?;
    let ms = floor_ms(instant);
    Some(if instant.as_nanosecond().rem_euclid(1_000_000) == 0 { ms } else { ms + 1 })
}

/// An instant as `GET /payments/{id}` writes it: no zone, no trailing zeros.
#[must_use]
pub fn format_without_zone(ms: i64) -> String {
    let duration = SignedDuration::from_millis(ms);
    Timestamp::from_duration(duration)
        .map(|instant| instant.to_zoned(TimeZone::UTC).datetime().to_string())
        .unwrap_or_else(|_| String::from("0001-01-01T00:00:00"))
}

fn parse(text: &str) -> Option<Timestamp> {
    // jiff takes a space and a lower-case `t` as well; .NET's JSON reader does not.
    if text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let instant = match text.parse::<Timestamp>() {
        Ok(instant) => instant,
        // A zone that did not parse would be cut off here silently, so nothing after the time may look like one.
        Err(_) if text[11..].bytes().all(|byte| matches!(byte, b'0'..=b'9' | b':' | b'.')) => {
            text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp()
        }
        Err(_) => return None,
    };
    Some(instant)
}

fn floor_ms(instant: Timestamp) -> i64 {
    let ms = instant.as_nanosecond().div_euclid(1_000_000);
    i64::try_from(ms).expect("jiff's years -9999 to 9999 are less than 2^63 milliseconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_iso_forms() {
        let expected = Some(1_752_582_896_123);
        for text in [
            "2025-07-15T12:34:56.123Z",
            "2025-07-15T12:34:56.123",
            "2025-07-15T12:34:56.123456Z",
            "2025-07-15T12:34:56.123+00:00",
            "2025-07-15T09:34:56.123-03:00",
            "2025-07-15T12:34:56.1239999Z",
        ] {
            assert_eq!(parse_ms(text), expected, "{text}");
        }
        assert_eq!(parse_ms("2025-07-15T12:34:56Z"), Some(1_752_582_896_000));
        assert_eq!(parse_ms("1969-12-31T23:59:59.9999Z"), Some(-1));
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "x",
            "1752582896123",
            "2025-07-15",
            "2025-13-01T00:00:00Z",
            "2025-07-15 12:34:56Z",
            "2025-07-15T12:34:56 +00:00",
        ] {
            assert_eq!(parse_ms(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_finer_bound_moves_inwards() {
        assert_eq!(parse_ms_from("2025-07-15T12:34:56.123Z"), Some(1_752_582_896_123));
        assert_eq!(parse_ms_from("2025-07-15T12:34:56.123001Z"), Some(1_752_582_896_124));
        assert_eq!(parse_ms("2025-07-15T12:34:56.123001Z"), Some(1_752_582_896_123));
    }

    #[test]
    fn writes_without_zone_or_trailing_zeros() {
        assert_eq!(format_without_zone(1_752_582_896_123), "2025-07-15T12:34:56.123");
        assert_eq!(format_without_zone(1_752_582_896_120), "2025-07-15T12:34:56.12");
        assert_eq!(format_without_zone(1_752_582_896_000), "2025-07-15T12:34:56");
    }
}
