//! Timestamps as text: the bounds of a summary come in, `requestedAt` goes out.
//!
//! Reading is generous, because people type these bounds: ISO 8601 / RFC 3339 with `T`, `t` or a space, `Z`, `z`, a
//! numeric offset or none (then it is UTC, as the contest's clients mean it), with or without a fraction, or a date
//! alone (its midnight). Three decisions:
//! - Below the millisecond a bound is cut off, not rounded. Payments have whole milliseconds, so an upper bound keeps
//!   its exact meaning, and one text is one instant wherever it stands: two ranges that share a bound still add up.
//! - Before 1970 is 1970: there are no payments there, and `from=1960-01-01` is a legal way to say "all".
//! - A leap second `:60` is the second before it; Unix time has no other name for it.
//!
//! Writing is integer arithmetic without allocation, since it happens for each payment: always UTC, always
//! milliseconds, 24 bytes. Neither ever panics on what comes from outside.

use jiff::civil::{DateTime, Time, date};
use jiff::fmt::temporal::DateTimeParser;
use thiserror::Error;

use crate::time::UnixMillis;

/// The length of a written timestamp: `2025-07-15T12:34:56.789Z`.
pub const TIMESTAMP_TEXT_SIZE: usize = 24;

/// The last instant with a year of four digits, 9999-12-31T23:59:59.999Z: the last that can be written.
pub const WRITABLE_MAX: UnixMillis = UnixMillis(253_402_300_799_999);

/// The text is no timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected an ISO 8601 timestamp such as 2025-07-15T12:34:56.789Z")]
pub struct TimestampError;

static PARSER: DateTimeParser = DateTimeParser::new();

/// Reads a timestamp; see the module's header for what is one.
///
/// # Errors
/// [`TimestampError`] for anything else, a time zone in brackets included: which instant it names depends on a
/// database that changes.
pub fn parse(text: &str) -> Result<UnixMillis, TimestampError> {
    let pieces = PARSER.parse_pieces(text).map_err(|_| TimestampError)?;
    if text.contains('[') {
        return Err(TimestampError);
    }
    if pieces.time().is_none() && pieces.offset().is_some() {
        return Err(TimestampError);
    }
    let local = DateTime::from_parts(pieces.date(), pieces.time().unwrap_or(Time::midnight()));
    let offset_s = pieces.to_numeric_offset().map_or(0, |offset| offset.seconds());
    // `jiff` takes offsets of up to 26 hours; an hour of RFC 3339 ends at 23, and what is beyond is a mistake.
    if offset_s.abs() >= 24 * 3_600 {
        return Err(TimestampError);
    }
    // By durations since 1970 rather than `jiff::Timestamp`, whose range ends a day before 9999-12-31T23:59:59Z, and
    // that is what people write for "no end".
    let since_1970 = local.duration_since(DateTime::from_parts(date(1970, 1, 1), Time::midnight()));
    let millis = since_1970.as_millis() - i128::from(offset_s) * 1_000;
    Ok(UnixMillis(u64::try_from(millis).unwrap_or(0)))
}

/// Reads a date of HTTP's (RFC 9110, section 5.6.7) in the form that is sent today: `Wed, 21 Oct 2015 07:28:00 GMT`.
#[must_use]
pub fn parse_http_date(text: &str) -> Option<UnixMillis> {
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    u64::try_from(zoned.timestamp().as_millisecond()).ok().map(UnixMillis)
}

/// Writes `2025-07-15T12:34:56.789Z`. Beyond [`WRITABLE_MAX`] it writes that.
pub fn write(at: UnixMillis, out: &mut [u8; TIMESTAMP_TEXT_SIZE]) -> &str {
    let at_ms = at.0.min(WRITABLE_MAX.0);
    let (year, month, day) = civil_from_days(at_ms / 86_400_000);
    let ms = at_ms % 86_400_000;
    out.copy_from_slice(b"0000-00-00T00:00:00.000Z");
    digits(&mut out[0..4], year);
    digits(&mut out[5..7], month);
    digits(&mut out[8..10], day);
    digits(&mut out[11..13], ms / 3_600_000);
    digits(&mut out[14..16], ms / 60_000 % 60);
    digits(&mut out[17..19], ms / 1_000 % 60);
    digits(&mut out[20..23], ms % 1_000);
    std::str::from_utf8(out).expect("digits and punctuation are ASCII")
}

fn digits(out: &mut [u8], mut value: u64) {
    for byte in out.iter_mut().rev() {
        *byte = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// Counted in years that begin on the first of March, so that the leap day is the last day of its year, and in eras
/// of 400 years (146,097 days), after which the calendar repeats. 719,468 days lie between 0000-03-01 and 1970-01-01.
const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    // Leap days before this one: one in 1,460 days, but not in 36,524, but in 146,096.
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, five months have 153 days (31, 30, 31, 30, 31), again and again.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2020-07-10T12:34:56.000Z by `date -u -d … +%s`.
    const JULY: u64 = 1_594_384_496_000;

    #[test]
    fn reads_the_spellings_that_people_use() {
        for (text, ms) in [
            ("2020-07-10T12:34:56.000Z", JULY),
            ("2020-07-10T12:34:56Z", JULY),
            ("2020-07-10T12:34:56", JULY),
            ("2020-07-10t12:34:56z", JULY),
            ("2020-07-10 12:34:56Z", JULY),
            ("2020-07-10 12:34:56", JULY),
            ("2020-07-10T12:34:56+00:00", JULY),
            ("2020-07-10T12:34:56-00:00", JULY),
            ("2020-07-10T09:34:56-03:00", JULY),
            ("2020-07-10T18:04:56.000+05:30", JULY),
            ("2020-07-10T12:34:56.7Z", JULY + 700),
            ("2020-07-10T12:34:56.78Z", JULY + 780),
            ("2020-07-10T12:34:56.789Z", JULY + 789),
            ("2020-07-10T12:34:56.789999999Z", JULY + 789),
            ("2020-07-10T12:34:56.000999Z", JULY),
            ("2020-07-10", JULY - 45_296_000),
            ("2020-07-10T12:34Z", JULY - 56_000),
            ("1970-01-01T00:00:00Z", 0),
            ("1960-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999Z", 0),
            ("1970-01-01T00:00:00+01:00", 0),
            ("1970-01-01T00:00:00-01:00", 3_600_000),
            ("0001-01-01T00:00:00Z", 0),
            ("9999-12-31T23:59:59.999Z", WRITABLE_MAX.0),
            ("9999-12-31T23:59:59.999-23:59", WRITABLE_MAX.0 + 86_340_000),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
        ] {
            assert_eq!(parse(text), Ok(UnixMillis(ms)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_timestamp() {
        for text in [
            "",
            " ",
            "now",
            "yesterday",
            "12:34:56",
            "1594384496",
            "2020-13-10T12:34:56Z",
            "2020-02-30",
            "2021-02-29T00:00:00Z",
            "2020-07-10T24:34:56Z",
            "2020-07-10T12:60:56Z",
            "2020-07-10T12:34:61Z",
            "2020-07-10T12:34:56.Z",
            "2020-07-10T12:34:56.0000000001Z",
            "2020-07-10T12:34:56Zjunk",
            "2020-07-10T12:34:56Z ",
            " 2020-07-10T12:34:56Z",
            "2020-07-10T12:34:56[America/Sao_Paulo]",
            "2020-07-10T12:34:56-03:00[America/Sao_Paulo]",
            "2020-07-10T12:34:56+99:00",
            "2020-07-10T12:34:56+24:00",
            "2020-07-10T12:34:56-25:59",
            "2020-07-10Z",
            "2020-W28-5",
            "20-07-10",
            "2020-07-10T",
            "2020-07-10T12:34:56+",
            "٢٠٢٠-07-10",
        ] {
            assert_eq!(parse(text), Err(TimestampError), "{text:?}");
        }
    }

    #[test]
    fn writes_the_edges() {
        let mut out = [0; TIMESTAMP_TEXT_SIZE];
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (JULY + 7, "2020-07-10T12:34:56.007Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (WRITABLE_MAX.0, "9999-12-31T23:59:59.999Z"),
            (WRITABLE_MAX.0 + 1, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(write(UnixMillis(ms), &mut out), text);
        }
    }

    /// Each day from 1970 to 9999, against the calendar of `jiff`.
    #[test]
    fn every_day_has_the_date_that_jiff_gives_it() {
        let mut day = date(1970, 1, 1);
        for days in 0..=WRITABLE_MAX.0 / 86_400_000 {
            let (year, month, of_month) = civil_from_days(days);
            let expected = (
                day.year().unsigned_abs().into(),
                day.month().unsigned_abs().into(),
                day.day().unsigned_abs().into(),
            );
            assert_eq!((year, month, of_month), expected, "day {days}");
            day = day.tomorrow().unwrap_or(day);
        }
        assert_eq!(day, date(9999, 12, 31));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn written_instants_read_back_here_and_in_jiff(ms in 0..=253_402_207_200_999_u64) {
            let mut out = [0; TIMESTAMP_TEXT_SIZE];
            let text = write(UnixMillis(ms), &mut out);
            prop_assert_eq!(parse(text), Ok(UnixMillis(ms)));
            let by_jiff: jiff::Timestamp = text.parse().unwrap();
            prop_assert_eq!(by_jiff.as_millisecond(), i64::try_from(ms).unwrap());
        }

        #[test]
        fn never_panics(text in "[-0-9TtZz:.+ \\[\\]a]{0,34}") {
            let _verdict = parse(&text);
        }
    }
}
