//! A payment's body, held against serde_json and against decimal arithmetic on the amount's digits.
//!
//! serde_json says whether the text is JSON and which members it has; ids and amounts are then read here, slowly. simd-json may refuse
//! what it cannot carry (a number beyond 64 bits, deep nesting), as documented, but nothing else, and must never read another value.

use std::cell::RefCell;
use std::fmt;

use galo_engine::CorrelationId;
use galo_engine::money::AmountCents;
use galo_gateway::http::offline::body_reader;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

const DEPTH_MAX: usize = 32;
const BODY_SIZE_MAX: usize = 16 * 1024;

type Read = Result<(CorrelationId, AmountCents), u16>;
type Reader = Box<dyn FnMut(&[u8]) -> Read>;

thread_local! {
    /// One reader for all bodies, as a gateway's thread has: nothing of a body may be left for the next one.
    static READER: RefCell<Reader> = RefCell::new(Box::new(body_reader()));
}

/// The body is the fuzzer's bytes.
pub fn run(body: &[u8]) {
    if body.len() > BODY_SIZE_MAX {
        return;
    }
    let ours = READER.with_borrow_mut(|read| read(body));
    let text = std::str::from_utf8(body).ok();
    let text = text.filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let Some(text) = text else {
        let status = ours.expect_err("what is no JSON is no payment");
        assert!(status == 400 || (status == 422 && has_long_number(body)), "no JSON, and status {status}");
        return;
    };
    let expected = payment(text);
    if let Ok((id, amount)) = ours {
        assert_eq!(Some((id.0, amount.get())), expected, "read as another payment, or as one at all");
        return;
    }
    let status = ours.expect_err("looked at above");
    let Limits { depth, is_in_range, has_surrogate } = limits(text);
    if depth > DEPTH_MAX || has_surrogate {
        assert!(matches!(status, 400 | 422));
    } else if !is_in_range {
        assert_eq!(status, 422, "JSON beyond 64 bits");
    } else {
        assert_eq!(expected, None, "a payment was refused with {status}");
        assert_eq!(status, 422, "JSON, and no payment");
    }
}

/// An object's members in order, those given twice included.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// The id and the cents that the text says, if it is a payment.
fn payment(text: &str) -> Option<([u8; 16], u64)> {
    let Members(members) = serde_json::from_str(text).ok()?;
    let only = |name: &str| {
        let mut found = members.iter().filter(|(key, _)| key == name);
        let (Some((_, value)), None) = (found.next(), found.next()) else { return None };
        Some(value.get())
    };
    let id: String = serde_json::from_str(only("correlationId")?).ok()?;
    Some((uuid(&id)?, cents(only("amount")?)?))
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let parts: Vec<&str> = text.split('-').collect();
    if parts.iter().map(|part| part.len()).ne([8, 4, 4, 4, 12]) {
        return None;
    }
    let digits = parts.concat();
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

/// A JSON number as whole cents from 1 to 99,999,999,999, by moving the point through its digits.
fn cents(number: &str) -> Option<u64> {
    if !number.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{integer}{fraction}");
    if digits.bytes().all(|digit| digit == b'0') {
        return None;
    }
    // Far more than any text of a body's size can make up for.
    const FAR: i64 = 100_000;
    let is_negative = exponent.starts_with('-');
    let exponent = exponent.trim_start_matches(['+', '-']).trim_start_matches('0');
    let exponent = if exponent.len() > 5 { FAR } else { format!("0{exponent}").parse::<i64>().ok()? };
    let exponent = if is_negative { -exponent } else { exponent };
    // The point stands behind so many digits once the number is cents.
    let point = i64::try_from(integer.len()).ok()? + exponent + 2;
    let significant = digits.trim_start_matches('0');
    let point = point - i64::try_from(digits.len() - significant.len()).ok()?;
    let significant = significant.trim_end_matches('0');
    let size = i64::try_from(significant.len()).ok()?;
    // A fraction of a cent, or more than eleven digits.
    if size > point || point > 11 {
        return None;
    }
    format!("{significant}{}", "0".repeat(usize::try_from(point - size).ok()?)).parse().ok()
}

struct Limits {
    depth: usize,
    /// Every number is one that 64 bits can carry.
    is_in_range: bool,
    /// An escape of half a character, on which readers differ.
    has_surrogate: bool,
}

/// What stands in a JSON text that a reader may refuse although it is one.
fn limits(text: &str) -> Limits {
    let mut limits = Limits { depth: 0, is_in_range: true, has_surrogate: false };
    let (mut depth, bytes, mut at) = (0_usize, text.as_bytes(), 0);
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => {
                depth += 1;
                limits.depth = limits.depth.max(depth);
            }
            b'}' | b']' => depth -= 1,
            b'"' => {
                at += 1;
                while bytes[at] != b'"' {
                    if bytes[at] == b'\\' {
                        at += 1;
                        let escape = text.get(at..at + 3).unwrap_or_default().to_ascii_lowercase();
                        limits.has_surrogate |= ["ud8", "ud9", "uda", "udb", "udc", "udd", "ude", "udf"]
                            .contains(&escape.as_str());
                    }
                    at += 1;
                }
            }
            b'-' | b'0'..=b'9' => {
                let size = bytes[at..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte))
                    .count();
                let number = &text[at..at + size];
                limits.is_in_range &= if number.contains(['.', 'e', 'E']) {
                    number.parse::<f64>().is_ok_and(f64::is_finite)
                } else {
                    number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok()
                };
                at += size - 1;
            }
            _ => {}
        }
        at += 1;
    }
    limits
}

/// Whether a reader may stumble over a number's size before it finds out that the text is no JSON.
fn has_long_number(body: &[u8]) -> bool {
    let is_in_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    body.chunk_by(|one, other| is_in_number(one) == is_in_number(other)).any(|part| {
        is_in_number(&part[0]) && (part.len() > 18 || part.contains(&b'e') || part.contains(&b'E'))
    })
}
