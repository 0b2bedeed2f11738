//! Processors that answer wrongly: every class of answer, whole, in pieces, garbled, and cut at every byte.
//!
//! A case scripts what the default processor does with the first attempt of one payment; afterwards it is honest. The
//! gateway's own counters must say how that attempt ended (processed, refused or unknown, by a table that stands here, not the
//! engine's), and the books must agree with what that means:
//!
//! | ended | then |
//! | --- | --- |
//! | processed | no second attempt |
//! | unknown | a second one, at the same processor, with the same amount and `requestedAt`; none at the other |
//! | refused | a second one, wherever it goes, as a new attempt |
//!
//! In each, the payment stands in one book once, the ledger says so to the millisecond, and the next payment is served.
//! Two threads share the cases, each with a gateway of its own, so that its counters are nobody else's doing.

use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::client::{PATIENCE, Way};
use crate::galo::{Plan, Programs, outcomes};
use crate::processor::{Act, Payment, Processor, Then, known_already, plain, processed, stored_json};
use crate::tally::Tally;
use crate::world::{World, payment_json};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Processed,
    Refused,
    Unknown,
}

use Ended::{Processed, Refused, Unknown};

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
        200..=299 | 422 => Processed,
        400..=500 => Refused,
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
            Refused => &[false],
            Unknown => &[true, false],
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
        ("a 422 in pieces of 100 bytes", Act::new(true, known_already(), Then::Stay).in_pieces(100, ms(1)), Processed),
        ("500, a byte at a time", Act::new(false, plain(500, "X", ""), Then::Stay).in_pieces(1, ms(1)), Refused),
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
        ("102, 103, then 500", Act::new(false, "HTTP/1.1 102 X\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", Then::Stay), Refused),
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
        ("500, then 200", Act::new(false, [plain(500, "X", ""), processed()].concat(), Then::Stay), Refused),
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
            b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nContent-Length: 4\r\n\r\nbusy".to_vec(),
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
                    Refused => false,
                    Processed | Unknown => offset % 2 == 0,
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
    let after = outcomes(way)?;
    let mut posts = [world.default.posts(id), world.fallback.posts(id)];
    let (processed, refused) = (after.processed - before.processed, after.refused - before.refused);
    let mut unknown = after.unknown - before.unknown;
    // A processor that ends a connection after its answer may meet a next request on it, which is then in doubt for a
    // moment, whether it was read or not: that attempt is another one, and no part of what is judged here.
    if fault.act.then != Then::Stay {
        let probe_posts = world.default.posts(probe).len() + world.fallback.posts(probe).len();
        let read = posts.concat().len() + probe_posts;
        let ended = usize::try_from(processed + refused + unknown).unwrap_or(usize::MAX);
        let Some(unread) = ended.checked_sub(read) else {
            return Err(format!("{ended} attempts ended, and {read} were read"));
        };
        let mut met_the_end = unread + probe_posts.saturating_sub(1);
        if let [_, second, third] = posts[0][..]
            && second == third
        {
            posts[0].pop();
            met_the_end += 1;
        }
        unknown = unknown.checked_sub(met_the_end as u64).ok_or("more attempts than ended as unknown")?;
    }
    let ended = match (processed, refused, unknown) {
        (2, 0, 0) => Processed,
        (2, 1, 0) => Refused,
        (2, 0, 1) => Unknown,
        counts => return Err(format!("the attempts ended as (processed, refused, unknown) {counts:?}")),
    };
    if !fault.expected.contains(&ended) {
        return Err(format!("{ended:?} instead of {:?}", fault.expected));
    }
    check_posts(ended, &posts)?;
    check_view(&seen, id, &world.default, &world.fallback)
}

fn check_posts(ended: Ended, posts: &[Vec<Payment>; 2]) -> Result<(), String> {
    let all: Vec<Payment> = posts.concat();
    let is_right = match (ended, &posts[0][..], &posts[1][..]) {
        (Processed, [_], []) => true,
        (Unknown, [first, second], []) => first == second,
        (Refused, [first, second], []) | (Refused, [first], [second]) => {
            first.requested_at_ms <= second.requested_at_ms
        }
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

/// A 422 makes the gateway ask what is stored; whatever comes of that, the payment is processed and where it was.
fn lookups(world: &mut World, tally: &mut Tally) {
    let way = world.galo.straight(1);
    let at = "2025-07-15T12:34:56.789Z";
    let other =
        stored_json("4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3", Payment { amount_cents: 1, requested_at_ms: 0 });
    let body = |text: String| plain(200, "OK", &text);
    let cases: Vec<(&str, Vec<u8>, Then)> = vec![
        ("404", plain(404, "Not Found", ""), Then::Stay),
        ("500", plain(500, "X", ""), Then::Stay),
        ("429", plain(429, "X", ""), Then::Stay),
        ("302", plain(302, "X", ""), Then::Stay),
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
            world.default.script_lookups(&id, Act::new(false, text, then));
            world.pay(&way, &id, CENTS)?;
            let seen = processed_at(&way, &id)?;
            if world.default.posts(&id).len() != 1 || !world.fallback.posts(&id).is_empty() {
                return Err(format!("sent again: {:?}", world.default.posts(&id)));
            }
            check_view(&seen, &id, &world.default, &world.fallback)?;
            world.check_well(&way)
        })();
        tally.case(name, result);
    }
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
        assert!(check_posts(Unknown, &[vec![at(1), at(1)], vec![]]).is_ok());
        assert!(check_posts(Unknown, &[vec![at(1)], vec![at(1)]]).is_err());
        assert!(check_posts(Unknown, &[vec![at(1), at(2)], vec![]]).is_err());
        assert!(check_posts(Refused, &[vec![at(1)], vec![at(2)]]).is_ok());
        assert!(check_posts(Refused, &[vec![at(2)], vec![at(1)]]).is_err());
        assert!(check_posts(Processed, &[vec![at(1), at(1)], vec![]]).is_err());
        assert!(check_posts(Processed, &[vec![], vec![at(1)]]).is_err());
    }

    #[test]
    fn there_are_enough_faults() {
        assert!(statuses().len() + shapes().len() + cuts().len() + garbled().len() > 1_000);
    }
}
