//! A processor's bytes, cut into pieces and ended anywhere: what a lane makes of them, and what the verdict is.
//!
//! Held against a search for the status line that knows nothing of HTTP beyond it. The one thing that must never happen: a payment
//! counted as processed, or as surely refused, without a whole head that says so.

use galo_engine::CorrelationId;
use galo_engine::dispatcher::Verification;
use galo_engine::verdict::{End, Verdict};
use galo_gateway::processor::offline::{read_answer, read_health, read_lookup};
use serde_json::Value;

const HEAD_SIZE_MAX: usize = 16 * 1024;

/// The id of every lookup.
const ID: [u8; 16] =
    [0x4a, 0x79, 0x01, 0xb8, 0x7d, 0x26, 0x4d, 0x9d, 0xaa, 0x19, 0x4d, 0xc1, 0xc7, 0xcf, 0x60, 0xb3];

/// First byte: the pieces' size. The rest: what the processor sends before it ends the connection.
pub fn run(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let answer = read_answer(bytes, usize::MAX);
    let in_pieces = read_answer(bytes, usize::from(*piece) + 1);
    assert_eq!(in_pieces.end, answer.end, "pieces change the answer");
    assert_eq!(in_pieces.body, answer.body, "pieces change the body");
    let head = head(bytes);
    match answer.end {
        End { verdict: Verdict::NotSent, .. } => panic!("bytes arrived"),
        End { status: status @ 1.., .. } => {
            let (found, size) = head.unwrap_or_else(|| panic!("status {status} without a head"));
            assert_eq!(status, found, "another status than the head's");
            // Cut before the head's end it is no answer: in doubt, whatever stood there.
            let cut = read_answer(&bytes[..size - 1], usize::MAX);
            assert_eq!(cut.end, End::UNANSWERED, "a head cut short was believed");
            // What follows the head does not change what it says.
            assert_eq!(read_answer(&bytes[..size], usize::MAX).end, answer.end);
        }
        end => {
            assert_eq!(end, End::UNANSWERED, "a verdict without an answer");
            assert_eq!(plain_status(bytes), None, "a plain answer was not read");
            assert!(!answer.is_kept, "a connection that broke is used again");
        }
    }
    if answer.end.verdict != Verdict::Unknown {
        let (status, _) = head.expect("a verdict without a head");
        assert!(matches!(status, 200..=299 | 400..=500), "settled by status {status}");
    }
    if answer.is_kept {
        assert!(answer.body.is_some(), "kept, and the answer not read to its end");
    }
    if let Some(body) = answer.body {
        bodies(&body);
    }
    bodies(bytes);
}

/// The status of the first answer that is not interim, and the size of everything up to its head's end.
///
/// A head begins with its status line and ends with CRLF CRLF. Where a lone LF would have ended it before, nobody can say what follows.
fn head(bytes: &[u8]) -> Option<(u16, usize)> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..bytes.len().min(HEAD_SIZE_MAX)];
        let size = rest.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        at += size;
        if rest[..size - 4].split(|byte| *byte == b'\n').any(|line| matches!(line, b"" | b"\r")) {
            return None;
        }
        let digits = rest.strip_prefix(b"HTTP/1.").and_then(|line| line.get(2..5))?;
        let status: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        if !(100..=199).contains(&status) || status == 101 {
            return Some((status, at));
        }
    }
}

/// The status of a plain answer: one that must be read, whatever its body.
fn plain_status(bytes: &[u8]) -> Option<u16> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let (digits, reason) = lines.next()?.strip_prefix("HTTP/1.1 ")?.split_once(' ')?;
    let is_plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b' ' || byte == b'-');
    let status: u16 =
        digits.parse().ok().filter(|status| digits.len() == 3 && (200..=999).contains(status))?;
    let mut count = 0;
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        // Lengths and encodings have rules of their own.
        let is_length = ["content-length", "transfer-encoding"].contains(&name.to_ascii_lowercase().as_str());
        if name.is_empty() || name.contains(' ') || !is_plain(name) || !is_plain(value) || is_length {
            return None;
        }
        count += 1;
    }
    (is_plain(reason) && count <= 60 && end < 8_000).then_some(status)
}

/// What a lookup and a health check read, held against serde_json.
fn bodies(body: &[u8]) {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    if let Some(health) = read_health(body)
        && let Some(value) = &value
    {
        assert_eq!(value["failing"].as_bool(), Some(health.failing));
        assert_eq!(value["minResponseTime"].as_u64(), Some(health.delay_ms));
    }
    if let Some(found) = read_lookup(body, CorrelationId(ID)) {
        assert!(matches!(found, Verification::Found { .. }));
        if let Some(value) = &value {
            let id = value["correlationId"].as_str().expect("a payment has an id");
            assert!(id.eq_ignore_ascii_case("4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3"), "another's payment");
        }
    }
}
