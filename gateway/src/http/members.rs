//! Members of a client's POST that go to a processor: cut out of the body, in one form.
//!
//! The form is a JSON object: the names in the order of the processors' file (sorted), each value as the client wrote it, without the blanks between its
//! tokens. So the same POST makes the same text at every gateway, and the ledger can tell by the text whether an id came with the same members. Nothing
//! in a value is changed: a number keeps its digits, a string its escapes, an object the order of its members.
//!
//! A `deadline` is Galo's own: it stands first, as the instant in UTC with milliseconds, whoever names it.
//!
//! The body has been found to be JSON before. Bounded: [`MEMBERS_SIZE_MAX`] bytes, beyond which the payment is refused.

use std::sync::Arc;

use galo_engine::texts::deadline_member;
use galo_engine::time::UnixMillis;
use galo_wire::MEMBERS_SIZE_MAX;

use super::payment::{DEADLINE, string_size};
use super::problem::{self, Refusal};

/// Cuts members out of one body after the other.
#[derive(Default)]
pub(super) struct Cutter {
    /// Which name, and where its value begins.
    found: Vec<(usize, usize)>,
    text: Vec<u8>,
}

impl Cutter {
    /// Before the members of a body.
    pub(super) fn begin(&mut self) {
        self.found.clear();
    }

    /// The body has the member with the name of this number, and its value begins there.
    pub(super) fn find(&mut self, number: usize, value_at: usize) -> Result<(), Refusal> {
        if self.found.iter().any(|(other, _)| *other == number) {
            return Err(&problem::MEMBER_TWICE);
        }
        self.found.push((number, value_at));
        Ok(())
    }

    /// What was found, behind the deadline, if there is anything.
    pub(super) fn cut(
        &mut self,
        names: &[String],
        deadline: Option<UnixMillis>,
        body: &[u8],
    ) -> Result<Option<Arc<str>>, Refusal> {
        if self.found.is_empty() && deadline.is_none() {
            return Ok(None);
        }
        self.found.sort_unstable();
        self.text.clear();
        if let Some(deadline) = deadline {
            deadline_member(deadline, &mut self.text);
        }
        for (number, value_at) in self.found.iter().filter(|(number, _)| names[*number] != DEADLINE) {
            self.text.push(if self.text.is_empty() { b'{' } else { b',' });
            self.text.push(b'"');
            for byte in names[*number].bytes() {
                if matches!(byte, b'"' | b'\\') {
                    self.text.push(b'\\');
                }
                self.text.push(byte);
            }
            self.text.extend_from_slice(b"\":");
            copy_value(body.get(*value_at..).unwrap_or_default(), &mut self.text);
        }
        self.text.push(b'}');
        if self.text.len() > MEMBERS_SIZE_MAX {
            return Err(&problem::MEMBERS_TOO_LARGE);
        }
        // It was parsed: were it ever otherwise, a refusal is better than half a text.
        let text = str::from_utf8(&self.text).map_err(|_| &problem::MALFORMED_JSON)?;
        Ok(Some(Arc::from(text)))
    }
}

/// Appends the value at the beginning of a text that goes on behind it.
fn copy_value(text: &[u8], out: &mut Vec<u8>) {
    let (mut at, mut depth, begin) = (0, 0_usize, out.len());
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                let end = text.len().min(at + string_size(&text[at + 1..]) + 2);
                out.extend_from_slice(&text[at..end]);
                at = end;
                if depth == 0 {
                    return;
                }
                continue;
            }
            b' ' | b'\t' | b'\r' | b'\n' if depth == 0 && out.len() > begin => return,
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b',' | b'}' | b']' if depth == 0 => return,
            byte => {
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                out.push(*byte);
                if depth == 0 && matches!(byte, b'}' | b']') {
                    return;
                }
            }
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use galo_profile::Members;
    use proptest::prelude::*;

    use super::super::payment::PaymentReader;
    use super::*;

    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn cut(body: &str, list: &[&str]) -> Result<Option<String>, Refusal> {
        let payment = PaymentReader::new().read_with(body.as_bytes(), &names(list))?;
        let members = payment.members.map(|members| members.as_ref().to_owned());
        if let Some(members) = &members {
            assert!(Members::read(members).is_some(), "{members}");
        }
        Ok(members)
    }

    fn with(members: &str) -> String {
        format!(r#"{{"correlationId":"{ID}",{members},"amount":19.90}}"#)
    }

    #[test]
    fn named_members_are_cut_out_in_one_form() {
        for (members, list, expected) in [
            (r#""payer":{"id":1}"#, &["payer"][..], Some(r#"{"payer":{"id":1}}"#)),
            (
                r#""payer" : { "id" : 1 , "n":[ 1 , 2 ] } "#,
                &["payer"],
                Some(r#"{"payer":{"id":1,"n":[1,2]}}"#),
            ),
            (r#""b":"x y\" }","a":1.50E+2"#, &["a", "b"], Some(r#"{"a":1.50E+2,"b":"x y\" }"}"#)),
            (r#""a":true ,"z":null"#, &["a", "b", "z"], Some(r#"{"a":true,"z":null}"#)),
            (r#""other":{"a":1}"#, &["a"], None),
            // A key is what it spells, and a string stays as it was written.
            (
                "\"p\\u0061yer\":\"\\u00e9\\ud83d\\ude00é\"",
                &["payer"],
                Some("{\"payer\":\"\\u00e9\\ud83d\\ude00é\"}"),
            ),
            (r#""a\"b\\":[]"#, &[r#"a"b\"#], Some(r#"{"a\"b\\":[]}"#)),
            (
                r#""x":1"#,
                &["amount", "correlationId"],
                Some(r#"{"amount":19.90,"correlationId":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3"}"#),
            ),
            (r#""":5,"a":{}"#, &["a"], Some(r#"{"a":{}}"#)),
        ] {
            assert_eq!(cut(&with(members), list), Ok(expected.map(str::to_owned)), "{members}");
        }
    }

    #[test]
    fn a_deadline_stands_first_as_an_instant() {
        let at = "2026-11-30T12:34:56.789Z";
        for (members, list, expected) in [
            (r#""deadline":"2026-11-30T12:34:56.789Z""#, &[][..], format!(r#"{{"deadline":"{at}"}}"#)),
            (
                r#""a":1,"dead\u006cine" : "2026-11-30T09:34:56.789-03:00""#,
                &["a"],
                format!(r#"{{"deadline":"{at}","a":1}}"#),
            ),
            // Whoever wants it sent, names it, and it stands there once.
            (
                r#""deadline":"2026-11-30T12:34:56.789Z","a":1"#,
                &["a", "deadline"],
                format!(r#"{{"deadline":"{at}","a":1}}"#),
            ),
        ] {
            assert_eq!(cut(&with(members), list), Ok(Some(expected)), "{members}");
        }
        for wrong in [r#""tomorrow""#, "5", "null", r#""""#, r#"["2026-11-30T12:34:56.789Z"]"#] {
            let body = with(&format!(r#""deadline":{wrong}"#));
            assert_eq!(cut(&body, &[]), Err(&problem::DEADLINE_INVALID), "{wrong}");
        }
        let twice = with(&format!(r#""deadline":"{at}","deadline":"{at}""#));
        assert_eq!(cut(&twice, &[]), Err(&problem::DEADLINE_TWICE));
    }

    #[test]
    fn what_cannot_go_on_is_refused() {
        assert_eq!(cut(&with(r#""a":1,"\u0061":1"#), &["a"]), Err(&problem::MEMBER_TWICE));
        // Of members that go nowhere nobody minds.
        assert_eq!(cut(&with(r#""a":1,"a":2,"b":3"#), &["b"]), Ok(Some(r#"{"b":3}"#.to_owned())));
        let text = |size: usize| format!(r#""a":"{}""#, "x".repeat(size - r#"{"a":""}"#.len()));
        assert_eq!(cut(&with(&text(2_048)), &["a"]).map(|it| it.map(|it| it.len())), Ok(Some(2_048)));
        assert_eq!(cut(&with(&text(2_049)), &["a"]), Err(&problem::MEMBERS_TOO_LARGE));
        // Blanks do not count.
        let blanks = format!(r#""a":[1,{}2]"#, " ".repeat(5_000));
        assert_eq!(cut(&with(&blanks), &["a"]), Ok(Some(r#"{"a":[1,2]}"#.to_owned())));
        let deep = |depth: usize| format!(r#""a":{}{}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(cut(&with(&deep(31)), &["a"]).is_ok());
        assert_eq!(cut(&with(&deep(32)), &["a"]), Err(&problem::TOO_DEEP));
        assert_eq!(cut(&with(r#""a":"\ud800""#), &["a"]), Err(&problem::MALFORMED_JSON));
        let body = [with(r#""a":"#).as_bytes(), b"\"\xff\"}"].concat();
        let read = PaymentReader::new().read_with(&body, &names(&["a"])).map(|_| ());
        assert_eq!(read, Err(&problem::MALFORMED_JSON));
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<String>().prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
        ];
        leaf.prop_recursive(4, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                proptest::collection::btree_map("[a-c \"\\\\]{0,3}", inner, 0..4)
                    .prop_map(serde_json::Value::from_iter),
            ]
        })
    }

    proptest! {
        /// Held against serde_json: what is cut out means the same, however it was written.
        #[test]
        fn what_is_cut_out_means_what_was_sent(a in value(), b in value(), pretty: bool) {
            let written = |value: &serde_json::Value| if pretty {
                serde_json::to_string_pretty(value).unwrap()
            } else {
                value.to_string()
            };
            let members = format!(r#""b" : {} , "skip":{},"a":{}"#, written(&b), written(&a), written(&a));
            match cut(&with(&members), &["a", "b"]) {
                Ok(text) => {
                    let text = text.unwrap();
                    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
                    prop_assert_eq!(&read["a"], &a);
                    prop_assert_eq!(&read["b"], &b);
                    prop_assert_eq!(text, format!(r#"{{"a":{a},"b":{b}}}"#));
                }
                Err(refusal) => prop_assert_eq!(refusal, &problem::MEMBERS_TOO_LARGE),
            }
        }
    }
}
