//! One value out of a JSON text by its pointer (RFC 6901), numbers by their digits.
//!
//! The text comes from outside. It is never turned into a tree: each step of a pointer looks at one level and skips the rest,
//! without recursion, so that deep nesting costs time only, and that is bounded by the text's length times the pointer's. A text
//! that is no JSON as a whole has no values, and a member that occurs twice has none either: readers would not agree on which.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Steps of a pointer.
pub(crate) const POINTER_LEN_MAX: usize = 16;

/// A member's name, borrowed where it has no escapes.
#[derive(Deserialize)]
pub(crate) struct Name<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// A string, a number, `true`, `false` or `null`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scalar<'a> {
    /// A string's characters; the digits of a number as they stand; the word.
    pub text: Cow<'a, str>,
    /// It is a string.
    pub is_text: bool,
}

impl<'a> Scalar<'a> {
    /// The value of a JSON text, if it is a scalar.
    pub(crate) fn of(json: &'a str) -> Option<Self> {
        match json.as_bytes().first()? {
            b'{' | b'[' => None,
            b'"' => Some(Self { text: serde_json::from_str::<Name<'a>>(json).ok()?.0, is_text: true }),
            _ => Some(Self { text: Cow::Borrowed(json), is_text: false }),
        }
    }

    /// The scalar at a pointer.
    pub(crate) fn at(json: &'a str, pointer: &str) -> Option<Self> {
        Self::of(value_at(json, pointer)?)
    }
}

/// Whether a text is a pointer that Galo follows.
pub(crate) fn is_pointer(text: &str) -> bool {
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    (text.is_empty() || text.starts_with('/')) && escapes && text.matches('/').count() <= POINTER_LEN_MAX
}

/// The text of the value at a pointer, without the blanks around it.
pub(crate) fn value_at<'a>(json: &'a str, pointer: &str) -> Option<&'a str> {
    let mut value = serde_json::from_str::<&RawValue>(json).ok()?.get();
    if pointer.is_empty() {
        return Some(value);
    }
    for step in pointer.strip_prefix('/')?.split('/').take(POINTER_LEN_MAX) {
        let step: Cow<'_, str> =
            if step.contains('~') { step.replace("~1", "/").replace("~0", "~").into() } else { step.into() };
        let mut deserializer = serde_json::Deserializer::from_str(value);
        value = (&mut deserializer).deserialize_any(Step(&step)).ok()??;
    }
    Some(value)
}

/// The entries of the list at a pointer.
pub(crate) fn entries_at<'a>(json: &'a str, pointer: &str) -> Option<Vec<&'a str>> {
    let list: Vec<&RawValue> = serde_json::from_str(value_at(json, pointer)?).ok()?;
    Some(list.into_iter().map(RawValue::get).collect())
}

/// A member or an entry by its name.
struct Step<'s>(&'s str);

/// The same, of the value that follows.
impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut count = 0;
        while let Some(name) = map.next_key::<Name<'de>>()? {
            if name.0 == self.0 {
                found = Some(map.next_value::<&RawValue>()?.get());
                count += 1;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found.filter(|_| count == 1))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        // Not "+1", and not "01", which the RFC rules out.
        let plain =
            self.0.bytes().all(|byte| byte.is_ascii_digit()) && (self.0 == "0" || !self.0.starts_with('0'));
        let index = self.0.parse::<usize>().ok().filter(|_| plain);
        let mut found = None;
        let mut at = 0;
        while let Some(value) = seq.next_element::<&RawValue>()? {
            if Some(at) == index {
                found = Some(value.get());
            }
            at += 1;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(json: &str, pointer: &str) -> Option<String> {
        Scalar::at(json, pointer).map(|scalar| scalar.text.into_owned())
    }

    #[test]
    fn pointers_are_followed() {
        let json = r#" {"a": {"b/c": [1, {"d~": "x\u00e9\n"}], "": 2}, "n": 1.10e2, "t": true, "z": null, "0": "zero"} "#;
        for (pointer, expected) in [
            ("/a/b~1c/0", Some("1")),
            ("/a/b~1c/1/d~0", Some("xé\n")),
            ("/a/", Some("2")),
            ("/n", Some("1.10e2")),
            ("/t", Some("true")),
            ("/z", Some("null")),
            ("/0", Some("zero")),
            ("", None),
            ("/a", None),
            ("/a/b~1c/2", None),
            ("/a/b~1c/00", None),
            ("/a/b~1c/+1", None),
            ("/a/b~1c/-", None),
            ("/n/0", None),
            ("/missing", None),
        ] {
            assert_eq!(at(json, pointer).as_deref(), expected, "{pointer}");
        }
        assert_eq!(at(" 12 ", "").as_deref(), Some("12"));
    }

    #[test]
    fn what_is_ambiguous_or_no_json_has_no_value() {
        for json in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":1"#,
            r#"{"a":1}x"#,
            r#"{"a":1,}"#,
            r#"{"a":01}"#,
            r#"{"a":"\ud800"}"#,
            "",
            "{",
        ] {
            assert_eq!(at(json, "/a"), None, "{json}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{{\"a\":1,\"b\":{}{}}}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert_eq!(at(&deep, "/a").as_deref(), Some("1"));
        assert_eq!(at(&"[".repeat(1 << 20), "/0/0/0"), None);
        assert_eq!(at(&deep, "/b/0/0/0"), None, "a list is no scalar");
    }

    proptest! {
        #[test]
        fn never_panics(json in "[\\[\\]{}:,\"a0\\\\u1.eE+\\- tn]{0,40}", pointer in "[/a01~]{0,8}") {
            let _value = at(&json, &pointer);
            let _entries = entries_at(&json, &pointer);
        }
    }
}
