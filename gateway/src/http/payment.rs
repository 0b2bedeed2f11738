//! A payment's body: JSON in, an id and exact cents out.
//!
//! simd-json says whether the text is JSON and where its members are; the amount is then read from its own digits in
//! the untouched body, never from the float that simd-json made of it. (simd-json unescapes strings in place, so it
//! works on a scratch copy, in which strings keep their offsets.)
//!
//! Decided on purpose:
//! - A key is what it spells: `"am\u006funt"` is `amount`.
//! - A member given twice is refused (422). Parsers differ in which one they take, and one of them is a client's bug.
//! - Members that the processors' file names go to processors (see `members`); others are ignored, nested ones included, down to 32 levels in all.
//! - `amount` must be a number: `"19.90"` is refused (422), though some would read it.
//! - Not JSON, a byte order mark or bytes that are not UTF-8: 400. JSON, but no object: 422.
//! - A number beyond 64 bits (`1e400`, an integer of 20 digits) is JSON, but simd-json cannot carry it: 422, wherever
//!   it stands.
//!
//! Buffers are reused: after warm-up a payment without members for a processor allocates nothing here. A hostile body costs what its 16 KiB cost once:
//! simd-json keeps its nesting in a vector of at most 32 entries, not on the stack.

use std::sync::Arc;

use galo_engine::CorrelationId;
use galo_engine::money::{AmountCents, AmountError};
use galo_engine::time::UnixMillis;
use galo_engine::timestamp;
use simd_json::{Buffers, ErrorType, Node, StaticNode, Tape};

use super::framing::REQUEST_SIZE_MAX;
use super::members::Cutter;
use super::problem::{self, Refusal};

/// Levels of nesting that a body may have. A payment has one.
const DEPTH_MAX: usize = 32;

/// A payment as a client sent it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Posted {
    /// Its id.
    pub(super) id: CorrelationId,
    /// How much.
    pub(super) amount: AmountCents,
    /// The moment from which on no attempt may begin.
    pub(super) deadline: Option<UnixMillis>,
    /// What goes to processors, and the deadline.
    pub(super) members: Option<Arc<str>>,
}

/// The member of a POST that sets a deadline.
pub(super) const DEADLINE: &str = "deadline";

/// Reads payments, one after the other.
pub(super) struct PaymentReader {
    cutter: Cutter,
    buffers: Buffers,
    scratch: Vec<u8>,
    tape: Tape<'static>,
}

impl PaymentReader {
    pub(super) fn new() -> Self {
        Self {
            cutter: Cutter::default(),
            buffers: Buffers::with_max_depth(REQUEST_SIZE_MAX, DEPTH_MAX),
            scratch: Vec::with_capacity(REQUEST_SIZE_MAX),
            tape: Tape(Vec::with_capacity(64)),
        }
    }

    /// Reads one payment, of which nothing but id and amount goes to a processor.
    pub(super) fn read(&mut self, body: &[u8]) -> Result<(CorrelationId, AmountCents), Refusal> {
        self.read_with(body, &[]).map(|Posted { id, amount, .. }| (id, amount))
    }

    /// Reads one payment, and its members with these names.
    pub(super) fn read_with(&mut self, body: &[u8], names: &[String]) -> Result<Posted, Refusal> {
        if body.is_empty() {
            return Err(&problem::EMPTY_BODY);
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(body);
        let scratch_at = self.scratch.as_ptr().addr();
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let payment = match simd_json::fill_tape(&mut self.scratch, &mut self.buffers, &mut tape) {
            Ok(()) => read_nodes(&tape.0, body, scratch_at, names, &mut self.cutter),
            Err(error) => Err(explain(&error, body)),
        };
        self.tape = tape.reset();
        payment
    }
}

fn read_nodes(
    nodes: &[Node<'_>],
    body: &[u8],
    scratch_at: usize,
    names: &[String],
    cutter: &mut Cutter,
) -> Result<Posted, Refusal> {
    cutter.begin();
    let Some((Node::Object { len, .. }, mut members)) = nodes.split_first() else {
        return Err(&problem::NOT_AN_OBJECT);
    };
    let (mut id, mut amount, mut deadline) = (None, None, None);
    for _ in 0..*len {
        // An object's tape has a key and a value for each member. Were it ever otherwise, a refusal is better than a panic.
        let [Node::String(key), value, ..] = members else { return Err(&problem::MALFORMED_JSON) };
        let key_at = || key.as_ptr().addr().checked_sub(scratch_at);
        if let Some(number) = names.iter().position(|name| name == key) {
            let value_at = key_at().and_then(|at| value_at(body, at)).ok_or(&problem::MALFORMED_JSON)?;
            cutter.find(number, value_at)?;
        }
        match *key {
            "correlationId" => {
                let Node::String(text) = value else { return Err(&problem::ID_NOT_A_STRING) };
                let parsed = CorrelationId::parse(text.as_bytes()).ok_or(&problem::ID_NOT_A_UUID)?;
                if id.replace(parsed).is_some() {
                    return Err(&problem::ID_TWICE);
                }
            }
            "amount" => {
                if !matches!(
                    value,
                    Node::Static(StaticNode::I64(_) | StaticNode::U64(_) | StaticNode::F64(_))
                ) {
                    return Err(&problem::AMOUNT_NOT_A_NUMBER);
                }
                let text = key_at().and_then(|at| member_text(body, at)).ok_or(&problem::MALFORMED_JSON)?;
                let parsed = AmountCents::parse(text).map_err(explain_amount)?;
                if amount.replace(parsed).is_some() {
                    return Err(&problem::AMOUNT_TWICE);
                }
            }
            DEADLINE => {
                let Node::String(text) = value else { return Err(&problem::DEADLINE_INVALID) };
                let parsed = timestamp::parse(text).map_err(|_| &problem::DEADLINE_INVALID)?;
                if deadline.replace(parsed).is_some() {
                    return Err(&problem::DEADLINE_TWICE);
                }
            }
            _ => {}
        }
        let size = match value {
            Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
            Node::String(_) | Node::Static(_) => 1,
        };
        members = members.get(1 + size..).unwrap_or_default();
    }
    match (id, amount) {
        (Some(id), Some(amount)) => {
            Ok(Posted { id, amount, deadline, members: cutter.cut(names, deadline, body)? })
        }
        (None, _) => Err(&problem::ID_MISSING),
        (Some(_), None) => Err(&problem::AMOUNT_MISSING),
    }
}

/// The text of the number that belongs to the key whose first byte is at `key_at`. The body is known to be JSON.
fn member_text(body: &[u8], key_at: usize) -> Option<&[u8]> {
    number_text(body.get(value_at(body, key_at)?..)?)
}

/// Where the value begins that belongs to the key whose first byte is at `key_at`.
fn value_at(body: &[u8], key_at: usize) -> Option<usize> {
    let behind_key = key_at + string_size(body.get(key_at..)?) + 1;
    let value = body.get(behind_key..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    Some(body.len() - value.len())
}

/// The bytes before the first one that cannot belong to a number.
fn number_text(value: &[u8]) -> Option<&[u8]> {
    let end = value.iter().position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'));
    value.get(..end.unwrap_or(value.len()))
}

fn explain_amount(error: AmountError) -> Refusal {
    match error {
        AmountError::NotANumber => &problem::AMOUNT_NOT_A_NUMBER,
        AmountError::NotPositive => &problem::AMOUNT_NOT_POSITIVE,
        AmountError::TooManyDecimals => &problem::AMOUNT_TOO_PRECISE,
        AmountError::TooLarge => &problem::AMOUNT_TOO_LARGE,
    }
}

fn explain(error: &simd_json::Error, body: &[u8]) -> Refusal {
    match error.error() {
        ErrorType::DepthLimitExceeded => &problem::TOO_DEEP,
        ErrorType::InvalidNumber => explain_number(body, error.index()),
        _ => &problem::MALFORMED_JSON,
    }
}

/// simd-json refuses a number for its grammar or for its size; the number's own text tells which.
fn explain_number(body: &[u8], at: usize) -> Refusal {
    // `at` is somewhere within the number.
    let before = body.get(..at).unwrap_or_default();
    let in_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    let start = before.iter().rposition(|byte| !in_number(byte)).map_or(0, |last| last + 1);
    let (before, text) = (&before[..start], body.get(start..).and_then(number_text));
    match AmountCents::parse(text.unwrap_or_default()) {
        Err(AmountError::NotANumber) => &problem::MALFORMED_JSON,
        Err(error) if is_amount(before) => explain_amount(error),
        Ok(_) | Err(_) => &problem::NUMBER_OUT_OF_RANGE,
    }
}

/// Whether a value that follows `before` is the payment's own amount: not one in another object, and by whatever spelling.
fn is_amount(before: &[u8]) -> bool {
    let (mut depth, mut key) = (0_usize, None);
    let mut at = 0;
    while let Some(byte) = before.get(at) {
        match byte {
            b'"' => {
                let size = string_size(&before[at + 1..]);
                key = before.get(at + 1..at + 1 + size);
                at += size + 1;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => key = None,
            _ => {}
        }
        at += 1;
    }
    let is_member = before.trim_ascii_end().ends_with(b":");
    depth == 1 && is_member && key.is_some_and(|key| spells(key, b"amount"))
}

/// Bytes of a string's text up to its closing quote, or all of them.
pub(super) fn string_size(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at.min(text.len())
}

/// Whether a string's text in JSON means `word`, whose letters have no escape of their own but the one by number.
fn spells(mut text: &[u8], word: &[u8]) -> bool {
    for letter in word {
        let (spelled, rest) = match text {
            [b'\\', b'u', rest @ ..] => {
                let Some((digits, rest)) = rest.split_at_checked(4) else { return false };
                let number =
                    std::str::from_utf8(digits).ok().and_then(|digits| u32::from_str_radix(digits, 16).ok());
                (number, rest)
            }
            [byte, rest @ ..] => (Some(u32::from(*byte)), rest),
            [] => return false,
        };
        if spelled != Some(u32::from(*letter)) {
            return false;
        }
        text = rest;
    }
    text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    fn read(body: &str) -> Result<(CorrelationId, AmountCents), Refusal> {
        PaymentReader::new().read(body.as_bytes())
    }

    fn cents(body: &str) -> u64 {
        let (id, amount) = read(body).unwrap_or_else(|problem| panic!("{body}: {}", problem.body));
        assert_eq!(id.to_string(), ID);
        amount.get()
    }

    #[test]
    fn the_amount_is_read_from_its_own_digits() {
        for (text, expected) in [
            ("19.90", 1990),
            ("19.9", 1990),
            ("0.01", 1),
            ("0.29", 29),
            ("1e2", 10_000),
            ("1.5E+1", 1_500),
            ("100000e-3", 10_000),
            ("1234567.89", 123_456_789),
            ("999999999.99", 99_999_999_999),
            ("1.500000000000000000000000", 150),
        ] {
            assert_eq!(cents(&format!(r#"{{"correlationId":"{ID}","amount":{text}}}"#)), expected);
            assert_eq!(cents(&format!("{{ \"amount\" :\t{text}\r\n,\"correlationId\":\"{ID}\"}}")), expected);
        }
    }

    #[test]
    fn unknown_members_are_stepped_over_whatever_they_hold() {
        assert_eq!(
            cents(&format!(
                r#"{{"a":{{"amount":1,"b":[{{}},[],[1,[2,{{"c":"amount"}}]]]}},"correlationId":"{ID}","x":null,"y":[],"z":"\u00e9\"","amount":2.5,"requestedAt":"2025","amounts":7}}"#
            )),
            250
        );
    }

    #[test]
    fn a_key_is_what_it_spells() {
        assert_eq!(cents(&format!(r#"{{"x\n":"\\","am\u006funt":3.25,"correlationI\u0064":"{ID}"}}"#)), 325);
        assert_eq!(
            cents(&format!(r#"{{"correlationId":"{}","amount":3.25}}"#, ID.replace('4', "\\u0034"))),
            325
        );
        assert_eq!(
            read(&format!(r#"{{"am\u006funt":3,"amount":3,"correlationId":"{ID}"}}"#)),
            Err(&problem::AMOUNT_TWICE)
        );
    }

    #[test]
    fn what_is_no_payment_is_refused_with_its_own_reason() {
        let with_amount = |amount: &str| format!(r#"{{"correlationId":"{ID}","amount":{amount}}}"#);
        let with_id = |id: &str| format!(r#"{{"correlationId":{id},"amount":1}}"#);
        let cases: Vec<(String, Refusal)> = vec![
            (with_amount("0"), &problem::AMOUNT_NOT_POSITIVE),
            (with_amount("-1"), &problem::AMOUNT_NOT_POSITIVE),
            (with_amount("0.001"), &problem::AMOUNT_TOO_PRECISE),
            (with_amount("19.999"), &problem::AMOUNT_TOO_PRECISE),
            (with_amount("1000000000"), &problem::AMOUNT_TOO_LARGE),
            (with_amount("1e300"), &problem::AMOUNT_TOO_LARGE),
            (with_amount("1e400"), &problem::AMOUNT_TOO_LARGE),
            (with_amount("-1e400"), &problem::AMOUNT_NOT_POSITIVE),
            (with_amount("1,\"x\":1e400"), &problem::NUMBER_OUT_OF_RANGE),
            (with_amount("1,\"x\":{\"amount\":1e400}"), &problem::NUMBER_OUT_OF_RANGE),
            (with_amount("1,\"x\":[\"amount\",1e400]"), &problem::NUMBER_OUT_OF_RANGE),
            (with_amount("1,\"\\\"amount\":1e400"), &problem::NUMBER_OUT_OF_RANGE),
            (r#"{"x":["}",{}],"am\u006funt" : 1e400}"#.into(), &problem::AMOUNT_TOO_LARGE),
            (r#"{"\u0061\u006D\u006f\u0075\u006e\u0074":-1e400}"#.into(), &problem::AMOUNT_NOT_POSITIVE),
            (with_amount("1,\"x\":12345678901234567890123"), &problem::NUMBER_OUT_OF_RANGE),
            (with_amount("123456789012345678901234567890"), &problem::AMOUNT_TOO_LARGE),
            (with_amount("\"19.90\""), &problem::AMOUNT_NOT_A_NUMBER),
            (with_amount("null"), &problem::AMOUNT_NOT_A_NUMBER),
            (with_amount("true"), &problem::AMOUNT_NOT_A_NUMBER),
            (with_amount("{}"), &problem::AMOUNT_NOT_A_NUMBER),
            (with_amount("[1]"), &problem::AMOUNT_NOT_A_NUMBER),
            (with_amount("01"), &problem::MALFORMED_JSON),
            (with_amount("1."), &problem::MALFORMED_JSON),
            (with_amount(".5"), &problem::MALFORMED_JSON),
            (with_amount("+1"), &problem::MALFORMED_JSON),
            (with_amount("NaN"), &problem::MALFORMED_JSON),
            (with_amount("1,"), &problem::MALFORMED_JSON),
            (with_amount("1,\"amount\":1"), &problem::AMOUNT_TWICE),
            (with_id("null"), &problem::ID_NOT_A_STRING),
            (with_id("7"), &problem::ID_NOT_A_STRING),
            (with_id("\"\""), &problem::ID_NOT_A_UUID),
            (with_id("\"4a7901b87d264d9daa194dc1c7cf60b3\""), &problem::ID_NOT_A_UUID),
            (with_id(&format!("\"{ID}\",\"correlationId\":\"{ID}\"")), &problem::ID_TWICE),
            ("{}".into(), &problem::ID_MISSING),
            ("{\"amount\":1}".into(), &problem::ID_MISSING),
            (format!(r#"{{"correlationId":"{ID}"}}"#), &problem::AMOUNT_MISSING),
            ("[]".into(), &problem::NOT_AN_OBJECT),
            ("5".into(), &problem::NOT_AN_OBJECT),
            ("\"text\"".into(), &problem::NOT_AN_OBJECT),
            ("null".into(), &problem::NOT_AN_OBJECT),
            (String::new(), &problem::EMPTY_BODY),
            (" ".into(), &problem::MALFORMED_JSON),
            ("{".into(), &problem::MALFORMED_JSON),
            ("{} {}".into(), &problem::MALFORMED_JSON),
            ("\u{feff}{}".into(), &problem::MALFORMED_JSON),
            ("{'amount':1}".into(), &problem::MALFORMED_JSON),
            ("[".repeat(16_000), &problem::TOO_DEEP),
            ("{\"a\":".repeat(3_000), &problem::TOO_DEEP),
        ];
        for (body, refusal) in &cases {
            assert_eq!(read(body), Err(*refusal), "{}", &body[..body.len().min(200)]);
        }
        assert_eq!(PaymentReader::new().read(b"{\"a\":\"\xff\"}"), Err(&problem::MALFORMED_JSON));
        assert_eq!(PaymentReader::new().read(b"{\"a\":\"\0\"}"), Err(&problem::MALFORMED_JSON));
    }

    #[test]
    fn every_prefix_and_every_flipped_byte_ends_in_an_answer() {
        let mut reader = PaymentReader::new();
        let body =
            format!(r#"{{"x":[1,{{"y":"\u00e9"}}],"correlationId":"{ID}","amount":19.90}}"#).into_bytes();
        for size in 0..body.len() {
            assert!(reader.read(&body[..size]).is_err(), "a prefix of {size} bytes is no payment");
        }
        for at in 0..body.len() {
            for byte in 0..=u8::MAX {
                let mut body = body.clone();
                body[at] = byte;
                // Whatever it is, it has one answer, and the reader is as good as new afterwards.
                assert_eq!(reader.read(&body), PaymentReader::new().read(&body));
            }
        }
        assert_eq!(reader.read(&body).map(|(_, amount)| amount.get()), Ok(1990));
    }
}
