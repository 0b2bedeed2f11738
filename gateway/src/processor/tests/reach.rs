//! Processors that cannot be reached, or not where they were.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use galo_engine::verdict::End;

use super::super::Endpoint;
use super::{ANSWER_200, Bench, Server, answered, listen, on_both_drivers};

/// An address of this machine at which nobody listens: the servers here listen on 127.0.0.1 only.
fn dead(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 2], port))
}

#[test]
fn a_refused_connection_is_not_sent() {
    on_both_drivers(|| async {
        let address = dead(18300);
        let bench = Bench::new(&format!("http://{address}"));
        for slot in 0..20 {
            assert_eq!(bench.one(slot).await, End::NOT_SENT);
        }
        let stats = bench.client.stats();
        assert_eq!((stats.connections_open, stats.connects_total, stats.connect_failures_total), (0, 0, 20));
    });
}

#[test]
fn a_connect_that_is_not_answered_is_not_sent() {
    on_both_drivers(|| async {
        let (listener, _filling) = deaf_listener();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // By the connect timeout, and by the hard timeout.
        for (connect_ms, attempt_ms) in [(50, 30_000), (30_000, 50)] {
            let bench = Bench::with(&url, |config| {
                (config.connect_timeout_ms, config.attempt_timeout_ms) = (connect_ms, attempt_ms);
            });
            assert_eq!(bench.one(0).await, End::NOT_SENT);
            let latency_us = bench.ends.borrow()[0].latency_us;
            assert!((50_000..20_000_000).contains(&latency_us), "{latency_us}");
        }
    });
}

/// A listener whose queue of connections is full, so that the kernel drops whoever knocks.
pub(super) fn deaf_listener() -> (TcpListener, Vec<TcpStream>) {
    let listener = listen();
    // SAFETY: the descriptor is open and listening; calling listen again only shortens its queue.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        filling.push(stream);
        assert!(filling.len() < 100, "the queue must fill up");
    }
    (listener, filling)
}

#[test]
fn the_next_address_is_tried_and_remembered() {
    on_both_drivers(|| async {
        let server = Server::answering(|_, _, peer| {
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        });
        let port = server.address.port();
        let bench = Bench::with(&server.url(), |config| {
            config.endpoint = config.endpoint.clone().with_addresses(vec![dead(port), server.address]);
        });
        for slot in 0..10 {
            assert_eq!(bench.one(slot).await, answered(200));
        }
        let stats = bench.client.stats();
        assert_eq!((stats.connects_total, stats.connect_failures_total), (10, 0));
    });
}

/// The container came back under another address, or had none at all when we started.
#[test]
fn a_name_is_resolved_again_after_failures() {
    on_both_drivers(|| async {
        let server = Server::answering(|_, _, peer| peer.send(ANSWER_200));
        let port = server.address.port();
        for stale in [vec![dead(port)], vec![]] {
            let endpoint = Endpoint::at(&format!("http://localhost:{port}"));
            assert!(endpoint.addresses().contains(&server.address));
            let bench =
                Bench::with(&server.url(), |config| config.endpoint = endpoint.with_addresses(stale.clone()));
            let mut failures = 0;
            loop {
                match bench.one(failures).await {
                    End::NOT_SENT => failures += 1,
                    reply => {
                        assert_eq!(reply, answered(200));
                        break;
                    }
                }
                monoio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(failures >= if stale.is_empty() { 1 } else { 3 }, "{failures} failures");
            assert!(failures < 1000, "{failures} failures");
        }
    });
}

/// A dead address that is a number is not asked about: nothing could change.
#[test]
fn an_address_by_number_is_never_resolved_again() {
    on_both_drivers(|| async {
        let server = Server::answering(|_, _, peer| peer.send(ANSWER_200));
        let port = server.address.port();
        let bench = Bench::with(&server.url(), |config| {
            config.endpoint = config.endpoint.clone().with_addresses(vec![dead(port)]);
        });
        for slot in 0..50 {
            assert_eq!(bench.one(slot).await, End::NOT_SENT);
        }
        assert_eq!(server.connections(), 0);
    });
}
