//! Requests that are too long, too slow, cut short or without an end; and every legal manner that a client may have.

use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Answer, Connection, End, PATIENCE, Way, request, show};
use crate::tally::Tally;
use crate::world::{World, payment_json};

/// A gateway's deadline for a request is 5 s, HAProxy's is half a second. Twice that is a hang.
const DEADLINES: [Duration; 2] = [Duration::from_secs(5), Duration::from_millis(500)];

const HEAD: &str = "POST /payments HTTP/1.1\r\nHost: galo\r\n";

/// Runs both groups, both ways.
pub(crate) fn run(world: &mut World, tally: &mut Tally) {
    for way in world.galo.ways() {
        if tally.begin(&format!("bounds, {}", way.name())) {
            for (name, bytes, straight, front) in too_long() {
                let statuses = if way.is_front() { front } else { straight };
                let result = refused(&way, &bytes, statuses).and_then(|()| world.check_well(&way));
                tally.case(&name, result);
            }
            cut_short(world, &way, tally);
            unfinished(world, &way, tally);
            world.reconcile(tally);
        }
        if tally.begin(&format!("manners, {}", way.name())) {
            for (name, manner) in MANNERS {
                let result = manner(world, &way).and_then(|()| world.check_well(&way));
                tally.case(name, result);
            }
            world.reconcile(tally);
        }
    }
}

type Statuses = &'static [u16];

/// Name, bytes, what a gateway may answer, what HAProxy may.
fn too_long() -> Vec<(String, Vec<u8>, Statuses, Statuses)> {
    let get = "GET /health HTTP/1.1\r\nHost: galo\r\n";
    let mut cases: Vec<(String, String, Statuses, Statuses)> = vec![
        (
            "a target of 5 KB".into(),
            format!("GET /{} HTTP/1.1\r\nHost: galo\r\n\r\n", "a".repeat(5_000)),
            &[414],
            &[414],
        ),
        (
            "a target of 300 KB".into(),
            format!("GET /{} HTTP/1.1\r\nHost: galo\r\n\r\n", "a".repeat(300_000)),
            &[414],
            &[400],
        ),
        ("a target without an end".into(), "GET /".to_owned() + &"a".repeat(1 << 20), &[414], &[400]),
        (
            "a method of 40 bytes".into(),
            format!("{} /health HTTP/1.1\r\nHost: galo\r\n\r\n", "M".repeat(40)),
            &[400],
            &[400],
        ),
        ("a method without an end".into(), "M".repeat(1 << 20), &[414], &[400]),
        (
            "a header's name of 300 bytes".into(),
            format!("{get}{}: b\r\n\r\n", "a".repeat(300)),
            &[431],
            &[400],
        ),
        (
            "a header's name of 70 KB".into(),
            format!("{get}{}: b\r\n\r\n", "a".repeat(70_000)),
            &[431],
            &[400],
        ),
        ("a header's value of 9 KB".into(), format!("{get}a: {}\r\n\r\n", "b".repeat(9_000)), &[431], &[431]),
        (
            "a header's value without an end".into(),
            format!("{get}a: {}", "b".repeat(1 << 20)),
            &[431],
            &[400],
        ),
        ("64 headers".into(), format!("{get}{}\r\n", "a: b\r\n".repeat(63)), &[200], &[200]),
        ("65 headers".into(), format!("{get}{}\r\n", "a: b\r\n".repeat(64)), &[431], &[431]),
        ("200 headers".into(), format!("{get}{}\r\n", "a: b\r\n".repeat(200)), &[431], &[400]),
        ("headers without an end".into(), get.to_owned() + &"a: b\r\n".repeat(100_000), &[431], &[400]),
        ("empty lines without an end".into(), "\r\n".repeat(100_000), &[400], &[400]),
        (
            "chunks of one byte without an end".into(),
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{}", "1\r\na\r\n".repeat(100_000)),
            &[413],
            &[413],
        ),
        // HAProxy takes such bytes out of its buffer as they come: whether they fill it or never end is a matter of pieces.
        (
            "zeros of a chunk's size without an end".into(),
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{}", "0".repeat(200_000)),
            &[413],
            &[400, 408, 413],
        ),
        (
            "a chunk's extension without an end".into(),
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n1;{}", "x".repeat(200_000)),
            &[400],
            &[400, 408, 413],
        ),
        (
            "trailers without an end".into(),
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n{}", "a: b\r\n".repeat(50_000)),
            &[400],
            &[400, 408, 413],
        ),
    ];
    for (length, straight, front) in [
        (8_193, &[400][..], &[413][..]),
        (16_385, &[413], &[413]),
        (1_000_000, &[413], &[413]),
        (4_294_967_296_u64, &[413], &[413]),
        (9_223_372_036_854_775_807, &[413], &[413]),
    ] {
        let body = "x".repeat(usize::try_from(length).map_or(20_000, |length| length.min(20_000)));
        cases.push((
            format!("a body of {length} bytes"),
            format!("{HEAD}Content-Length: {length}\r\n\r\n{body}"),
            straight,
            front,
        ));
    }
    cases
        .into_iter()
        .map(|(name, text, straight, front)| (name, text.into_bytes(), straight, front))
        .collect()
}

/// One refusal and the end. A client that goes on sending beyond what is tolerated may be cut off before it reads.
fn refused(way: &Way, bytes: &[u8], statuses: &[u16]) -> Result<(), String> {
    let mut connection = Connection::open(way)?;
    let was_taken = connection.send(bytes);
    connection.finish_sending();
    match connection.answer_or_end()? {
        Some(answer) if statuses.contains(&answer.status) => {}
        Some(answer) => return Err(format!("{} instead of {statuses:?}: {}", answer.status, answer.text())),
        None if !was_taken || bytes.len() > 100_000 => return Ok(()),
        None => return Err(format!("the end instead of {statuses:?}")),
    }
    match connection.end(PATIENCE)? {
        End::Open => Err(format!("a refusal and then {:?}", connection.unread())),
        End::Closed | End::Reset => Ok(()),
    }
}

/// A payment cut at every byte: never served, whether the client waits for an answer or vanishes.
fn cut_short(world: &mut World, way: &Way, tally: &mut Tally) {
    let id = world.galo.fresh_id();
    let whole = request("POST", "/payments", &payment_json(&id, 777));
    let chunked = format!(
        "{HEAD}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        payment_json(&id, 777).len(),
        payment_json(&id, 777)
    );
    for (name, whole) in [("a payment", whole), ("a chunked payment", chunked)] {
        for size in 0..whole.len() {
            let result = (|| {
                let mut connection = Connection::open(way)?;
                connection.send(&whole.as_bytes()[..size]);
                if size % 3 == 2 {
                    // Gone without a word.
                    return Ok(());
                }
                connection.finish_sending();
                match connection.answer_or_end()? {
                    Some(answer) if answer.status == 400 => Ok(()),
                    Some(answer) => Err(format!("{} to {}", answer.status, show(&whole.as_bytes()[..size]))),
                    // Before the first byte there is nothing to refuse, and HAProxy says nothing to a client that left early.
                    None if size == 0 || way.is_front() => Ok(()),
                    None => Err("the end instead of 400".to_owned()),
                }
            })();
            tally.case(&format!("{name} cut after {size} bytes"), result);
        }
    }
    let looked_up = world.galo.straight(0).ask("GET", &format!("/payments/{id}"), "");
    let result = match looked_up {
        Ok(answer) if answer.status == 404 => world.check_well(way),
        Ok(answer) => Err(answer.text()),
        Err(error) => Err(error),
    };
    tally.case("none of the pieces was a payment", result);
}

/// Requests that stop half-way and stay: 408 once their time is over, all at the same time.
fn unfinished(world: &mut World, way: &Way, tally: &mut Tally) {
    let body = format!("{HEAD}Content-Length: 50\r\n\r\n{{");
    let chunk = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nhel");
    let chunks = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let stalls = [
        ("a stalled method", "PO".to_owned()),
        ("a stalled target", "POST /pay".to_owned()),
        ("a stalled header", "POST /payments HTTP/1.1\r\nHo".to_owned()),
        ("a stalled empty line", format!("{HEAD}\r")),
        ("a stalled body", body),
        ("a stalled chunk", chunk),
        ("a stalled last chunk", chunks),
        ("a body that was never begun", format!("{HEAD}Content-Length: 50\r\nExpect: 100-continue\r\n\r\n")),
    ];
    let limit = DEADLINES[usize::from(way.is_front())];
    let results: Vec<(&str, Result<(), String>)> = thread::scope(|scope| {
        let stalled =
            stalls.map(|(name, bytes)| (name, scope.spawn(move || stall(way, bytes.as_bytes(), limit))));
        let dripped = scope.spawn(move || drip(way, limit));
        let mut results: Vec<(&str, _)> = stalled
            .into_iter()
            .map(|(name, thread)| (name, thread.join().unwrap_or_else(|_| Err("it panicked".to_owned()))))
            .collect();
        results.push((
            "a byte at a time, too slowly",
            dripped.join().unwrap_or_else(|_| Err("it panicked".to_owned())),
        ));
        results
    });
    for (name, result) in results {
        tally.case(name, result.and_then(|()| world.check_well(way)));
    }
}

fn stall(way: &Way, bytes: &[u8], limit: Duration) -> Result<(), String> {
    let mut connection = Connection::open(way)?;
    let started = Instant::now();
    connection.send(bytes);
    timed_out(&mut connection, started, limit)
}

fn drip(way: &Way, limit: Duration) -> Result<(), String> {
    let mut connection = Connection::open(way)?;
    let started = Instant::now();
    for byte in HEAD.as_bytes().iter().cycle() {
        if started.elapsed() > limit * 2 || !connection.send(&[*byte]) {
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    timed_out(&mut connection, started, limit)
}

fn timed_out(connection: &mut Connection, started: Instant, limit: Duration) -> Result<(), String> {
    let answer = loop {
        let answer = connection.answer(false)?;
        if answer.status != 100 {
            break answer;
        }
    };
    let took = started.elapsed();
    if answer.status != 408 {
        return Err(format!("{} instead of 408: {}", answer.status, answer.text()));
    }
    // Early would cut off an honest client; late is what a busy machine does, so only a hang counts (by PATIENCE).
    if took < limit / 2 {
        return Err(format!("given up after {took:.1?} already"));
    }
    match connection.end(PATIENCE)? {
        End::Open => Err(format!("408 and then {:?}", connection.unread())),
        End::Closed | End::Reset => Ok(()),
    }
}

type Manner = fn(&mut World, &Way) -> Result<(), String>;

/// What a client may do, and must get.
const MANNERS: [(&str, Manner); 17] = [
    ("twenty requests in one write are answered in order", pipelining),
    ("a pipelined request behind a bad one is not served", pipelining_behind_nonsense),
    ("a pipelined request behind Connection: close is not served", pipelining_behind_close),
    ("HTTP/1.0 closes", |_, way| http_10(way, "", End::Closed)),
    ("HTTP/1.0 with keep-alive stays", |_, way| http_10(way, "Connection: keep-alive\r\n", End::Open)),
    ("HTTP/1.0 without Host", |_, way| statuses(way, "GET /health HTTP/1.0\r\n\r\n", &[200])),
    ("HEAD is GET without the body", head),
    ("OPTIONS lists the methods", options),
    ("a method that the path has not is 405 with Allow", wrong_methods),
    ("nothing is purged where that is not allowed", purge),
    ("Expect: 100-continue gets its 100", expect_continue),
    ("Expect: 100-continue with the body at once", expect_continue_impatient),
    ("an Expect that nobody knows is 417", |_, way| {
        statuses(
            way,
            "POST /payments HTTP/1.1\r\nHost: galo\r\nExpect: 200-ok\r\nContent-Length: 0\r\n\r\n",
            &[417],
        )
    }),
    ("one byte at a time is as good as all at once", byte_by_byte),
    ("every legal spelling of the framing", spellings),
    ("paths are compared byte by byte", paths),
    ("an absolute target is a path", |_, way| {
        statuses(way, "GET http://elsewhere/health HTTP/1.1\r\nHost: elsewhere\r\n\r\n", &[200])
    }),
];

/// Sends text, reads an answer for each status, and no more.
fn statuses(way: &Way, text: &str, expected: &[u16]) -> Result<(), String> {
    let mut connection = Connection::open(way)?;
    connection.send(text.as_bytes());
    for status in expected {
        let answer = connection.answer(false)?;
        if answer.status != *status {
            return Err(format!("{} instead of {status}: {}", answer.status, answer.text()));
        }
    }
    connection.finish_sending();
    match connection.end(PATIENCE)? {
        End::Open => Err(format!("and then {:?}", connection.unread())),
        End::Closed | End::Reset => Ok(()),
    }
}

fn pipelining(world: &mut World, way: &Way) -> Result<(), String> {
    let mut text = String::new();
    let mut expected = Vec::new();
    for number in 0..10 {
        let id = world.galo.fresh_id();
        text += &request("POST", "/payments", &payment_json(&id, 500 + number));
        text += &request("GET", &format!("/payments/{id}"), "");
        world.accepted.insert(id.clone(), 500 + number);
        expected.push(id);
    }
    let mut connection = Connection::open(way)?;
    connection.send(text.as_bytes());
    for id in expected {
        let posted = connection.answer(false)?;
        let found = connection.answer(false)?;
        if (posted.status, found.status) != (202, 200) || !found.text().contains(&id) {
            return Err(format!(
                "{} and {} {} instead of 202 and {id}",
                posted.status,
                found.status,
                found.text()
            ));
        }
    }
    connection.finish_sending();
    match connection.end(PATIENCE)? {
        End::Open => Err(format!("and then {:?}", connection.unread())),
        End::Closed | End::Reset => Ok(()),
    }
}

fn pipelining_behind_nonsense(world: &mut World, way: &Way) -> Result<(), String> {
    let id = world.galo.fresh_id();
    let behind = request("POST", "/payments", &payment_json(&id, 666));
    let text =
        request("GET", "/health", "") + "GET /health HTTP/1.1\r\nHost: galo\r\nbad header\r\n\r\n" + &behind;
    statuses(way, &text, &[200, 400])?;
    unknown(world, &id)
}

fn pipelining_behind_close(world: &mut World, way: &Way) -> Result<(), String> {
    let id = world.galo.fresh_id();
    let behind = request("POST", "/payments", &payment_json(&id, 666));
    statuses(
        way,
        &format!("GET /health HTTP/1.1\r\nHost: galo\r\nConnection: close\r\n\r\n{behind}"),
        &[200],
    )?;
    unknown(world, &id)
}

fn unknown(world: &World, id: &str) -> Result<(), String> {
    let answer = world.galo.straight(0).ask("GET", &format!("/payments/{id}"), "")?;
    if answer.status == 404 { Ok(()) } else { Err(format!("it was served: {}", answer.text())) }
}

fn http_10(way: &Way, header: &str, end: End) -> Result<(), String> {
    let mut connection = Connection::open(way)?;
    for _ in 0..2 {
        connection.send(format!("GET /health HTTP/1.0\r\nHost: galo\r\n{header}\r\n").as_bytes());
        let answer = connection.answer(false)?;
        if answer.status != 200 {
            return Err(format!("{}: {}", answer.status, answer.text()));
        }
        if end == End::Closed {
            return match connection.end(PATIENCE)? {
                End::Closed => Ok(()),
                other => Err(format!("{other:?}")),
            };
        }
    }
    Ok(())
}

fn head(_: &mut World, way: &Way) -> Result<(), String> {
    let mut connection = Connection::open(way)?;
    for path in ["/health", "/ready", "/payments-summary", "/nowhere"] {
        let get = connection.request("GET", path, "")?;
        let head = connection.request("HEAD", path, "")?;
        let length = |answer: &Answer| answer.header("content-length").map(str::to_owned);
        if head.status != get.status || length(&head) != length(&get) {
            return Err(format!(
                "{path}: {} {:?}, GET {} {:?}",
                head.status,
                length(&head),
                get.status,
                length(&get)
            ));
        }
    }
    Ok(())
}

fn options(_: &mut World, way: &Way) -> Result<(), String> {
    for (path, allow) in [
        ("/payments", "POST, OPTIONS"),
        ("/purge-payments", "POST, OPTIONS"),
        ("/payments-summary?from=x", "GET, HEAD, OPTIONS"),
        ("/payments/x", "GET, HEAD, DELETE, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
    ] {
        let answer = way.ask("OPTIONS", path, "")?;
        if answer.status != 204 || answer.header("allow") != Some(allow) {
            return Err(format!("{path}: {} {:?}", answer.status, answer.header("allow")));
        }
    }
    Ok(())
}

fn wrong_methods(_: &mut World, way: &Way) -> Result<(), String> {
    for (method, path, allow) in [
        ("GET", "/payments", "POST, OPTIONS"),
        ("PUT", "/payments", "POST, OPTIONS"),
        ("PATCH", "/payments", "POST, OPTIONS"),
        ("DELETE", "/payments", "POST, OPTIONS"),
        ("TRACE", "/payments", "POST, OPTIONS"),
        ("post", "/payments", "POST, OPTIONS"),
        ("POST", "/payments-summary", "GET, HEAD, OPTIONS"),
        ("PUT", "/payments/x", "GET, HEAD, DELETE, OPTIONS"),
        ("GET", "/purge-payments", "POST, OPTIONS"),
    ] {
        let answer = way.ask(method, path, "")?;
        let field = answer
            .problem(405, "method-not-allowed", true)
            .map_err(|error| format!("{method} {path}: {error}"))?;
        if answer.header("allow") != Some(allow) || field.is_some() {
            return Err(format!("{method} {path}: {:?}", answer.header("allow")));
        }
    }
    Ok(())
}

/// Purging is off unless the configuration says otherwise, and here it says nothing.
fn purge(world: &mut World, way: &Way) -> Result<(), String> {
    let id = world.galo.fresh_id();
    world.pay(way, &id, 1_233)?;
    for body in ["", "{}"] {
        let field = way.ask("POST", "/purge-payments", body)?.problem(403, "purge-not-allowed", true)?;
        if field.is_some() {
            return Err(format!("no field is to blame, and yet {field:?} is"));
        }
    }
    // The summary is compared with the processors' books when the group ends.
    let answer = way.ask("GET", &format!("/payments/{id}"), "")?;
    if answer.status == 200 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.text())) }
}

fn expect_continue(world: &mut World, way: &Way) -> Result<(), String> {
    let id = world.galo.fresh_id();
    let body = payment_json(&id, 1234);
    let mut connection = Connection::open(way)?;
    connection
        .send(format!("{HEAD}Expect: 100-Continue\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    let interim = connection.answer(false)?;
    connection.send(body.as_bytes());
    let answer = connection.answer(false)?;
    if (interim.status, answer.status) != (100, 202) {
        return Err(format!("{} and {}", interim.status, answer.status));
    }
    world.accepted.insert(id, 1234);
    Ok(())
}

fn expect_continue_impatient(world: &mut World, way: &Way) -> Result<(), String> {
    let id = world.galo.fresh_id();
    let body = payment_json(&id, 1235);
    let mut connection = Connection::open(way)?;
    connection.send(
        format!("{HEAD}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
    );
    let mut answer = connection.answer(false)?;
    if answer.status == 100 {
        answer = connection.answer(false)?;
    }
    if answer.status != 202 {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    world.accepted.insert(id, 1235);
    Ok(())
}

fn byte_by_byte(world: &mut World, way: &Way) -> Result<(), String> {
    let mut connection = Connection::open(way)?;
    for cents in [1, 2, 3] {
        let id = world.galo.fresh_id();
        for byte in request("POST", "/payments", &payment_json(&id, cents)).bytes() {
            connection.send(&[byte]);
        }
        let answer = connection.answer(false)?;
        if answer.status != 202 {
            return Err(format!("{}: {}", answer.status, answer.text()));
        }
        world.accepted.insert(id, cents);
    }
    Ok(())
}

fn spellings(world: &mut World, way: &Way) -> Result<(), String> {
    type Spelling = fn(&str) -> String;
    let spellings: [(&str, Spelling); 8] = [
        ("lower-case names", |body| {
            format!("POST /payments HTTP/1.1\r\nhost: galo\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        }),
        ("upper-case names", |body| {
            format!("POST /payments HTTP/1.1\r\nHOST: galo\r\nCONTENT-LENGTH: {}\r\n\r\n{body}", body.len())
        }),
        ("no space after the colon", |body| {
            format!("POST /payments HTTP/1.1\r\nHost:galo\r\nContent-Length:{}\r\n\r\n{body}", body.len())
        }),
        ("tabs and spaces around values", |body| {
            format!("{HEAD}Content-Length: \t {} \t \r\n\r\n{body}", body.len())
        }),
        ("leading zeros", |body| format!("{HEAD}Content-Length: 000{}\r\n\r\n{body}", body.len())),
        ("chunked", |body| {
            format!("{HEAD}Transfer-Encoding: Chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
        }),
        ("chunks of one byte", |body| {
            let chunks: String = body.chars().map(|byte| format!("1\r\n{byte}\r\n")).collect();
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
        }),
        ("upper-case sizes with zeros", |body| {
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n00{:X}\r\n{body}\r\n000\r\n\r\n", body.len())
        }),
    ];
    for (name, spell) in spellings {
        let id = world.galo.fresh_id();
        let text = spell(&payment_json(&id, 4321));
        statuses(way, &text, &[202]).map_err(|error| format!("{name}: {error}"))?;
        world.accepted.insert(id, 4321);
    }
    Ok(())
}

fn paths(_: &mut World, way: &Way) -> Result<(), String> {
    for path in [
        "/",
        "/payments/",
        "//payments",
        "/Payments",
        "/payments/x/y",
        "/payments/../payments",
        "/%70ayments",
        "/payments%00",
        "/payments;x",
        "/health/",
        "/metrics.",
    ] {
        let answer = way.ask("POST", path, "{}")?;
        answer.problem(404, "not-found", true).map_err(|error| format!("{path}: {error}"))?;
    }
    let answer = way.ask("POST", "/payments?x=1", "{}")?;
    answer.problem(422, "invalid-field", true).map(drop)
}
