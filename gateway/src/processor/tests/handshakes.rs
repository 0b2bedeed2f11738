//! Handshakes that fail, in each way that a processor or a configuration can make them: nothing was sent then, and the
//! reason has a name.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use galo_engine::verdict::End;
use galo_profile::Pem;

use super::super::{Endpoint, TlsOptions, TlsProblem};
use super::bank::{Authority, NAME, sealed_answering, sealed_bench, sealed_server, secured, server_config};
use super::{ANSWER_200, Bench, Server, answered, on_both_drivers};

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// The only problem that was counted, and how often.
fn problem(bench: &Bench) -> Option<(TlsProblem, u64)> {
    let counts = bench.client.stats().tls_errors_total;
    let mut seen = TlsProblem::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0);
    let problem = seen.next();
    assert!(seen.next().is_none(), "{counts:?}");
    problem
}

/// Attempts that never get through a server's handshake; the server must not see a request.
async fn is_refused(server: &Server, options: &TlsOptions, expected: TlsProblem, name: &str) {
    let bench = sealed_bench(server, options);
    for slot in 0..3 {
        assert_eq!(bench.one(slot).await, End::NOT_SENT, "{name}");
    }
    assert_eq!(problem(&bench), Some((expected, 3)), "{name}");
    let stats = bench.client.stats();
    assert_eq!((stats.connections_open, stats.connects_total, stats.connect_failures_total), (0, 0, 3));
}

fn no_request(_: usize, _: &super::Request, _: &mut super::bank::Session<'_>) {
    panic!("no request may come");
}

#[test]
fn a_certificate_that_is_not_right_is_not_sent_to() {
    let (authority, other) = (Authority::new(), Authority::new());
    on_both_drivers(|| async {
        for version in VERSIONS {
            let cases = [
                ("unknown authority", other.identity(NAME), TlsProblem::UnknownIssuer),
                ("another name", authority.identity("other.test"), TlsProblem::WrongName),
                ("out of date", authority.identity_until(NAME, 2020), TlsProblem::OutOfDate),
            ];
            for (name, identity, expected) in cases {
                let server = sealed_answering(server_config(&identity, &[version], None), no_request);
                is_refused(&server, &authority.options(), expected, name).await;
            }
        }
    });
}

/// Without a name of its own, the certificate must be for the URL's host, a number here.
#[test]
fn the_urls_host_is_the_name_unless_another_is_given() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        let options = TlsOptions { server_name: None, ..authority.options() };
        let by_number = server_config(&authority.identity("127.0.0.1"), rustls::DEFAULT_VERSIONS, None);
        let server = sealed_answering(by_number, |_, _, session| session.send(ANSWER_200));
        assert_eq!(sealed_bench(&server, &options).one(0).await, answered(200));

        let server = sealed_answering(authority.server_config(), no_request);
        is_refused(&server, &options, TlsProblem::WrongName, "a name, asked for by number").await;
    });
}

#[test]
fn a_clients_certificate_is_given_where_it_is_wanted() {
    let (authority, other) = (Authority::new(), Authority::new());
    on_both_drivers(|| async {
        for version in VERSIONS {
            let server = sealed_answering(authority.strict_config(&[version]), |_, _, session| {
                assert!(session.tls.peer_certificates().is_some());
                session.send(ANSWER_200);
            });
            let bench = sealed_bench(&server, &authority.options_as(&authority.identity("galo")));
            for slot in 0..5 {
                assert_eq!(bench.one(slot).await, answered(200), "{version:?}");
            }
            assert_eq!((server.connections(), problem(&bench)), (1, None));

            // One that does not want it is none the worse.
            let server =
                sealed_answering(authority.server_config(), |_, _, session| session.send(ANSWER_200));
            let bench = sealed_bench(&server, &authority.options_as(&authority.identity("galo")));
            assert_eq!(bench.one(0).await, answered(200));
        }
    });
    // Under TLS 1.3 the refusal comes when the client is done: nothing is sent all the same.
    on_both_drivers(|| async {
        for version in VERSIONS {
            let server = sealed_answering(authority.strict_config(&[version]), no_request);
            is_refused(&server, &authority.options(), TlsProblem::Refused, "none given").await;
        }
    });
    // A stranger's certificate. rustls says "unknown CA" or "bad certificate".
    on_both_drivers(|| async {
        for version in VERSIONS {
            let server = sealed_answering(authority.strict_config(&[version]), no_request);
            let TlsOptions { client_cert, client_key, .. } = other.options_as(&other.identity("galo"));
            let options = TlsOptions { client_cert, client_key, ..authority.options() };
            is_refused(&server, &options, TlsProblem::Refused, "a stranger's").await;
        }
    });
}

/// One that asks for a certificate and sends no tickets says nothing when it is content.
#[test]
fn a_silent_verdict_is_waited_for_once() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        let mut config = authority.strict_config(&[&rustls::version::TLS13]);
        config.send_tls13_tickets = 0;
        let server = sealed_answering(config, |_, _, session| session.send(ANSWER_200));
        let bench = sealed_bench(&server, &authority.options_as(&authority.identity("galo")));
        for slot in 0..3 {
            assert_eq!(bench.one(slot).await, answered(200));
        }
        assert_eq!(server.connections(), 1);
    });
}

/// Until its last byte, a cut of what the server says in the handshake leaves nothing sent.
#[test]
fn a_handshake_cut_at_every_byte() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        for resets in [false, true] {
            let size = Arc::new(AtomicUsize::new(usize::MAX));
            let server = sealed_server(authority.server_config(), {
                let size = Arc::clone(&size);
                move |number, session| {
                    while !session.tls.wants_write() && session.read() {}
                    let bytes = session.outgoing();
                    size.store(bytes.len(), Ordering::SeqCst);
                    // A signature's size differs by a byte or two.
                    session.peer.send(&bytes[..number.min(bytes.len() - 1)]);
                    if resets { session.peer.reset() } else { session.peer.close() }
                }
            });
            let bench = sealed_bench(&server, &authority.options());
            let mut slot = 0;
            while (slot as usize) < size.load(Ordering::SeqCst) {
                assert_eq!(bench.one(slot).await, End::NOT_SENT, "after {slot} bytes, resets: {resets}");
                slot += 1;
            }
            assert!(slot > 500, "{slot}");
            assert_eq!(problem(&bench), Some((TlsProblem::CutOff, u64::from(slot))));
            assert_eq!(bench.client.stats().connections_open, 0);
        }
        // Before it says anything.
        let server = Server::start(|number, peer| if number % 2 == 0 { peer.close() } else { peer.reset() });
        let bench = sealed_bench(&server, &authority.options());
        for slot in 0..10 {
            assert_eq!(bench.one(slot).await, End::NOT_SENT);
        }
    });
}

/// Whatever bit of the server's part is turned, nothing is sent, and nothing hangs.
#[test]
fn a_damaged_handshake_is_not_sent_to() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        let size = Arc::new(AtomicUsize::new(usize::MAX));
        let server = sealed_server(authority.server_config(), {
            let size = Arc::clone(&size);
            move |number, session| {
                while !session.tls.wants_write() && session.read() {}
                let mut bytes = session.outgoing();
                size.store(bytes.len(), Ordering::SeqCst);
                let place = number.min(bytes.len() - 1);
                bytes[place] ^= 1 << (number % 8);
                session.peer.send(&bytes);
                session.peer.close();
            }
        });
        let bench = sealed_bench(&server, &authority.options());
        let (mut slot, mut sent) = (0, 0);
        while (slot as usize) < size.load(Ordering::SeqCst) {
            match bench.one(slot).await {
                End::NOT_SENT => {}
                // A record's version is read by nobody: the handshake was whole, and the server went away then.
                reply => {
                    assert_eq!(reply, End::UNANSWERED);
                    sent += 1;
                }
            }
            slot += 1;
        }
        assert!(slot > 500 && sent <= 12, "{sent} of {slot} sent");
    });
}

/// Bytes without an end, bytes without sense, and none.
#[test]
fn what_is_no_tls_is_given_up() {
    const CLOSE_NOTIFY: [u8; 7] = [21, 3, 3, 0, 2, 1, 0];
    let authority = Authority::new();
    // A handshake message of 16 MiB in records of 16 KiB, with no end to it; records of 0 bytes; change-cipher-spec
    // for ever; warnings for ever.
    let record = |kind: u8, body: &[u8]| {
        let mut bytes = vec![kind, 3, 3];
        bytes.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    };
    let mut huge = vec![2, 0xff, 0xff, 0xff];
    huge.resize(16_384, 0);
    let mut small = vec![2, 0, 0xff, 0xff];
    small.resize(64, 0);
    let floods = [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
        record(22, &huge),
        record(22, &small),
        record(22, &[]),
        record(20, &[1]),
        record(21, &[1, 90]),
        CLOSE_NOTIFY.to_vec(),
        record(23, &[7; 100]),
        vec![0],
        vec![0xff; 1000],
    ];
    on_both_drivers(|| async {
        for flood in floods.clone() {
            let name = format!("{:?}", &flood[..flood.len().min(8)]);
            let server = Server::start(move |_, peer| {
                let mut sent = 0;
                while std::io::Write::write_all(&mut peer.stream, &flood).is_ok() {
                    sent += flood.len();
                    assert!(sent < 64 << 20, "the client takes it for ever");
                }
            });
            let bench = Bench::with(&server.url(), |config| {
                config.endpoint = secured(&server, &authority.options());
                // Not by time: by what it is.
                config.connect_timeout_ms = 20_000;
            });
            assert_eq!(bench.one(0).await, End::NOT_SENT, "{name}");
            assert_eq!(problem(&bench), Some((TlsProblem::Protocol, 1)), "{name}");
        }
        // The end of the session before it began, and then more.
        let server = Server::start(|_, peer| {
            for bytes in [&CLOSE_NOTIFY[..], &[22; 5000], &[22; 5000]] {
                peer.send(bytes);
                // So that each is read by itself, most of the time.
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            peer.wait_for_close();
        });
        assert_eq!(sealed_bench(&server, &authority.options()).one(0).await, End::NOT_SENT);
        // Silence: the connect timeout covers the handshake.
        let server = Server::start(|_, peer| peer.wait_for_close());
        let bench = Bench::with(&server.url(), |config| {
            config.endpoint = secured(&server, &authority.options());
            config.connect_timeout_ms = 100;
        });
        let begin = Instant::now();
        assert_eq!(bench.one(0).await, End::NOT_SENT);
        assert!((100..20_000).contains(&begin.elapsed().as_millis()));
    });
}

/// rustls takes a chain of 64 KiB; what is read before the handshake is over has a bound of its own.
#[test]
fn a_handshake_has_a_bound() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        let sized = |count| authority.identity(NAME).repeated(count);
        let config = server_config(&sized(40), rustls::DEFAULT_VERSIONS, None);
        let server = sealed_answering(config, |_, _, session| session.send(ANSWER_200));
        assert_eq!(sealed_bench(&server, &authority.options()).one(0).await, answered(200));

        let server = sealed_answering(server_config(&sized(120), rustls::DEFAULT_VERSIONS, None), no_request);
        is_refused(&server, &authority.options(), TlsProblem::Protocol, "a chain of 120").await;
    });
}

/// A server may speak before the client's last word is read. Bytes before the request are not its answer.
#[test]
fn an_answer_before_the_request_ends_the_connection() {
    let authority = Authority::new();
    on_both_drivers(|| async {
        // Beyond what is read at once, too, and with a client's certificate asked for.
        for (size, is_strict) in [(10, false), (10_000, false), (10, true), (10_000, true)] {
            let version = [&rustls::version::TLS13];
            let mut config = if is_strict {
                authority.strict_config(&version)
            } else {
                server_config(&authority.identity(NAME), &version, None)
            };
            config.send_half_rtt_data = true;
            let server = sealed_server(config, move |_, session| {
                while !session.tls.wants_write() && session.read() {}
                std::io::Write::write_all(&mut session.tls.writer(), &vec![b'x'; size]).unwrap();
                session.flush();
                assert!(session.request().is_none(), "nothing is sent");
            });
            let bench = sealed_bench(&server, &authority.options_as(&authority.identity("galo")));
            assert_eq!(bench.one(0).await, End::NOT_SENT, "{size} bytes, strict: {is_strict}");
        }
    });
}

/// Mistakes in the configuration are found at start, and named with their file.
#[test]
fn files_that_are_not_right_are_named() {
    let authority = Authority::new();
    let client = authority.identity("galo");
    let good = authority.options_as(&client);
    let stranger = authority.file("stranger.key", &authority.identity("other").key_pem());
    let empty = authority.file("empty.pem", "");
    let broken =
        authority.file("broken.pem", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    let nonsense =
        authority.file("nonsense.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let cut = authority.file("cut.key", &client.key_pem()[..60]);
    let chain_as_key = authority.file("chain.key", client.pem());
    let bad_key = authority.file("bad.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let endpoint = || Endpoint::at("https://127.0.0.1");
    assert!(endpoint().secure(&good).is_ok());
    let with_ca = |pem: &Pem| TlsOptions { ca: Some(pem.clone()), ..good.clone() };
    let with_key = |pem: &Pem| TlsOptions { client_key: Some(pem.clone()), ..good.clone() };
    let cases = [
        (with_ca(&empty), "no certificate in it"),
        (with_ca(&broken), "broken PEM"),
        (with_ca(&nonsense), "certificate 1 is no authority's"),
        (with_key(&stranger), "not the key of the certificate in"),
        (with_key(&cut), "broken PEM"),
        (with_key(&chain_as_key), "no private key in it"),
        (with_key(&bad_key), "a private key of a kind that is not known"),
        (TlsOptions { client_key: None, ..good.clone() }, "belong together"),
        (TlsOptions { server_name: Some("a b".to_owned()), ..good.clone() }, "\"a b\" is neither"),
    ];
    for (options, expected) in cases {
        let error = endpoint().secure(&options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let is_named = [&options.ca, &options.client_key]
            .into_iter()
            .flatten()
            .any(|pem| error.starts_with(&pem.path.display().to_string()));
        assert!(is_named || !matches!(expected, "broken PEM" | "no certificate in it"), "{error}");
        // What a file holds is not shown.
        let secret = client.key_pem();
        assert!(
            secret.lines().skip(1).all(|line| line.starts_with("---") || !error.contains(line)),
            "{error}"
        );
    }
    let shown = format!("{:?}", endpoint().secure(&good).unwrap());
    assert!(!shown.contains("key") && shown.contains(NAME), "{shown}");
}
