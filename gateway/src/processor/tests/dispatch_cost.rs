//! What one dispatch costs the gateway's thread, in plain text and under TLS. Run it by hand, in release:
//! `cargo test --release -p galo-gateway dispatch_cost -- --ignored --nocapture --test-threads 1`. What it allocates is a test.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use galo_engine::Processor;
use galo_engine::verdict::Verdict;

use super::super::{AttemptEnd, Client, ClientConfig, Endpoint, SocketOptions};
use super::bank::{self, Authority, NAME};
use super::{ANSWER_200, Server, attempt, on_both_drivers, profile};
use crate::beat::Beat;
use crate::http::tests::allocation;

/// The thread's own CPU time, user and system.
fn thread_cpu_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call to write to.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000 + u64::try_from(time.tv_nsec).unwrap() / 1000
}

/// The floor: the same bytes over blocking sockets, one `write` and one `read` each.
fn floor_us(server: &Server, request: &[u8], count: u32) -> f64 {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let before = thread_cpu_us();
    for _ in 0..count {
        stream.write_all(request).unwrap();
        let mut read = 0;
        while read < ANSWER_200.len() {
            read += stream.read(&mut [0; 4096]).unwrap();
        }
    }
    per_attempt(thread_cpu_us() - before, count)
}

#[expect(clippy::float_arithmetic, reason = "a measurement for people to read")]
fn per_attempt(us: u64, count: u32) -> f64 {
    f64::from(u32::try_from(us).unwrap()) / f64::from(count)
}

/// The cheapest server there is: a read is a request.
fn plain_server() -> Server {
    Server::start(|_, peer| {
        let mut buffer = [0; 4096];
        while matches!(peer.stream.read(&mut buffer), Ok(1..)) {
            peer.send(ANSWER_200);
        }
    })
}

/// Its twin under TLS.
fn sealed_server(authority: &Authority) -> Server {
    bank::sealed_server(authority.server_config(), |_, session| {
        while session.request().is_some() {
            session.send(ANSWER_200);
        }
    })
}

/// What a number of attempts took.
struct Cost {
    cpu_us: u64,
    wall_us: u64,
    allocations: u64,
}

/// Attempts in chains, one for each lane.
async fn cost(endpoint: Endpoint, lanes: u32, warm_up: u32, attempts: u32) -> Cost {
    let next = Rc::new(Cell::new(lanes));
    let marks = Rc::new(RefCell::new(Vec::with_capacity(2)));
    let client = Rc::<RefCell<Option<Rc<Client>>>>::default();
    let on_end = {
        let (client, next, marks) = (Rc::clone(&client), Rc::clone(&next), Rc::clone(&marks));
        move |end: AttemptEnd| {
            assert_eq!(end.end.verdict, Verdict::Processed);
            let slot = next.replace(next.get() + 1);
            if slot == warm_up || slot == warm_up + attempts {
                marks.borrow_mut().push((thread_cpu_us(), Instant::now(), allocation::count()));
            }
            if slot < warm_up + attempts {
                client.borrow().as_ref().unwrap().start(attempt(slot));
            }
        }
    };
    let config = ClientConfig {
        processor: Processor::DEFAULT,
        profile: profile("http://127.0.0.1:1"),
        token_endpoint: None,
        endpoint,
        lanes_max: lanes as usize,
        attempt_timeout_ms: 30_000,
        connect_timeout_ms: 1000,
        idle_ms_max: 30_000,
        socket: SocketOptions::default(),
    };
    *client.borrow_mut() = Some(Client::new(config, Beat::eager(), Rc::new(on_end)));
    let client = client.borrow().clone().unwrap();
    for slot in 0..lanes {
        client.start(attempt(slot));
    }
    client.drained().await;
    client.shutdown();
    let marks = marks.borrow();
    let [(cpu_from, from, allocations_from), (cpu_to, to, allocations_to)] = marks[..] else {
        unreachable!()
    };
    Cost {
        cpu_us: cpu_to - cpu_from,
        wall_us: u64::try_from((to - from).as_micros()).unwrap(),
        allocations: allocations_to - allocations_from,
    }
}

#[test]
#[ignore = "a measurement"]
fn dispatch_cost() {
    const WARM_UP: u32 = 20_000;
    const ATTEMPTS: u32 = 200_000;
    on_both_drivers(|| async {
        let server = plain_server();
        for lanes in [1, 16, 64] {
            let endpoint = Endpoint::at(&server.url());
            let spent = cost(endpoint, lanes, WARM_UP, ATTEMPTS).await;
            println!(
                "{lanes:3} lanes: {:.2} us CPU, {:.2} us wall per attempt",
                per_attempt(spent.cpu_us, ATTEMPTS),
                per_attempt(spent.wall_us, ATTEMPTS)
            );
        }
        println!("blocking floor: {:.2} us CPU per request", floor_us(&server, &[b'x'; 280], 50_000));
    });
}

/// Plain and TLS in turn, so that what else the machine does falls on both.
#[test]
#[ignore = "a measurement"]
fn dispatch_cost_under_tls() {
    // Many short rounds: what disturbs one pair leaves most others alone.
    const ATTEMPTS: u32 = 2_000;
    const ROUNDS: usize = 41;
    on_both_drivers(|| async {
        let authority = Authority::new();
        let (plain, sealed) = (plain_server(), sealed_server(&authority));
        for lanes in [1, 16, 64] {
            let (mut plain_us, mut sealed_us, mut more_us) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..ROUNDS {
                let mut one = async |is_sealed: bool| {
                    let endpoint = if is_sealed {
                        bank::secured(&sealed, &authority.options())
                    } else {
                        Endpoint::at(&plain.url())
                    };
                    let spent = cost(endpoint, lanes, 500, ATTEMPTS).await;
                    let cpu_us = per_attempt(spent.cpu_us, ATTEMPTS);
                    if is_sealed { sealed_us.push(cpu_us) } else { plain_us.push(cpu_us) }
                };
                // Each comes first in its turn.
                one(round % 2 == 0).await;
                one(round % 2 == 1).await;
                more_us.push(sealed_us[round] - plain_us[round]);
            }
            for list in [&mut plain_us, &mut sealed_us, &mut more_us] {
                list.sort_by(f64::total_cmp);
            }
            println!(
                "{lanes:3} lanes, us CPU per attempt: median plain {:.2}, TLS {:.2}, more {:.2}; least plain {:.2}, TLS {:.2}",
                plain_us[ROUNDS / 2],
                sealed_us[ROUNDS / 2],
                more_us[ROUNDS / 2],
                plain_us[0],
                sealed_us[0],
            );
        }
    });
}

/// What rustls alone allocates on the client's side for requests and answers of this size, in memory.
fn rustls_allocations(authority: &Authority, count: u32) -> u64 {
    let config = Arc::new(authority.server_config());
    let mut server = rustls::ServerConnection::new(config).unwrap();
    let endpoint = Endpoint::at(&format!("https://{NAME}.invalid"));
    let endpoint = endpoint.secure(&authority.options()).unwrap();
    let mut client = endpoint.tls().unwrap().client(String::new()).connection().unwrap();
    let (mut request, mut answer) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
    let mut before = 0;
    for number in 0..count + 100 {
        if number == 100 {
            before = allocation::count();
        }
        // The first rounds are the handshake.
        if !client.is_handshaking() {
            client.writer().write_all(&[b'x'; 280]).unwrap();
        }
        while client.wants_write() {
            client.write_tls(&mut request).unwrap();
        }
        let at_server = allocation::count();
        let mut bytes = &request[..];
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets().unwrap();
            while matches!(server.reader().read(&mut [0; 4096]), Ok(1..)) {}
        }
        if !server.is_handshaking() {
            server.writer().write_all(ANSWER_200.as_bytes()).unwrap();
        }
        while server.wants_write() {
            server.write_tls(&mut answer).unwrap();
        }
        before += allocation::count() - at_server;
        let mut bytes = &answer[..];
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets().unwrap();
            while matches!(client.reader().read(&mut [0; 4096]), Ok(1..)) {}
        }
        request.clear();
        answer.clear();
    }
    allocation::count() - before
}

/// None in plain text, and under TLS none but rustls's own for its records.
#[test]
fn an_attempt_allocates_what_rustls_does_and_no_more() {
    const ATTEMPTS: u32 = 2_000;
    // Timers and the like: one per attempt would be two thousand.
    const OTHERS: u64 = 200;
    on_both_drivers(|| async {
        let authority = Authority::new();
        let (plain, sealed) = (plain_server(), sealed_server(&authority));
        let endpoint = Endpoint::at(&plain.url());
        let of_plain = cost(endpoint, 4, 500, ATTEMPTS).await.allocations;
        assert!(of_plain < OTHERS, "{of_plain} in plain text");
        let endpoint = bank::secured(&sealed, &authority.options());
        let of_sealed = cost(endpoint, 4, 500, ATTEMPTS).await.allocations;
        let of_rustls = rustls_allocations(&authority, ATTEMPTS);
        println!("for {ATTEMPTS} attempts: plain {of_plain}, TLS {of_sealed}, rustls alone {of_rustls}");
        assert!(of_sealed < of_rustls + OTHERS, "{of_sealed} under TLS, {of_rustls} by rustls alone");
        assert!(of_rustls >= 2 * u64::from(ATTEMPTS), "a record each way");
    });
}
