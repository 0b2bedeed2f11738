//! Requests that two parsers could read differently, each with a payment hidden where one of them would see a second request.
//!
//! A case is its bytes and what each way says to them. Whatever is said, these hold after each: the hidden payment
//! is unknown to the ledger, no POST reached the ledger, at most one answer came and the connection is over, and the next
//! request is served as if nothing had been. At the end the processors' books show no hidden payment either. Where HAProxy, whose
//! reading is the only one behind it, takes what follows for another request, that is said of the case ([`READ_BY_HAPROXY`]).
//!
//! Each shape of a POST is tried as a GET too ([`behind_get`]): an empty payment's refusal ends the connection, whatever was read.
//!
//! In the bytes `{H}` stands for the hidden request, `{L}` for its length, `{L5}` for that and five, `{X}` for it in
//! hexadecimal; every other character up to U+00FF is one byte.

use std::time::Duration;

use crate::client::{Connection, End, PATIENCE, Way, request, show};
use crate::tally::Tally;
use crate::world::{World, payment_json};

/// What is to come of a case.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// One answer with this status, as a rule a refusal, then the end.
    No(u16),
    /// One answer with this status to the whole of it, hidden request included; the connection stays.
    One(u16),
    /// These answers to several requests; the connection stays.
    Apart(&'static [u16]),
}

impl Says {
    fn statuses(&self) -> &[u16] {
        match self {
            Self::No(status) | Self::One(status) => std::slice::from_ref(status),
            Self::Apart(statuses) => statuses,
        }
    }
}

/// Name, bytes, what a gateway says, what HAProxy says.
type Shape = (&'static str, String, Says, Says);

const POST: &str = "POST /payments HTTP/1.1\r\nHost: galo\r\n";

/// The cases that differ in their headers alone; the body behind them ends a chunked body and hides a request.
fn by_headers() -> Vec<Shape> {
    use Says::{No, One};
    let lengths = [
        ("CL.CL, 0 first", "Content-Length: 0\r\nContent-Length: {L5}", No(400), No(400)),
        ("CL.CL, 0 last", "Content-Length: {L5}\r\nContent-Length: 0", No(400), No(400)),
        ("CL.CL, equal", "Content-Length: {L5}\r\nContent-Length: {L5}", No(400), One(400)),
        ("CL.CL, other case", "content-length: 0\r\nCONTENT-LENGTH: {L5}", No(400), No(400)),
        ("CL list", "Content-Length: 0, {L5}", No(400), No(400)),
        ("CL list of equals", "Content-Length: {L5}, {L5}", No(400), One(400)),
        ("CL list with a hole", "Content-Length: {L5},", No(400), No(400)),
        ("CL with a plus", "Content-Length: +{L5}", No(400), No(400)),
        ("CL with a minus", "Content-Length: -{L5}", No(400), No(400)),
        ("CL minus zero", "Content-Length: -0", No(400), No(400)),
        ("CL in hexadecimal", "Content-Length: 0x{X}", No(400), No(400)),
        ("CL with a fraction", "Content-Length: {L5}.0", No(400), No(400)),
        ("CL with an exponent", "Content-Length: 1e2", No(400), No(400)),
        ("CL in two words", "Content-Length: {L5} 0", No(400), No(400)),
        ("CL with a parameter", "Content-Length: {L5};x", No(400), No(400)),
        ("CL quoted", "Content-Length: \"{L5}\"", No(400), No(400)),
        ("CL empty", "Content-Length:", No(400), No(400)),
        ("CL with NUL", "Content-Length: {L5}\0", No(400), No(400)),
        ("CL after a vertical tab", "Content-Length:\x0b{L5}", No(400), No(400)),
        ("CL before a form feed", "Content-Length: {L5}\x0c", No(400), No(400)),
        ("CL in Latin-1 digits", "Content-Length: \u{b9}\u{b2}", No(400), No(400)),
        ("CL folded", "Content-Length:\r\n {L5}", No(400), One(400)),
        ("CL in a fold", "X: y\r\n Content-Length: {L5}", No(400), No(400)),
        ("CL with a space before the colon", "Content-Length : {L5}", No(400), No(400)),
        ("CL with a tab before the colon", "Content-Length\t: {L5}", No(400), No(400)),
        ("CL with NUL in its name", "Content-Length\0: {L5}", No(400), No(400)),
        ("CL after a bare LF", "X: y\nContent-Length: {L5}", No(400), No(400)),
        ("CL after a bare CR", "X: y\rContent-Length: {L5}", No(400), No(400)),
        ("CL of 2^63", "Content-Length: 9223372036854775808", No(413), No(400)),
        ("CL of 2^64", "Content-Length: 18446744073709551616", No(413), No(413)),
        ("CL of 2^64 and 5", "Content-Length: 18446744073709551621", No(413), No(400)),
        ("CL of 40 digits", "Content-Length: 1000000000000000000000000000000000000000", No(413), No(400)),
        ("CL hidden by Connection", "Connection: Content-Length\r\nContent-Length: {L5}", One(400), One(400)),
        ("CL.TE", "Content-Length: {L5}\r\nTransfer-Encoding: chunked", No(400), No(400)),
        ("CL.TE, 0", "Content-Length: 0\r\nTransfer-Encoding: chunked", No(400), No(400)),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: {L5}", No(400), No(400)),
        (
            "TE.CL hidden by Connection",
            "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: {L5}",
            No(400),
            No(400),
        ),
    ];
    let encodings = [
        ("xchunked", "Transfer-Encoding: xchunked", No(501), No(400)),
        ("chunk", "Transfer-Encoding: chunk", No(501), No(400)),
        ("cow", "Transfer-Encoding: cow", No(501), No(400)),
        ("empty", "Transfer-Encoding:", No(501), No(400)),
        ("quoted", "Transfer-Encoding: \"chunked\"", No(501), No(400)),
        ("with a parameter", "Transfer-Encoding: chunked;q=1", No(501), No(400)),
        ("upper case", "Transfer-Encoding: CHUNKED", No(400), No(400)),
        ("tab", "Transfer-Encoding:\tchunked", No(400), No(400)),
        ("no space", "Transfer-Encoding:chunked", No(400), No(400)),
        ("twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", No(400), No(400)),
        ("then another", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x", No(400), No(400)),
        ("after another", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked", No(501), No(422)),
        ("then identity", "Transfer-Encoding: chunked, identity", No(501), No(400)),
        ("after identity", "Transfer-Encoding: identity, chunked", No(501), No(422)),
        ("after gzip", "Transfer-Encoding: gzip, chunked", No(501), No(422)),
        ("identity", "Transfer-Encoding: identity", No(501), No(400)),
        ("after a comma", "Transfer-Encoding: ,chunked", No(501), No(422)),
        ("before a comma", "Transfer-Encoding: chunked,", No(501), No(501)),
        ("space before the colon", "Transfer-Encoding : chunked", No(400), No(400)),
        ("line break before the colon", "Transfer-Encoding\r\n: chunked", No(400), No(400)),
        ("a leading space", " Transfer-Encoding: chunked", No(400), No(400)),
        ("folded", "Transfer-Encoding:\r\n chunked", No(501), No(400)),
        ("in a fold", "X: y\r\n\tTransfer-Encoding: chunked", No(400), No(400)),
        ("after a bare LF", "X: y\nTransfer-Encoding: chunked", No(400), No(400)),
        ("after a bare CR", "X: y\rTransfer-Encoding: chunked", No(400), No(400)),
        ("vertical tab", "Transfer-Encoding:\x0bchunked", No(400), No(400)),
        ("NUL before", "Transfer-Encoding: \0chunked", No(400), No(400)),
        ("NUL after", "Transfer-Encoding: chunked\0", No(400), No(400)),
        ("DEL after", "Transfer-Encoding: chunked\x7f", No(400), No(400)),
        ("no-break space", "Transfer-Encoding: chunked\u{a0}", No(501), No(400)),
    ];
    let lengths = lengths.map(|(name, headers, straight, front)| (name, headers.to_owned(), straight, front));
    // With a length beside them: whoever does not see the encoding takes the length.
    let encodings = encodings.map(|(name, header, straight, front)| {
        (name, format!("Content-Length: {{L5}}\r\n{header}"), straight, front)
    });
    lengths
        .into_iter()
        .chain(encodings)
        .map(|(name, headers, straight, front)| {
            (name, format!("{POST}{headers}\r\n\r\n0\r\n\r\n{{H}}"), straight, front)
        })
        .collect()
}

/// The cases of one chunked body.
fn by_chunks() -> Vec<Shape> {
    use Says::{No, One};
    [
        ("TE alone, in HTTP/1.0", "", No(400), No(400)),
        ("chunk: an extension", "5;a=b\r\nhello\r\n0\r\n\r\n", No(400), One(400)),
        ("chunk: an extension with a line break", "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: an extension that ends in LF", "5;a\nhello\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: a plus", "+5\r\nhello\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: a minus", "-1\r\nhello\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: 0x", "0x5\r\nhello\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: a space before", " 5\r\nhello\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: a space after", "5 \r\nhello\r\n0\r\n\r\n", No(400), One(400)),
        ("chunk: NUL after", "5\0\r\nhello\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: an underscore", "1_0\r\n0123456789abcdef\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: no size", "\r\nhello\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: no hexadecimal digit", "g\r\nhello\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: a bare LF after the size", "5\nhello\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: a bare CR after the size", "5\rhello\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: a bare LF after the data", "5\r\nhello\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: nothing after the data", "5\r\nhello0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: more data than its size", "5\r\nhello world\r\n0\r\n\r\n{H}", No(400), No(400)),
        ("chunk: a bare LF at the end", "0\n\n{H}", No(400), No(400)),
        ("chunk: LF for the empty line", "0\r\n\n{H}", No(400), No(400)),
        ("chunk: no empty line at the end", "0\r\n{H}", No(400), No(400)),
        ("chunk: a size of 2^32 and 5", "100000005\r\nhello\r\n0\r\n\r\n{H}", No(413), No(408)),
        ("chunk: a size of 2^64", "10000000000000000\r\nhello\r\n0\r\n\r\n{H}", No(413), No(400)),
        ("chunk: a size of 2^64 and 5", "10000000000000005\r\nhello\r\n0\r\n\r\n{H}", No(413), No(400)),
        (
            "chunk: a size that is -1 in 64 bits",
            "ffffffffffffffff\r\nhello\r\n0\r\n\r\n{H}",
            No(413),
            No(400),
        ),
        (
            "chunk: sixteen zeros before the size",
            "00000000000000005\r\nhello\r\n0\r\n\r\n",
            No(413),
            One(400),
        ),
        ("chunk: a trailer", "0\r\nX: y\r\n\r\n", No(400), One(400)),
        ("chunk: a length as a trailer", "0\r\nContent-Length: {L}\r\n\r\n", No(400), One(400)),
        ("chunk: an encoding as a trailer", "0\r\nTransfer-Encoding: chunked\r\n\r\n", No(400), One(400)),
        ("chunk: a folded trailer", "0\r\n x\r\n\r\n{H}", No(400), No(400)),
        ("chunk: the hidden request in a chunk", "{X}\r\n{H}\r\n0\r\n\r\n", One(400), One(400)),
    ]
    .into_iter()
    .map(|(name, chunks, straight, front)| {
        if chunks.is_empty() {
            let head = POST.replace("HTTP/1.1", "HTTP/1.0");
            return (
                name,
                format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{{H}}"),
                straight,
                front,
            );
        }
        (name, format!("{POST}Transfer-Encoding: chunked\r\n\r\n{chunks}"), straight, front)
    })
    .collect()
}

/// The cases of a head that one parser reads and another does not, and of bodies where none is expected.
fn by_heads() -> Vec<Shape> {
    use Says::{Apart, No, One};
    [
        ("head: LF throughout", "POST /payments HTTP/1.1\nHost: galo\nContent-Length: 0\n\n{H}", No(400), No(400)),
        ("head: LF after the request line", "POST /payments HTTP/1.1\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("head: LF for the empty line", "POST /payments HTTP/1.1\r\nHost: galo\r\n\n{H}", No(400), No(400)),
        ("head: CR throughout", "POST /payments HTTP/1.1\rHost: galo\r\r{H}", No(400), No(400)),
        ("head: two CRs before LF", "POST /payments HTTP/1.1\r\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("head: NUL in a name", "POST /payments HTTP/1.1\r\nHost: galo\r\nA\0: b\r\n\r\n{H}", No(400), No(400)),
        ("head: NUL in a value", "POST /payments HTTP/1.1\r\nHost: galo\r\nA: b\0\r\n\r\n{H}", No(400), No(400)),
        ("head: no colon", "POST /payments HTTP/1.1\r\nHost: galo\r\nnonsense\r\n\r\n{H}", No(400), No(400)),
        ("head: no name", "POST /payments HTTP/1.1\r\nHost: galo\r\n: b\r\n\r\n{H}", No(400), No(400)),
        ("head: a space in a name", "POST /payments HTTP/1.1\r\nHost: galo\r\nA b: c\r\n\r\n{H}", No(400), No(400)),
        ("head: a space before the first header", "POST /payments HTTP/1.1\r\n Host: galo\r\n\r\n{H}", No(400), No(400)),
        ("head: a bracket in a name", "POST /payments HTTP/1.1\r\nHost: galo\r\n(a): b\r\n\r\n{H}", No(400), No(400)),
        ("head: a high byte in a name", "POST /payments HTTP/1.1\r\nHost: galo\r\n\u{e9}: b\r\n\r\n{H}", No(400), No(400)),
        ("head: no Host", "POST /payments HTTP/1.1\r\nX: y\r\n\r\n{H}", No(400), No(400)),
        ("head: two Hosts", "POST /payments HTTP/1.1\r\nHost: galo\r\nHost: other\r\n\r\n{H}", No(400), No(400)),
        ("line: two spaces", "POST  /payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: a tab", "POST\t/payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: a space at the end", "POST /payments HTTP/1.1 \r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: no version", "POST /payments\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: small http", "POST /payments http/1.1\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: HTTP/01.1", "POST /payments HTTP/01.1\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: HTTP/1.10", "POST /payments HTTP/1.10\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: HTTP/0.9", "POST /payments HTTP/0.9\r\nHost: galo\r\n\r\n{H}", No(505), No(505)),
        ("line: HTTP/2.0", "POST /payments HTTP/2.0\r\nHost: galo\r\n\r\n{H}", No(505), No(400)),
        ("line: HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{H}", No(505), No(400)),
        ("line: NUL in the target", "POST /pay\0ments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: a high byte in the target", "POST /payments\u{ff} HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: a space in the target", "POST /payments /x HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: no slash", "POST payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: CONNECT", "CONNECT galo:80 HTTP/1.1\r\nHost: galo:80\r\n\r\n{H}", No(400), No(400)),
        ("line: a bracket in the method", "PO(ST /payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: NUL in the method", "PO\0ST /payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: empty lines first", "\r\n\r\n\r\nPOST /payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        ("line: a space first", " POST /payments HTTP/1.1\r\nHost: galo\r\n\r\n{H}", No(400), No(400)),
        // HAProxy takes a lone LF for a line's end, as RFC 9112 lets it, and writes each request anew: what follows is
        // another request by its reading, which is the only one.
        (
            "lenient: LF throughout, a good request",
            "GET /health HTTP/1.1\nHost: galo\n\n{H}",
            No(400),
            Apart(&[200, 202]),
        ),
        (
            "lenient: LF after a chunk's size, a good request",
            "GET /health HTTP/1.1\r\nHost: galo\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n{H}",
            No(400),
            Apart(&[200, 202]),
        ),
        ("TLS", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03{H}", No(400), No(400)),
        ("PROXY protocol", "PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n{H}", No(400), No(400)),
        ("body: behind GET", "GET /health HTTP/1.1\r\nHost: galo\r\nContent-Length: {L}\r\n\r\n{H}", One(200), One(200)),
        ("body: behind a chunked GET", "GET /health HTTP/1.1\r\nHost: galo\r\nTransfer-Encoding: chunked\r\n\r\n{X}\r\n{H}\r\n0\r\n\r\n", One(200), One(200)),
        ("body: behind DELETE", "DELETE /health HTTP/1.1\r\nHost: galo\r\nContent-Length: {L}\r\n\r\n{H}", One(405), One(405)),
        ("body: behind OPTIONS", "OPTIONS /payments HTTP/1.1\r\nHost: galo\r\nContent-Length: {L}\r\n\r\n{H}", One(204), One(204)),
        ("body: to no path", "POST /nowhere HTTP/1.1\r\nHost: galo\r\nContent-Length: {L}\r\n\r\n{H}", One(404), One(404)),
        ("body: with an upgrade to h2c", "GET /health HTTP/1.1\r\nHost: galo\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: {L}\r\n\r\n{H}", One(200), One(200)),
        ("body: with an upgrade to WebSocket", "GET /health HTTP/1.1\r\nHost: galo\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: {L}\r\n\r\n{H}", One(200), One(200)),
        ("body: with an Expect that nobody knows", "POST /payments HTTP/1.1\r\nHost: galo\r\nExpect: payment\r\nContent-Length: {L}\r\n\r\n{H}", No(417), No(417)),
    ]
    .into_iter()
    .map(|(name, bytes, straight, front)| (name, bytes.to_owned(), straight, front))
    .collect()
}

/// What HAProxy says from 3.0 on where 2.6 says something else: it refuses more.
const SINCE_3: [(&str, Says); 4] = [
    ("after a comma", Says::No(400)),
    ("before a comma", Says::No(400)),
    ("lenient: LF after a chunk's size, a good request", Says::No(400)),
    ("body: with an upgrade to WebSocket", Says::No(400)),
];

/// What it reads as two requests behind a GET and refuses from 3.0 on: a lone LF around a chunk.
const BEHIND_GET_SINCE_3: [&str; 4] = [
    "chunk: an extension that ends in LF",
    "chunk: a bare LF after the size",
    "chunk: a bare LF after the data",
    "chunk: a bare LF at the end",
];

fn shapes(haproxy_version: u32) -> Vec<Shape> {
    let mut shapes = [by_headers(), by_chunks(), by_heads()].concat();
    if haproxy_version >= 3 {
        for (name, _, _, front) in &mut shapes {
            if let Some((_, says)) = SINCE_3.iter().find(|(differs, _)| differs == name) {
                *front = *says;
            }
        }
    }
    shapes
}

/// What HAProxy says to shapes in front of which stands a GET, where that differs. It is lenient there, writes anew what it forwards, and so
/// has the only reading; to an empty POST the gateway behind it says 400, whoever reads what.
const READ_BY_HAPROXY: [(&str, Says); 28] = {
    use Says::{Apart, No, One};
    // A body ends where HAProxy says, and another request follows.
    const TWO: Says = Apart(&[200, 202]);
    // Of an encoding beside a length it takes the encoding, and the connection ends, as RFC 9112, section 6.1, wants.
    const ENDED: Says = No(200);
    [
        // One line, of another header: there is no body, and `0` is no request.
        ("CL in a fold", Apart(&[200, 400])),
        ("CL after a bare LF", One(200)),
        ("CL.TE", ENDED),
        ("CL.TE, 0", ENDED),
        ("TE.CL", ENDED),
        ("TE.CL hidden by Connection", ENDED),
        ("upper case", ENDED),
        ("tab", ENDED),
        ("no space", ENDED),
        ("folded", ENDED),
        ("in a fold", One(200)),
        ("after a bare LF", ENDED),
        ("TE alone, in HTTP/1.0", No(413)),
        ("chunk: an extension that ends in LF", TWO),
        ("chunk: a bare LF after the size", TWO),
        ("chunk: a bare LF after the data", TWO),
        ("chunk: a bare LF at the end", TWO),
        ("chunk: LF for the empty line", TWO),
        // Forwarded, and refused by the gateway.
        ("chunk: a trailer", One(400)),
        ("chunk: a length as a trailer", One(400)),
        ("chunk: an encoding as a trailer", One(400)),
        ("head: LF throughout", TWO),
        ("head: LF after the request line", TWO),
        ("head: LF for the empty line", TWO),
        ("line: two spaces", TWO),
        ("line: a tab", TWO),
        ("line: HTTP/2.0", TWO),
        ("line: empty lines first", TWO),
    ]
};

/// The same bytes as a `GET /health`, if they are a `POST /payments`. The refusal of an empty or nonsensical payment ends its connection, which
/// would hide that somebody took what follows for another request. A GET is answered 200, and whatever else is read behind it is served.
fn behind_get((name, bytes, straight, front): &Shape, haproxy_version: u32) -> Option<Shape> {
    let (before, rest) = bytes.split_once("POST")?;
    let (between, rest) = rest.split_once("payments")?;
    let says = |says: Says| match says {
        Says::One(_) => Says::One(200),
        says => says,
    };
    let read = READ_BY_HAPROXY.iter().find(|(read, _)| read == name);
    let front = match read {
        Some(_) if haproxy_version >= 3 && BEHIND_GET_SINCE_3.contains(name) => Says::No(400),
        Some((_, read)) => *read,
        None => says(*front),
    };
    Some((name, format!("{before}GET{between}health{rest}"), says(*straight), front))
}

/// All cases, both ways.
pub(crate) fn run(world: &mut World, tally: &mut Tally) -> Result<(), String> {
    let haproxy_version = world.galo.haproxy_version()?;
    let shapes = shapes(haproxy_version);
    let behind_get: Vec<Shape> =
        shapes.iter().filter_map(|shape| behind_get(shape, haproxy_version)).collect();
    for way in world.galo.ways() {
        if !tally.begin(&format!("smuggling, {}", way.name())) {
            continue;
        }
        for (suffix, shapes) in [("", &shapes), (", behind GET", &behind_get)] {
            for (name, bytes, straight, front) in shapes {
                let says = if way.is_front() { *front } else { *straight };
                let result = check(world, &way, bytes, says);
                tally.case(&format!("{name}{suffix}"), result);
            }
        }
        world.reconcile(tally);
    }
    Ok(())
}

fn check(world: &mut World, way: &Way, template: &str, says: Says) -> Result<(), String> {
    let id = world.galo.fresh_id();
    let hidden = request("POST", "/payments", &payment_json(&id, 666));
    let size = hidden.len();
    let text = template
        .replace("{L5}", &(size + 5).to_string())
        .replace("{L}", &size.to_string())
        .replace("{X}", &format!("{size:x}"))
        .replace("{H}", &hidden);
    let bytes: Vec<u8> =
        text.chars().filter_map(|character| u8::try_from(u32::from(character)).ok()).collect();
    let before = world.galo.counts()?;
    let result = converse(way, &bytes, says);
    let after = world.galo.counts()?;
    let looked_up = world.galo.straight(0).ask("GET", &format!("/payments/{id}"), "")?;
    let is_apart = says.statuses().contains(&202);
    if is_apart {
        world.accepted.insert(id, 666);
    }
    // The worst first: it matters more than a wrong status.
    if looked_up.status != if is_apart { 200 } else { 404 } {
        return Err(format!("THE HIDDEN PAYMENT: {} ({result:?})", looked_up.text()));
    }
    let posts = after.posts - before.posts;
    if posts != u64::from(is_apart) {
        return Err(format!("{posts} POSTs reached the ledger ({result:?})"));
    }
    // HAProxy's own refusals reach no gateway.
    let refused = after.refused - before.refused;
    let expected = says.statuses().iter().filter(|status| **status >= 400).count() as u64;
    if refused > expected || (!way.is_front() && refused != expected) {
        return Err(format!("{refused} refusals counted instead of {expected} ({result:?})"));
    }
    result?;
    world.check_well(way)
}

/// After these HAProxy ends a connection that a gateway would keep (a body that is no JSON) or has ended already.
const CLOSING: [u16; 8] = [400, 408, 413, 414, 417, 431, 501, 505];

/// How long an incomplete request is left alone before its client says that there is no more.
const SILENCE: Duration = Duration::from_millis(500);

fn converse(way: &Way, bytes: &[u8], says: Says) -> Result<(), String> {
    let mut connection = Connection::open(way)?;
    connection.send(bytes);
    let is_finished = !way.is_front() && !connection.stirs(SILENCE)?;
    if is_finished {
        connection.finish_sending();
    }
    for (number, status) in (1..).zip(says.statuses()) {
        let answer = connection.answer(false).map_err(|error| format!("answer {number}: {error}"))?;
        if answer.status != *status {
            return Err(format!(
                "answer {number} is {} instead of {status}, to {}: {}",
                answer.status,
                show(bytes),
                answer.text()
            ));
        }
        if matches!(says, Says::No(_)) && !way.is_front() && answer.header("connection") != Some("close") {
            return Err("a refusal that does not announce the end of the connection".to_owned());
        }
        let is_problem = answer.header("content-type") == Some("application/problem+json");
        if answer.status >= 400 && !way.is_front() && !is_problem {
            return Err(format!("a refusal that is no problem: {}", answer.text()));
        }
    }
    let last = says.statuses().last().copied().unwrap_or_default();
    let is_closed = matches!(says, Says::No(_)) || (way.is_front() && CLOSING.contains(&last));
    if !is_closed && !is_finished {
        // The connection stays. Whatever else it took for a request would be answered before this one.
        connection.send(b"GET /health HTTP/1.1\r\nHost: galo\r\nConnection: close\r\n\r\n");
        let next = connection.answer(false).map_err(|error| format!("the next request: {error}"))?;
        if (next.status, next.text().as_str()) != (200, r#"{"status":"ok"}"#) {
            return Err(format!("the next request is answered {} {}", next.status, next.text()));
        }
    }
    match connection.end(PATIENCE)? {
        End::Open => Err(format!("and then {:?}", connection.unread())),
        End::Closed | End::Reset => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_haproxy_says_otherwise_is_said_of_cases_that_there_are() {
        let differ =
            shapes(2).iter().zip(shapes(3)).filter(|(old, new)| old.3.statuses() != new.3.statuses()).count();
        assert_eq!(differ, SINCE_3.len());
    }
}
