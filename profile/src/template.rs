//! Bytes with gaps: what all requests of a processor share is compiled once, what differs is filled in for each.
//!
//! Two promises. Rendering allocates nothing but what the buffer grows by. And nothing that comes from a client or a processor
//! can change a request's structure: a client's values go into bodies only, escaped for the format they stand in; what goes into
//! a head is a UUID's text, a timestamp, a percent-encoded text, or was checked at start.

use std::borrow::Cow;
use std::fmt;

use galo_engine::CorrelationId;
use galo_engine::money::{self, AmountCents, DECIMAL_TEXT_SIZE};
use galo_engine::time::UnixMillis;
use galo_engine::timestamp::{self, TIMESTAMP_TEXT_SIZE};
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::secret::Secret;

/// The members of a client's POST that a template may name, as the client wrote them.
#[derive(Clone, Default, Debug)]
pub struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads a JSON object. `None`: it is none, or two of its members have one name.
    #[must_use]
    pub fn read(object: &'a str) -> Option<Self> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Self::Value = Vec::new();
                while let Some((name, value)) = map.next_entry::<crate::json::Name<'de>, &RawValue>()? {
                    members.push((name.0, value));
                }
                Ok(members)
            }
        }
        let mut deserializer = serde_json::Deserializer::from_str(object);
        let members = serde::Deserializer::deserialize_map(&mut deserializer, Each).ok()?;
        deserializer.end().ok()?;
        let twice = |(index, (name, _)): (usize, &(Cow<'_, str>, _))| {
            members[..index].iter().any(|(other, _): &(Cow<'_, str>, _)| other == name)
        };
        if members.iter().enumerate().any(twice) { None } else { Some(Self(members)) }
    }

    /// A member's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(have, _)| have == name).map(|(_, value)| *value)
    }
}

/// One payment, as templates need it.
#[derive(Clone, Copy, Debug)]
pub struct Payment<'a> {
    /// Its id.
    pub correlation_id: CorrelationId,
    /// What is to be charged.
    pub amount: AmountCents,
    /// When it is requested, as the ledger has it.
    pub requested_at: UnixMillis,
    /// What the client sent beside that.
    pub members: &'a Members<'a>,
}

/// Why there is no request. Nothing is sent then, so nothing is charged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Unrenderable {
    /// The amount has more decimals than the processor's currency.
    #[error("the amount has more decimals than the processor's form of it")]
    Amount,
    /// There is no token of the authorization server's, or none that is still valid.
    #[error("no token")]
    NoToken,
    /// The processor's own reference is not known.
    #[error("the processor's reference is not known")]
    NoReference,
}

/// The amount's notation in requests and answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AmountForm {
    /// How it is written.
    pub notation: Notation,
    /// Decimals of a number or a string; the power of ten that makes a minor unit of the amount. 0 to 4.
    pub exponent: u32,
}

/// Number, string or minor units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notation {
    /// `19.90`
    Number,
    /// `"19.90"`
    String,
    /// `1990`
    Minor,
}

impl AmountForm {
    /// `19.90`, as the contest writes it.
    pub const DECIMAL: Self = Self { notation: Notation::Number, exponent: 2 };

    /// The amount in units of 10^-exponent, if it is a whole number of them.
    #[must_use]
    pub fn units(self, amount: AmountCents) -> Option<u64> {
        match self.exponent {
            2 => Some(amount.get()),
            // At most 10^11 cents and 4 decimals: at most 10^13.
            more @ 3.. => Some(amount.get() * 10_u64.pow(more.min(4) - 2)),
            fewer => {
                let divisor = 10_u64.pow(2 - fewer);
                amount.get().is_multiple_of(divisor).then(|| amount.get() / divisor)
            }
        }
    }

    /// Reads an amount out of an answer, exactly; `None` for anything but an amount in this form.
    #[must_use]
    pub fn read(self, scalar: &crate::json::Scalar<'_>) -> Option<AmountCents> {
        let text = match (self.notation, scalar.is_text) {
            (Notation::String, true) | (Notation::Number | Notation::Minor, false) => scalar.text.as_bytes(),
            _ => return None,
        };
        if self.notation != Notation::Minor {
            return AmountCents::parse(text).ok();
        }
        if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
            return None;
        }
        AmountCents::parse(format!("{}e-{}", scalar.text, self.exponent).as_bytes()).ok()
    }

    /// Without quotes.
    fn write(self, amount: AmountCents, out: &mut Vec<u8>) -> Result<(), Unrenderable> {
        if self.exponent == 2 && self.notation != Notation::Minor {
            let mut text = [0; DECIMAL_TEXT_SIZE];
            out.extend_from_slice(money::write_decimal(amount.get(), &mut text).as_bytes());
            return Ok(());
        }
        let units = self.units(amount).ok_or(Unrenderable::Amount)?;
        if self.notation == Notation::Minor || self.exponent == 0 {
            write_number(units, 1, out);
            return Ok(());
        }
        let divisor = 10_u64.pow(self.exponent);
        write_number(units / divisor, 1, out);
        out.push(b'.');
        write_number(units % divisor, self.exponent as usize, out);
        Ok(())
    }
}

/// How an id is written as an idempotency key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyForm {
    /// 36 characters.
    Hyphenated,
    /// 32 hexadecimal digits.
    Digits,
}

impl KeyForm {
    /// The length of a key.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Hyphenated => 36,
            Self::Digits => 32,
        }
    }

    fn write(self, id: CorrelationId, out: &mut Vec<u8>) {
        let mut text = [0; 36];
        let text = id.write(&mut text).as_bytes();
        match self {
            Self::Hyphenated => out.extend_from_slice(text),
            Self::Digits => out.extend(text.iter().filter(|byte| **byte != b'-')),
        }
    }
}

/// How the bounds of a list's time are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeForm {
    /// `2025-07-15T12:34:56.789Z`
    Iso,
    /// Seconds since 1970.
    UnixSeconds,
    /// Milliseconds since 1970.
    UnixMillis,
}

/// What is filled in.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) payment: Option<Payment<'a>>,
    pub(crate) correlation_id: CorrelationId,
    pub(crate) token: Option<&'a Secret>,
    pub(crate) reference: Option<&'a str>,
    pub(crate) cursor: Option<&'a str>,
    pub(crate) from: UnixMillis,
    pub(crate) to: UnixMillis,
}

impl Values<'_> {
    pub(crate) fn nothing() -> Self {
        Self {
            payment: None,
            correlation_id: CorrelationId([0; 16]),
            token: None,
            reference: None,
            cursor: None,
            from: UnixMillis(0),
            to: UnixMillis(0),
        }
    }
}

/// Where a client's value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the middle of a JSON string.
    JsonString,
    /// In a form's value.
    Form,
}

/// What to write next.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    Id,
    Key(KeyForm),
    Amount(AmountForm),
    RequestedAt,
    /// The same with `:` percent-encoded.
    RequestedAtInForm,
    Token,
    /// Percent-encoded, and only what is known.
    Reference,
    From(TimeForm),
    To(TimeForm),
    /// `&name=` and the cursor, if there is one.
    Cursor(Vec<u8>),
    /// A client's member inside a longer text: nothing if it is absent.
    Client(String, Place),
    /// `"name":` and the client's value as it stands; nothing at all if it is absent.
    ClientMember(Vec<u8>, String),
    /// The client's value as it stands, `null` if it is absent.
    ClientEntry(String),
    /// `name=` and the client's value; nothing at all if it is absent.
    ClientPair(Vec<u8>, String),
    /// A comma, unless an object or a list begins just before.
    Comma,
    /// `&`, unless the body begins here.
    And,
    /// The body's length, and the blank line behind the head.
    Body,
}

/// Pieces, neighbouring bytes joined.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Template(Vec<Piece>);

impl fmt::Debug for Template {
    /// Never the bytes: a token may be among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({} pieces)", self.0.len())
    }
}

impl Template {
    pub(crate) fn has_requested_at(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::RequestedAt | Piece::RequestedAtInForm))
    }

    pub(crate) fn bytes(&mut self, bytes: impl AsRef<[u8]>) {
        match self.0.last_mut() {
            Some(Piece::Bytes(last)) => last.extend_from_slice(bytes.as_ref()),
            _ => self.0.push(Piece::Bytes(bytes.as_ref().to_vec())),
        }
    }

    pub(crate) fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Bytes(bytes) => self.bytes(bytes),
            piece => self.0.push(piece),
        }
    }

    pub(crate) fn extend(&mut self, other: Self) {
        for piece in other.0 {
            self.push(piece);
        }
    }

    /// The bytes that every rendering has.
    pub(crate) fn size(&self) -> usize {
        let sizes = self.0.iter().map(|piece| match piece {
            Piece::Bytes(bytes) => bytes.len(),
            _ => 0,
        });
        sizes.sum()
    }

    pub(crate) fn has(&self, which: impl Fn(&Piece) -> bool) -> bool {
        self.0.iter().any(which)
    }

    /// Fills the buffer, which is emptied first.
    pub(crate) fn render(&self, values: &Values<'_>, out: &mut Vec<u8>) -> Result<(), Unrenderable> {
        out.clear();
        let mut body: Option<(usize, usize)> = None;
        for piece in &self.0 {
            if matches!(piece, Piece::Body) {
                let length_at = out.len();
                // Nearly all bodies have three digits of length.
                out.extend_from_slice(b"000\r\n\r\n");
                body = Some((length_at, out.len()));
            } else {
                piece.render(values, body.map_or(0, |(_, start)| start), out)?;
            }
        }
        if let Some((length_at, start)) = body {
            fill_length(length_at, start, out);
        }
        Ok(())
    }
}

/// Writes the body's length where three digits are reserved, and moves the body if it has fewer or more.
fn fill_length(at: usize, start: usize, out: &mut Vec<u8>) {
    let size = out.len() - start;
    let mut digits = [0; 20];
    let digits = number_text(size as u64, 1, &mut digits);
    let reserved = at..at + 3;
    if digits.len() == 3 {
        out[reserved].copy_from_slice(digits);
    } else {
        drop(out.splice(reserved, digits.iter().copied()));
    }
}

impl Piece {
    fn render(&self, values: &Values<'_>, body_start: usize, out: &mut Vec<u8>) -> Result<(), Unrenderable> {
        let payment = || values.payment.expect("only a payment's template has such a piece");
        let client = |name: &str| payment().members.get(name).map(RawValue::get);
        match self {
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
            Self::Id => KeyForm::Hyphenated.write(values.correlation_id, out),
            Self::Key(form) => form.write(values.correlation_id, out),
            Self::Amount(form) => form.write(payment().amount, out)?,
            Self::RequestedAt => write_iso(payment().requested_at, out),
            Self::RequestedAtInForm => {
                form_encode(&timestamp_text(payment().requested_at, &mut [0; TIMESTAMP_TEXT_SIZE]), out);
            }
            Self::Token => {
                out.extend_from_slice(values.token.ok_or(Unrenderable::NoToken)?.expose());
            }
            Self::Reference => {
                percent_encode(values.reference.ok_or(Unrenderable::NoReference)?.as_bytes(), out);
            }
            Self::From(form) => write_time(*form, values.from, out),
            Self::To(form) => write_time(*form, values.to, out),
            Self::Cursor(name) => {
                if let Some(cursor) = values.cursor {
                    out.extend_from_slice(name);
                    percent_encode(cursor.as_bytes(), out);
                }
            }
            Self::Client(name, place) => match (client(name), place) {
                (None | Some("null"), _) => {}
                (Some(json), Place::JsonString) => json_in_string(json, out),
                (Some(json), Place::Form) => json_in_form(json, out),
            },
            Self::ClientMember(name, member) => {
                if let Some(json) = client(member) {
                    Self::Comma.render(values, body_start, out)?;
                    out.extend_from_slice(name);
                    out.extend_from_slice(json.as_bytes());
                }
            }
            Self::ClientEntry(member) => out.extend_from_slice(client(member).unwrap_or("null").as_bytes()),
            Self::ClientPair(name, member) => {
                if let Some(json) = client(member).filter(|json| *json != "null") {
                    Self::And.render(values, body_start, out)?;
                    out.extend_from_slice(name);
                    json_in_form(json, out);
                }
            }
            Self::Comma => {
                if !matches!(out.last(), Some(b'{' | b'[')) {
                    out.push(b',');
                }
            }
            Self::And => {
                if out.len() > body_start {
                    out.push(b'&');
                }
            }
            Self::Body => {}
        }
        Ok(())
    }
}

fn timestamp_text(at: UnixMillis, buffer: &mut [u8; TIMESTAMP_TEXT_SIZE]) -> [u8; TIMESTAMP_TEXT_SIZE] {
    timestamp::write(at, buffer);
    *buffer
}

fn write_iso(at: UnixMillis, out: &mut Vec<u8>) {
    out.extend_from_slice(timestamp::write(at, &mut [0; TIMESTAMP_TEXT_SIZE]).as_bytes());
}

fn write_time(form: TimeForm, at: UnixMillis, out: &mut Vec<u8>) {
    match form {
        TimeForm::Iso => write_iso(at, out),
        TimeForm::UnixSeconds => write_number(at.0 / 1_000, 1, out),
        TimeForm::UnixMillis => write_number(at.0, 1, out),
    }
}

/// Digits, with zeros in front up to a width.
fn number_text(number: u64, width: usize, out: &mut [u8; 20]) -> &[u8] {
    let mut start = out.len();
    let mut rest = number;
    while rest > 0 || out.len() - start < width {
        start -= 1;
        out[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    &out[start..]
}

fn write_number(number: u64, width: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(number_text(number, width, &mut [0; 20]));
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn percent(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// For a path or a query (RFC 3986): everything but unreserved characters is encoded.
pub(crate) fn percent_encode(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(*byte),
            _ => percent(*byte, out),
        }
    }
}

/// For `application/x-www-form-urlencoded` (WHATWG URL, section 5.2).
pub(crate) fn form_encode(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(*byte),
            b' ' => out.push(b'+'),
            _ => percent(*byte, out),
        }
    }
}

/// The inside of a JSON string (RFC 8259, section 7).
pub(crate) fn json_escape(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0..=0x1f => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(*byte),
        }
    }
}

/// A JSON value inside a JSON string: a string's own characters, everything else by its text.
fn json_in_string(json: &str, out: &mut Vec<u8>) {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        // It stands in a string already.
        Some(inside) => out.extend_from_slice(inside.as_bytes()),
        None => json_escape(json.as_bytes(), out),
    }
}

/// A JSON value in a form: a string's own characters, everything else by its text.
fn json_in_form(json: &str, out: &mut Vec<u8>) {
    let Some(inside) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        form_encode(json.as_bytes(), out);
        return;
    };
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        let character = if character == '\\' { unescape(&mut characters) } else { character };
        form_encode(character.encode_utf8(&mut [0; 4]).as_bytes(), out);
    }
}

/// What follows a backslash in a JSON string that was checked before. Half of a surrogate pair is no character: U+FFFD.
fn unescape(rest: &mut std::str::Chars<'_>) -> char {
    let unit = |rest: &mut std::str::Chars<'_>| {
        (0..4).try_fold(0, |value, _| Some(value * 16 + rest.next()?.to_digit(16)?)).unwrap_or(0xfffd)
    };
    match rest.next() {
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('u') => {
            let first = unit(rest);
            if !(0xd800..0xdc00).contains(&first) {
                return char::from_u32(first).unwrap_or('\u{fffd}');
            }
            let mut ahead = rest.clone();
            if (ahead.next(), ahead.next()) == (Some('\\'), Some('u')) {
                let second = unit(&mut ahead);
                if (0xdc00..0xe000).contains(&second) {
                    *rest = ahead;
                    let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    return char::from_u32(code).unwrap_or('\u{fffd}');
                }
            }
            '\u{fffd}'
        }
        Some(character) => character,
        None => '\u{fffd}',
    }
}
