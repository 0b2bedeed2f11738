//! Requests that two parsers could read differently, each with a payment hidden where one of them would see a second request.
//!
//! A case is its bytes and what a gateway says to them. Whatever is said, these hold after each: the hidden payment
//! is unknown to the ledger, no POST reached the ledger, at most one answer came and the connection is over, and the next
//! request is served as if nothing had been. At the end the processors' books show no hidden payment either.
//!
//! Through HAProxy the same bytes are sent, and what it makes of them is its affair: it writes each request anew, so its
//! reading is the only one behind it, and may be that two requests came. What must hold then is that the client hears of all that happened:
//! the hidden payment was taken exactly if its client was answered 202, nothing is answered behind a refusal, and who comes next on the
//! same connection, or on another, gets the answer to his own request ([`check_front`]).
//!
//! Each shape of a POST is tried as a GET too ([`behind_get`]): an empty payment's refusal ends the connection, whatever was read.
//!
//! In the bytes `{H}` stands for the hidden request, `{L}` for its length, `{L5}` for that and five, `{X}` for it in
//! hexadecimal; every other character up to U+00FF is one byte.

use std::time::Duration;

use crate::client::{Answer, Connection, End, PATIENCE, Way, request, show};
use crate::tally::Tally;
use crate::world::{World, payment_json};

/// What a gateway is to say.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// One answer with this status, as a rule a refusal, then the end.
    No(u16),
    /// One answer with this status to the whole of it, hidden request included; the connection stays.
    One(u16),
}

/// Name, bytes, what a gateway says.
type Shape = (&'static str, String, Says);

const POST: &str = "POST /payments HTTP/1.1\r\nHost: galo\r\n";

/// The cases that differ in their headers alone; the body behind them ends a chunked body and hides a request.
fn by_headers() -> Vec<Shape> {
    use Says::{No, One};
    let lengths = [
        ("CL.CL, 0 first", "Content-Length: 0\r\nContent-Length: {L5}", No(400)),
        ("CL.CL, 0 last", "Content-Length: {L5}\r\nContent-Length: 0", No(400)),
        ("CL.CL, equal", "Content-Length: {L5}\r\nContent-Length: {L5}", No(400)),
        ("CL.CL, other case", "content-length: 0\r\nCONTENT-LENGTH: {L5}", No(400)),
        ("CL list", "Content-Length: 0, {L5}", No(400)),
        ("CL list of equals", "Content-Length: {L5}, {L5}", No(400)),
        ("CL list with a hole", "Content-Length: {L5},", No(400)),
        ("CL with a plus", "Content-Length: +{L5}", No(400)),
        ("CL with a minus", "Content-Length: -{L5}", No(400)),
        ("CL minus zero", "Content-Length: -0", No(400)),
        ("CL in hexadecimal", "Content-Length: 0x{X}", No(400)),
        ("CL with a fraction", "Content-Length: {L5}.0", No(400)),
        ("CL with an exponent", "Content-Length: 1e2", No(400)),
        ("CL in two words", "Content-Length: {L5} 0", No(400)),
        ("CL with a parameter", "Content-Length: {L5};x", No(400)),
        ("CL quoted", "Content-Length: \"{L5}\"", No(400)),
        ("CL empty", "Content-Length:", No(400)),
        ("CL with NUL", "Content-Length: {L5}\0", No(400)),
        ("CL after a vertical tab", "Content-Length:\x0b{L5}", No(400)),
        ("CL before a form feed", "Content-Length: {L5}\x0c", No(400)),
        ("CL in Latin-1 digits", "Content-Length: \u{b9}\u{b2}", No(400)),
        ("CL folded", "Content-Length:\r\n {L5}", No(400)),
        ("CL in a fold", "X: y\r\n Content-Length: {L5}", No(400)),
        ("CL with a space before the colon", "Content-Length : {L5}", No(400)),
        ("CL with a tab before the colon", "Content-Length\t: {L5}", No(400)),
        ("CL with NUL in its name", "Content-Length\0: {L5}", No(400)),
        ("CL after a bare LF", "X: y\nContent-Length: {L5}", No(400)),
        ("CL after a bare CR", "X: y\rContent-Length: {L5}", No(400)),
        ("CL of 2^63", "Content-Length: 9223372036854775808", No(413)),
        ("CL of 2^64", "Content-Length: 18446744073709551616", No(413)),
        ("CL of 2^64 and 5", "Content-Length: 18446744073709551621", No(413)),
        ("CL of 40 digits", "Content-Length: 1000000000000000000000000000000000000000", No(413)),
        ("CL hidden by Connection", "Connection: Content-Length\r\nContent-Length: {L5}", One(400)),
        ("CL.TE", "Content-Length: {L5}\r\nTransfer-Encoding: chunked", No(400)),
        ("CL.TE, 0", "Content-Length: 0\r\nTransfer-Encoding: chunked", No(400)),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: {L5}", No(400)),
        (
            "TE.CL hidden by Connection",
            "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: {L5}",
            No(400),
        ),
    ];
    let encodings = [
        ("xchunked", "Transfer-Encoding: xchunked", No(501)),
        ("chunk", "Transfer-Encoding: chunk", No(501)),
        ("cow", "Transfer-Encoding: cow", No(501)),
        ("empty", "Transfer-Encoding:", No(501)),
        ("quoted", "Transfer-Encoding: \"chunked\"", No(501)),
        ("with a parameter", "Transfer-Encoding: chunked;q=1", No(501)),
        ("upper case", "Transfer-Encoding: CHUNKED", No(400)),
        ("tab", "Transfer-Encoding:\tchunked", No(400)),
        ("no space", "Transfer-Encoding:chunked", No(400)),
        ("twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", No(400)),
        ("then another", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x", No(400)),
        ("after another", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked", No(501)),
        ("then identity", "Transfer-Encoding: chunked, identity", No(501)),
        ("after identity", "Transfer-Encoding: identity, chunked", No(501)),
        ("after gzip", "Transfer-Encoding: gzip, chunked", No(501)),
        ("identity", "Transfer-Encoding: identity", No(501)),
        ("after a comma", "Transfer-Encoding: ,chunked", No(501)),
        ("before a comma", "Transfer-Encoding: chunked,", No(501)),
        ("space before the colon", "Transfer-Encoding : chunked", No(400)),
        ("line break before the colon", "Transfer-Encoding\r\n: chunked", No(400)),
        ("a leading space", " Transfer-Encoding: chunked", No(400)),
        ("folded", "Transfer-Encoding:\r\n chunked", No(501)),
        ("in a fold", "X: y\r\n\tTransfer-Encoding: chunked", No(400)),
        ("after a bare LF", "X: y\nTransfer-Encoding: chunked", No(400)),
        ("after a bare CR", "X: y\rTransfer-Encoding: chunked", No(400)),
        ("vertical tab", "Transfer-Encoding:\x0bchunked", No(400)),
        ("NUL before", "Transfer-Encoding: \0chunked", No(400)),
        ("NUL after", "Transfer-Encoding: chunked\0", No(400)),
        ("DEL after", "Transfer-Encoding: chunked\x7f", No(400)),
        ("no-break space", "Transfer-Encoding: chunked\u{a0}", No(501)),
    ];
    let lengths = lengths.map(|(name, headers, says)| (name, headers.to_owned(), says));
    // With a length beside them: whoever does not see the encoding takes the length.
    let encodings =
        encodings.map(|(name, header, says)| (name, format!("Content-Length: {{L5}}\r\n{header}"), says));
    lengths
        .into_iter()
        .chain(encodings)
        .map(|(name, headers, says)| (name, format!("{POST}{headers}\r\n\r\n0\r\n\r\n{{H}}"), says))
        .collect()
}

/// The cases of one chunked body.
fn by_chunks() -> Vec<Shape> {
    use Says::{No, One};
    [
        ("TE alone, in HTTP/1.0", "", No(400)),
        ("chunk: an extension", "5;a=b\r\nhello\r\n0\r\n\r\n", No(400)),
        ("chunk: an extension with a line break", "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: an extension that ends in LF", "5;a\nhello\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: a plus", "+5\r\nhello\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: a minus", "-1\r\nhello\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: 0x", "0x5\r\nhello\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: a space before", " 5\r\nhello\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: a space after", "5 \r\nhello\r\n0\r\n\r\n", No(400)),
        ("chunk: NUL after", "5\0\r\nhello\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: an underscore", "1_0\r\n0123456789abcdef\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: no size", "\r\nhello\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: no hexadecimal digit", "g\r\nhello\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: a bare LF after the size", "5\nhello\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: a bare CR after the size", "5\rhello\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: a bare LF after the data", "5\r\nhello\n0\r\n\r\n{H}", No(400)),
        ("chunk: nothing after the data", "5\r\nhello0\r\n\r\n{H}", No(400)),
        ("chunk: more data than its size", "5\r\nhello world\r\n0\r\n\r\n{H}", No(400)),
        ("chunk: a bare LF at the end", "0\n\n{H}", No(400)),
        ("chunk: LF for the empty line", "0\r\n\n{H}", No(400)),
        ("chunk: no empty line at the end", "0\r\n{H}", No(400)),
        ("chunk: a size of 2^32 and 5", "100000005\r\nhello\r\n0\r\n\r\n{H}", No(413)),
        ("chunk: a size of 2^64", "10000000000000000\r\nhello\r\n0\r\n\r\n{H}", No(413)),
        ("chunk: a size of 2^64 and 5", "10000000000000005\r\nhello\r\n0\r\n\r\n{H}", No(413)),
        ("chunk: a size that is -1 in 64 bits", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n{H}", No(413)),
        ("chunk: sixteen zeros before the size", "00000000000000005\r\nhello\r\n0\r\n\r\n", No(413)),
        ("chunk: a trailer", "0\r\nX: y\r\n\r\n", No(400)),
        ("chunk: a length as a trailer", "0\r\nContent-Length: {L}\r\n\r\n", No(400)),
        ("chunk: an encoding as a trailer", "0\r\nTransfer-Encoding: chunked\r\n\r\n", No(400)),
        ("chunk: a folded trailer", "0\r\n x\r\n\r\n{H}", No(400)),
        ("chunk: the hidden request in a chunk", "{X}\r\n{H}\r\n0\r\n\r\n", One(400)),
    ]
    .into_iter()
    .map(|(name, chunks, says)| {
        if chunks.is_empty() {
            let head = POST.replace("HTTP/1.1", "HTTP/1.0");
            return (name, format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{{H}}"), says);
        }
        (name, format!("{POST}Transfer-Encoding: chunked\r\n\r\n{chunks}"), says)
    })
    .collect()
}

/// The cases of a head that one parser reads and another does not, and of bodies where none is expected.
fn by_heads() -> Vec<Shape> {
    use Says::{No, One};
    [
        ("head: LF throughout", "POST /payments HTTP/1.1\nHost: galo\nContent-Length: 0\n\n{H}", No(400)),
        ("head: LF after the request line", "POST /payments HTTP/1.1\nHost: galo\r\n\r\n{H}", No(400)),
        ("head: LF for the empty line", "POST /payments HTTP/1.1\r\nHost: galo\r\n\n{H}", No(400)),
        ("head: CR throughout", "POST /payments HTTP/1.1\rHost: galo\r\r{H}", No(400)),
        ("head: two CRs before LF", "POST /payments HTTP/1.1\r\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("head: NUL in a name", "POST /payments HTTP/1.1\r\nHost: galo\r\nA\0: b\r\n\r\n{H}", No(400)),
        ("head: NUL in a value", "POST /payments HTTP/1.1\r\nHost: galo\r\nA: b\0\r\n\r\n{H}", No(400)),
        ("head: no colon", "POST /payments HTTP/1.1\r\nHost: galo\r\nnonsense\r\n\r\n{H}", No(400)),
        ("head: no name", "POST /payments HTTP/1.1\r\nHost: galo\r\n: b\r\n\r\n{H}", No(400)),
        ("head: a space in a name", "POST /payments HTTP/1.1\r\nHost: galo\r\nA b: c\r\n\r\n{H}", No(400)),
        ("head: a space before the first header", "POST /payments HTTP/1.1\r\n Host: galo\r\n\r\n{H}", No(400)),
        ("head: a bracket in a name", "POST /payments HTTP/1.1\r\nHost: galo\r\n(a): b\r\n\r\n{H}", No(400)),
        ("head: a high byte in a name", "POST /payments HTTP/1.1\r\nHost: galo\r\n\u{e9}: b\r\n\r\n{H}", No(400)),
        ("head: no Host", "POST /payments HTTP/1.1\r\nX: y\r\n\r\n{H}", No(400)),
        ("head: two Hosts", "POST /payments HTTP/1.1\r\nHost: galo\r\nHost: other\r\n\r\n{H}", No(400)),
        ("line: two spaces", "POST  /payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: a tab", "POST\t/payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: a space at the end", "POST /payments HTTP/1.1 \r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: no version", "POST /payments\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: small http", "POST /payments http/1.1\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: HTTP/01.1", "POST /payments HTTP/01.1\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: HTTP/1.10", "POST /payments HTTP/1.10\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: HTTP/0.9", "POST /payments HTTP/0.9\r\nHost: galo\r\n\r\n{H}", No(505)),
        ("line: HTTP/2.0", "POST /payments HTTP/2.0\r\nHost: galo\r\n\r\n{H}", No(505)),
        ("line: HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{H}", No(505)),
        ("line: NUL in the target", "POST /pay\0ments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: a high byte in the target", "POST /payments\u{ff} HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: a space in the target", "POST /payments /x HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: no slash", "POST payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: CONNECT", "CONNECT galo:80 HTTP/1.1\r\nHost: galo:80\r\n\r\n{H}", No(400)),
        ("line: a bracket in the method", "PO(ST /payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: NUL in the method", "PO\0ST /payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: empty lines first", "\r\n\r\n\r\nPOST /payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("line: a space first", " POST /payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400)),
        ("TLS", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03{H}", No(400)),
        ("PROXY protocol", "PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n{H}", No(400)),
        ("body: behind GET", "GET /health HTTP/1.1\r\nHost: galo\r\nContent-Length: {L}\r\n\r\n{H}", One(200)),
        ("body: behind a chunked GET", "GET /health HTTP/1.1\r\nHost: galo\r\nTransfer-Encoding: chunked\r\n\r\n{X}\r\n{H}\r\n0\r\n\r\n", One(200)),
        ("body: behind DELETE", "DELETE /health HTTP/1.1\r\nHost: galo\r\nContent-Length: {L}\r\n\r\n{H}", One(405)),
        ("body: behind OPTIONS", "OPTIONS /payments HTTP/1.1\r\nHost: galo\r\nContent-Length: {L}\r\n\r\n{H}", One(204)),
        ("body: to no path", "POST /nowhere HTTP/1.1\r\nHost: galo\r\nContent-Length: {L}\r\n\r\n{H}", One(404)),
        ("body: with an upgrade to h2c", "GET /health HTTP/1.1\r\nHost: galo\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: {L}\r\n\r\n{H}", One(200)),
        ("body: with an upgrade to WebSocket", "GET /health HTTP/1.1\r\nHost: galo\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: {L}\r\n\r\n{H}", One(200)),
        ("body: with an Expect that nobody knows", "POST /payments HTTP/1.1\r\nHost: galo\r\nExpect: payment\r\nContent-Length: {L}\r\n\r\n{H}", No(417)),
    ]
    .into_iter()
    .map(|(name, bytes, says)| (name, bytes.to_owned(), says))
    .collect()
}

/// The same bytes as a `GET /health`, if they are a `POST /payments`. The refusal of an empty or nonsensical payment ends its connection, which
/// would hide that somebody took what follows for another request. A GET is answered 200, and whatever else is read behind it is served.
fn behind_get((name, bytes, says): &Shape) -> Option<Shape> {
    let (before, rest) = bytes.split_once("POST")?;
    let (between, rest) = rest.split_once("payments")?;
    let says = match says {
        Says::One(_) => Says::One(200),
        Says::No(_) => *says,
    };
    Some((name, format!("{before}GET{between}health{rest}"), says))
}

/// All cases, both ways.
pub(crate) fn run(world: &mut World, tally: &mut Tally) {
    let shapes = [by_headers(), by_chunks(), by_heads()].concat();
    let behind_get: Vec<Shape> = shapes.iter().filter_map(behind_get).collect();
    for way in world.galo.ways() {
        if !tally.begin(&format!("smuggling, {}", way.name())) {
            continue;
        }
        let mut apart_count = 0;
        for (suffix, shapes) in [("", &shapes), (", behind GET", &behind_get)] {
            for (name, bytes, says) in shapes {
                let result = if way.is_front() {
                    check_front(world, &way, bytes).map(|is_apart| apart_count += usize::from(is_apart))
                } else {
                    check(world, &way, bytes, *says)
                };
                tally.case(&format!("{name}{suffix}"), result);
            }
        }
        if way.is_front() {
            let count = shapes.len() + behind_get.len();
            tally.note(&format!("{apart_count} of {count} read as two requests, and both answered"));
        }
        world.reconcile(tally);
    }
}

/// The hidden request, and a case's bytes with it.
fn fill(template: &str, id: &str) -> Vec<u8> {
    let hidden = request("POST", "/payments", &payment_json(id, 666));
    let size = hidden.len();
    let text = template
        .replace("{L5}", &(size + 5).to_string())
        .replace("{L}", &size.to_string())
        .replace("{X}", &format!("{size:x}"))
        .replace("{H}", &hidden);
    text.chars().filter_map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

fn check(world: &mut World, way: &Way, template: &str, says: Says) -> Result<(), String> {
    let id = world.galo.fresh_id();
    let bytes = fill(template, &id);
    let before = world.galo.counts()?;
    let result = converse(way, &bytes, says);
    let after = world.galo.counts()?;
    let looked_up = world.galo.straight(0).ask("GET", &format!("/payments/{id}"), "")?;
    // The worst first: it matters more than a wrong status.
    if looked_up.status != 404 {
        return Err(format!("THE HIDDEN PAYMENT: {} ({result:?})", looked_up.text()));
    }
    let posts = after.posts - before.posts;
    if posts != 0 {
        return Err(format!("{posts} POSTs reached the ledger ({result:?})"));
    }
    let refused = after.refused - before.refused;
    let (Says::No(status) | Says::One(status)) = says;
    if refused != u64::from(status >= 400) {
        return Err(format!("{refused} refusals counted, to a {status} ({result:?})"));
    }
    result?;
    world.check_well(way)
}

/// What holds whatever HAProxy reads; says whether it read two requests.
fn check_front(world: &mut World, way: &Way, template: &str) -> Result<bool, String> {
    let id = world.galo.fresh_id();
    let bytes = fill(template, &id);
    let before = world.galo.counts()?;
    let result = converse_with_front(way, &bytes);
    let after = world.galo.counts()?;
    let looked_up = world.galo.straight(0).ask("GET", &format!("/payments/{id}"), "")?;
    let statuses = result.as_deref().unwrap_or_default();
    let count = |is_one: fn(&u16) -> bool| statuses.iter().filter(|status| is_one(status)).count() as u64;
    let taken = count(|status| *status == 202);
    if looked_up.status != if taken == 1 { 200 } else { 404 } {
        return Err(format!("THE HIDDEN PAYMENT: {} ({result:?})", looked_up.text()));
    }
    if taken == 1 {
        world.accepted.insert(id, 666);
    }
    let posts = after.posts - before.posts;
    if posts != taken {
        return Err(format!("{posts} POSTs reached the ledger ({result:?})"));
    }
    // HAProxy's own refusals reach no gateway.
    let refused = after.refused - before.refused;
    if refused > count(|status| *status >= 400) {
        return Err(format!("{refused} refusals counted ({result:?})"));
    }
    result?;
    world.check_well(way)?;
    Ok(taken == 1)
}

/// After these HAProxy ends a connection that a gateway would keep (a body that is no JSON) or has ended already.
const CLOSING: [u16; 8] = [400, 408, 413, 414, 417, 431, 501, 505];

/// How long an incomplete request is left alone before its client says that there is no more.
const SILENCE: Duration = Duration::from_millis(500);

const NEXT: &[u8] = b"GET /health HTTP/1.1\r\nHost: galo\r\nConnection: close\r\n\r\n";

/// The next request's answer: whatever else was taken for a request would be answered before it.
fn is_next(answer: &Answer) -> bool {
    (answer.status, answer.text().as_str()) == (200, r#"{"status":"ok"}"#)
}

fn converse(way: &Way, bytes: &[u8], says: Says) -> Result<(), String> {
    let mut connection = Connection::open(way)?;
    connection.send(bytes);
    let is_finished = !connection.stirs(SILENCE)?;
    if is_finished {
        connection.finish_sending();
    }
    let (Says::No(status) | Says::One(status)) = says;
    let answer = connection.answer(false)?;
    if answer.status != status {
        return Err(format!("{} instead of {status}, to {}: {}", answer.status, show(bytes), answer.text()));
    }
    let is_closed = matches!(says, Says::No(_));
    if is_closed && answer.header("connection") != Some("close") {
        return Err("a refusal that does not announce the end of the connection".to_owned());
    }
    if answer.status >= 400 && answer.header("content-type") != Some("application/problem+json") {
        return Err(format!("a refusal that is no problem: {}", answer.text()));
    }
    if !is_closed && !is_finished {
        connection.send(NEXT);
        let next = connection.answer(false).map_err(|error| format!("the next request: {error}"))?;
        if !is_next(&next) {
            return Err(format!("the next request is answered {} {}", next.status, next.text()));
        }
    }
    match connection.end(PATIENCE)? {
        End::Open => Err(format!("and then {:?}", connection.unread())),
        End::Closed | End::Reset => Ok(()),
    }
}

/// The statuses of all answers, but for that of a request that is sent behind the case's bytes where the connection stays.
fn converse_with_front(way: &Way, bytes: &[u8]) -> Result<Vec<u16>, String> {
    let is_over = |answer: &Answer| {
        CLOSING.contains(&answer.status)
            || answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    };
    let mut connection = Connection::open(way)?;
    connection.send(bytes);
    let mut last = connection.answer(false).map_err(|error| format!("{error}, to {}", show(bytes)))?;
    let mut statuses = vec![last.status];
    if !is_over(&last) {
        connection.send(NEXT);
    }
    while let Some(answer) = connection.answer_or_end()? {
        if is_over(&last) {
            return Err(format!("a {} behind the last answer, {}", answer.status, last.status));
        }
        statuses.push(answer.status);
        last = answer;
    }
    // The next request is answered last, unless it was taken for what a case's bytes still lack, or the connection had ended.
    if statuses.len() > 1 && !CLOSING.contains(&last.status) {
        if !is_next(&last) {
            return Err(format!(
                "the next request is answered {} {}, after {statuses:?}",
                last.status,
                last.text()
            ));
        }
        statuses.pop();
    }
    if statuses.len() > 2 {
        return Err(format!("{statuses:?} to two requests"));
    }
    Ok(statuses)
}
