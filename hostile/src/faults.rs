//! Processors that answer wrongly: every class of answer, whole, in pieces, garbled, and cut at every byte.
//!
//! A case scripts what the default processor does with the first attempt of one payment; afterwards it is honest. The
//! gateway's own counters must say how that attempt ended (by a table that stands here, not the engine's), and the books must agree
//! with what that means:
//!
//! | ended | then |
//! | --- | --- |
//! | processed | no second attempt |
//! | duplicate, and it is stored | looked up; no second attempt |
//! | duplicate, and it is not | looked up four times; then a second attempt, wherever it goes, as a new one |
//! | unknown | a second one, at the same processor, with the same amount and `requestedAt`; none at the other |
//! | unavailable, overloaded | a second one, wherever it goes, as a new attempt |
//!
//! In each, the payment stands in one book once, the ledger says so to the millisecond, and the next payment is served.
//! Two threads share the cases, each with a gateway of its own, so that its counters are nobody else's doing.

use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::client::{PATIENCE, Way};
use crate::galo::{Outcomes, Plan, Programs, metrics, outcomes, sum};
use crate::processor::{Act, Payment, Processor, Then, known_already, plain, processed, stored_json};
use crate::tally::Tally;
use crate::world::{World, payment_json};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Processed,
    Duplicate,
    Unavailable,
    Overloaded,
    Unknown,
}

use Ended::{Duplicate, Overloaded, Processed, Unavailable, Unknown};

/// One case: what the processor does with the first attempt, and what may be seen of it.
struct Fault {
    name: String,
    act: Act,
    expected: Vec<Ended>,
}

impl Fault {
    fn new(name: impl Into<String>, act: Act, expected: &[Ended]) -> Self {
        Self { name: name.into(), act, expected: expected.to_vec() }
    }
}

/// Runs all in a Galo of its own.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) -> Result<(), String> {
    let groups = [
        ("answers of every status", statuses as fn() -> Vec<Fault>),
        ("answers of every shape", shapes),
        ("answers cut at every byte", cuts),
        ("answers garbled at every byte", garbled),
    ];
    let rest =
        ["connections that end between answers", "lookups that go wrong", "health checks that go wrong"];
    if !groups.iter().map(|(name, _)| *name).chain(rest).any(|name| tally.wants(name)) {
        return Ok(());
    }
    let never = ("HEALTH_INTERVAL_MS", "3600000".to_owned());
    let plan = Plan { name: "faults", environment: vec![never], ..Plan::default() };
    let mut world = World::start(programs, &plan)?;
    for (name, faults) in groups {
        if tally.begin(name) {
            share(&mut world, tally, &faults());
            world.reconcile(tally);
        }
    }
    if tally.begin(rest[0]) {
        connections(&mut world, tally);
        world.reconcile(tally);
    }
    if tally.begin(rest[1]) {
        lookups(&mut world, tally);
        world.reconcile(tally);
    }
    tally.begin("the end of the faults");
    world.stop(tally);
    if tally.begin(rest[2]) {
        health(programs, tally)?;
    }
    Ok(())
}

/// By status alone; the same table as in docs/ARCHITECTURE.md, written a second time.
fn by_status(status: u16) -> Ended {
    match status {
        200..=299 => Processed,
        409 | 422 => Duplicate,
        408 | 425 | 499 => Unknown,
        429 => Overloaded,
        400..=500 => Unavailable,
        _ => Unknown,
    }
}

fn statuses() -> Vec<Fault> {
    let mut faults = Vec::new();
    for status in [
        101, 199, 200, 201, 202, 203, 204, 205, 206, 226, 299, 300, 301, 302, 303, 304, 305, 307, 308, 399,
        400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421,
        422, 423, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 507, 511, 520, 599, 600,
        999,
    ] {
        // 199 is an interim answer like 100: what follows it counts, and here nothing does.
        let expected = if status == 199 { Unknown } else { by_status(status) };
        let stores: &[bool] = match expected {
            Processed => &[true],
            Unavailable | Overloaded => &[false],
            Duplicate | Unknown => &[true, false],
        };
        for &stores in stores {
            let then = if status == 199 { Then::Close } else { Then::Stay };
            let bytes = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n");
            let name = format!("{status}, {}", if stores { "stored" } else { "not stored" });
            faults.push(Fault::new(name, Act::new(stores, bytes, then), &[expected]));
        }
    }
    faults
}

fn shapes() -> Vec<Fault> {
    let ms = Duration::from_millis;
    let long_header =
        |size: usize| format!("HTTP/1.1 200 OK\r\nLong: {}\r\nContent-Length: 0\r\n\r\n", "h".repeat(size));
    let ok = "HTTP/1.1 200 OK\r\n";
    let mut faults: Vec<Fault> = [
        ("chunked, a byte at a time", Act::new(true, processed(), Then::Stay).in_pieces(1, ms(1)), Processed),
        ("chunked, seven bytes at a time", Act::new(true, processed(), Then::Stay).in_pieces(7, ms(2)), Processed),
        ("a 422 in pieces of 100 bytes", Act::new(true, known_already(), Then::Stay).in_pieces(100, ms(1)), Duplicate),
        ("500, a byte at a time", Act::new(false, plain(500, "X", ""), Then::Stay).in_pieces(1, ms(1)), Unavailable),
        ("chunks of one byte", Act::new(true, format!("{ok}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", "1\r\nx\r\n".repeat(500)), Then::Stay), Processed),
        ("a chunk's extension", Act::new(true, format!("{ok}Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n"), Then::Stay), Processed),
        ("trailers", Act::new(true, format!("{ok}Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n"), Then::Stay), Processed),
        ("a chunk's size that is none", Act::new(true, format!("{ok}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), Then::Stay), Processed),
        ("a chunk's size of 2^64", Act::new(true, format!("{ok}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nx"), Then::Stay), Processed),
        ("chunks without an end", Act::new(true, format!("{ok}Transfer-Encoding: chunked\r\n\r\n{}", "5\r\nhello\r\n".repeat(20_000)), Then::Stay), Processed),
        ("a body without an end", Act::new(true, format!("{ok}\r\n{}", "x".repeat(200_000)), Then::Stay), Processed),
        ("a length of 2^64", Act::new(true, format!("{ok}Content-Length: 18446744073709551616\r\n\r\n"), Then::Stay), Unknown),
        ("a length of 2^63", Act::new(true, format!("{ok}Content-Length: 9223372036854775807\r\n\r\nx"), Then::Stay), Processed),
        ("two lengths", Act::new(true, format!("{ok}Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello"), Then::Stay), Processed),
        ("a length and chunks", Act::new(true, format!("{ok}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Then::Stay), Processed),
        ("a body shorter than its length", Act::new(true, format!("{ok}Content-Length: 9\r\n\r\nhi"), Then::Close), Processed),
        ("no length, until the end", Act::new(true, format!("{ok}\r\nwhatever"), Then::Close), Processed),
        ("204 with a body", Act::new(true, "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nhi", Then::Stay), Processed),
        ("HTTP/1.0", Act::new(true, "HTTP/1.0 200 OK\r\n\r\n", Then::Close), Processed),
        ("Connection: close", Act::new(true, format!("{ok}Connection: close\r\nContent-Length: 0\r\n\r\n"), Then::Close), Processed),
        ("Connection: close that stays", Act::new(true, format!("{ok}Connection: close\r\nContent-Length: 0\r\n\r\n"), Then::Stay), Processed),
        ("a header of 8 KB", Act::new(true, long_header(8_000), Then::Stay), Processed),
        ("a header of 15 KB", Act::new(true, long_header(15_000), Then::Stay), Processed),
        ("a header of 20 KB", Act::new(true, long_header(20_000), Then::Stay), Unknown),
        ("a header's name of 70 KB", Act::new(true, format!("{ok}{}: x\r\n\r\n", "h".repeat(70_000)), Then::Stay), Unknown),
        ("a header without an end", Act::new(true, format!("{ok}A: {}", "x".repeat(500_000)), Then::Stay), Unknown),
        ("headers without an end", Act::new(true, format!("{ok}{}", "A: b\r\n".repeat(50_000)), Then::Stay), Unknown),
        ("100, then 200", Act::new(true, format!("HTTP/1.1 100 Continue\r\n\r\n{ok}Content-Length: 0\r\n\r\n"), Then::Stay), Processed),
        ("102, 103, then 500", Act::new(false, "HTTP/1.1 102 X\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", Then::Stay), Unavailable),
        ("100, then the end", Act::new(false, "HTTP/1.1 100 Continue\r\n\r\n", Then::Close), Unknown),
        ("100 without an end", Act::new(true, "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000), Then::Stay), Unknown),
        ("100 with a length, then 200", Act::new(true, format!("HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n{ok}Content-Length: 0\r\n\r\n"), Then::Stay), Processed),
        ("101 to another protocol", Act::new(true, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n\0\0\0\x04\0\0\0\0\0", Then::Stay), Unknown),
        ("nothing, the end", Act::new(false, "", Then::Close), Unknown),
        ("nothing, a reset", Act::new(false, "", Then::Reset), Unknown),
        ("stored, the end", Act::new(true, "", Then::Close), Unknown),
        ("stored, a reset", Act::new(true, "", Then::Reset), Unknown),
        ("garbage", Act::new(true, "\0\x01\x02 what is this?\r\n\r\n", Then::Stay), Unknown),
        ("an empty line", Act::new(false, "\r\n", Then::Close), Unknown),
        ("HTTP/0.9", Act::new(true, "<html>processed</html>", Then::Close), Unknown),
        ("HTTP/2's settings", Act::new(true, "\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64", Then::Close), Unknown),
        ("a TLS alert", Act::new(true, "\x15\x03\x01\0\x02\x02\x16", Then::Close), Unknown),
        ("SSH", Act::new(true, "SSH-2.0-OpenSSH_9.2p1\r\n", Then::Close), Unknown),
        ("a status of two digits", Act::new(true, "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", Then::Close), Unknown),
        ("a status of four digits", Act::new(true, "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", Then::Close), Unknown),
        ("a negative status", Act::new(true, "HTTP/1.1 -200 OK\r\nContent-Length: 0\r\n\r\n", Then::Close), Unknown),
        ("a status in words", Act::new(true, "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n", Then::Close), Unknown),
        ("HTTP/3.0", Act::new(true, "HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n", Then::Close), Unknown),
        ("an encoding that nobody knows", Act::new(true, format!("{ok}Transfer-Encoding: gzip\r\n\r\nx"), Then::Close), Unknown),
        ("a request instead of an answer", Act::new(true, "POST /payments HTTP/1.1\r\nHost: galo\r\nContent-Length: 0\r\n\r\n", Then::Close), Unknown),
        ("200 twice", Act::new(true, [processed(), processed()].concat(), Then::Stay), Processed),
        ("500, then 200", Act::new(false, [plain(500, "X", ""), processed()].concat(), Then::Stay), Unavailable),
        ("200, then garbage", Act::new(true, [processed(), b"\0\0\0".to_vec()].concat(), Then::Stay), Processed),
    ]
    .into_iter()
    .map(|(name, act, expected)| Fault::new(name, act, &[expected]))
    .collect();
    for status in [301, 302, 303, 307, 308] {
        // Followed, this would be a payment at the other processor, or a second one here.
        let bytes = format!("HTTP/1.1 {status} Moved\r\nLocation: /payments\r\nContent-Length: 0\r\n\r\n");
        faults.push(Fault::new(
            format!("a redirect with {status}"),
            Act::new(false, bytes, Then::Stay),
            &[Unknown],
        ));
    }
    faults
}

/// The answers that are cut and garbled: name, bytes, status.
fn answers() -> Vec<(&'static str, Vec<u8>, u16)> {
    vec![
        ("200 in chunks", processed(), 200),
        ("200 with a length", plain(200, "OK", "{}"), 200),
        ("422", known_already(), 422),
        ("204", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), 204),
        ("100 and 200", [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], &plain(200, "OK", "")].concat(), 200),
        ("500", plain(500, "Internal Server Error", ""), 500),
        (
            "429",
            // Nought says nothing: with more, the processor would be left alone by both gateways, and by the cases that follow.
            b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nbusy".to_vec(),
            429,
        ),
        ("404", plain(404, "Not Found", "none"), 404),
        ("503", plain(503, "Service Unavailable", "later"), 503),
        ("302", b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".to_vec(), 302),
    ]
}

/// Where the final head ends.
fn head_size(bytes: &[u8]) -> usize {
    let ends = (4..=bytes.len()).filter(|end| &bytes[end - 4..*end] == b"\r\n\r\n");
    let start = if bytes.starts_with(b"HTTP/1.1 100") { 1 } else { 0 };
    ends.take(start + 1).last().unwrap_or(bytes.len())
}

fn cuts() -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, bytes, status) in answers() {
        let head = head_size(&bytes);
        for offset in (0..=bytes.len()).filter(|offset| *offset < head + 24 || *offset + 8 > bytes.len()) {
            for then in [Then::Close, Then::Reset] {
                let whole = by_status(status);
                let expected = match (offset < head, then) {
                    (true, _) => vec![Unknown],
                    // A reset may overtake what was sent before it.
                    (false, Then::Reset) => vec![whole, Unknown],
                    (false, _) => vec![whole],
                };
                // Whether it was stored cannot be told from an answer that was cut: both must come out right.
                let stores = match whole {
                    Processed if offset >= head => true,
                    Unavailable | Overloaded => false,
                    Processed | Duplicate | Unknown => offset % 2 == 0,
                };
                let end = if then == Then::Close { "the end" } else { "a reset" };
                let name = format!("{name}: {end} after {offset} of {} bytes", bytes.len());
                faults.push(Fault::new(name, Act::new(stores, &bytes[..offset], then), &expected));
            }
        }
    }
    faults
}

fn garbled() -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, bytes, status) in answers().into_iter().filter(|(_, _, status)| matches!(status, 200 | 500)) {
        let whole = by_status(status);
        for offset in 0..bytes.len() {
            for garbage in [bytes[offset] ^ 0x80, b'\0', b'\n'] {
                let mut bytes = bytes.clone();
                bytes[offset] = garbage;
                let name = format!("{name}: byte {offset} is {garbage:#04x}");
                // What stands on the wire may still be an answer with this status; it may never be another class.
                let act = Act::new(whole == Processed, bytes, Then::Close);
                faults.push(Fault::new(name, act, &[whole, Unknown]));
            }
        }
    }
    faults
}

/// Runs the cases, every other one at each gateway.
fn share(world: &mut World, tally: &mut Tally, faults: &[Fault]) {
    let ids: Vec<[String; 2]> =
        faults.iter().map(|_| [world.galo.fresh_id(), world.galo.fresh_id()]).collect();
    let cases: Vec<(&Fault, &[String; 2])> = faults.iter().zip(&ids).collect();
    let lanes: Vec<Vec<Result<(), String>>> = thread::scope(|scope| {
        let world = &*world;
        let lanes: Vec<_> = (0..2)
            .map(|gateway| {
                let way = world.galo.straight(gateway);
                let cases: Vec<_> = cases.iter().skip(gateway).step_by(2).copied().collect();
                scope.spawn(move || {
                    cases.iter().map(|(fault, ids)| check(world, &way, fault, ids)).collect::<Vec<_>>()
                })
            })
            .collect();
        lanes.into_iter().map(|lane| lane.join().unwrap_or_default()).collect()
    });
    let mut lanes: Vec<_> = lanes.into_iter().map(Vec::into_iter).collect();
    for (index, (fault, [id, probe])) in cases.into_iter().enumerate() {
        let result = lanes[index % 2].next().unwrap_or_else(|| Err("the thread panicked".to_owned()));
        world.accepted.insert(id.clone(), CENTS);
        world.accepted.insert(probe.clone(), PROBE_CENTS);
        tally.case(&fault.name, result);
    }
    tally.case("all processes live", world.galo.check_alive());
}

const CENTS: u64 = 1_234;
const PROBE_CENTS: u64 = 100;

fn check(world: &World, way: &Way, fault: &Fault, [id, probe]: &[String; 2]) -> Result<(), String> {
    let before = outcomes(way)?;
    world.default.script(id, [fault.act.clone()]);
    pay(way, id, CENTS)?;
    let seen = processed_at(way, id)?;
    pay(way, probe, PROBE_CENTS)?;
    processed_at(way, probe)?;
    let mut ends = outcomes(way)?.since(&before);
    let mut posts = [world.default.posts(id), world.fallback.posts(id)];
    // A processor that ends a connection after its answer may meet a next request on it, which is then in doubt for a
    // moment, whether it was read or not: that attempt is another one, and no part of what is judged here.
    if fault.act.then != Then::Stay {
        let probe_posts = world.default.posts(probe).len() + world.fallback.posts(probe).len();
        let read = posts.concat().len() + probe_posts;
        let ended = usize::try_from(ends.count()).unwrap_or(usize::MAX);
        let Some(unread) = ended.checked_sub(read) else {
            return Err(format!("{ended} attempts ended, and {read} were read"));
        };
        // What was read and stored, and whose answer was lost, is a duplicate when it comes again.
        let mut read_again = probe_posts.saturating_sub(1);
        let mut met_the_end = unread + read_again;
        if let [_, second, third] = posts[0][..]
            && second == third
        {
            posts[0].pop();
            met_the_end += 1;
            read_again += usize::from(!fault.act.stores);
        }
        let took = |count: u64, away: usize| {
            count.checked_sub(away as u64).ok_or_else(|| format!("{away} attempts too many: {ends:?}"))
        };
        ends = Outcomes {
            unknown: took(ends.unknown, met_the_end)?,
            duplicate: took(ends.duplicate, read_again)?,
            processed: ends.processed + read_again as u64,
            ..ends
        };
    }
    let ended = match (ends.processed, ends.duplicate, ends.unavailable, ends.overloaded, ends.unknown) {
        (2, 0, 0, 0, 0) => Processed,
        // The second attempt at an honest processor says whether the first one was stored.
        (1, 1, 0, 0, 1) if fault.act.stores => Unknown,
        (2, 0, 0, 0, 1) if !fault.act.stores => Unknown,
        (1, 1, 0, 0, 0) if fault.act.stores => Duplicate,
        (2, 1, 0, 0, 0) if !fault.act.stores => Duplicate,
        (2, 0, 1, 0, 0) => Unavailable,
        (2, 0, 0, 1, 0) => Overloaded,
        _ => return Err(format!("the attempts ended as {ends:?}")),
    };
    if ends.others != 0 {
        return Err(format!("a verdict that is not the contest's: {ends:?}"));
    }
    if !fault.expected.contains(&ended) {
        return Err(format!("{ended:?} instead of {:?}", fault.expected));
    }
    check_posts(ended, fault.act.stores, &posts)?;
    if ended == Duplicate && !fault.act.stores && world.default.lookups(id) < 4 {
        return Err(format!("believed to be absent after {} look-ups", world.default.lookups(id)));
    }
    check_view(&seen, id, &world.default, &world.fallback)
}

fn check_posts(ended: Ended, stores: bool, posts: &[Vec<Payment>; 2]) -> Result<(), String> {
    let all: Vec<Payment> = posts.concat();
    let is_new_attempt = || match (&posts[0][..], &posts[1][..]) {
        ([first, second], []) | ([first], [second]) => first.requested_at_ms < second.requested_at_ms,
        _ => false,
    };
    let is_right = match (ended, &posts[0][..], &posts[1][..]) {
        (Processed, [_], []) => true,
        (Duplicate, [_], []) => stores,
        (Duplicate, ..) => !stores && is_new_attempt(),
        (Unknown, [first, second], []) => first == second,
        (Unavailable | Overloaded, ..) => is_new_attempt(),
        _ => false,
    };
    if !is_right || all.iter().any(|payment| payment.amount_cents != CENTS) {
        return Err(format!("ended as {ended:?}, and yet the processors were sent {posts:?}"));
    }
    Ok(())
}

/// What `GET /payments/{id}` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    pub(crate) state: String,
    pub(crate) processor: Option<String>,
    pub(crate) requested_at: Option<String>,
    pub(crate) in_doubt: bool,
}

/// Asks once.
pub(crate) fn view(way: &Way, id: &str) -> Result<View, String> {
    let answer = way.ask("GET", &format!("/payments/{id}"), "")?;
    serde_json::from_slice(&answer.body)
        .map_err(|error| format!("{error}: {} {}", answer.status, answer.text()))
}

pub(crate) fn pay(way: &Way, id: &str, cents: u64) -> Result<(), String> {
    let answer = way.ask("POST", "/payments", &payment_json(id, cents))?;
    if answer.status == 202 { Ok(()) } else { Err(format!("answered {} {}", answer.status, answer.text())) }
}

/// Waits until the ledger has it as processed.
pub(crate) fn processed_at(way: &Way, id: &str) -> Result<View, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = view(way, id)?;
        if seen.state == "processed" {
            return Ok(seen);
        }
        if Instant::now() > deadline {
            return Err(format!("still {seen:?} after {PATIENCE:?}"));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The ledger must say what the one book says that has it.
pub(crate) fn check_view(
    seen: &View,
    id: &str,
    default: &Processor,
    fallback: &Processor,
) -> Result<(), String> {
    let (name, payment) = match (default.stored(id), fallback.stored(id)) {
        (Some(payment), None) => ("default", payment),
        (None, Some(payment)) => ("fallback", payment),
        both => return Err(format!("the books say {both:?}")),
    };
    let at =
        seen.requested_at.as_ref().and_then(|text| text.parse().ok()).map(jiff::Timestamp::as_millisecond);
    if seen.processor.as_deref() != Some(name) || at != Some(payment.requested_at_ms) {
        return Err(format!("the ledger says {seen:?}, the book of {name} {payment:?}"));
    }
    Ok(())
}

/// Keep-alive connections that end when nobody expects it, with a payment right behind.
fn connections(world: &mut World, tally: &mut Tally) {
    let way = world.galo.straight(0);
    for (name, then) in [("closed", Then::Close), ("reset", Then::Reset)] {
        for pause_us in [0, 50, 100, 200, 400, 800, 1_600, 3_200] {
            let result = (|| {
                for _ in 0..10 {
                    let ids = [world.galo.fresh_id(), world.galo.fresh_id()];
                    world.default.script(&ids[0], [Act::new(true, processed(), then)]);
                    for id in &ids {
                        world.pay(&way, id, CENTS)?;
                        // The pause is the case itself: how long after the answer the next request comes.
                        thread::sleep(Duration::from_micros(pause_us));
                    }
                    for id in &ids {
                        let seen = processed_at(&way, id)?;
                        check_view(&seen, id, &world.default, &world.fallback)?;
                    }
                }
                Ok(())
            })();
            tally.case(&format!("{name} after an answer, next payment {pause_us} µs later"), result);
        }
    }
    let ids: Vec<String> = (0..50).map(|_| world.galo.fresh_id()).collect();
    let result = (|| {
        for id in &ids {
            // Each answer carries another one behind it: taken for the next request's, it would lose a payment.
            let poison = [processed(), processed()].concat();
            world.default.script(id, [Act::new(true, poison, Then::Stay)]);
            world.pay(&way, id, CENTS)?;
            let seen = processed_at(&way, id)?;
            check_view(&seen, id, &world.default, &world.fallback)?;
        }
        Ok(())
    })();
    tally.case("an answer that nobody asked for is nobody's", result);
}

/// So many look-ups without a word that can be understood, before the processor speaks plainly.
const SPEECHLESS: usize = 5;

/// A 422 makes the gateway ask what is stored. Until it is told, nothing is booked and nothing is sent; then the payment is
/// processed where it was. "Not found" is a word, and so is another amount.
fn lookups(world: &mut World, tally: &mut Tally) {
    let way = world.galo.straight(1);
    let at = "2025-07-15T12:34:56.789Z";
    let other =
        stored_json("4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3", Payment { amount_cents: 1, requested_at_ms: 0 });
    let body = |text: String| plain(200, "OK", &text);
    let cases: Vec<(&str, Vec<u8>, Then)> = vec![
        ("500", plain(500, "X", ""), Then::Stay),
        ("429", plain(429, "X", ""), Then::Stay),
        ("302", plain(302, "X", ""), Then::Stay),
        ("422", known_already(), Then::Stay),
        ("nothing, the end", Vec::new(), Then::Close),
        ("nothing, a reset", Vec::new(), Then::Reset),
        ("garbage", b"\0\0\0\r\n\r\n".to_vec(), Then::Close),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(), Then::Close),
        (
            "half a body",
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"correlationId\"".to_vec(),
            Then::Close,
        ),
        ("an empty body", body(String::new()), Then::Stay),
        ("no JSON", body("payment".into()), Then::Stay),
        ("an array", body("[]".into()), Then::Stay),
        ("an empty object", body("{}".into()), Then::Stay),
        ("another payment", body(other), Then::Stay),
        ("no timestamp", body(r#"{"correlationId":"{I}","amount":12.34}"#.into()), Then::Stay),
        (
            "a timestamp that is none",
            body(r#"{"correlationId":"{I}","amount":12.34,"requestedAt":"soon"}"#.into()),
            Then::Stay,
        ),
        (
            "a timestamp that is a number",
            body(r#"{"correlationId":"{I}","amount":12.34,"requestedAt":1752582896789}"#.into()),
            Then::Stay,
        ),
        ("deep JSON", body("[".repeat(10_000)), Then::Stay),
        ("a body of 1 MB", body("x".repeat(1 << 20)), Then::Stay),
        (
            "a head of 1 MB",
            format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(1 << 20)).into_bytes(),
            Then::Close,
        ),
        (
            "an id in capitals and braces",
            body(format!(r#"{{"correlationId":"{{{{I}}}}","amount":12.34,"requestedAt":"{at}"}}"#)),
            Then::Stay,
        ),
    ];
    for (name, bytes, then) in cases {
        let result = (|| {
            let id = world.galo.fresh_id();
            let text = String::from_utf8_lossy(&bytes).replace("{I}", &id).into_bytes();
            let text = if bytes.contains(&b'{') { with_length(&text) } else { text };
            world.default.script(&id, [Act::new(true, known_already(), Then::Stay)]);
            world.default.script_lookups(&id, Act::new(false, text, then), usize::MAX);
            world.pay(&way, &id, CENTS)?;
            until_looked_up(world, &id, SPEECHLESS)?;
            let seen = view(&way, &id)?;
            if seen.state != "open" {
                return Err(format!("nobody said what is stored, and it is {seen:?}"));
            }
            world.default.heal_lookups(&id);
            check_sent_once(world, &way, &id)
        })();
        tally.case(name, result);
    }
    tally.case("404 three times, as of an index that lags", lagging(world, &way));
    tally.case("404 four times", not_found(world, &way));
    tally.case("another amount, which is then set right", contradicted(world, &way));
}

fn until_looked_up(world: &mut World, id: &str, count: usize) -> Result<(), String> {
    let default = &world.default;
    world.galo.until("it is looked up", || Ok((default.lookups(id) >= count).then_some(())))
}

/// Processed where it was, and not sent again.
fn check_sent_once(world: &mut World, way: &Way, id: &str) -> Result<(), String> {
    let seen = processed_at(way, id)?;
    if world.default.posts(id).len() != 1 || !world.fallback.posts(id).is_empty() {
        return Err(format!("sent again: {:?}", world.default.posts(id)));
    }
    check_view(&seen, id, &world.default, &world.fallback)?;
    world.check_well(way)
}

fn lagging(world: &mut World, way: &Way) -> Result<(), String> {
    let id = world.galo.fresh_id();
    world.default.script(&id, [Act::new(true, known_already(), Then::Stay)]);
    world.default.script_lookups(&id, Act::new(false, plain(404, "Not Found", ""), Then::Stay), 3);
    world.pay(way, &id, CENTS)?;
    check_sent_once(world, way, &id)?;
    let lookups = world.default.lookups(&id);
    if lookups == 4 { Ok(()) } else { Err(format!("looked up {lookups} times")) }
}

/// It has this id, and four times it has not: that is a refusal, and the payment is sent as a new attempt.
fn not_found(world: &mut World, way: &Way) -> Result<(), String> {
    let id = world.galo.fresh_id();
    world.default.script(&id, [Act::new(false, known_already(), Then::Stay)]);
    world.pay(way, &id, CENTS)?;
    let seen = processed_at(way, &id)?;
    check_posts(Duplicate, false, &[world.default.posts(&id), world.fallback.posts(&id)])?;
    let lookups = world.default.lookups(&id);
    if lookups != 4 {
        return Err(format!("looked up {lookups} times"));
    }
    check_view(&seen, &id, &world.default, &world.fallback)?;
    world.check_well(way)
}

/// Neither amount is booked, and everybody hears of it once; what the processor corrects is processed.
fn contradicted(world: &mut World, way: &Way) -> Result<(), String> {
    let counts = |world: &World| -> Result<[u64; 2], String> {
        let gateway = metrics(way)?;
        let aggregator = metrics(&world.galo.aggregator())?;
        Ok([
            sum(&gateway, "galo_gateway_contradictions_total{processor=\"default\"}"),
            sum(&aggregator, "galo_contradictions_total"),
        ])
    };
    let before = counts(world)?;
    let id = world.galo.fresh_id();
    let other = stored_json(&id, Payment { amount_cents: CENTS + 1, requested_at_ms: 0 });
    world.default.script(&id, [Act::new(true, known_already(), Then::Stay)]);
    world.default.script_lookups(&id, Act::new(false, plain(200, "OK", &other), Then::Stay), usize::MAX);
    world.pay(way, &id, CENTS)?;
    until_looked_up(world, &id, SPEECHLESS)?;
    let seen = view(way, &id)?;
    if seen.state != "open" || !seen.in_doubt {
        return Err(format!("it has another amount there, and is {seen:?}"));
    }
    let after = counts(world)?;
    if after != before.map(|count| count + 1) {
        return Err(format!("contradictions counted at gateway and aggregator {after:?} after {before:?}"));
    }
    world.default.heal_lookups(&id);
    check_sent_once(world, way, &id)
}

/// The same answer with the length that its body has now.
fn with_length(answer: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(answer);
    match text.split_once("\r\n\r\n") {
        Some((head, body))
            if head.starts_with("HTTP/1.1 200 OK\r\nContent-Length: ") && !head.ends_with(" 100") =>
        {
            plain(200, "OK", body)
        }
        _ => answer.to_vec(),
    }
}

/// Health checks every 100 ms that answer anything but health: payments go on.
fn health(programs: &Programs, tally: &mut Tally) -> Result<(), String> {
    let often = ("HEALTH_INTERVAL_MS", "100".to_owned());
    let plan = Plan { name: "health", environment: vec![often], ..Plan::default() };
    let mut world = World::start(programs, &plan)?;
    let way = world.galo.straight(0);
    let body = |text: &str| plain(200, "OK", text);
    for (name, bytes, then) in [
        ("404", plain(404, "Not Found", ""), Then::Stay),
        ("429", plain(429, "Too Many Requests", ""), Then::Stay),
        ("500", plain(500, "X", ""), Then::Stay),
        ("nothing, the end", Vec::new(), Then::Close),
        ("nothing, a reset", Vec::new(), Then::Reset),
        ("garbage", b"\xff\xfe\0".to_vec(), Then::Close),
        ("no JSON", body("fine"), Then::Stay),
        ("words for truth", body(r#"{"failing":"no","minResponseTime":"0"}"#), Then::Stay),
        ("a negative time", body(r#"{"failing":false,"minResponseTime":-1}"#), Then::Stay),
        ("a fraction", body(r#"{"failing":false,"minResponseTime":0.5}"#), Then::Stay),
        ("a time of 2^64", body(r#"{"failing":false,"minResponseTime":18446744073709551616}"#), Then::Stay),
        (
            "a time of 2^64 - 1",
            body(r#"{"failing":false,"minResponseTime":18446744073709551615}"#),
            Then::Stay,
        ),
        ("failing, though it works", body(r#"{"failing":true,"minResponseTime":0}"#), Then::Stay),
        ("failing twice", body(r#"{"failing":true,"failing":false,"minResponseTime":0}"#), Then::Stay),
        ("a megabyte", body(&"x".repeat(1 << 20)), Then::Stay),
        ("deep JSON", body(&"[".repeat(10_000)), Then::Stay),
    ] {
        for processor in [&world.default, &world.fallback] {
            processor.script_health(Some(Act::new(false, bytes.clone(), then)));
        }
        let count =
            |world: &World| [&world.default, &world.fallback].map(|processor| processor.books().health_count);
        let before = count(&world);
        let result = (|| {
            let asked = |now: [u64; 2]| now[0] > before[0] + 1 && now[1] > before[1] + 1;
            let (default, fallback) = (&world.default, &world.fallback);
            world.galo.until("two health checks each", || {
                Ok(asked([default, fallback].map(|processor| processor.books().health_count)).then_some(()))
            })?;
            let id = world.galo.fresh_id();
            world.pay(&way, &id, CENTS)?;
            let seen = processed_at(&way, &id)?;
            check_view(&seen, &id, &world.default, &world.fallback)
        })();
        tally.case(name, result);
    }
    world.reconcile(tally);
    world.stop(tally);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_end_where_the_final_answer_s_does() {
        assert_eq!(head_size(b"HTTP/1.1 200 OK\r\n\r\nbody\r\n\r\n"), 19);
        let both = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(head_size(both), both.len());
    }

    #[test]
    fn a_crossing_in_doubt_and_a_changed_instant_are_seen() {
        let at = |requested_at_ms| Payment { amount_cents: CENTS, requested_at_ms };
        for stores in [false, true] {
            let check = |ended, posts| check_posts(ended, stores, &posts).is_ok();
            assert!(check(Unknown, [vec![at(1), at(1)], vec![]]));
            assert!(!check(Unknown, [vec![at(1)], vec![at(1)]]));
            assert!(!check(Unknown, [vec![at(1), at(2)], vec![]]));
            for refused in [Unavailable, Overloaded] {
                assert!(check(refused, [vec![at(1)], vec![at(2)]]));
                assert!(!check(refused, [vec![at(2)], vec![at(1)]]));
                assert!(
                    !check(refused, [vec![at(1)], vec![at(1)]]),
                    "a new attempt has an instant of its own"
                );
            }
            assert!(!check(Processed, [vec![at(1), at(1)], vec![]]));
            assert!(!check(Processed, [vec![], vec![at(1)]]));
            assert_eq!(check(Duplicate, [vec![at(1)], vec![]]), stores, "it is there, and not sent again");
            assert_eq!(check(Duplicate, [vec![at(1), at(2)], vec![]]), !stores);
            assert_eq!(check(Duplicate, [vec![at(1)], vec![at(2)]]), !stores);
            assert!(!check(Duplicate, [vec![at(1), at(1)], vec![]]));
        }
    }

    #[test]
    fn there_are_enough_faults() {
        assert!(statuses().len() + shapes().len() + cuts().len() + garbled().len() > 1_000);
    }
}
