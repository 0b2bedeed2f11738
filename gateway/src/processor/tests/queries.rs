//! Lookups and health checks over real sockets.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use galo_engine::dispatcher::{Stored, Verification};
use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use galo_profile::{HealthReport, Processors};

use super::super::HealthError;
use super::{ANSWER_200, Bench, Peer, Server, answered, attempt, on_both_drivers};

fn chunked(peer: &mut Peer, status: &str, body: &str) {
    peer.send(format!(
        "HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n",
        body.len()
    ));
    peer.send("0\r\n\r\n");
}

#[test]
fn a_health_check_reads_what_the_processor_says() {
    on_both_drivers(|| async {
        let server = Server::answering(|number, request, peer| {
            assert!(request.text.starts_with("GET /payments/service-health HTTP/1.1\r\nHost: 127.0.0.1:"));
            match number {
                0 => chunked(peer, "200 OK", "{\"failing\":true,\"minResponseTime\":1500}"),
                1 => chunked(peer, "429 Too Many Requests", ""),
                2 => chunked(peer, "200 OK", "pong"),
                3 => peer.close(),
                4 => peer.send("HTTP/1.1 200 OK\r\n\r\n{}"),
                _ => chunked(peer, "200 OK", "{\"failing\":false,\"minResponseTime\":0}"),
            }
        });
        let bench = Bench::new(&server.url());
        let expected = [
            Ok(HealthReport { failing: true, delay_ms: 1500 }),
            Err(HealthError::Status(429)),
            Err(HealthError::Malformed),
            Err(HealthError::Broken),
            Err(HealthError::Malformed),
            Ok(HealthReport { failing: false, delay_ms: 0 }),
        ];
        for expected in expected {
            assert_eq!(bench.client.check_health().await, expected);
        }
        assert_eq!(bench.client.stats().connections_open, 0);
        drop(server);
        assert_eq!(bench.client.check_health().await, Err(HealthError::Broken));
    });
}

#[test]
fn a_lookup_reads_what_is_stored() {
    on_both_drivers(|| async {
        let id = attempt(7).correlation_id;
        let server = Server::answering(move |number, request, peer| {
            if request.text.starts_with("POST") {
                return peer.send(ANSWER_200);
            }
            assert!(request.text.starts_with(&format!("GET /payments/{id} HTTP/1.1\r\n")));
            let stored = format!(
                "{{\"correlationId\":\"{id}\",\"amount\":19.90,\"requestedAt\":\"2025-07-15T12:34:56.789Z\"}}"
            );
            match number {
                0 => chunked(peer, "200 OK", &stored),
                1 => chunked(peer, "404 Not Found", ""),
                2 => chunked(peer, "500 Internal Server Error", &stored),
                3 => chunked(peer, "200 OK", &stored.replace("19.90", "19.905")),
                4 => chunked(peer, "200 OK", &stored[..stored.len() - 1]),
                _ => peer.close(),
            }
        });
        let bench = Bench::new(&server.url());
        let requested_at = UnixMillis(1_752_582_896_789);
        let expected = [
            Verification::processed(requested_at, AmountCents::new(1990).unwrap()),
            Verification::NotFound,
            Verification::Unanswered,
            Verification::Unanswered,
            Verification::Unanswered,
            Verification::Unanswered,
        ];
        for expected in expected {
            assert_eq!(bench.client.lookup(id, requested_at, None).await.0, expected);
        }
        // A query leaves lanes alone.
        assert_eq!(bench.one(0).await, answered(200));
        assert_eq!(bench.client.stats().connections_open, 1);
    });
}

/// More questions than allowed at once fail at once; the places come back.
#[test]
fn queries_are_bounded() {
    on_both_drivers(|| async {
        let server = Server::answering(|_, _, peer| {
            peer.wait_for_close();
        });
        let bench = Bench::new(&server.url());
        let hanging: Vec<_> = (0..32)
            .map(|_| {
                let client = Rc::clone(&bench.client);
                monoio::spawn(async move {
                    let lookup = client.lookup(attempt(0).correlation_id, attempt(0).requested_at, None);
                    drop(monoio::time::timeout(Duration::from_secs(2), lookup).await);
                })
            })
            .collect();
        super::until(|| server.connections() == 32).await;
        assert_eq!(bench.client.check_health().await, Err(HealthError::Broken));
        assert_eq!(server.connections(), 32);
        for query in hanging {
            query.await;
        }
        super::until(|| server.done() == 32).await;
        assert_eq!(bench.client.queries.get(), 0);
    });
}

/// Lists are looked through by two at once, whose pages may take five seconds each; further questions fail at once.
#[test]
fn lists_are_few_at_once_and_slow_pages_are_waited_for() {
    const PAGE_MS: u64 = 2_600;
    let text = r#"
        [[processor]]
        name = "bank"
        url = "http://bank.test"
        request = { path = "/p" }
        idempotency = { in = "none" }
        outcome = [{ status = 200, verdict = "processed" }]
        [processor.lookup]
        path = "/list"
        list = "/data"
        matches = "/id"
        next = { more = "/more", cursor = "/id", cursor_parameter = "after" }
    "#;
    let processors = Processors::parse(text, "processors.toml", Path::new(".")).expect("a good file");
    let profile = Arc::new(processors.iter().next().expect("one").clone());
    on_both_drivers(|| async {
        let id = attempt(0).correlation_id;
        let server = Server::answering(move |_, request, peer| {
            thread::sleep(Duration::from_millis(PAGE_MS));
            let (entry, more) = match request.text.contains("?after=x ") {
                false => ("x".to_owned(), true),
                true => (id.to_string(), false),
            };
            chunked(peer, "200 OK", &format!("{{\"data\":[{{\"id\":\"{entry}\"}}],\"more\":{more}}}"));
        });
        let bench = Bench::with(&server.url(), |config| config.profile = Arc::clone(&profile));
        let ask = || bench.client.lookup(id, attempt(0).requested_at, None);
        let asked: Vec<_> = (0..2)
            .map(|_| {
                let client = Rc::clone(&bench.client);
                monoio::spawn(async move { client.lookup(id, attempt(0).requested_at, None).await })
            })
            .collect();
        super::until(|| server.connections() == 2).await;
        assert_eq!(ask().await.0, Verification::Unanswered);
        assert_eq!(server.connections(), 2);
        for asked in asked {
            assert!(matches!(asked.await.0, Verification::Found { stored: Stored::Processed, .. }));
        }
        assert_eq!((bench.client.lists.get(), bench.client.queries.get()), (0, 0));
    });
}

/// What the processor called a payment leads to it, and what it calls it now is told; where that leads to nothing, the id does.
#[test]
fn a_reference_is_used_and_told() {
    let text = r#"
        [[processor]]
        name = "bank"
        url = "http://bank.test"
        request = { path = "/p" }
        idempotency = { in = "none" }
        outcome = [{ status = 200, verdict = "processed" }, { status = 202, verdict = "pending" }]
        answer = { reference = "/id" }
        [processor.lookup]
        path = "/by-id/{id}"
        reference_path = "/by-reference/{reference}"
        not_found = 404
        reference = "/id"
    "#;
    let processors = Processors::parse(text, "processors.toml", Path::new(".")).expect("a good file");
    let profile = Arc::new(processors.iter().next().expect("one").clone());
    on_both_drivers(|| async {
        let server = Server::answering(move |_, request, peer| match request.text.split(' ').nth(1) {
            Some("/by-reference/r%2F1") => chunked(peer, "200 OK", r#"{"id":"r/2"}"#),
            Some("/by-reference/gone") => chunked(peer, "404 Not Found", ""),
            Some("/p") => chunked(peer, "202 Accepted", r#"{"id":"r/1"}"#),
            _ => chunked(peer, "200 OK", r#"{"id":"r/3"}"#),
        });
        let bench = Bench::with(&server.url(), |config| config.profile = Arc::clone(&profile));
        let (id, at) = (attempt(0).correlation_id, attempt(0).requested_at);
        for (reference, told) in [(Some("r/1"), "r/2"), (Some("gone"), "r/3"), (None, "r/3")] {
            let (verification, named) = bench.client.lookup(id, at, reference).await;
            assert!(matches!(verification, Verification::Found { stored: Stored::Processed, .. }));
            assert_eq!(named.as_deref(), Some(told), "{reference:?}");
        }
        bench.client.start(attempt(0));
        bench.client.drained().await;
        assert_eq!(bench.ends.borrow()[0].reference.as_deref(), Some("r/1"));
    });
}
