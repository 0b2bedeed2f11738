//! Attempts over TLS: what a lane sees when all is well, and when the connection ends or the processor errs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use galo_engine::verdict::End;
use rustls::{HandshakeKind, ProtocolVersion};

use super::bank::{Authority, sealed_answering, sealed_bench, sealed_server, server_config};
use super::{ANSWER_200, ANSWER_500, answered, on_both_drivers, until};

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// An answer after which the processor closes.
const ANSWER_LAST: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_connection_is_kept_and_the_next_one_takes_up_its_session() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        for version in VERSIONS {
            let config = server_config(&authority.identity(super::bank::NAME), &[version], None);
            let kinds = Arc::new(Mutex::new(Vec::new()));
            let server = sealed_answering(config, {
                let kinds = Arc::clone(&kinds);
                move |number, request, session| {
                    assert_eq!(request.cents(), number as u64 + 1);
                    assert_eq!(session.tls.protocol_version(), Some(version.version));
                    assert_eq!(session.tls.alpn_protocol(), Some(&b"http/1.1"[..]));
                    assert_eq!(session.tls.server_name(), Some(super::bank::NAME));
                    if number % 5 == 0 {
                        kinds.lock().unwrap().push(session.tls.handshake_kind().unwrap());
                    }
                    session.send(if number % 5 == 4 { ANSWER_LAST } else { ANSWER_200 });
                }
            });
            let bench = sealed_bench(&server, &authority.options());
            for slot in 0..15 {
                assert_eq!(bench.one(slot).await, answered(200));
            }
            assert_eq!(server.connections(), 3);
            let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
            assert_eq!(*kinds.lock().unwrap(), [full, resumed, resumed], "{version:?}");
            let stats = bench.client.stats();
            assert_eq!((stats.connects_total, stats.connect_failures_total), (3, 0));
            assert_eq!((stats.tls_handshakes_total, stats.tls_resumed_total), (3, 2));
            assert_eq!(stats.tls_errors_total, [0; 7]);
        }
    });
}

/// Two clients of one process are two threads' in production: neither uses the other's tickets.
#[test]
fn sessions_are_each_clients_own() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        let server = sealed_answering(authority.server_config(), |_, _, session| session.send(ANSWER_200));
        let endpoint = super::bank::secured(&server, &authority.options());
        for _ in 0..2 {
            let bench = super::Bench::with(&server.url(), |config| config.endpoint = endpoint.clone());
            assert_eq!(bench.one(0).await, answered(200));
            assert_eq!(bench.client.stats().tls_resumed_total, 0);
        }
    });
}

#[test]
fn many_lanes_at_once() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        let server = sealed_answering(authority.server_config(), |_, request, session| {
            session.send(format!("HTTP/1.1 {} X\r\nContent-Length: 0\r\n\r\n", 200 + request.cents() % 300));
        });
        let bench = sealed_bench(&server, &authority.options());
        for round in 0..10 {
            for slot in 0..64 {
                bench.client.start(super::attempt(round * 64 + slot));
            }
            bench.client.drained().await;
        }
        for end in bench.ends.borrow().iter() {
            assert_eq!(end.end, answered(u16::try_from(200 + (end.slot + 1) % 300).unwrap()));
        }
        assert_eq!((bench.ends.borrow().len(), server.connections()), (640, 64));
    });
}

/// What a cut leaves depends on the head alone, as in plain text, with each byte in a record of its own.
#[test]
fn an_answer_cut_at_every_byte() {
    let head = ANSWER_200.find("\r\n\r\n").unwrap() + 4;
    let offsets = ANSWER_200.len() + 1;
    let authority = Authority::new();
    on_both_drivers(|| async {
        for resets in [false, true] {
            let server = sealed_answering(authority.server_config(), move |number, request, session| {
                assert_eq!(request.cents(), number as u64 + 1);
                let bytes = session.seal(ANSWER_200.as_bytes()[..number].chunks(1));
                session.peer.send(bytes);
                if resets { session.peer.reset() } else { session.peer.close() }
            });
            let bench = sealed_bench(&server, &authority.options());
            for offset in 0..offsets {
                let expected = if offset < head { End::UNANSWERED } else { answered(200) };
                let reply = bench.one(u32::try_from(offset).unwrap()).await;
                assert_eq!(reply, expected, "after {offset} bytes, resets: {resets}");
            }
            assert_eq!(server.connections(), offsets);
        }
    });
}

/// An answer in one record is there once its last byte is, and not before.
#[test]
fn a_record_cut_at_every_byte() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        let size = Arc::new(AtomicUsize::new(usize::MAX));
        let server = sealed_answering(authority.server_config(), {
            let size = Arc::clone(&size);
            move |number, _, session| {
                let bytes = session.seal([ANSWER_200.as_bytes()]);
                size.store(bytes.len(), Ordering::SeqCst);
                session.peer.send(&bytes[..number]);
                session.peer.close();
            }
        });
        let bench = sealed_bench(&server, &authority.options());
        for slot in 0.. {
            let reply = bench.one(slot).await;
            if slot as usize == size.load(Ordering::SeqCst) {
                assert_eq!(reply, answered(200));
                break;
            }
            assert_eq!(reply, End::UNANSWERED, "after {slot} bytes");
        }
    });
}

/// Whatever bit of an answer's record is turned: it is no answer then.
#[test]
fn a_damaged_record_is_no_answer() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        let server = sealed_answering(authority.server_config(), move |number, _, session| {
            let mut bytes = session.seal([ANSWER_500.as_bytes()]);
            // The record's kind and version: nothing of it, since the true kind is inside.
            if number > 2 {
                bytes[number] ^= 1 << (number % 8);
            }
            session.peer.send(&bytes);
            if number > 2 {
                // It may wait for more, where the record's size is another now.
                session.peer.close();
            }
        });
        let bench = sealed_bench(&server, &authority.options());
        let size = u32::try_from(ANSWER_500.len() + 22).unwrap();
        for slot in 0..size {
            let expected = if slot > 2 { End::UNANSWERED } else { answered(500) };
            assert_eq!(bench.one(slot).await, expected, "byte {slot}");
        }
        assert!(bench.client.stats().tls_errors_total[super::super::TlsProblem::Protocol as usize] > 0);
    });
}

#[test]
fn a_drip_of_few_bytes_is_read() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        for version in VERSIONS {
            let config = server_config(&authority.identity(super::bank::NAME), &[version], None);
            let server = sealed_server(config, |_, session| {
                let drip = |session: &mut super::bank::Session<'_>, bytes: Vec<u8>, size: usize| {
                    for piece in bytes.chunks(size) {
                        session.peer.send(piece);
                        thread::yield_now();
                    }
                };
                while session.tls.is_handshaking() {
                    if !session.read() {
                        return;
                    }
                    let bytes = session.outgoing();
                    // Kilobytes of certificates, which must be there within a second.
                    drip(session, bytes, 19);
                }
                while session.request().is_some() {
                    let bytes = session.seal([ANSWER_200.as_bytes()]);
                    drip(session, bytes, 1);
                }
            });
            let bench = sealed_bench(&server, &authority.options());
            for slot in 0..10 {
                assert_eq!(bench.one(slot).await, answered(200));
            }
            assert_eq!(server.connections(), 1);
        }
    });
}

/// rustls holds at most 16 KiB of plaintext that nobody has taken, whatever the records' sizes.
#[test]
fn answers_beyond_a_records_size() {
    let long = |head: usize, body: usize| {
        let (head, rest) = ("h".repeat(head), "b".repeat(body));
        format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\nlong: {head}\r\n\r\n{rest}")
    };
    let authority = Authority::new();
    on_both_drivers(|| async {
        for (head, body, connections) in [(6_000, 6_000, 1), (10_000, 10_000, 2), (10, 60_000, 2)] {
            let server = sealed_answering(authority.server_config(), move |_, _, session| {
                session.send(long(head, body));
            });
            let bench = sealed_bench(&server, &authority.options());
            for slot in 0..2 {
                assert_eq!(bench.one(slot).await, answered(200));
            }
            assert_eq!(server.connections(), connections, "{head} and {body}");
        }
    });
}

/// The end of a session on an idle connection is its end, though the socket stays open.
#[test]
fn a_close_notify_ends_an_idle_connection() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        let said = Arc::new(AtomicUsize::new(0));
        let server = sealed_server(authority.server_config(), {
            let said = Arc::clone(&said);
            move |_, session| {
                assert!(session.request().is_some());
                session.send(ANSWER_200);
                session.tls.send_close_notify();
                session.flush();
                said.fetch_add(1, Ordering::SeqCst);
                assert!(session.request().is_none(), "nothing comes after the end");
            }
        });
        let bench = sealed_bench(&server, &authority.options());
        for slot in 0..5 {
            assert_eq!(bench.one(slot).await, answered(200));
            until(|| said.load(Ordering::SeqCst) == slot as usize + 1).await;
        }
        assert_eq!(server.connections(), 5);
    });
}

/// Handshake messages behind an answer are no news: new keys here, tickets where a client's certificate was asked for.
#[test]
fn messages_of_the_session_itself_leave_a_connection_quiet() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        let server = sealed_answering(authority.server_config(), |_, _, session| {
            session.send(ANSWER_200);
            if session.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
                session.tls.refresh_traffic_keys().unwrap();
                session.flush();
            }
        });
        let bench = sealed_bench(&server, &authority.options());
        for slot in 0..10 {
            assert_eq!(bench.one(slot).await, answered(200));
        }
        assert_eq!(server.connections(), 1);
    });
}

/// An answer that nobody asked for, or the beginning of one, must not become the answer to the next request.
#[test]
fn what_nobody_asked_for_ends_an_idle_connection() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        // All of a record, its first bytes, its header, half a header.
        for size in [usize::MAX, 40, 5, 2] {
            let sent = Arc::new(AtomicUsize::new(0));
            let server = sealed_server(authority.server_config(), {
                let sent = Arc::clone(&sent);
                move |number, session| {
                    assert!(session.request().is_some());
                    session.send(ANSWER_200);
                    if number > 0 {
                        return session.peer.wait_for_close();
                    }
                    let unasked = session.seal([ANSWER_500.as_bytes()]);
                    let (now, later) = unasked.split_at(size.min(unasked.len()));
                    session.peer.send(now);
                    sent.fetch_add(1, Ordering::SeqCst);
                    // Should a request come, this would be taken for its answer.
                    let mut byte = [0];
                    if matches!(std::io::Read::read(&mut session.peer.stream, &mut byte), Ok(1..)) {
                        session.peer.send(later);
                    }
                }
            });
            let bench = sealed_bench(&server, &authority.options());
            assert_eq!(bench.one(0).await, answered(200));
            until(|| sent.load(Ordering::SeqCst) == 1).await;
            assert_eq!(bench.one(1).await, answered(200), "{size} bytes");
            assert_eq!(server.connections(), 2);
        }
    });
}

/// Once a record with the request may have left, only the processor knows.
#[test]
fn an_end_behind_the_request_is_in_doubt() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        // Read and then reset; reset unread; closed unread.
        for case in 0..3 {
            let server = sealed_server(authority.server_config(), move |_, session| match case {
                0 => {
                    assert!(session.request().is_some());
                    session.peer.reset();
                }
                _ => {
                    while session.tls.is_handshaking() && !session.tls.wants_write() && session.read() {}
                    session.flush();
                    // The client's last word and its request are in one write: the first byte of it is enough.
                    let mut byte = [0];
                    assert!(matches!(std::io::Read::read(&mut session.peer.stream, &mut byte), Ok(1)));
                    if case == 1 { session.peer.reset() } else { session.peer.close() }
                }
            });
            let bench = sealed_bench(&server, &authority.options());
            assert_eq!(bench.one(0).await, End::UNANSWERED, "case {case}");
            assert_eq!(bench.client.stats().tls_handshakes_total, 1);
        }
    });
}

#[test]
fn an_answer_that_stalls_times_out() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        let server = sealed_server(authority.server_config(), |_, session| {
            assert!(session.request().is_some());
            let bytes = session.seal([ANSWER_200.as_bytes()]);
            session.peer.send(&bytes[..bytes.len() - 1]);
            session.peer.wait_for_close();
        });
        let bench = super::Bench::with(&server.url(), |config| {
            config.endpoint = super::bank::secured(&server, &authority.options());
            config.attempt_timeout_ms = 300;
        });
        assert_eq!(bench.one(0).await, End::UNANSWERED);
        until(|| server.done() == 1).await;
        assert_eq!(bench.client.stats().connections_open, 0);
    });
}

/// The two questions go the same way.
#[test]
fn a_lookup_is_sealed_too() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        let server = sealed_answering(authority.server_config(), |_, _, session| {
            session.send(
                "HTTP/1.1 200 OK\r\nContent-Length: 37\r\n\r\n{\"failing\":false,\"minResponseTime\":7}",
            );
        });
        let bench = sealed_bench(&server, &authority.options());
        let report = bench.client.check_health().await.unwrap();
        assert_eq!((report.failing, report.delay_ms), (false, 7));
    });
}
