//! Payments' bodies: what is refused, with which words, and what is accepted, to the cent.
//!
//! A refusal must be a problem of the stated status and type that names the member to blame; an accepted amount must
//! stand in a processor's book to the cent, whatever spelling it came in. `{I}` stands for a fresh id; every character
//! up to U+00FF behind a `{raw}` mark is one byte.

use std::fmt::Write;

use crate::client::{Answer, Connection, End, PATIENCE, Way};
use crate::tally::Tally;
use crate::world::{World, payment_json};

/// Name, body, status, type, field to blame.
type Refusal = (String, String, u16, &'static str, Option<&'static str>);

const MALFORMED: (u16, &str, Option<&str>) = (400, "malformed-json", None);
const BODY: (u16, &str, Option<&str>) = (422, "invalid-body", None);
const ID: (u16, &str, Option<&str>) = (422, "invalid-field", Some("correlationId"));
const AMOUNT: (u16, &str, Option<&str>) = (422, "invalid-field", Some("amount"));

/// Runs all, both ways.
pub(crate) fn run(world: &mut World, tally: &mut Tally) {
    for way in world.galo.ways() {
        if tally.begin(&format!("refused bodies, {}", way.name())) {
            for (name, body, status, kind, field) in refusals() {
                let result = refused(world, &way, &body, status, kind, field);
                tally.case(&name, result);
            }
            world.reconcile(tally);
        }
        if tally.begin(&format!("accepted bodies, {}", way.name())) {
            for (name, body, cents) in acceptances() {
                let result = accepted(world, &way, &body, cents);
                tally.case(&name, result);
            }
            tally.case("the spellings of an id", spellings_of_an_id(world, &way));
            tally.case("the same id again, and with another amount", again(world, &way));
            world.reconcile(tally);
        }
    }
}

fn refusals() -> Vec<Refusal> {
    let mut cases = Vec::new();
    let mut add = |name: String, body: String, (status, kind, field): (u16, &'static str, _)| {
        cases.push((name, body, status, kind, field));
    };
    for (name, body) in [
        ("no body", ""),
        ("a space", " "),
        ("an open brace", "{"),
        ("a closing brace", "}"),
        ("an open string", r#"{"correlationId":"#),
        ("two objects", r#"{"correlationId":"{I}","amount":1}{"amount":2}"#),
        ("an object and a comma", r#"{"correlationId":"{I}","amount":1},"#),
        ("a comma at the end", r#"{"correlationId":"{I}","amount":1,}"#),
        ("a comma at the start", r#"{,"correlationId":"{I}","amount":1}"#),
        ("no comma", r#"{"correlationId":"{I}" "amount":1}"#),
        ("no colon", r#"{"correlationId" "{I}","amount":1}"#),
        ("no value", r#"{"correlationId":"{I}","amount":}"#),
        ("single quotes", r#"{'correlationId':'{I}','amount':1}"#),
        ("bare keys", r#"{correlationId:"{I}",amount:1}"#),
        ("a number as a key", r#"{1:"{I}","amount":1}"#),
        ("a comment", r#"{"correlationId":"{I}",/* x */"amount":1}"#),
        ("a line comment", "{\"correlationId\":\"{I}\",// x\n\"amount\":1}"),
        ("a hash comment", "{\"correlationId\":\"{I}\",# x\n\"amount\":1}"),
        ("a form", "correlationId={I}&amount=1"),
        ("XML", "<payment id=\"{I}\" amount=\"1\"/>"),
        ("NaN", r#"{"correlationId":"{I}","amount":NaN}"#),
        ("Infinity", r#"{"correlationId":"{I}","amount":Infinity}"#),
        ("-Infinity", r#"{"correlationId":"{I}","amount":-Infinity}"#),
        ("undefined", r#"{"correlationId":"{I}","amount":undefined}"#),
        ("True", r#"{"correlationId":"{I}","amount":True}"#),
        ("nul", r#"{"correlationId":"{I}","amount":nul}"#),
        ("a hexadecimal number", r#"{"correlationId":"{I}","amount":0x10}"#),
        ("an octal number", r#"{"correlationId":"{I}","amount":010}"#),
        ("a number with a plus", r#"{"correlationId":"{I}","amount":+1}"#),
        ("a number with two minuses", r#"{"correlationId":"{I}","amount":--1}"#),
        ("a lone minus", r#"{"correlationId":"{I}","amount":-}"#),
        ("a number without its integer", r#"{"correlationId":"{I}","amount":.5}"#),
        ("a number without its fraction", r#"{"correlationId":"{I}","amount":1.}"#),
        ("a number without its exponent", r#"{"correlationId":"{I}","amount":1e}"#),
        ("an exponent with a fraction", r#"{"correlationId":"{I}","amount":1e1.0}"#),
        ("a number with a suffix", r#"{"correlationId":"{I}","amount":1f}"#),
        ("a number with separators", r#"{"correlationId":"{I}","amount":1_000}"#),
        ("a number with a comma", r#"{"correlationId":"{I}","amount":1,99}"#),
        ("a number in two words", r#"{"correlationId":"{I}","amount":1 9}"#),
        ("a byte order mark", "\u{feff}{\"correlationId\":\"{I}\",\"amount\":1}"),
        ("UTF-16's mark", "{raw}\u{ff}\u{fe}{\0"),
        ("an overlong slash", "{raw}{\"correlationId\":\"{I}\",\"amount\":1,\"a\":\"\u{c0}\u{af}\"}"),
        ("half a character", "{raw}{\"correlationId\":\"{I}\",\"amount\":1,\"a\":\"\u{e2}\u{82}\"}"),
        (
            "a surrogate in UTF-8",
            "{raw}{\"correlationId\":\"{I}\",\"amount\":1,\"a\":\"\u{ed}\u{a0}\u{80}\"}",
        ),
        (
            "beyond Unicode",
            "{raw}{\"correlationId\":\"{I}\",\"amount\":1,\"a\":\"\u{f5}\u{80}\u{80}\u{80}\"}",
        ),
        ("a high byte between members", "{raw}{\"correlationId\":\"{I}\",\u{a0}\"amount\":1}"),
        ("NUL in a string", "{\"correlationId\":\"{I}\",\"amount\":1,\"a\":\"\0\"}"),
        ("NUL at the end", "{\"correlationId\":\"{I}\",\"amount\":1}\0"),
        ("NUL between members", "{\"correlationId\":\"{I}\",\0\"amount\":1}"),
        ("a line break in a string", "{\"correlationId\":\"{I}\",\"amount\":1,\"a\":\"\n\"}"),
        ("a tab in a string", "{\"correlationId\":\"{I}\",\"amount\":1,\"a\":\"\t\"}"),
        ("a vertical tab between members", "{\"correlationId\":\"{I}\",\x0b\"amount\":1}"),
        ("an escape that is none", r#"{"correlationId":"{I}","amount":1,"a":"\x41"}"#),
        ("half an escape", r#"{"correlationId":"{I}","amount":1,"a":"\u12"}"#),
        ("an escape at the end", r#"{"correlationId":"{I}","amount":1,"a":"\"#),
        ("a mismatched bracket", r#"{"correlationId":"{I}","amount":1,"a":[}"#),
    ] {
        add(name.into(), body.into(), MALFORMED);
    }
    for depth in [33, 100, 1_300] {
        add(
            format!("{depth} arrays deep"),
            format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth)),
            MALFORMED,
        );
        add(
            format!("{depth} objects deep"),
            format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth)),
            MALFORMED,
        );
        add(format!("{depth} open arrays"), "[".repeat(depth), MALFORMED);
    }
    for (name, body) in [
        ("null", "null"),
        ("a number", "19.90"),
        ("a string", "\"{I}\""),
        ("true", "true"),
        ("an empty array", "[]"),
        ("an array of a payment", r#"[{"correlationId":"{I}","amount":1}]"#),
        (
            "a number beyond 64 bits elsewhere",
            r#"{"correlationId":"{I}","amount":1,"a":123456789012345678901234}"#,
        ),
        ("1e400 elsewhere", r#"{"correlationId":"{I}","amount":1,"a":1e400}"#),
        (
            "1e400 called amount, in another object",
            r#"{"correlationId":"{I}","amount":1,"a":{"amount":1e400}}"#,
        ),
    ] {
        add(name.into(), body.into(), BODY);
    }
    for (name, body) in [
        ("nothing", "{}"),
        ("no id", r#"{"amount":1}"#),
        ("the id in another case", r#"{"CorrelationId":"{I}","amount":1}"#),
        ("the id with a space in its key", r#"{"correlationId ":"{I}","amount":1}"#),
        ("the id in another object", r#"{"a":{"correlationId":"{I}"},"amount":1}"#),
        ("the id twice", r#"{"correlationId":"{I}","correlationId":"{I}","amount":1}"#),
        ("the id twice, once escaped", r#"{"correlationId":"{I}","correl\u0061tionId":"{I}","amount":1}"#),
        (
            "two ids",
            r#"{"correlationId":"{I}","amount":1,"correlationId":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3"}"#,
        ),
    ] {
        add(name.into(), body.into(), ID);
    }
    for (name, id) in [
        ("null", "null"),
        ("a number", "1"),
        ("an array", "[\"{I}\"]"),
        ("an object", "{\"id\":\"{I}\"}"),
        ("true", "true"),
        ("empty", "\"\""),
        ("a word", "\"payment\""),
        ("in braces", "\"{{I}}\""),
        ("as a URN", "\"urn:uuid:{I}\""),
        ("without dashes", "\"4a7901b87d264d9daa194dc1c7cf60b3\""),
        ("with dashes elsewhere", "\"4a79-01b87d26-4d9daa19-4dc1-c7cf60b3\""),
        ("with underscores", "\"4a7901b8_7d26_4d9d_aa19_4dc1c7cf60b3\""),
        ("one digit short", "\"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b\""),
        ("one digit long", "\"{I}0\""),
        ("a letter too far", "\"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60bg\""),
        ("a space before", "\" {I}\""),
        ("a space after", "\"{I} \""),
        ("a line break after", "\"{I}\\n\""),
        ("NUL after", "\"{I}\\u0000\""),
        ("in full-width digits", "\"\u{ff14}a7901b8-7d26-4d9d-aa19-4dc1c7cf60b\""),
        ("in base64", "\"SnkBuH0mTZ2qGU3Bx89gsw==\""),
    ] {
        add(format!("an id {name}"), format!(r#"{{"correlationId":{id},"amount":1}}"#), ID);
    }
    for (name, amount) in [
        ("null", "null"),
        ("a string", "\"19.90\""),
        ("an empty string", "\"\""),
        ("an array", "[19.90]"),
        ("an object", "{}"),
        ("true", "true"),
        ("0", "0"),
        ("-0", "-0"),
        ("0.00", "0.00"),
        ("-0.00", "-0.00"),
        ("0e10", "0e10"),
        ("0e999999999999", "0e999999999999"),
        ("-1", "-1"),
        ("-0.01", "-0.01"),
        ("-19.90", "-19.90"),
        ("three decimals", "19.901"),
        ("three decimals below a cent", "0.001"),
        ("0.009", "0.009"),
        ("1e-3", "1e-3"),
        ("1.5e-2", "1.5e-2"),
        ("123e-3", "123e-3"),
        ("1e-400", "1e-400"),
        ("1e-999999999999999999999", "1e-999999999999999999999"),
        ("0.1 + 0.2 as a float writes it", "0.30000000000000004"),
        ("19.9 as a float adds it", "19.900000000000002"),
        ("one cent too many", "1000000000.00"),
        ("999999999.995", "999999999.995"),
        ("2^53", "9007199254740993"),
        ("2^63", "9223372036854775808"),
        ("2^64", "18446744073709551616"),
        ("-2^63 and one", "-9223372036854775809"),
        ("2^64 and 1 cent", "18446744073709551616.01"),
        ("30 digits", "123456789012345678901234567890"),
        ("1e9", "1e9"),
        ("1e308", "1e308"),
        ("1e400", "1e400"),
        ("-1e400", "-1e400"),
        ("1e999999999999999999999", "1e999999999999999999999"),
        ("1e-2147483649", "1e-2147483649"),
    ] {
        add(
            format!("an amount of {name}"),
            format!(r#"{{"correlationId":"{{I}}","amount":{amount}}}"#),
            AMOUNT,
        );
    }
    for (name, body) in [
        ("no amount", r#"{"correlationId":"{I}"}"#),
        ("the amount in another case", r#"{"correlationId":"{I}","Amount":1}"#),
        ("the amount in another object", r#"{"correlationId":"{I}","a":{"amount":1}}"#),
        ("the amount twice", r#"{"correlationId":"{I}","amount":1,"amount":1}"#),
        ("two amounts", r#"{"correlationId":"{I}","amount":1,"amount":2}"#),
        ("two amounts, one escaped", r#"{"correlationId":"{I}","amount":1,"am\u006funt":2}"#),
        ("a bad amount behind a good one", r#"{"correlationId":"{I}","amount":1,"amount":"x"}"#),
        ("1e400 under an escaped key", r#"{"correlationId":"{I}","am\u006funt":1e400}"#),
        ("1e400 with spaces around", "{\"correlationId\":\"{I}\",\"amount\" \t:\r\n 1e400 }"),
    ] {
        add(name.into(), body.into(), AMOUNT);
    }
    cases
}

/// Name, body, cents.
fn acceptances() -> Vec<(String, String, u64)> {
    let mut cases: Vec<(String, String, u64)> = Vec::new();
    for (amount, cents) in [
        ("0.01", 1),
        ("0.1", 10),
        ("0.10", 10),
        ("0.29", 29),
        ("0.57", 57),
        ("1", 100),
        ("1.0", 100),
        ("1.00", 100),
        ("1.10", 110),
        ("4.35", 435),
        ("8.20", 820),
        ("19.9", 1_990),
        ("19.90", 1_990),
        ("19.900", 1_990),
        ("19.9000000000000000000000000000", 1_990),
        ("64.1", 6_410),
        ("1.005e3", 100_500),
        ("1e2", 10_000),
        ("1E2", 10_000),
        ("1e+2", 10_000),
        ("1e-2", 1),
        ("1e0", 100),
        ("1990e-2", 1_990),
        ("0.0199e3", 1_990),
        ("0.00000000000000000001e20", 100),
        ("10000000000e-10", 100),
        ("100000000000000000000e-20", 100),
        ("1e00000000000000000000002", 10_000),
        ("16777217.01", 1_677_721_701),
        ("90071992.54", 9_007_199_254),
        ("123456789.01", 12_345_678_901),
        ("999999999.98", 99_999_999_998),
        ("999999999.99", 99_999_999_999),
        ("999999999.990", 99_999_999_999),
    ] {
        cases.push((
            format!("an amount of {amount}"),
            format!(r#"{{"correlationId":"{{I}}","amount":{amount}}}"#),
            cents,
        ));
    }
    let many: String = (0..600).fold(String::new(), |mut text, number| {
        write!(text, "\"k{number}\":{number},").unwrap_or_default();
        text
    });
    for (name, body) in [
        ("the amount first", r#"{"amount":12.34,"correlationId":"{I}"}"#.to_owned()),
        ("white space everywhere", " \t\r\n{ \"correlationId\"\t:\n\"{I}\" , \"amount\" : 12.34 \r\n} \n".into()),
        ("escaped keys", r#"{"\u0063orrelationId":"{I}","\u0061mou\u006et":12.34}"#.into()),
        ("an escaped id", r#"{"correlationId":"{ESCAPED}","amount":12.34}"#.into()),
        ("unknown members", r#"{"a":null,"correlationId":"{I}","b":[1,{"c":"d"}],"amount":12.34,"e":{}}"#.into()),
        ("unknown members twice", r#"{"a":1,"a":2,"correlationId":"{I}","amount":12.34}"#.into()),
        ("an empty key", r#"{"":1,"correlationId":"{I}","amount":12.34}"#.into()),
        ("keys that look alike", r#"{"amount ":1,"Amount":2,"amount\u0000":3,"correlationId":"{I}","amount":12.34}"#.into()),
        ("amounts in other objects", r#"{"a":{"amount":1},"b":[{"amount":2}],"correlationId":"{I}","amount":12.34}"#.into()),
        ("the key inside a string", r#"{"a":"\"amount\":1","correlationId":"{I}","amount":12.34}"#.into()),
        ("characters of every length", "{\"\u{e9}\u{20ac}\u{1f4b6}\":\"\u{e9}\u{20ac}\u{1f4b6}\",\"correlationId\":\"{I}\",\"amount\":12.34}".into()),
        ("an escaped pair of surrogates", r#"{"a":"\ud83d\udcb6","correlationId":"{I}","amount":12.34}"#.into()),
        ("31 levels", format!(r#"{{"a":{}{},"correlationId":"{{I}}","amount":12.34}}"#, "[".repeat(30), "]".repeat(30))),
        ("600 unknown members", format!(r#"{{{many}"correlationId":"{{I}}","amount":12.34}}"#)),
        ("7 KB of white space", format!(r#"{{"correlationId":"{{I}}",{}"amount":12.34}}"#, " ".repeat(7_000))),
        ("a string of 7 KB", format!(r#"{{"a":"{}","correlationId":"{{I}}","amount":12.34}}"#, "x".repeat(7_000))),
    ] {
        cases.push((name.to_owned(), body, 1_234));
    }
    cases
}

fn bytes_of(template: &str, id: &str) -> Vec<u8> {
    let escaped: String = id.bytes().map(|byte| format!("\\u{:04x}", byte)).collect();
    let text = template.replace("{I}", id).replace("{ESCAPED}", &escaped);
    match text.strip_prefix("{raw}") {
        Some(text) => text.chars().filter_map(|character| u8::try_from(u32::from(character)).ok()).collect(),
        None => text.into_bytes(),
    }
}

fn post(way: &Way, body: &[u8]) -> Result<Answer, String> {
    let mut connection = Connection::open(way)?;
    let head = format!("POST /payments HTTP/1.1\r\nHost: galo\r\nContent-Length: {}\r\n\r\n", body.len());
    connection.send(&[head.as_bytes(), body].concat());
    let answer = connection.answer(false)?;
    if way.is_front() && answer.status == 400 {
        return match connection.end(PATIENCE)? {
            End::Open => Err(format!("and then {:?}", connection.unread())),
            End::Closed | End::Reset => Ok(answer),
        };
    }
    // A body that is refused does not end the connection: whoever sent it knows where it ends.
    let next = connection.request("GET", "/health", "")?;
    if next.status == 200 { Ok(answer) } else { Err(format!("the next request is answered {}", next.status)) }
}

fn refused(
    world: &mut World,
    way: &Way,
    template: &str,
    status: u16,
    kind: &str,
    field: Option<&str>,
) -> Result<(), String> {
    let id = world.galo.fresh_id();
    let answer = post(way, &bytes_of(template, &id))?;
    let blamed = answer.problem(status, kind, true)?;
    if blamed.as_deref() != field {
        return Err(format!("blames {blamed:?} instead of {field:?}: {}", answer.text()));
    }
    if answer.text().contains(&id) {
        return Err(format!("echoes the request: {}", answer.text()));
    }
    let looked_up = world.galo.straight(1).ask("GET", &format!("/payments/{id}"), "")?;
    if looked_up.status != 404 {
        return Err(format!("refused and yet there: {}", looked_up.text()));
    }
    world.check_well(way)
}

fn accepted(world: &mut World, way: &Way, template: &str, cents: u64) -> Result<(), String> {
    let id = world.galo.fresh_id();
    let answer = post(way, &bytes_of(template, &id))?;
    if answer.status != 202 {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    world.accepted.insert(id.clone(), cents);
    let looked_up = world.galo.straight(1).ask("GET", &format!("/payments/{id}"), "")?.text();
    let amount = format!("\"amount\":{}.{:02},", cents / 100, cents % 100);
    if !looked_up.contains(&amount) {
        return Err(format!("looks up as {looked_up}, without {amount}"));
    }
    Ok(())
}

/// Upper case is the same id; in a path, what is no id is no payment.
fn spellings_of_an_id(world: &mut World, way: &Way) -> Result<(), String> {
    let id = world.galo.fresh_id();
    let upper = id.to_ascii_uppercase();
    let first = way.ask("POST", "/payments", &payment_json(&upper, 4_200))?;
    world.accepted.insert(id.clone(), 4_200);
    let again = way.ask("POST", "/payments", &payment_json(&id, 4_200))?;
    if (first.status, again.status) != (202, 202) || again.header("idempotent-replayed") != Some("true") {
        return Err(format!(
            "{} and {}, replayed {:?}",
            first.status,
            again.status,
            again.header("idempotent-replayed")
        ));
    }
    for spelling in [id.clone(), upper] {
        let answer = way.ask("GET", &format!("/payments/{spelling}"), "")?;
        if answer.status != 200 || !answer.text().contains(&id) {
            return Err(format!("/payments/{spelling}: {} {}", answer.status, answer.text()));
        }
    }
    for spelling in [
        id.replace('-', ""),
        format!("urn:uuid:{id}"),
        format!("%7B{id}%7D"),
        id.replacen('a', "%61", 1),
        format!("{id}0"),
        format!("{id}%00"),
        "0".repeat(3_000),
        "null".to_owned(),
    ] {
        let answer = way.ask("GET", &format!("/payments/{spelling}"), "")?;
        answer
            .problem(404, "unknown-payment", true)
            .map_err(|error| format!("/payments/{spelling}: {error}"))?;
    }
    Ok(())
}

fn again(world: &mut World, way: &Way) -> Result<(), String> {
    let id = world.galo.fresh_id();
    world.pay(way, &id, 5_000)?;
    for amount in ["50", "50.00", "5e1", "5000e-2"] {
        let body = format!(r#"{{"correlationId":"{id}","amount":{amount}}}"#);
        let answer = way.ask("POST", "/payments", &body)?;
        if answer.status != 202 || answer.header("idempotent-replayed") != Some("true") {
            return Err(format!(
                "{amount}: {}, replayed {:?}",
                answer.status,
                answer.header("idempotent-replayed")
            ));
        }
    }
    let other = way.ask("POST", "/payments", &payment_json(&id, 5_001))?;
    match other.problem(422, "conflicting-payment", true)?.as_deref() {
        Some("amount") => Ok(()),
        field => Err(format!("a conflict blames {field:?}")),
    }
}
