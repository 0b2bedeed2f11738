//! `[[processor.outcome]]` and `[processor.answer]`: what a processor's answers mean.

use std::ops::RangeInclusive;

use galo_engine::verdict::{Reply, Rule, Rules, Text, Verdict};

use crate::error::At;
use crate::json::{POINTER_LEN_MAX, Scalar, is_pointer};
use crate::table::{Entry, Table};
use crate::text::is_header_name;
use crate::tree::Value;

/// Rules of one table.
const RULES_MAX: usize = 64;

/// A reason's and a reference's length in bytes.
pub const TEXT_SIZE_MAX: usize = 64;

/// Headers of an answer, whoever holds them.
pub trait Headers {
    /// The value of the first header with this name, in any case.
    fn value(&self, name: &str) -> Option<&[u8]>;
}

impl Headers for &[(&str, &[u8])] {
    fn value(&self, name: &str) -> Option<&[u8]> {
        first(self, name)
    }
}

impl<const N: usize> Headers for [(&str, &[u8]); N] {
    fn value(&self, name: &str) -> Option<&[u8]> {
        first(self, name)
    }
}

fn first<'a>(headers: &'a [(&str, &[u8])], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// A whole answer, whose body the caller has bounded.
#[derive(Clone, Copy)]
pub struct Page<'a> {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: &'a dyn Headers,
    /// Its body; empty where it was not read.
    pub body: &'a [u8],
}

impl Reply for Page<'_> {
    fn status(&self) -> u16 {
        self.status
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.value(name)
    }

    fn member(&self, pointer: &str, take: &mut dyn FnMut(&str) -> bool) -> bool {
        let body = str::from_utf8(self.body).ok();
        body.and_then(|body| Scalar::at(body, pointer)).is_some_and(|scalar| take(&scalar.text))
    }
}

/// What is read of an answer to an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answers {
    /// What it means.
    pub rules: Rules,
    reason: Vec<String>,
    reference: Option<String>,
}

impl Answers {
    /// Whether anything but status and headers of an answer with this status is looked at.
    #[must_use]
    pub fn needs_body(&self, status: u16) -> bool {
        !self.reason.is_empty() || self.reference.is_some() || self.rules.needs_body(status)
    }

    /// The processor's own words for why, of at most [`TEXT_SIZE_MAX`] bytes; for people only.
    #[must_use]
    pub fn reason(&self, body: &[u8]) -> Option<String> {
        let body = str::from_utf8(body).ok()?;
        let found = self.reason.iter().filter_map(|pointer| Scalar::at(body, pointer));
        found.map(|scalar| for_people(&scalar.text)).find(|text| !text.is_empty() && text != "null")
    }

    /// Whether answers are asked for the processor's own name.
    #[must_use]
    pub const fn names_reference(&self) -> bool {
        self.reference.is_some()
    }

    /// The processor's own name for the payment, of at most [`TEXT_SIZE_MAX`] bytes of visible ASCII; a longer one is none.
    #[must_use]
    pub fn reference(&self, body: &[u8]) -> Option<String> {
        reference(str::from_utf8(body).ok()?, self.reference.as_deref()?)
    }
}

/// A reference at a pointer.
pub(crate) fn reference(body: &str, pointer: &str) -> Option<String> {
    let text = Scalar::at(body, pointer)?.text;
    let usable =
        (1..=TEXT_SIZE_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    (usable && text != "null").then(|| text.into_owned())
}

/// The beginning of a text, without what could break a line or a terminal.
fn for_people(text: &str) -> String {
    let mut out = String::new();
    for character in text.trim().chars() {
        if out.len() + character.len_utf8() > TEXT_SIZE_MAX {
            break;
        }
        out.push(if character.is_control() { ' ' } else { character });
    }
    out
}

/// Reads both tables, and the place of the first rule whose verdict needs a look-up.
pub(crate) fn read_answers<'a>(processor: &mut Table<'a>) -> (Answers, Option<(&'a At, Verdict)>) {
    let mut rules = Vec::new();
    let mut looked_up = None;
    if let Some(entry) = processor.need("outcome", "[[processor.outcome]] tables, each with a verdict") {
        let entries = entry.entries();
        if entries.len() > RULES_MAX {
            entry.expected(&format!("at most {RULES_MAX} rules"));
        }
        for table in entries.iter().filter_map(Entry::table) {
            let at = table.at();
            let Some(rule) = rule(table) else { continue };
            if matches!(rule.verdict, Verdict::Duplicate | Verdict::Pending) {
                looked_up = looked_up.or(Some((at, rule.verdict)));
            }
            rules.push(rule);
        }
    }
    let mut answers = Answers { rules: Rules::new(rules), reason: Vec::new(), reference: None };
    if let Some(mut table) = processor.table("answer") {
        if let Some(entry) = table.get("reason") {
            answers.reason = entry.some_entries("pointer in the list").iter().filter_map(pointer).collect();
        }
        answers.reference = table.get("reference").and_then(|entry| pointer(&entry));
        table.finish();
    }
    (answers, looked_up)
}

fn rule(mut table: Table<'_>) -> Option<Rule> {
    let statuses = table.get("status").map(|entry| statuses(&entry)).unwrap_or_default();
    let header = table.table("header").and_then(|mut header| {
        let name = header.need("name", "a header's name").and_then(|entry| {
            entry
                .read(|text| is_header_name(text).then_some(text).ok_or_else(|| "a header's name".to_owned()))
        });
        let text = condition(&mut header);
        header.finish();
        Some((name?.to_owned(), text?))
    });
    let member = table.table("member").and_then(|member| member_condition(member, |_| ()));
    let says_status = table.get("status").is_some() && !is_every_status(&statuses);
    let has_condition = says_status || ["header", "member"].iter().any(|key| table.get(key).is_some());
    let names: Vec<(&str, Verdict)> = Verdict::ALL
        .into_iter()
        .filter(|verdict| *verdict != Verdict::NotSent)
        .map(|verdict| (verdict.name(), verdict))
        .collect();
    table.need("verdict", "what an answer like this means");
    let verdict = table.word("verdict", &names);
    if !has_condition && verdict.is_some_and(|verdict| verdict != Verdict::Unknown) {
        table.mistake("expected a status, a header or a member: only \"unknown\" may be said of everything");
    }
    table.finish();
    Some(Rule { statuses, header, member, verdict: verdict? })
}

/// `{ pointer = "/status", is = "succeeded" }`.
pub(crate) fn member_condition(
    mut table: Table<'_>,
    more: impl FnOnce(&mut Table<'_>),
) -> Option<(String, Text)> {
    let at = table.need("pointer", "a JSON pointer").and_then(|entry| pointer(&entry));
    let text = condition(&mut table);
    more(&mut table);
    table.finish();
    Some((at?, text?))
}

/// `is = "x"`, `one_of = ["x", "y"]`, or neither: there, whatever it is.
fn condition(table: &mut Table<'_>) -> Option<Text> {
    let is = table.get("is");
    let one_of = table.get("one_of");
    if is.is_some() && one_of.is_some() {
        table.mistake("expected is or one_of, not both");
        return None;
    }
    let entries = match (is, one_of) {
        (Some(entry), _) => vec![entry],
        (None, Some(entry)) => entry.some_entries("text in the list"),
        (None, None) => return Some(Text::Any),
    };
    let texts = entries.iter().map(|entry| match &entry.node.value {
        Value::Text(_) | Value::Integer(Some(_), _) | Value::Bool(_) => {
            Some(entry.text().map_or_else(|| entry.node.shown(), str::to_owned))
        }
        _ => {
            entry.expected("a text, a whole number, true or false");
            None
        }
    });
    Some(Text::OneOf(texts.collect::<Option<Vec<_>>>()?))
}

pub(crate) fn pointer(entry: &Entry<'_>) -> Option<String> {
    entry.read(|text| {
        let message =
            || format!("a JSON pointer such as \"/error/code\", of at most {POINTER_LEN_MAX} steps");
        is_pointer(text).then(|| text.to_owned()).ok_or_else(message)
    })
}

/// `404`, `"4xx"`, `"500-504"`, or a list of these.
pub(crate) fn statuses(entry: &Entry<'_>) -> Vec<RangeInclusive<u16>> {
    let range = |entry: &Entry<'_>| {
        let range = match &entry.node.value {
            Value::Integer(Some(number), _) => u16::try_from(*number).ok().map(|status| status..=status),
            Value::Text(text) => status_range(text),
            _ => None,
        };
        let range = range.filter(|range| *range.start() >= 100 && *range.end() <= 599 && !range.is_empty());
        if range.is_none() {
            entry.expected("a status from 100 to 599, \"4xx\", \"500-504\", or a list of these");
        }
        range
    };
    entry.some_entries("status in the list").iter().filter_map(range).collect()
}

fn is_every_status(ranges: &[RangeInclusive<u16>]) -> bool {
    (100..=599).all(|status| ranges.iter().any(|range| range.contains(&status)))
}

fn status_range(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |digits: &str| {
        let plain = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| plain)
    };
    match text.split_once('-') {
        Some((low, high)) => Some(number(low)?..=number(high)?),
        None => {
            let first = number(&text.replace("xx", "00")).filter(|_| text.ends_with("xx"))?;
            Some(first..=first + 99)
        }
    }
}
