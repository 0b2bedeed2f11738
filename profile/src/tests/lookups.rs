//! What is read of answers.

use galo_engine::verdict::Verdict;
use proptest::prelude::*;

use super::*;
use crate::{Found, Page, Said, Search, State, shipped};

const LIST: &str = r#"
request = { path = "/p" }
idempotency = { in = "none" }
[processor.lookup]
path = "/list?from={from}&to={to}"
time = "unix_s"
reference_path = "/one/{reference}"
not_found = 404
list = "/data"
matches = "/meta/order"
next = { more = "/more", cursor = "/id", cursor_parameter = "after[x]", pages_max = 3 }
amount = { pointer = "/cents", as = "minor" }
requested_at = { pointer = "/at", as = "unix_s" }
reference = "/id"
margin_s = 10
state = [
    { pointer = "/state", is = "ok", says = "processed" },
    { pointer = "/state", one_of = ["new", "open"], says = "pending" },
    { pointer = "/state", is = "no", says = "declined" },
]"#;

fn entry(order: &str, name: &str, state: &str) -> String {
    format!(
        r#"{{"id":"{name}","meta":{{"order":"{order}"}},"state":"{state}","cents":1990,"at":1752582896}}"#
    )
}

fn page(more: bool, entries: &[String]) -> String {
    format!(r#"{{"data":[{}],"more":{more}}}"#, entries.join(","))
}

fn found(name: &str, state: State, copies: u32) -> Said {
    Said::Found(Found {
        state,
        amount: AmountCents::new(1_990 * u64::from(copies.max(1))),
        requested_at: Some(UnixMillis(1_752_582_896_000)),
        reference: Some(name.to_owned()),
        copies,
    })
}

fn path(search: &Search<'_>) -> String {
    let mut buffer = Vec::new();
    search.render(UnixMillis(1_752_582_900_999), None, &mut buffer).unwrap();
    let text = String::from_utf8(buffer).unwrap();
    assert!(text.ends_with(" HTTP/1.1\r\nHost: bank.test:8001\r\nConnection: close\r\n\r\n"), "{text}");
    text.strip_prefix("GET /v1").unwrap().split_once(' ').unwrap().0.to_owned()
}

fn search<'a>(processor: &'a Processor, reference: Option<&str>) -> Search<'a> {
    processor.lookup.as_ref().unwrap().search(id(), UnixMillis(1_752_582_896_789), reference)
}

#[test]
fn a_list_is_read_page_by_page() {
    let processor = one(&own("", LIST));
    let mut search = search(&processor, None);
    assert_eq!(path(&search), "/list?from=1752582886&to=1752582910");
    let other = "00000000-7d26-4d9d-aa19-4dc1c7cf60b3";
    assert_eq!(search.read(200, page(true, &[entry(other, "a/b", "ok")]).as_bytes()), Said::Again);
    assert_eq!(path(&search), "/list?from=1752582886&to=1752582910&after%5Bx%5D=a%2Fb");
    let second = page(true, &[entry(other, "c", "ok"), entry(ID, "d", "ok"), entry(other, "e", "?")]);
    assert_eq!(search.read(200, second.as_bytes()), found("d", State::Processed, 1));
}

#[test]
fn only_the_last_page_says_that_nothing_is_there() {
    let processor = one(&own("", LIST));
    let other = || entry("x", "a", "ok");
    let mut one = search(&processor, None);
    assert_eq!(one.read(200, page(false, &[other()]).as_bytes()), Said::NotFound);
    let mut two = search(&processor, None);
    assert_eq!(two.read(200, page(true, &[other()]).as_bytes()), Said::Again);
    assert_eq!(two.read(200, page(false, &[]).as_bytes()), Said::NotFound);
    // More pages than may be read, a cursor that does not move on, a page in the middle that is missing.
    let mut long = search(&processor, None);
    for name in ["a", "b"] {
        assert_eq!(long.read(200, page(true, &[entry("x", name, "ok")]).as_bytes()), Said::Again);
    }
    assert_eq!(long.read(200, page(true, &[entry("x", "c", "ok")]).as_bytes()), Said::Unclear);
    let mut still = search(&processor, None);
    assert_eq!(still.read(200, page(true, &[other()]).as_bytes()), Said::Again);
    assert_eq!(still.read(200, page(true, &[other()]).as_bytes()), Said::Unclear);
    let mut gone = search(&processor, None);
    assert_eq!(gone.read(404, b""), Said::NotFound, "the profile says so");
    let mut gone = search(&processor, None);
    assert_eq!(gone.read(200, page(true, &[other()]).as_bytes()), Said::Again);
    assert_eq!(gone.read(404, b""), Said::Unclear);
}

#[test]
fn of_several_entries_the_one_that_went_furthest_counts() {
    let processor = one(&own("", LIST));
    let read = |entries: &[String]| search(&processor, None).read(200, page(false, entries).as_bytes());
    let (ok, new, no, odd) =
        (entry(ID, "ok", "ok"), entry(ID, "new", "new"), entry(ID, "no", "no"), entry(ID, "?", "?"));
    assert_eq!(read(&[no.clone(), new.clone(), ok.clone()]), found("ok", State::Processed, 1));
    assert_eq!(read(&[no.clone(), new]), found("new", State::Pending, 0));
    assert_eq!(read(std::slice::from_ref(&no)), found("no", State::Declined, 0));
    assert_eq!(read(&[ok.clone(), ok.clone()]), found("ok", State::Processed, 2), "charged twice");
    assert_eq!(read(&[odd.clone(), no.clone()]), Said::Unclear, "what no rule knows may be anything");
    assert_eq!(read(&[odd, ok]), found("ok", State::Processed, 1));
    // A declined entry on the first page ends nothing while there are more.
    let mut more = search(&processor, None);
    assert_eq!(more.read(200, page(true, &[no]).as_bytes()), Said::Again);
    assert_eq!(
        more.read(200, page(false, &[entry(DIGITS, "x", "ok")]).as_bytes()),
        found("x", State::Processed, 1)
    );
}

#[test]
fn a_reference_leads_straight_to_it() {
    let processor = one(&own("", LIST));
    let mut by_reference = search(&processor, Some("p i/1?&\r\n"));
    assert_eq!(path(&by_reference), "/one/p%20i%2F1%3F%26%0D%0A");
    assert_eq!(by_reference.read(200, entry(ID, "n", "open").as_bytes()), found("n", State::Pending, 0));
    // Where it leads to nothing, or to another one, the payment is looked for as any is: it may have been the name of something else.
    for (status, body) in [(404, String::new()), (200, entry("x", "n", "ok"))] {
        let mut by_reference = search(&processor, Some("p_1"));
        assert_eq!(by_reference.read(status, body.as_bytes()), Said::Again);
        assert!(path(&by_reference).starts_with("/list?from="));
        let mut found_elsewhere = by_reference.clone();
        let there = found_elsewhere.read(200, page(false, &[entry(ID, "n", "ok")]).as_bytes());
        assert_eq!(there, found("n", State::Processed, 1));
        // But that it is not there proves nothing: the processor may have said that it has it.
        let nowhere = by_reference.read(200, page(false, &[]).as_bytes());
        assert_eq!(nowhere, Said::Unclear);
        let mut by_reference = search(&processor, Some("p_1"));
        assert_eq!(by_reference.read(404, b""), Said::Again);
        assert_eq!(by_reference.read(404, b""), Said::Unclear);
    }
    let mut fails = search(&processor, Some("p_1"));
    assert_eq!(fails.read(500, b""), Said::Unclear);
    // Without another path there is nothing to fall back upon.
    let only = one(&own(
        "",
        r#"
        request = { path = "/p" }
        idempotency = { in = "none" }
        answer = { reference = "/id" }
        lookup = { path = "/one/{reference}", not_found = 404 }"#,
    ));
    assert_eq!(search(&only, Some("p_1")).read(404, b""), Said::Unclear);
}

#[test]
fn answers_that_say_nothing_are_unclear() {
    let processor = one(&own("", LIST));
    for (status, body) in [
        (500, page(false, &[]).as_str()),
        (200, ""),
        (200, "{}"),
        (200, r#"{"data":{},"more":false}"#),
        (200, r#"{"data":[]}"#),
        (200, r#"{"data":[],"more":"no"}"#),
        (200, r#"{"data":[],"more":true}"#),
        (200, r#"{"data":[],"data":[],"more":false}"#),
        (200, &page(true, &[r#"{"id":{}}"#.to_owned()])),
        (200, &page(false, &[entry(ID, "x", "ok").replace("1752582896", "\"soon\"")])),
    ] {
        assert_eq!(search(&processor, None).read(status, body.as_bytes()), Said::Unclear, "{body}");
    }
    assert_eq!(search(&processor, None).read(200, b"\xff"), Said::Unclear);
}

#[test]
fn amounts_are_exact_or_none() {
    for (form, json, cents) in [
        ("minor", "1990", Some(1_990)),
        ("minor", "\"1990\"", None),
        ("minor", "1990.0", None),
        ("minor", "-1", None),
        ("minor", "0", None),
        ("minor", "99999999999", Some(99_999_999_999)),
        ("minor", "100000000000", None),
        ("minor", "18446744073709551616", None),
        ("number", "19.9", Some(1_990)),
        ("number", "1.99e1", Some(1_990)),
        ("number", "19.899999999999999", None),
        ("number", "\"19.90\"", None),
        ("number", "1e999999999", None),
        ("number", "null", None),
        ("string", "\"19.90\"", Some(1_990)),
        ("string", "\"019.90\"", None),
        ("string", "\"19,90\"", None),
        ("string", "19.90", None),
        ("minor\", exponent = \"", "1", None),
        ("minor\", exponent = 0, as2 = \"", "1", None),
    ] {
        let form = form.split('"').next().unwrap();
        let text = LIST.replace("as = \"minor\"", &format!("as = \"{form}\""));
        let processor = one(&own("", &text));
        let body = page(false, &[entry(ID, "x", "ok").replace("1990", json)]);
        if form == "minor" && json == "1" {
            continue;
        }
        let said = search(&processor, None).read(200, body.as_bytes());
        let Said::Found(found) = said else { panic!("{json}: {said:?}") };
        assert_eq!(found.amount.map(AmountCents::get), cents, "{form} {json}");
    }
    for (exponent, json, cents) in [(0, "19", 1_900), (1, "199", 1_990), (3, "19900", 1_990), (4, "100", 1)] {
        let text = LIST.replace("as = \"minor\"", &format!("as = \"minor\", exponent = {exponent}"));
        let processor = one(&own("", &text));
        let body = page(false, &[entry(ID, "x", "ok").replace("1990", json)]);
        let Said::Found(found) = search(&processor, None).read(200, body.as_bytes()) else {
            panic!("{json}")
        };
        assert_eq!(found.amount, AmountCents::new(cents), "exponent {exponent}");
    }
}

#[test]
fn windows_and_ages_are_kept() {
    let text = |window: &str| {
        own(&format!("request = {{ path = \"/{{key}}\" }}\nidempotency = {{ in = \"path\"{window} }}"), "")
    };
    let window_s = |window: &str| one(&text(window)).idempotency.window_s;
    let written = ["", ", window_s = \"for ever\"", ", window_s = 0", ", window_s = 10"];
    assert_eq!(written.map(window_s), [None, None, Some(0), Some(10)]);
    assert!(!one(&text("")).idempotency.concurrent);
    assert!(one(&text(", concurrent = true")).idempotency.concurrent);
    let none = one(&own("", LIST));
    assert!(!none.idempotency.has_key);
    assert_eq!(none.lookup.as_ref().unwrap().not_found_after_ms, None);
    let text = LIST.replace("margin_s = 10", "not_found_after_ms = 31_000").replace("\"/p\"", "\"/p/{id}\"");
    let processor = one(&own("", &text));
    assert_eq!(processor.lookup.as_ref().unwrap().not_found_after_ms, Some(31_000));
}

#[test]
fn reasons_and_references_are_short_and_plain() {
    let text = own(
        "request = { path = \"/p\" }\nidempotency = { in = \"none\" }",
        "answer = { reason = [\"/code\", \"/message\"], reference = \"/id\" }",
    );
    let answers = one(&text).answers;
    let reason = |body: &str| answers.reason(body.as_bytes());
    assert_eq!(reason(r#"{"code":"no_funds","message":"x"}"#).as_deref(), Some("no_funds"));
    assert_eq!(reason(r#"{"code":null,"message":" a\u001b[31m\nb "}"#).as_deref(), Some("a [31m b"));
    let long = reason(&format!(r#"{{"message":"{}"}}"#, "é".repeat(100))).unwrap();
    assert_eq!(long, "é".repeat(32));
    assert_eq!(reason("[]"), None);
    let reference = |body: &str| answers.reference(body.as_bytes());
    assert_eq!(reference(r#"{"id":"pi_1"}"#).as_deref(), Some("pi_1"));
    assert_eq!(reference(r#"{"id":1234567890123}"#).as_deref(), Some("1234567890123"));
    for body in [
        r#"{"id":"a b"}"#,
        r#"{"id":""}"#,
        r#"{"id":null}"#,
        "{}",
        &format!(r#"{{"id":"{}"}}"#, "x".repeat(65)),
    ] {
        assert_eq!(reference(body), None, "{body}");
    }
    assert!(answers.needs_body(500));
}

#[test]
fn a_health_report_is_read() {
    let contest = Processors::contest("http://a", "http://b", [0, 0], 1, 100).unwrap();
    let health = contest.by_number(1).unwrap().health.clone().unwrap();
    let read = |status, body: &str| {
        health.read(status, body.as_bytes()).map(|report| (report.failing, report.delay_ms))
    };
    assert_eq!(read(200, r#"{"failing":false,"minResponseTime":123}"#), Some((false, 123)));
    assert_eq!(read(200, r#"{"failing":true,"minResponseTime":0}"#), Some((true, 0)));
    for (status, body) in [
        (429, ""),
        (500, ""),
        (200, "{}"),
        (200, r#"{"failing":1,"minResponseTime":1}"#),
        (200, r#"{"failing":true,"minResponseTime":-1}"#),
    ] {
        assert_eq!(read(status, body), None, "{body}");
    }
    let text =
        own("request = { path = \"/p\" }\nidempotency = { in = \"none\" }\nhealth = { path = \"/h\" }", "");
    let by_status = one(&text).health.unwrap();
    let failing = |status| by_status.read(status, b"").map(|report| report.failing);
    assert_eq!([failing(204), failing(503), failing(429)], [Some(false), Some(true), None]);
}

/// One of each shipped profile.
fn all() -> &'static [Processor] {
    static ALL: std::sync::OnceLock<Vec<Processor>> = std::sync::OnceLock::new();
    ALL.get_or_init(|| {
        let folder = Folder::new("noise");
        shipped::names().map(|name| super::shipped::processor(&folder, name)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// No bytes make any profile's readers panic, and none that are no JSON are a success of a profile that looks inside.
    #[test]
    fn no_bytes_panic(
        status in 0..700_u16,
        noise in prop::collection::vec(any::<u8>(), 0..64),
        shape in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ":", ",", "\"status\"", "\"succeeded\"", "\"data\"", "\"id\"", "\"has_more\"", "true", "1e9",
            "\"metadata\"", "\"order_id\"", "\"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3\"", "\"amount\"", "-0.5", "\"\\ud800\"",
        ]), 0..40),
    ) {
        for processor in all() {
            for body in [noise.clone(), shape.concat().into_bytes()] {
                let headers = [("transient-error", noise.as_slice())];
                let verdict = processor.answers.rules.judge(&Page { status, headers: &headers, body: &body });
                let is_json = serde_json::from_slice::<serde_json::Value>(&body).is_ok();
                prop_assert!(is_json || processor.name == "contest" || verdict != Verdict::Processed);
                let _reason = processor.answers.reason(&body);
                let _reference = processor.answers.reference(&body);
                if let Some(lookup) = &processor.lookup {
                    for reference in [None, Some("x")] {
                        let mut search = lookup.search(id(), UnixMillis(u64::MAX), reference);
                        let _said = search.read(status, &body);
                        let _bytes = search.render(UnixMillis(u64::MAX), None, &mut Vec::new());
                    }
                }
            }
        }
    }
}
