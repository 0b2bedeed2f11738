//! Connections that are not used again, attempts that are given up, and hang-ups as a connection is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use galo_engine::verdict::End;

use super::{ANSWER_200, Bench, Server, answered, attempt, on_both_drivers, until};

#[test]
fn what_was_open_is_not_used_again_but_what_is_heard_afterwards() {
    on_both_drivers(|| async {
        // The first request is answered when the second one has come.
        let seen = Arc::new(AtomicUsize::new(0));
        let server = Server::answering({
            let seen = Arc::clone(&seen);
            move |number, _, peer| {
                seen.store(number + 1, Ordering::SeqCst);
                while number == 0 && seen.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
                peer.send(ANSWER_200);
            }
        });
        let bench = Bench::new(&server.url());
        bench.client.start(attempt(0));
        until(|| seen.load(Ordering::SeqCst) == 1).await;
        bench.client.renew();
        bench.client.start(attempt(1));
        bench.client.drained().await;
        assert!(bench.ends.borrow().iter().all(|end| end.end == answered(200)));
        assert_eq!(server.connections(), 2);
        // Both were heard since.
        bench.client.start(attempt(2));
        bench.client.start(attempt(3));
        bench.client.drained().await;
        assert_eq!(server.connections(), 2);
        bench.client.renew();
        assert_eq!(bench.client.stats().connections_open, 0);
        assert_eq!(bench.one(4).await, answered(200));
        assert_eq!(server.connections(), 3);
    });
}

#[test]
fn what_is_given_up_ends_at_once_and_its_connection_with_it() {
    on_both_drivers(|| async {
        let server = Server::answering(|number, _, peer| match number {
            1 => peer.wait_for_close(),
            _ => peer.send(ANSWER_200),
        });
        let bench = Bench::new(&server.url());
        assert_eq!(bench.one(0).await, answered(200));
        bench.client.start(attempt(1));
        monoio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(bench.client.in_flight(), 1, "nobody answers it");
        // Nobody's.
        bench.client.give_up(0);
        bench.client.give_up(7);
        monoio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(bench.client.in_flight(), 1);
        bench.client.give_up(1);
        bench.client.drained().await;
        let last = bench.ends.borrow().last().cloned().unwrap();
        assert_eq!((last.slot, last.end, last.has_hung_up), (1, End::UNANSWERED, false));
        until(|| server.done() == 1).await;
        // The lane is as good as before.
        bench.client.give_up(1);
        assert_eq!(bench.one(2).await, answered(200));
        assert_eq!((server.connections(), bench.client.stats().lanes), (2, 1));
    });
}

#[test]
fn a_hang_up_is_one_of_a_kept_connection_without_a_byte() {
    on_both_drivers(|| async {
        for (case, resets, bytes, on_first, has_hung_up) in [
            ("an end", false, "", false, true),
            ("a reset", true, "", false, true),
            ("of a fresh one", false, "", true, false),
            ("a byte of an answer", false, "H", false, false),
            ("another answer", false, "garbage\r\n\r\n", false, false),
        ] {
            let server = Server::start(move |_, peer| {
                let mut is_first = true;
                while peer.request().is_some() {
                    if is_first == on_first {
                        peer.send(bytes);
                        if resets {
                            peer.reset()
                        } else {
                            peer.close()
                        }
                        return;
                    }
                    is_first = false;
                    peer.send(ANSWER_200);
                }
            });
            let bench = Bench::new(&server.url());
            if !on_first {
                assert_eq!(bench.one(0).await, answered(200), "{case}");
            }
            assert_eq!(bench.one(1).await, End::UNANSWERED, "{case}");
            assert_eq!(bench.ends.borrow().last().unwrap().has_hung_up, has_hung_up, "{case}");
            assert_eq!(server.connections(), 1, "{case}: nothing is sent twice here");
        }
    });
}
