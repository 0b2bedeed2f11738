//! Names that come to point elsewhere: payments follow, those on their way stay.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use galo_engine::verdict::End;

use super::super::resolver::Resolver;
use super::super::{ClientConfig, SocketOptions};
use super::bank::{self, Authority};
use super::reach::deaf_listener;
use super::{ANSWER_200, Bench, Server, answered, attempt, on_both_drivers, until};

/// How soon "within seconds" is here.
const SOON: Duration = Duration::from_millis(20);

/// A name server whose answer can be changed.
#[derive(Clone, Default)]
struct Names {
    answer: Arc<Mutex<Vec<SocketAddr>>>,
    asked: Arc<AtomicUsize>,
    /// Whether each answer begins with another address.
    turns: bool,
}

impl Names {
    fn at(addresses: &[SocketAddr]) -> Self {
        let names = Self::default();
        names.set(addresses);
        names
    }

    fn set(&self, addresses: &[SocketAddr]) {
        *self.answer.lock().unwrap() = addresses.to_vec();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn resolver(&self, interval: Duration) -> Resolver {
        let names = self.clone();
        let look_up = move |_: &str, _| {
            let number = names.asked.fetch_add(1, Ordering::SeqCst);
            let mut addresses = names.answer.lock().unwrap().clone();
            if names.turns {
                let count = addresses.len();
                addresses.rotate_left(number % count);
            }
            Ok(addresses)
        };
        Resolver::start(interval, look_up).unwrap()
    }

    /// A client of a name that these names know, with what they say now as its first addresses.
    fn bench(&self, interval: Duration, change: impl FnOnce(&mut ClientConfig)) -> Bench {
        Bench::with("http://127.0.0.1:1", |config| {
            let addresses = self.answer.lock().unwrap().clone();
            let endpoint = config.endpoint.clone().with_addresses(addresses);
            config.endpoint = endpoint.with_resolver(self.resolver(interval));
            change(config);
        })
    }
}

/// A processor that tells itself from others by its status.
fn processor(status: u16) -> Server {
    Server::answering(move |_, _, peer| {
        peer.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"))
    })
}

/// Two processors exchange their addresses. From when this can be known on, each payment reaches the one that the name
/// points to now, though the other's connections are open; one that is on its way stays there.
#[test]
fn payments_follow_the_name_and_those_on_their_way_stay() {
    on_both_drivers(|| async {
        let (release, gate) = mpsc::channel::<()>();
        let (arrived, arrival) = mpsc::channel();
        let gate = Mutex::new(gate);
        let old = Server::answering(move |_, request, peer| {
            if request.cents() == 101 {
                arrived.send(()).unwrap();
                gate.lock().unwrap().recv().unwrap();
            }
            peer.send("HTTP/1.1 201 X\r\nContent-Length: 0\r\n\r\n");
        });
        let new = processor(202);
        let names = Names::at(&[old.address]);
        let bench = names.bench(SOON, |_| {});
        // Two kept connections, one of them under way.
        bench.client.start(attempt(0));
        bench.client.start(attempt(100));
        until(|| arrival.try_recv().is_ok()).await;
        until(|| bench.client.in_flight() == 1).await;

        names.set(&[new.address]);
        let begin = Instant::now();
        let mut slot = 1;
        loop {
            let before = bench.ends.borrow().len();
            bench.client.start(attempt(slot));
            until(|| bench.ends.borrow().len() > before).await;
            let reply = bench.ends.borrow()[before].end;
            slot += 1;
            if reply == answered(202) {
                break;
            }
            assert_eq!(reply, answered(201));
            assert!(begin.elapsed() < Duration::from_secs(20), "the old address is used for ever");
        }
        release.send(()).unwrap();
        bench.client.drained().await;
        let on_its_way = bench.ends.borrow().iter().find(|end| end.slot == 100).cloned();
        assert_eq!(on_its_way.map(|end| end.end), Some(answered(201)));
        // Many at once, so that the lane whose connection was under way has its turn as well.
        for round in 1..20 {
            let before = bench.ends.borrow().len();
            for number in 0..10 {
                bench.client.start(attempt(round * 1000 + number));
            }
            bench.client.drained().await;
            assert!(bench.ends.borrow()[before..].iter().all(|end| end.end == answered(202)));
        }
        assert_eq!((old.connections(), old.done()), (2, 2), "the old connections are closed");
    });
}

/// Nobody has to pay for connections to be closed: while there are some, the name is watched.
#[test]
fn an_idle_connection_to_an_address_that_is_gone_is_closed() {
    on_both_drivers(|| async {
        let (old, new) = (processor(201), processor(202));
        let names = Names::at(&[old.address]);
        let bench = names.bench(SOON, |config| config.idle_ms_max = 3_600_000);
        assert_eq!(bench.one(0).await, answered(201));
        names.set(&[new.address]);
        until(|| bench.client.stats().connections_open == 0).await;
        assert_eq!(bench.one(1).await, answered(202));
    });
}

/// A hang-up may mean a move: the name is asked for before the next connection, not some seconds later.
#[test]
fn after_a_hang_up_the_name_is_asked_for_first() {
    on_both_drivers(|| async {
        for resets in [false, true] {
            let old = Server::start(move |_, peer| {
                while let Some(request) = peer.request() {
                    if request.cents() == 2 {
                        return if resets { peer.reset() } else { peer.close() };
                    }
                    peer.send("HTTP/1.1 201 X\r\nContent-Length: 0\r\n\r\n");
                }
            });
            let new = processor(202);
            let names = Names::at(&[old.address]);
            let bench = names.bench(Duration::from_secs(3600), |_| {});
            assert_eq!(bench.one(0).await, answered(201));
            names.set(&[new.address]);
            // The name server takes less than the patience of a connect, here on this machine.
            assert_eq!(bench.one(1).await, End::UNANSWERED);
            assert_eq!(bench.one(2).await, answered(202), "resets: {resets}");
            assert_eq!(names.asked(), 1);
        }
    });
}

/// A name server that hangs holds a connect up for a moment, once, and no longer.
#[test]
fn a_resolver_that_hangs_is_not_waited_for() {
    on_both_drivers(|| async {
        let (hang, hanging) = mpsc::channel::<()>();
        let server = Server::start(|_, peer| {
            assert!(peer.request().is_some());
            peer.send(ANSWER_200);
        });
        let resolver = Resolver::start(Duration::from_secs(3600), move |_, _| {
            hanging.recv().unwrap_or_default();
            Ok(Vec::new())
        })
        .unwrap();
        let bench = Bench::with(&server.url(), |config| {
            config.endpoint = config.endpoint.clone().with_resolver(resolver);
        });
        for slot in 0..20 {
            assert_eq!(bench.one(slot).await, answered(200));
            until(|| server.done() == slot as usize + 1).await;
        }
        assert_eq!(server.connections(), 20);
        drop(hang);
    });
}

/// Name servers turn the order for each answer: connections are kept all the same.
#[test]
fn the_same_addresses_in_another_order_change_nothing() {
    on_both_drivers(|| async {
        let (first, second) = (processor(201), processor(201));
        let names = Names { turns: true, ..Names::at(&[first.address, second.address]) };
        let bench = names.bench(Duration::from_millis(2), |_| {});
        let mut slot = 0;
        while names.asked() < 20 {
            assert_eq!(bench.one(slot).await, answered(201));
            slot += 1;
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(first.connections() + second.connections(), 1);
    });
}

/// One more address, or one less that is not in use, leaves connections as they are.
#[test]
fn a_list_that_changes_elsewhere_keeps_its_connections() {
    on_both_drivers(|| async {
        let (first, second) = (processor(201), processor(202));
        let names = Names::at(&[first.address]);
        let bench = names.bench(Duration::from_millis(2), |_| {});
        let mut slot = 0;
        for addresses in
            [vec![first.address], vec![second.address, first.address], vec![], vec![first.address]]
        {
            names.set(&addresses);
            let asked = names.asked();
            while names.asked() < asked + 3 {
                assert_eq!(bench.one(slot).await, answered(201), "{addresses:?}");
                slot += 1;
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        assert_eq!((first.connections(), second.connections()), (1, 0));
    });
}

/// An address that swallows what is sent has its share of the connect timeout, and leaves the others theirs, which they
/// need.
#[test]
fn an_address_that_swallows_connects_leaves_time_for_the_next() {
    on_both_drivers(|| async {
        let authority = Authority::new();
        let server = bank::sealed_server(authority.server_config(), |_, session| {
            std::thread::sleep(Duration::from_millis(20));
            while session.request().is_some() {
                session.send(ANSWER_200);
            }
        });
        let (deaf, _filling) = deaf_listener();
        let addresses = vec![deaf.local_addr().unwrap(), server.address];
        let bench = Bench::with(&server.url(), |config| {
            config.endpoint = bank::secured(&server, &authority.options()).with_addresses(addresses);
            config.connect_timeout_ms = 2000;
        });
        assert_eq!(bench.one(0).await, answered(200));
        assert!(bench.ends.borrow()[0].latency_us >= 1_000_000, "its share is half");
        let stats = bench.client.stats();
        assert_eq!((stats.connects_total, stats.connect_failures_total), (1, 0));
    });
}

/// What the socket was told, as the kernel has it.
#[test]
fn sockets_are_told_what_is_configured() {
    let options = |keepalive_s, user_timeout_ms| SocketOptions { keepalive_s, user_timeout_ms };
    let listener = super::listen();
    for (told, expected) in [
        (options(None, None), (0, None, 0)),
        (options(Some(30), Some(5_000)), (1, Some((30, 10, 3)), 5_000)),
        (options(Some(1), None), (1, Some((1, 1, 3)), 0)),
    ] {
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        told.apply(&stream).unwrap();
        let read = |level, name| option(&stream, level, name);
        let tcp = |name| read(libc::IPPROTO_TCP, name);
        let is_alive = read(libc::SOL_SOCKET, libc::SO_KEEPALIVE);
        let pace = (is_alive == 1)
            .then(|| (tcp(libc::TCP_KEEPIDLE), tcp(libc::TCP_KEEPINTVL), tcp(libc::TCP_KEEPCNT)));
        assert_eq!((is_alive, pace, tcp(libc::TCP_USER_TIMEOUT)), expected);
    }
}

fn option(socket: &impl std::os::fd::AsRawFd, level: i32, name: i32) -> i32 {
    let (mut value, mut size) = (0_i32, u32::try_from(size_of::<i32>()).unwrap());
    // SAFETY: the descriptor is open, and value and size are valid for the call to write to.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut size) };
    assert_eq!(result, 0);
    value
}
