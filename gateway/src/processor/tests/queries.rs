//! Lookups and health checks over real sockets.

use galo_engine::time::UnixMillis;

use super::super::{HealthError, HealthReply, LookupReply};
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
            Ok(HealthReply { failing: true, min_response_ms: 1500 }),
            Err(HealthError::Status(429)),
            Err(HealthError::Malformed),
            Err(HealthError::Broken),
            Err(HealthError::Malformed),
            Ok(HealthReply { failing: false, min_response_ms: 0 }),
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
            LookupReply::Found { requested_at, amount_cents: Some(1990) },
            LookupReply::NotFound,
            LookupReply::Failed,
            LookupReply::Found { requested_at, amount_cents: None },
            LookupReply::Failed,
            LookupReply::Failed,
        ];
        for expected in expected {
            assert_eq!(bench.client.lookup(id).await, expected);
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
                let client = std::rc::Rc::clone(&bench.client);
                monoio::spawn(async move {
                    let lookup = client.lookup(attempt(0).correlation_id);
                    drop(monoio::time::timeout(std::time::Duration::from_secs(2), lookup).await);
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
