//! What one dispatch costs the gateway's thread. Run it by hand, in release:
//! `cargo test --release -p galo-gateway dispatch_cost -- --ignored --nocapture`.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Instant;

use galo_engine::Processor;

use super::super::{AttemptEnd, Client, ClientConfig, Endpoint};
use super::{ANSWER_200, Server, answered, attempt, on_both_drivers};
use crate::beat::Beat;

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

#[test]
#[ignore = "a measurement"]
fn dispatch_cost() {
    const WARM_UP: u32 = 20_000;
    const ATTEMPTS: u32 = 200_000;
    on_both_drivers(|| async {
        let server = Server::start(|_, peer| {
            // The cheapest server there is: a read is a request.
            let mut buffer = [0; 4096];
            while matches!(peer.stream.read(&mut buffer), Ok(1..)) {
                peer.send(ANSWER_200);
            }
        });
        for lanes in [1, 16, 64] {
            let next = Rc::new(Cell::new(lanes));
            let marks = Rc::new(RefCell::new(Vec::new()));
            let client = Rc::<RefCell<Option<Rc<Client>>>>::default();
            let on_end = {
                let (client, next, marks) = (Rc::clone(&client), Rc::clone(&next), Rc::clone(&marks));
                move |end: AttemptEnd| {
                    assert_eq!(end.reply, answered(200));
                    let slot = next.replace(next.get() + 1);
                    if slot == WARM_UP || slot == WARM_UP + ATTEMPTS {
                        marks.borrow_mut().push((thread_cpu_us(), Instant::now()));
                    }
                    if slot < WARM_UP + ATTEMPTS {
                        client.borrow().as_ref().unwrap().start(attempt(slot));
                    }
                }
            };
            let config = ClientConfig {
                processor: Processor::Default,
                endpoint: Endpoint::parse_and_resolve(&server.url()).unwrap(),
                lanes_max: lanes as usize,
                attempt_timeout_ms: 30_000,
                connect_timeout_ms: 1000,
                idle_ms_max: 30_000,
            };
            *client.borrow_mut() = Some(Client::new(config, Beat::eager(), Rc::new(on_end)));
            let client = client.borrow().clone().unwrap();
            for slot in 0..lanes {
                client.start(attempt(slot));
            }
            client.drained().await;
            client.shutdown();
            let marks = marks.borrow();
            let ((cpu_from, from), (cpu_to, to)) = (marks[0], marks[1]);
            let wall_us = u64::try_from((to - from).as_micros()).unwrap();
            println!(
                "{lanes:3} lanes: {:.2} us CPU, {:.2} us wall per attempt",
                per_attempt(cpu_to - cpu_from, ATTEMPTS),
                per_attempt(wall_us, ATTEMPTS)
            );
        }
        println!("blocking floor: {:.2} us CPU per request", floor_us(&server, &[b'x'; 280], 50_000));
    });
}
