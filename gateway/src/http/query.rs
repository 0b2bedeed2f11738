//! The summary's query: `from` and `to`, each optional, percent-encoded as clients do it.
//!
//! Lenient where clients are known to differ and nothing is lost: unknown parameters are ignored, and the `+` of an
//! offset that a client forgot to encode (`…+00:00` arrives as a space) is read as the plus it was. Strict where a guess
//! would change the sum: a bound that is empty, unreadable or given twice is refused, and so is a range that ends
//! before it starts.

use galo_engine::time::UnixMillis;
use galo_engine::timestamp;

use super::problem::{self, Refusal};

/// The longest timestamp worth decoding: nine fraction digits and an offset take 35 bytes.
const BOUND_SIZE_MAX: usize = 64;

/// A summary's bounds, both inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: Option<UnixMillis>,
    pub(super) to: Option<UnixMillis>,
}

impl Range {
    /// Reads a query, without its question mark.
    pub(super) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut range = Self::default();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let mut buffer = [0; BOUND_SIZE_MAX];
            let (bound, refusal): (_, Refusal) = match decode(key, &mut buffer)? {
                Some("from") => (&mut range.from, &problem::BAD_FROM),
                Some("to") => (&mut range.to, &problem::BAD_TO),
                Some(_) | None => continue,
            };
            let instant = parse_bound(value)?.ok_or(refusal)?;
            if bound.replace(instant).is_some() {
                return Err(refusal);
            }
        }
        match (range.from, range.to) {
            (Some(from), Some(to)) if from > to => Err(&problem::FROM_AFTER_TO),
            _ => Ok(range),
        }
    }
}

fn parse_bound(value: &str) -> Result<Option<UnixMillis>, Refusal> {
    let mut buffer = [0; BOUND_SIZE_MAX];
    let Some(text) = decode(value, &mut buffer)? else { return Ok(None) };
    if let Ok(instant) = timestamp::parse(text) {
        return Ok(Some(instant));
    }
    // A space after the time was the plus of an offset. The date ends at 10, where a space may stand for the T.
    let Some(space) = text.rfind(' ').filter(|at| *at > 10) else { return Ok(None) };
    let mut buffer = [0; BOUND_SIZE_MAX];
    let size = text.len();
    buffer[..size].copy_from_slice(text.as_bytes());
    buffer[space] = b'+';
    Ok(std::str::from_utf8(&buffer[..size]).ok().and_then(|text| timestamp::parse(text).ok()))
}

/// Decodes one key or value into `buffer`; `None` if it is too long or not UTF-8, and so nothing we know.
fn decode<'a>(text: &str, buffer: &'a mut [u8; BOUND_SIZE_MAX]) -> Result<Option<&'a str>, Refusal> {
    let mut bytes = text.bytes();
    let mut size = 0;
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next())? << 4 | hex(bytes.next())?,
            _ => byte,
        };
        if let Some(place) = buffer.get_mut(size) {
            *place = byte;
        }
        size += 1;
    }
    Ok(buffer.get(..size).and_then(|text| std::str::from_utf8(text).ok()))
}

fn hex(digit: Option<u8>) -> Result<u8, Refusal> {
    match digit {
        Some(digit @ b'0'..=b'9') => Ok(digit - b'0'),
        Some(digit @ b'a'..=b'f') => Ok(digit - b'a' + 10),
        Some(digit @ b'A'..=b'F') => Ok(digit - b'A' + 10),
        Some(_) | None => Err(&problem::BAD_QUERY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(text: &str) -> Option<UnixMillis> {
        Some(timestamp::parse(text).unwrap())
    }

    #[test]
    fn bounds_are_read_in_every_spelling_that_clients_send() {
        let noon = instant("2020-07-10T12:34:56.789Z");
        for spelling in [
            "2020-07-10T12:34:56.789Z",
            "2020-07-10T12%3A34%3A56.789Z",
            "2020-07-10T12:34:56.789%2B00:00",
            "2020-07-10T12:34:56.789+00:00",
            "2020-07-10T12:34:56.789%2b00%3a00",
            "2020-07-10T09:34:56.789-03:00",
            "2020-07-10+12:34:56.789",
            "2020-07-10+12:34:56.789+00:00",
            "2020-07-10%2012:34:56.789",
        ] {
            assert_eq!(
                Range::parse(&format!("from={spelling}")),
                Ok(Range { from: noon, to: None }),
                "{spelling}"
            );
            assert_eq!(
                Range::parse(&format!("a=b&to={spelling}&c")),
                Ok(Range { from: None, to: noon }),
                "{spelling}"
            );
        }
        assert_eq!(Range::parse(""), Ok(Range::default()));
        assert_eq!(Range::parse("from2=1&&=&x"), Ok(Range::default()));
        assert_eq!(
            Range::parse(&format!("f%72om=2020-07-10T12:34:56.789Z&{}=1", "x".repeat(3_000))),
            Ok(Range { from: noon, to: None })
        );
    }

    #[test]
    fn what_would_need_a_guess_is_refused() {
        let cases: &[(&str, Refusal)] = &[
            ("from=", &problem::BAD_FROM),
            ("from", &problem::BAD_FROM),
            ("to=", &problem::BAD_TO),
            ("to=yesterday", &problem::BAD_TO),
            ("to=%00", &problem::BAD_TO),
            ("to=%ff%fe", &problem::BAD_TO),
            ("from=2020-13-01T00:00:00Z", &problem::BAD_FROM),
            ("from=2020-07-10T12:34:56Z&from=2020-07-10T12:34:56Z", &problem::BAD_FROM),
            ("from=2020-07-10T12:34:57Z&to=2020-07-10T12:34:56Z", &problem::FROM_AFTER_TO),
            ("from=%2", &problem::BAD_QUERY),
            ("from=%zz", &problem::BAD_QUERY),
            ("%=x", &problem::BAD_QUERY),
        ];
        for (query, refusal) in cases {
            assert_eq!(Range::parse(query), Err(*refusal), "{query}");
        }
        assert_eq!(Range::parse(&format!("from={}", "9".repeat(100))), Err(&problem::BAD_FROM));
    }
}
