//! Each shape that an answer can take, over real sockets: what is reported, and whether the connection is used again.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use galo_engine::verdict::End;

use super::{ANSWER_200, ANSWER_500, Bench, Peer, Server, answered, on_both_drivers};

/// What a server does once it has sent its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Stay,
    Close,
    Reset,
}

impl Then {
    fn act(self, peer: &mut Peer) {
        match self {
            Self::Stay => {}
            Self::Close => peer.close(),
            Self::Reset => peer.reset(),
        }
    }
}

/// A name, the answer's pieces, what the server does then, what is reported, and how many connections two attempts
/// take.
type Shape = (&'static str, Vec<&'static str>, Then, End, usize);

const REUSED: usize = 1;
const CLOSED: usize = 2;

#[test]
fn every_shape_of_an_answer() {
    // Leaked, so that the servers' threads may keep them.
    let long = |text: &'static str, size: usize| -> &'static str { text.repeat(size).leak() };
    let with_header = |size: usize| -> &'static str {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nlong: {}\r\n\r\n", long("h", size)).leak()
    };
    let (headers_10k, headers_20k, large) = (with_header(10_000), with_header(20_000), long("x", 60_000));
    let ok = answered(200);
    let shapes: Vec<Shape> = vec![
        ("chunked", vec![ANSWER_200], Then::Stay, ok, REUSED),
        ("with a length", vec![ANSWER_500], Then::Stay, answered(500), REUSED),
        (
            "empty body",
            vec!["HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n"],
            Then::Stay,
            answered(429),
            REUSED,
        ),
        ("204 without a length", vec!["HTTP/1.1 204 No Content\r\n\r\n"], Then::Stay, answered(204), REUSED),
        (
            "422 of 2 KB",
            vec![
                "HTTP/1.1 422 X\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n",
                long("y", 2048),
                "\r\n0\r\n\r\n",
            ],
            Then::Stay,
            answered(422),
            REUSED,
        ),
        (
            "last chunk on its own",
            vec![&ANSWER_200[..ANSWER_200.len() - 5], "0\r\n\r\n"],
            Then::Stay,
            ok,
            REUSED,
        ),
        (
            "chunks cut anywhere",
            vec![
                "HTTP/1.1 200 OK\r\nTransfer-Enc",
                "oding: chunked\r\n",
                "\r\n1",
                "0\r\n01234567",
                "89abcdef\r",
                "\n0\r\n\r",
                "\n",
            ],
            Then::Stay,
            ok,
            REUSED,
        ),
        ("after 100", vec!["HTTP/1.1 100 Continue\r\n\r\n", ANSWER_200], Then::Stay, ok, REUSED),
        (
            "after 100 and 103 at once",
            vec![
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 7\r\n\r\n",
                ANSWER_500,
            ],
            Then::Stay,
            answered(500),
            REUSED,
        ),
        ("large head", vec![headers_10k], Then::Stay, ok, REUSED),
        (
            "body too large",
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", large],
            Then::Stay,
            ok,
            CLOSED,
        ),
        (
            "head and body of 20 KB",
            vec![
                "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\nlong: ",
                long("h", 10_000),
                "\r\n\r\n",
                long("b", 10_000),
            ],
            Then::Stay,
            ok,
            CLOSED,
        ),
        (
            "head and body of 12 KB",
            vec![
                "HTTP/1.1 200 OK\r\nContent-Length: 6000\r\nlong: ",
                long("h", 6000),
                "\r\n\r\n",
                long("b", 6000),
            ],
            Then::Stay,
            ok,
            REUSED,
        ),
        (
            "keeps the connection, says close",
            vec!["HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\nContent-Length: 0\r\n\r\n"],
            Then::Stay,
            ok,
            CLOSED,
        ),
        ("HTTP/1.0", vec!["HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"], Then::Stay, ok, CLOSED),
        ("until the end of the stream", vec!["HTTP/1.1 200 OK\r\n\r\nwhatever"], Then::Close, ok, CLOSED),
        ("no framing, and open", vec!["HTTP/1.1 200 OK\r\n\r\n"], Then::Stay, ok, CLOSED),
        (
            "204 with a body",
            vec!["HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc"],
            Then::Stay,
            answered(204),
            CLOSED,
        ),
        (
            "two lengths",
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n"],
            Then::Stay,
            ok,
            CLOSED,
        ),
        (
            "a length and chunks",
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
            Then::Stay,
            ok,
            CLOSED,
        ),
        (
            "trailers",
            vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nname: x\r\n\r\n"],
            Then::Stay,
            ok,
            CLOSED,
        ),
        (
            "bytes left over",
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"],
            Then::Stay,
            ok,
            CLOSED,
        ),
        (
            "bad chunk",
            vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
            Then::Stay,
            ok,
            CLOSED,
        ),
        (
            "huge length",
            vec!["HTTP/1.1 500 X\r\nContent-Length: 99999999999\r\n\r\n"],
            Then::Stay,
            answered(500),
            CLOSED,
        ),
        (
            "huge chunk",
            vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff0\r\n", large, large],
            Then::Stay,
            ok,
            CLOSED,
        ),
        ("body never ends", vec!["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"], Then::Stay, ok, CLOSED),
        (
            "body cut",
            vec!["HTTP/1.1 500 X\r\nContent-Length: 5\r\n\r\nab"],
            Then::Close,
            answered(500),
            CLOSED,
        ),
        ("body reset", vec!["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"], Then::Reset, ok, CLOSED),
        ("closes without a word", vec![], Then::Close, End::UNANSWERED, CLOSED),
        ("resets without a word", vec![], Then::Reset, End::UNANSWERED, CLOSED),
        ("only 100", vec!["HTTP/1.1 100 Continue\r\n\r\n"], Then::Close, End::UNANSWERED, CLOSED),
        ("101", vec!["HTTP/1.1 101 Switching Protocols\r\n\r\n"], Then::Stay, answered(101), CLOSED),
        ("garbage", vec!["\0\u{1}\u{2}garbage\r\n\r\n"], Then::Stay, End::UNANSWERED, CLOSED),
        ("garbage without an end", vec!["what is this"], Then::Close, End::UNANSWERED, CLOSED),
        ("another protocol", vec!["SSH-2.0-OpenSSH_9.2\r\n\r\n"], Then::Stay, End::UNANSWERED, CLOSED),
        ("head too large", vec![headers_20k], Then::Stay, End::UNANSWERED, CLOSED),
        (
            "unknown encoding",
            vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"],
            Then::Stay,
            End::UNANSWERED,
            CLOSED,
        ),
        (
            "status 1000",
            vec!["HTTP/1.1 1000 X\r\nContent-Length: 0\r\n\r\n"],
            Then::Stay,
            End::UNANSWERED,
            CLOSED,
        ),
    ];
    let count = shapes.len();
    let shapes = Arc::new(shapes);
    on_both_drivers(|| async {
        for index in 0..count {
            let server = Server::answering({
                let shapes = Arc::clone(&shapes);
                move |number, _, peer| {
                    if number > 0 {
                        return peer.send("HTTP/1.1 299 Next\r\nContent-Length: 0\r\n\r\n");
                    }
                    let (_, pieces, then, ..) = &shapes[index];
                    for (at, piece) in pieces.iter().enumerate() {
                        if at > 0 {
                            // So that the pieces arrive in reads of their own, most of the time.
                            thread::sleep(Duration::from_millis(2));
                        }
                        peer.send(piece);
                    }
                    then.act(peer);
                }
            });
            let (name, _, _, reply, connections) = &shapes[index];
            let bench = Bench::new(&server.url());
            assert_eq!(bench.one(0).await, *reply, "{name}");
            assert_eq!(bench.one(1).await, answered(299), "after {name}");
            assert_eq!(server.connections(), *connections, "connections after {name}");
        }
    });
}

/// The head decides: whatever is cut before its end leaves the attempt in doubt, whatever is cut after does not.
#[test]
fn an_answer_cut_at_every_byte() {
    let head = ANSWER_200.find("\r\n\r\n").unwrap() + 4;
    let offsets = ANSWER_200.len() + 1;
    on_both_drivers(|| async {
        for then in [Then::Close, Then::Reset] {
            let server = Server::answering(move |number, request, peer| {
                // The attempt's number is its slot: none is sent twice, none is lost.
                assert_eq!(request.cents(), number as u64 + 1);
                peer.send(&ANSWER_200[..number]);
                then.act(peer);
            });
            let bench = Bench::new(&server.url());
            for offset in 0..offsets {
                let expected = if offset < head { End::UNANSWERED } else { answered(200) };
                let reply = bench.one(u32::try_from(offset).unwrap()).await;
                assert_eq!(reply, expected, "{then:?} after {offset} bytes");
            }
            assert_eq!(server.connections(), offsets);
            // Only the last answer was whole; that its peer has gone is noticed when the connection is needed.
            assert_eq!(bench.client.stats().connections_open, 1);
        }
    });
}

#[test]
fn an_answer_that_stalls_times_out_and_the_connection_is_closed() {
    let head = ANSWER_200.find("\r\n\r\n").unwrap() + 4;
    on_both_drivers(|| async {
        let offsets = [0, 9, head - 1, head, ANSWER_200.len() - 1];
        let server = Server::start(move |number, peer| {
            assert!(peer.request().is_some());
            peer.send(&ANSWER_200[..offsets[number]]);
            // Returns only when the client closes: the assertion on `done` below is about that.
            peer.wait_for_close();
        });
        let bench = Bench::with(&server.url(), |config| config.attempt_timeout_ms = 400);
        for (slot, offset) in (0..).zip(offsets) {
            let expected = if offset < head { End::UNANSWERED } else { answered(200) };
            assert_eq!(bench.one(slot).await, expected, "stalled after {offset} bytes");
            super::until(|| server.done() == slot as usize + 1).await;
        }
        assert_eq!(bench.client.stats().connections_open, 0);
        for end in bench.ends.borrow().iter() {
            assert!((400_000..20_000_000).contains(&end.latency_us), "{end:?}");
        }
    });
}

#[test]
fn a_drip_of_single_bytes_is_read() {
    on_both_drivers(|| async {
        let server = Server::answering(|_, _, peer| {
            for byte in ANSWER_200.bytes() {
                peer.send([byte]);
                thread::yield_now();
            }
        });
        let bench = Bench::new(&server.url());
        for slot in 0..20 {
            assert_eq!(bench.one(slot).await, answered(200));
        }
        assert_eq!(server.connections(), 1);
    });
}

/// A late answer must not become the answer to the next request: that is how another client mixed up its payments.
#[test]
fn an_answer_that_comes_after_the_timeout_is_nobodys() {
    on_both_drivers(|| async {
        let (late, wait) = mpsc::channel();
        let (sent, was_sent) = mpsc::channel();
        let wait = Mutex::new(wait);
        let server = Server::start(move |number, peer| {
            assert!(peer.request().is_some());
            if number == 0 {
                wait.lock().unwrap().recv().unwrap();
                peer.send(ANSWER_200);
                sent.send(()).unwrap();
            } else {
                peer.send(ANSWER_500);
            }
            peer.wait_for_close();
        });
        let bench = Bench::with(&server.url(), |config| config.attempt_timeout_ms = 1000);
        assert_eq!(bench.one(0).await, End::UNANSWERED);
        late.send(()).unwrap();
        was_sent.recv().unwrap();
        assert_eq!(bench.one(1).await, answered(500));
        assert_eq!(server.connections(), 2);
    });
}
