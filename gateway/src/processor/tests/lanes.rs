//! Lanes: reuse of connections, one end for each start, nothing mixed up, drain and shutdown.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Barrier, Mutex, mpsc};

use galo_engine::Processor;
use galo_engine::verdict::End;

use super::super::{AttemptEnd, Client, ClientConfig, Endpoint, SocketOptions};
use super::{ANSWER_200, Bench, Server, answered, attempt, on_both_drivers, profile, until};
use crate::beat::Beat;
use crate::wake::Rounds;

#[test]
fn a_connection_is_used_again() {
    on_both_drivers(|| async {
        let server = Server::answering(|_, _, peer| peer.send(ANSWER_200));
        let bench = Bench::new(&server.url());
        for slot in 0..500 {
            assert_eq!(bench.one(slot).await, answered(200));
        }
        assert_eq!(server.connections(), 1);
        let stats = bench.client.stats();
        assert_eq!((stats.connections_open, stats.connects_total, stats.lanes), (1, 1, 1));
    });
}

#[test]
fn the_warmest_lane_is_used_first() {
    on_both_drivers(|| async {
        let used = Arc::new(Mutex::new(Vec::new()));
        let server = Server::start({
            let used = Arc::clone(&used);
            move |number, peer| {
                while peer.request().is_some() {
                    used.lock().unwrap().push(number);
                    peer.send(ANSWER_200);
                }
            }
        });
        let bench = Bench::new(&server.url());
        for slot in 0..5 {
            bench.client.start(attempt(slot));
        }
        bench.client.drained().await;
        assert_eq!(server.connections(), 5);
        used.lock().unwrap().clear();
        for slot in 5..50 {
            assert_eq!(bench.one(slot).await, answered(200));
        }
        let used = used.lock().unwrap();
        assert!(used.len() == 45 && used.iter().all(|&number| number == used[0]), "{used:?}");
    });
}

/// Ten thousand attempts over 64 lanes, some of which stall until the timeout or lose their connection: each is
/// answered with what the server says for that very attempt, and each ends once.
#[test]
fn nothing_is_mixed_up() {
    const ATTEMPTS: u32 = 10_000;
    const LANES: u32 = 64;
    #[derive(Clone, Copy, PartialEq)]
    enum Fate {
        Status(u16),
        Stalls,
        Breaks,
    }
    const fn fate(slot: u32) -> Fate {
        match slot {
            _ if slot % 331 == 13 => Fate::Stalls,
            _ if slot % 89 == 7 => Fate::Breaks,
            _ => Fate::Status(200 + (slot % 300) as u16),
        }
    }
    on_both_drivers(|| async {
        let seen = Arc::new(Mutex::new(vec![0_u8; ATTEMPTS as usize]));
        let server = Server::answering({
            let seen = Arc::clone(&seen);
            move |_, request, peer| {
                let slot = u32::try_from(request.cents() - 1).unwrap();
                assert_eq!(request.id(), attempt(slot).correlation_id.to_string());
                seen.lock().unwrap()[slot as usize] += 1;
                match fate(slot) {
                    Fate::Stalls => {
                        peer.wait_for_close();
                        peer.send("HTTP/1.1 299 Too late\r\nContent-Length: 0\r\n\r\n");
                    }
                    Fate::Breaks => peer.close(),
                    Fate::Status(status) if matches!(status, 204 | 304) => {
                        peer.send(format!("HTTP/1.1 {status} X\r\n\r\n"));
                    }
                    Fate::Status(status) if slot % 2 == 0 => {
                        peer.send(format!(
                            "HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"
                        ));
                        peer.send("0\r\n\r\n");
                    }
                    Fate::Status(status) => {
                        peer.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 4\r\n\r\nbody"));
                    }
                }
            }
        });
        let ends: Rc<RefCell<Vec<Vec<End>>>> = Rc::new(RefCell::new(vec![Vec::new(); ATTEMPTS as usize]));
        let next = Rc::new(Cell::new(LANES));
        let config = ClientConfig {
            processor: Processor::DEFAULT,
            endpoint: Endpoint::at(&server.url()),
            profile: profile(&server.url()),
            token_endpoint: None,
            lanes_max: LANES as usize,
            attempt_timeout_ms: 3000,
            connect_timeout_ms: 3000,
            idle_ms_max: 30_000,
            socket: SocketOptions::default(),
        };
        // Each end starts the next attempt from within `on_end`.
        let client = Rc::<RefCell<Option<Rc<Client>>>>::default();
        let on_end = {
            let (client, ends, next) = (Rc::clone(&client), Rc::clone(&ends), Rc::clone(&next));
            move |end: AttemptEnd| {
                ends.borrow_mut()[end.slot as usize].push(end.end);
                if next.get() < ATTEMPTS {
                    let slot = next.replace(next.get() + 1);
                    client.borrow().as_ref().unwrap().start(attempt(slot));
                }
            }
        };
        *client.borrow_mut() = Some(Client::new(config, Beat::eager(), Rc::new(on_end)));
        let client = client.borrow().clone().unwrap();
        for slot in 0..LANES {
            client.start(attempt(slot));
        }
        client.drained().await;
        assert_eq!(client.in_flight(), 0);
        let (mut processed, mut in_doubt) = (0, 0);
        for (slot, replies) in (0..).zip(ends.borrow().iter()) {
            let expected = match fate(slot) {
                Fate::Status(status) => answered(status),
                Fate::Stalls | Fate::Breaks => End::UNANSWERED,
            };
            assert_eq!(replies[..], [expected], "slot {slot}");
            match expected {
                End { status: 0, .. } => in_doubt += 1,
                _ => processed += 1,
            }
        }
        assert_eq!(processed + in_doubt, ATTEMPTS);
        assert!(in_doubt > 100, "the bad fates must occur: {in_doubt}");
        assert!(seen.lock().unwrap().iter().all(|&count| count == 1), "each attempt is sent exactly once");
        assert!(client.stats().lanes <= LANES as usize);
        // One connection a lane, and one more for each that was lost.
        assert!(server.connections() <= (LANES + in_doubt) as usize);
    });
}

/// As many lanes as the default allows, all answered at the same moment: more completions than the ring has room for.
#[test]
fn four_hundred_answers_at_once() {
    const LANES: u32 = 400;
    on_both_drivers(|| async {
        let all_here = Arc::new(Barrier::new(LANES as usize));
        let server = Server::answering({
            let all_here = Arc::clone(&all_here);
            move |_, request, peer| {
                all_here.wait();
                peer.send(format!("HTTP/1.1 {} X\r\nContent-Length: 0\r\n\r\n", 200 + request.cents()));
            }
        });
        let bench = Bench::with(&server.url(), |config| config.lanes_max = LANES as usize);
        for round in 1..=3 {
            for slot in 0..LANES {
                bench.client.start(attempt(slot));
            }
            assert_eq!(bench.client.in_flight(), LANES as usize);
            bench.client.drained().await;
            let mut ends: Vec<_> = bench.ends.take().iter().map(|end| (end.slot, end.end)).collect();
            ends.sort_unstable_by_key(|end| end.0);
            assert_eq!(ends.len(), LANES as usize);
            for (slot, end) in (0..LANES).zip(ends) {
                assert_eq!(end, (slot, answered(201 + u16::try_from(slot).unwrap())), "round {round}");
            }
        }
        assert_eq!(server.connections(), LANES as usize);
    });
}

/// The peer closed the idle connection before the next attempt: nothing is written into it.
#[test]
fn a_connection_closed_while_idle_is_not_written_to() {
    on_both_drivers(|| async {
        for resets in [false, true] {
            let (closed, was_closed) = mpsc::channel();
            let server = Server::start(move |number, peer| {
                while let Some(request) = peer.request() {
                    assert_eq!(request.cents(), number as u64 + 1, "each connection sees one attempt");
                    peer.send(ANSWER_200);
                    if resets {
                        peer.reset()
                    } else {
                        peer.close()
                    }
                    closed.send(()).unwrap();
                }
            });
            let bench = Bench::new(&server.url());
            for slot in 0..20 {
                assert_eq!(bench.one(slot).await, answered(200), "resets: {resets}");
                was_closed.recv().unwrap();
            }
            assert_eq!(server.connections(), 20);
        }
    });
}

/// The peer closes just as the next request arrives. It may have been stored, so it is never sent again.
#[test]
fn a_request_that_met_a_closing_connection_is_in_doubt() {
    on_both_drivers(|| async {
        for resets in [false, true] {
            let server = Server::answering(move |number, request, peer| {
                assert_eq!(request.cents(), number as u64 + 1, "no attempt arrives twice");
                if number % 2 == 0 {
                    peer.send(ANSWER_200);
                } else if resets {
                    peer.reset();
                } else {
                    peer.close();
                }
            });
            let bench = Bench::new(&server.url());
            for slot in 0..40 {
                let expected = if slot % 2 == 0 { answered(200) } else { End::UNANSWERED };
                assert_eq!(bench.one(slot).await, expected, "resets: {resets}");
            }
            assert_eq!(server.connections(), 20);
        }
    });
}

/// An answer that nobody asked for must not become the next request's.
#[test]
fn bytes_that_arrive_while_idle_end_the_connection() {
    on_both_drivers(|| async {
        let (sent, was_sent) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let wait = Mutex::new(wait);
        let server = Server::start(move |number, peer| {
            assert!(peer.request().is_some());
            if number > 0 {
                return peer.send(super::ANSWER_500);
            }
            peer.send(ANSWER_200);
            wait.lock().unwrap().recv().unwrap();
            peer.send(ANSWER_200);
            sent.send(()).unwrap();
            peer.wait_for_close();
        });
        let bench = Bench::new(&server.url());
        assert_eq!(bench.one(0).await, answered(200));
        go.send(()).unwrap();
        was_sent.recv().unwrap();
        assert_eq!(bench.one(1).await, answered(500));
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn connections_idle_for_too_long_are_closed() {
    on_both_drivers(|| async {
        let server = Server::answering(|_, _, peer| peer.send(ANSWER_200));
        let bench = Bench::with(&server.url(), |config| config.idle_ms_max = 100);
        for slot in 0..3 {
            bench.client.start(attempt(slot));
        }
        bench.client.drained().await;
        assert_eq!(server.connections(), 3);
        // The server sees the ends of the streams, without another attempt.
        until(|| server.done() == 3).await;
        assert_eq!(bench.client.stats().connections_open, 0);
        assert_eq!(bench.one(3).await, answered(200));
        assert_eq!(server.connections(), 4);
    });
}

#[test]
fn shutdown_ends_each_attempt_once_and_closes_everything() {
    on_both_drivers(|| async {
        let (arrived, has_arrived) = mpsc::channel();
        let server = Server::answering(move |_, request, peer| {
            if request.cents() <= 5 {
                return peer.send(ANSWER_200);
            }
            arrived.send(()).unwrap();
            peer.wait_for_close();
        });
        let bench = Bench::new(&server.url());
        for slot in 0..5 {
            bench.client.start(attempt(slot));
        }
        bench.client.drained().await;
        for slot in 5..8 {
            bench.client.start(attempt(slot));
        }
        let mut stalled = 0;
        while stalled < 3 {
            stalled += has_arrived.try_iter().count();
            monoio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        // One that has not had its turn yet: nothing of it is written.
        bench.client.start(attempt(8));
        assert_eq!(bench.client.in_flight(), 4);
        bench.client.shutdown();
        bench.client.drained().await;
        bench.client.start(attempt(9));
        bench.client.drained().await;
        let mut ends: Vec<_> = bench.ends.borrow().iter().map(|end| (end.slot, end.end)).collect();
        ends.sort_unstable_by_key(|end| end.0);
        let expected: Vec<_> = (0..10)
            .map(|slot| match slot {
                0..5 => (slot, answered(200)),
                5..8 => (slot, End::UNANSWERED),
                _ => (slot, End::NOT_SENT),
            })
            .collect();
        assert_eq!(ends, expected);
        until(|| server.done() == server.connections()).await;
        assert_eq!(bench.client.stats().connections_open, 0);
        // No task is left that keeps the client alive.
        until(|| Rc::strong_count(&bench.client) == 1).await;
    });
}

#[test]
#[should_panic(expected = "more attempts than the capacity limit allows")]
fn more_attempts_than_lanes_are_a_bug_of_the_caller() {
    on_both_drivers(|| async {
        let server = Server::start(|_, peer| peer.wait_for_close());
        let bench = Bench::with(&server.url(), |config| config.lanes_max = 2);
        for slot in 0..3 {
            bench.client.start(attempt(slot));
        }
    });
}

/// Attempts that fail at once, each starting the next, leave everybody else his turn.
#[test]
fn a_chain_of_failures_keeps_nobody_from_his_turn() {
    on_both_drivers(|| async {
        const ENOUGH: u32 = 100_000;
        let is_over: Rc<Cell<bool>> = Rc::default();
        let ended_count: Rc<Cell<u32>> = Rc::default();
        let chain: Rc<OnceCell<Rc<Client>>> = Rc::default();
        let on_end = {
            let (chain, is_over, ended_count) =
                (Rc::clone(&chain), Rc::clone(&is_over), Rc::clone(&ended_count));
            Rc::new(move |_| {
                ended_count.set(ended_count.get() + 1);
                if !is_over.get() && ended_count.get() < ENOUGH {
                    chain.get().unwrap().start(attempt(0));
                }
            })
        };
        let mut config = super::config("http://127.0.0.1:1");
        config.endpoint = config.endpoint.with_addresses(Vec::new());
        let client = Client::new(config, Beat::eager(), on_end);
        assert!(chain.set(Rc::clone(&client)).is_ok());
        client.start(attempt(0));
        // Begins behind the chain, and needs turns of its own: each link of it is one.
        monoio::spawn(async move {
            let turns = Rounds::turns();
            for _ in 0..10 {
                turns.next().await;
            }
            is_over.set(true);
        });
        client.drained().await;
        assert!(ended_count.get() < 1_000, "{} attempts in ten turns", ended_count.get());
    });
}
