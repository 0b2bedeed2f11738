//! Timestamps, held against the `time` crate: reading, and writing.

use galo_engine::time::UnixMillis;
use galo_engine::timestamp::{TIMESTAMP_TEXT_SIZE, WRITABLE_MAX, parse, write};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The first eight bytes are an instant to be written, the rest is a text to be read.
pub fn run(data: &[u8]) {
    let Some((instant, text)) = data.split_first_chunk::<8>() else { return };
    write_one(u64::from_le_bytes(*instant));
    if let Ok(text) = std::str::from_utf8(text) {
        read_one(text);
    }
}

fn write_one(at_ms: u64) {
    let mut out = [0; TIMESTAMP_TEXT_SIZE];
    let text = write(UnixMillis(at_ms), &mut out);
    let written_ms = at_ms.min(WRITABLE_MAX.0);
    assert_eq!(by_time(text), Some(i128::from(written_ms)), "{at_ms} was written as {text}");
    assert_eq!(parse(text), Ok(UnixMillis(written_ms)), "what is written can be read");
}

fn read_one(text: &str) {
    let ours = parse(text).ok();
    let is_leap = text.contains(":60");
    // jiff takes up to nine digits of a fraction, `time` any number.
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let is_fine = fraction.bytes().take_while(u8::is_ascii_digit).count() > 9;
    let theirs = by_time(text).or_else(|| by_time(&plainly(text)));
    if let Some(theirs) = theirs
        && !is_leap
    {
        let expected = UnixMillis(u64::try_from(theirs).unwrap_or(0));
        match ours {
            Some(ours) => assert_eq!(ours, expected, "{text:?}"),
            None => assert!(is_fine || by_time(text).is_none(), "{text:?} is RFC 3339, and was refused"),
        }
    }
    if let Some(at) = ours {
        write_one(at.0);
        assert!(!text.contains('['), "a time zone's name is no instant");
        assert!(text.bytes().filter(u8::is_ascii_digit).count() >= 8, "{text:?} names no day");
    }
}

/// Milliseconds since 1970, cut off below.
fn by_time(text: &str) -> Option<i128> {
    // It takes any character between date and time.
    matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')).then_some(())?;
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(at.unix_timestamp_nanos().div_euclid(1_000_000))
}

/// The spellings that are allowed beside RFC 3339's, as RFC 3339 writes them.
fn plainly(text: &str) -> String {
    let mut text = text.to_ascii_uppercase();
    if text.len() == 10 {
        text.push_str("T00:00:00");
    }
    if text.as_bytes().get(10) == Some(&b' ') {
        text.replace_range(10..11, "T");
    }
    if text.len() >= 16 && text.is_char_boundary(16) && !matches!(text.as_bytes().get(16), Some(b':')) {
        text.insert_str(16, ":00");
    }
    if text.len() >= 19 && text.is_char_boundary(19) && !text[19..].contains(['Z', '+', '-']) {
        text.push('Z');
    }
    text
}
