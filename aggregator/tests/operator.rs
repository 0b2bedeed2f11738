//! What an operator sees and does over the real process' own HTTP, and what a gateway and a restart see of it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Aggregator, Folder, Gateway, NOON_MS, ask, id};
use galo_wire::journal::{BLOCK_SIZE, Fact, Record};
use galo_wire::record::{ANY_SLOT, CancelQuery, LookupReply, Standing, Withdrawal, Yielded};
use galo_wire::{Message, Outcome, Processor, STATUS_CANCELLED, STATUS_SETTLED};

const REASON: &str = "ticket 4711: their statement of 2025-07-15 does not have it";

fn cancel(gateway: &mut Gateway, number: u64) -> LookupReply {
    gateway.push(CancelQuery { slot: 3, correlation_id: id(number) });
    gateway.flush().unwrap();
    gateway
        .wait(|message| match message {
            Message::LookupReply(reply) if reply.slot == 3 => Some(reply),
            _ => None,
        })
        .unwrap()
}

/// A payment of this gateway's that is in doubt at default since [`NOON_MS`] and its number.
fn in_doubt(gateway: &mut Gateway, number: u64) {
    gateway.accept(id(number), number);
    let sequence = gateway.push_completion(id(number), NOON_MS + number, Outcome::Unknown);
    gateway.acknowledged(sequence).unwrap();
}

/// Has a payment settled, while the gateway says whether it is idle.
fn settle(folder: &Folder, gateway: &mut Gateway, number: u64, body: &str, idle: bool) -> (u16, String) {
    let (socket, target) = (folder.0.join("http.sock"), format!("/payments/{}/settle", id(number)));
    let body = body.to_owned();
    let asking = std::thread::spawn(move || ask(&socket, "POST", &target, &body));
    let asked = gateway.wait(|message| if let Message::Yield(asked) = message { Some(asked) } else { None });
    let asked = asked.unwrap();
    assert_eq!(asked.correlation_id, id(number));
    gateway.push(Yielded { number: asked.number, correlation_id: id(number), idle });
    gateway.flush().unwrap();
    asking.join().unwrap()
}

fn declined() -> String {
    format!(r#"{{"as":"declined","reason":"{REASON}"}}"#)
}

/// All facts of the journal's segments.
fn facts(folder: &Folder) -> Vec<Fact> {
    folder
        .files(".journal")
        .iter()
        .flat_map(|path| std::fs::read(path).unwrap().chunks(BLOCK_SIZE).map(Vec::from).collect::<Vec<_>>())
        .filter_map(|block| Record::decode(&block))
        .map(|record| record.fact)
        .collect()
}

fn restart(folder: &Folder, aggregator: Aggregator) -> (Aggregator, Gateway) {
    aggregator.kill();
    let aggregator = folder.start(&[]);
    (aggregator, folder.connect(1))
}

#[test]
fn a_cancelled_payment_stays_so_across_a_kill() {
    let folder = Folder::new("cancelled");
    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    gateway.ready();
    gateway.fill(1..3, |_| None);
    gateway.accept(id(3), 3);
    let reply = cancel(&mut gateway, 1);
    assert_eq!((reply.standing, reply.status), (Standing::Declined, STATUS_CANCELLED));
    assert_eq!(cancel(&mut gateway, 3).standing, Standing::Open, "a processor may have it");
    assert_eq!(cancel(&mut gateway, 9).standing, Standing::Absent);
    let (_aggregator, mut gateway) = restart(&folder, aggregator);
    let again = cancel(&mut gateway, 1);
    assert_eq!((again.standing, again.status), (Standing::Declined, STATUS_CANCELLED));
    assert_eq!(again.requested_at_ms, reply.requested_at_ms);
    gateway.push_intent(id(1), NOON_MS, Processor::DEFAULT);
    gateway.flush().unwrap();
    let withdrawn = gateway.wait(|message| match message {
        Message::Withdrawal(Withdrawal { slot: 7, correlation_id }) => Some(correlation_id),
        Message::Withdrawal(Withdrawal { slot: ANY_SLOT, .. }) => None,
        Message::IntentRecorded(_) => panic!("a cancelled payment may not be sent"),
        _ => None,
    });
    assert_eq!(withdrawn, Some(id(1)));
    assert_eq!(folder.metric("galo_payments_declined_total"), 1.0);
}

#[test]
fn a_payment_in_doubt_is_settled_and_the_journal_has_the_reason() {
    let folder = Folder::new("settled");
    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    gateway.ready();
    (1..4).for_each(|number| in_doubt(&mut gateway, number));
    let (status, answer) = settle(&folder, &mut gateway, 1, &declined(), false);
    assert_eq!(status, 409, "{answer}");
    assert!(answer.contains(r#""type":"/problems/payment-under-way""#) && answer.contains("retry-after: 1"));
    let (status, answer) = settle(&folder, &mut gateway, 1, &declined(), true);
    assert_eq!(status, 200, "{answer}");
    assert!(answer.ends_with(&format!(r#"{{"correlationId":"{}","state":"declined"}}"#, id(1))));
    let processed = r#"{"as":"processed","processor":"fallback","requestedAt":"2025-07-15T12:00:00.005Z","reason":"seen there"}"#;
    assert_eq!(settle(&folder, &mut gateway, 2, processed, true).0, 200);
    // Once more is the same, and nobody is asked for it.
    let target = format!("/payments/{}/settle", id(2));
    assert_eq!(folder.ask("POST", &target, processed).0, 200);
    assert_eq!(folder.ask("POST", &target, &declined()).0, 409);
    assert_eq!(folder.metric("galo_payments_settled_total"), 2.0);
    assert_eq!(folder.metric("galo_payments_in_doubt"), 1.0);

    let (_aggregator, mut gateway) = restart(&folder, aggregator);
    let found = gateway.lookup(id(1));
    assert_eq!((found.standing, found.status), (Standing::Declined, STATUS_SETTLED));
    let found = gateway.lookup(id(2));
    assert_eq!((found.standing, found.requested_at_ms), (Standing::Processed, NOON_MS + 5));
    assert_eq!(gateway.summary(0, u64::MAX).requests[1], 1);
    assert_eq!(gateway.lookup(id(3)).standing, Standing::Open);
    let facts = facts(&folder);
    let resolved = |fact: &Fact| matches!(fact, Fact::Resolved { status: STATUS_SETTLED, .. });
    let behind = facts.iter().position(resolved).expect("it is in the journal") + 1;
    let text: Vec<u8> = facts[behind..]
        .iter()
        .map_while(|fact| if let Fact::Note { text, .. } = fact { Some(*text) } else { None })
        .flatten()
        .collect();
    assert_eq!(String::from_utf8(text).unwrap().trim_end_matches('\0'), REASON);
    // A processor has it after all.
    let sequence = gateway.push_completion(id(1), NOON_MS, Outcome::Processed);
    gateway.acknowledged(sequence).unwrap();
    assert_eq!(folder.metric("galo_contradictions_total"), 1.0);
}

#[test]
fn what_is_no_settlement_is_refused() {
    let folder = Folder::new("refused");
    let _aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    gateway.ready();
    in_doubt(&mut gateway, 1);
    gateway.fill(2..3, |_| None);
    let target = |number| format!("/payments/{}/settle", id(number));
    let long = format!(r#"{{"as":"declined","reason":"{}"}}"#, "x".repeat(201));
    for body in [
        "",
        "{}",
        "[]",
        r#"{"as":"declined"}"#,
        r#"{"as":"declined","reason":""}"#,
        r#"{"as":"declined","reason":"a\nb"}"#,
        r#"{"as":"declined","reason":"x","processor":"default"}"#,
        r#"{"as":"declined","reason":"x","more":1}"#,
        r#"{"as":"processed","reason":"x"}"#,
        r#"{"as":"processed","processor":"default","reason":"x"}"#,
        r#"{"as":"processed","processor":"other","requestedAt":"2025-07-15T12:00:00Z","reason":"x"}"#,
        r#"{"as":"processed","processor":"default","requestedAt":"noon","reason":"x"}"#,
        &long,
    ] {
        let (status, answer) = folder.ask("POST", &target(1), body);
        assert_eq!(status, 422, "{body}: {answer}");
        assert!(answer.contains(r#""type":"/problems/invalid-settlement""#), "{answer}");
        let json = answer.split("\r\n\r\n").nth(1).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{json}");
    }
    for (method, target, body, status, kind) in [
        ("POST", target(1), "x".repeat(5_000), 413, "content-too-large"),
        ("POST", target(2), declined(), 409, "payment-not-in-doubt"),
        ("POST", target(3), declined(), 404, "unknown-payment"),
        ("POST", "/payments/x/settle".to_owned(), declined(), 404, "unknown-payment"),
        ("POST", "/payments/x/y/settle".to_owned(), declined(), 404, "not-found"),
        ("GET", target(1), String::new(), 405, "method-not-allowed"),
        ("DELETE", "/payments".to_owned(), String::new(), 405, "method-not-allowed"),
        ("GET", "/payments".to_owned(), String::new(), 400, "invalid-parameter"),
        ("GET", "/payments?state=x".to_owned(), String::new(), 400, "invalid-parameter"),
        ("GET", "/payments?state=open&limit=0".to_owned(), String::new(), 400, "invalid-parameter"),
        ("GET", "/payments?state=open&limit=1001".to_owned(), String::new(), 400, "invalid-parameter"),
        ("GET", "/payments?state=open&state=open".to_owned(), String::new(), 400, "invalid-parameter"),
    ] {
        let (found, answer) = folder.ask(method, &target, &body);
        assert_eq!(found, status, "{method} {target}: {answer}");
        assert!(answer.contains(&format!(r#""type":"/problems/{kind}""#)), "{answer}");
    }
    drop(gateway);
    // Nobody is there who could be asked, once the connection's end is noticed.
    let refusal = || folder.ask("POST", &target(1), &declined());
    while folder.metric("galo_aggregator_sessions") > 0.0 {}
    let (status, answer) = refusal();
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains(r#""type":"/problems/no-gateway""#), "{answer}");
}

#[test]
fn lists_show_what_is_in_doubt_open_or_declined() {
    let folder = Folder::new("lists");
    let _aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    gateway.ready();
    let list = |query: &str| -> Vec<serde_json::Value> {
        let (status, answer) = folder.ask("GET", &format!("/payments?{query}"), "");
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    };
    assert_eq!(list("state=in_doubt"), Vec::<serde_json::Value>::new());
    assert_eq!(folder.metric("galo_payments_in_doubt_oldest_seconds"), 0.0);
    [30, 10, 20].iter().for_each(|number| in_doubt(&mut gateway, *number));
    gateway.fill(40..42, |_| None);
    cancel(&mut gateway, 40);
    let ids = |rows: &[serde_json::Value]| -> Vec<String> {
        rows.iter().map(|row| row["correlationId"].as_str().unwrap().to_owned()).collect()
    };
    let doubtful = list("state=in_doubt");
    assert_eq!(ids(&doubtful), [10, 20, 30].map(|number| id(number).to_string()));
    let age_ms = doubtful[0]["ageMs"].as_u64().unwrap();
    let mut first = doubtful[0].clone();
    first["ageMs"] = 0.into();
    let expected = format!(
        r#"{{"correlationId":"{}","amount":0.10,"processor":"default","requestedAt":"2025-07-15T12:00:00.010Z","inDoubt":true,"ageMs":0}}"#,
        id(10)
    );
    assert_eq!(first, serde_json::from_str::<serde_json::Value>(&expected).unwrap());
    let oldest_s = folder.metric("galo_payments_in_doubt_oldest_seconds");
    assert!((oldest_s - age_ms as f64 / 1_000.0).abs() < 60.0, "{oldest_s} {age_ms}");
    assert_eq!(ids(&list("state=in_doubt&limit=1")), [id(10).to_string()]);
    let open = list("state=open");
    assert_eq!(ids(&open), [10, 20, 30, 41].map(|number| id(number).to_string()));
    assert!(open[3]["requestedAt"].is_null() && open[3]["ageMs"].is_null() && open[3]["processor"].is_null());
    let declined = list("state=declined");
    assert_eq!(ids(&declined), [id(40).to_string()]);
    assert_eq!(declined[0]["cause"], "cancelled");
    assert!(declined[0]["processor"].is_null() && declined[0]["status"].is_null());
}
