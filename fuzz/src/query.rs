//! A summary's query, held against form_urlencoded's reading of it. What a timestamp is, is `timestamp`'s business.

use galo_engine::time::UnixMillis;
use galo_engine::timestamp;
use galo_gateway::http::offline::read_range;

/// The longest value that is looked at.
const BOUND_SIZE_MAX: usize = 64;

/// The query is the fuzzer's bytes, as far as they are text.
pub fn run(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    assert_eq!(read_range(query).ok(), expected(query), "{query:?}");
}

/// Both bounds; `None` where the query must be refused.
fn expected(query: &str) -> Option<(Option<UnixMillis>, Option<UnixMillis>)> {
    let (mut from, mut to) = (None, None);
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if has_bad_escape(key) {
            return None;
        }
        let bound = match decode(key).as_deref() {
            Some("from") => &mut from,
            Some("to") => &mut to,
            _ => continue,
        };
        if has_bad_escape(value) {
            return None;
        }
        let text = decode(value)?;
        // The plus of an offset that nobody encoded has become a space.
        let mended =
            text.rfind(' ').filter(|at| *at > 10).map(|at| format!("{}+{}", &text[..at], &text[at + 1..]));
        let instant =
            timestamp::parse(&text).ok().or_else(|| mended.and_then(|text| timestamp::parse(&text).ok()))?;
        if bound.replace(instant).is_some() {
            return None;
        }
    }
    let is_range = !matches!((from, to), (Some(from), Some(to)) if from > to);
    is_range.then_some((from, to))
}

/// One key or value as form_urlencoded reads it; `None` where that is no text, or too long to be looked at.
fn decode(text: &str) -> Option<String> {
    // In a key's place, with what would end it spelled out.
    let text = text.replace('=', "%3D");
    let (decoded, _) = form_urlencoded::parse(text.as_bytes()).next().unwrap_or_default();
    // It puts a sign in the place of what is no UTF-8.
    let is_text =
        !decoded.contains(char::REPLACEMENT_CHARACTER) || text.contains(char::REPLACEMENT_CHARACTER);
    (is_text && decoded.len() <= BOUND_SIZE_MAX).then(|| decoded.into_owned())
}

fn has_bad_escape(text: &str) -> bool {
    text.split('%').skip(1).any(|after| {
        !after.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}
