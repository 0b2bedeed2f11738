//! Clients that mean harm, beside those who pay: each conversation sends one shape of nonsense and hears a no, or is hung up on.
//!
//! A dozen shapes for the whole time, through HAProxy and straight at the gateways; `cargo xtask hostile` has the thousands, one at
//! a time and on a quiet system. Here the question is what they do to payers, to memory and to the books while everything dies. Some
//! hide a payment behind a request that two parsers could read differently: taken, it would be a phantom for the referee.
//!
//! A conversation ends well with a status that refuses, or with no answer and the end of the connection; with a 502, 503 or 504 when whoever should
//! have refused was dead just then, which is counted by itself. Anything else is wrong: a yes, a second answer, a connection that stays
//! open for [`PATIENCE`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::client::Origin;

/// A gateway gives an unfinished request 5 s, HAProxy half of one for its head and one for its body; behind it, a dead gateway is worth three attempts.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two conversations of one client, at most.
const PAUSE_MS_MAX: u64 = 200;
/// Between two bytes of who sends slowly: a gateway's 5 s end before the request does.
const DRIP: Duration = Duration::from_millis(100);
/// More than any refusal; whoever sends more is not believed to end.
const ANSWER_SIZE_MAX: u64 = 64 << 10;
/// Wrong conversations that are remembered by their words.
const EXAMPLES_MAX: usize = 20;

/// How the bytes of a shape go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// All at once; then the end is awaited.
    AtOnce,
    /// All at once, and the client says that nothing more will come.
    ThenHangsUp,
    /// One by one.
    Slowly,
}

/// What is sent: a name, the bytes, how.
#[derive(Debug)]
struct Shape {
    name: &'static str,
    bytes: Vec<u8>,
    manner: Manner,
}

/// What came of all conversations.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By what was heard.
    pub(crate) replies: BTreeMap<String, u64>,
    /// Shapes that were refused at least once.
    pub(crate) refused_shapes: BTreeMap<&'static str, u64>,
    pub(crate) wrong_count: u64,
    pub(crate) wrong: Vec<String>,
}

/// How a conversation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Refused with this status.
    Refused(u16),
    /// Told to come again.
    Unavailable(u16),
    /// Hung up on without a word.
    Closed,
    /// Nobody listened.
    NobodyThere,
    Wrong(String),
}

impl Tally {
    pub(crate) fn count(&self) -> u64 {
        self.replies.values().sum()
    }

    fn take(&mut self, shape: &'static str, way: &Origin, end: End) {
        let name = match end {
            End::Refused(status) => {
                *self.refused_shapes.entry(shape).or_default() += 1;
                status.to_string()
            }
            End::Unavailable(status) => status.to_string(),
            End::Closed => "closed".to_owned(),
            End::NobodyThere => "nobody there".to_owned(),
            End::Wrong(what) => {
                self.wrong_count += 1;
                if self.wrong.len() < EXAMPLES_MAX {
                    self.wrong.push(format!("{shape}, {way:?}: {what}"));
                }
                "wrong".to_owned()
            }
        };
        *self.replies.entry(name).or_default() += 1;
    }
}

/// One hostile client, for ever.
pub(crate) async fn torment(ways: Rc<Vec<Origin>>, seed: u64, tally: Rc<RefCell<Tally>>) {
    let mut random = Rng::with_seed(seed);
    loop {
        sleep(Duration::from_millis(random.u64(0..PAUSE_MS_MAX))).await;
        let way = &ways[random.usize(0..ways.len())];
        let mut shapes = shapes(Uuid::from_u128(random.u128(..)));
        let shape = shapes.swap_remove(random.usize(0..shapes.len()));
        let end = converse(way, &shape).await;
        tally.borrow_mut().take(shape.name, way, end);
    }
}

/// How many shapes there are.
pub(crate) fn shape_count() -> usize {
    shapes(Uuid::nil()).len()
}

/// All shapes; `id` is of the payments that must not be taken.
fn shapes(id: Uuid) -> Vec<Shape> {
    const POST: &str = "POST /payments HTTP/1.1\r\nHost: galo\r\n";
    let payment = format!(r#"{{"correlationId":"{id}","amount":1.23}}"#);
    let post =
        |body: &str| format!("{POST}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let hidden = format!("{POST}Content-Length: {}\r\n\r\n{payment}", payment.len());
    let at_once = [
        ("no HTTP", "\x16\x03\x01\x02\x05\x01\x0c\x03\x03 \r\n\r\n".to_owned()),
        (
            "two lengths",
            format!("{POST}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        ),
        (
            "length and encoding",
            format!("{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "a chunk of no size",
            format!("{POST}Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n{hidden}"),
        ),
        ("a head without end", format!("{POST}X: {}", "x".repeat(20 << 10))),
        ("no JSON", post(&payment[..payment.len() - 1])),
        ("an amount of three decimals", post(&payment.replace("1.23", "1.234"))),
        ("an id that is none", post(&payment.replace(&id.to_string(), "galo"))),
        ("a body too large", post(&format!("{payment}{}", " ".repeat(17 << 10)))),
        ("another path", "GET /secrets HTTP/1.1\r\nHost: galo\r\nConnection: close\r\n\r\n".to_owned()),
        ("another method", "DELETE /payments HTTP/1.1\r\nHost: galo\r\nConnection: close\r\n\r\n".to_owned()),
        (
            "bounds that are none",
            "GET /payments-summary?from=now HTTP/1.1\r\nHost: galo\r\nConnection: close\r\n\r\n".to_owned(),
        ),
    ];
    let half = |text: String| text[..text.len() - 10].to_owned();
    let others = [
        ("half a payment", half(post(&payment)), Manner::AtOnce),
        ("half a payment and the end", half(post(&payment)), Manner::ThenHangsUp),
        ("a byte at a time", post(&payment), Manner::Slowly),
    ];
    at_once
        .into_iter()
        .map(|(name, text)| (name, text, Manner::AtOnce))
        .chain(others)
        .map(|(name, text, manner)| Shape { name, bytes: text.into_bytes(), manner })
        .collect()
}

async fn converse(way: &Origin, shape: &Shape) -> End {
    let talk = async {
        match way {
            Origin::Tcp(address) => match TcpStream::connect(address).await {
                Ok(stream) => talk(stream, shape).await,
                Err(_) => End::NobodyThere,
            },
            Origin::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => talk(stream, shape).await,
                Err(_) => End::NobodyThere,
            },
        }
    };
    timeout(PATIENCE, talk).await.unwrap_or_else(|_| End::Wrong(format!("still open after {PATIENCE:?}")))
}

async fn talk<S: AsyncRead + AsyncWrite>(stream: S, shape: &Shape) -> End {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = async {
        // Whoever has refused need not take the rest: what it said decides.
        match shape.manner {
            Manner::AtOnce => writer.write_all(&shape.bytes).await.unwrap_or_default(),
            Manner::ThenHangsUp => {
                writer.write_all(&shape.bytes).await.unwrap_or_default();
                writer.shutdown().await.unwrap_or_default();
            }
            Manner::Slowly => {
                for byte in &shape.bytes {
                    if writer.write_all(std::slice::from_ref(byte)).await.is_err() {
                        break;
                    }
                    sleep(DRIP).await;
                }
            }
        }
        // The end of the answer ends the conversation.
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut answer = Vec::new();
        // A reset ends an answer as well as a close does; what came before it counts.
        (&mut reader).take(ANSWER_SIZE_MAX).read_to_end(&mut answer).await.unwrap_or_default();
        answer
    };
    tokio::select! {
        () = writing => End::Closed,
        answer = reading => classify(&answer),
    }
}

/// What an answer, up to the connection's end, amounts to.
fn classify(answer: &[u8]) -> End {
    if answer.is_empty() {
        return End::Closed;
    }
    let text = String::from_utf8_lossy(answer);
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let answer_count = text.matches("HTTP/1.1 ").count() + text.matches("HTTP/1.0 ").count();
    match status {
        Some(status @ (400..=499 | 501 | 505)) if answer_count == 1 => End::Refused(status),
        Some(status @ (502..=504)) if answer_count == 1 => End::Unavailable(status),
        _ => End::Wrong(format!("{:?}", text.chars().take(200).collect::<String>())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_refusal_or_silence_is_right() {
        let refusal = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
        assert_eq!(classify(refusal.as_bytes()), End::Refused(400));
        assert_eq!(classify(b"HTTP/1.0 408 Request Time-out\r\n\r\n"), End::Refused(408));
        assert_eq!(classify(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), End::Unavailable(503));
        assert_eq!(classify(b""), End::Closed);
        let second = format!("{refusal}HTTP/1.1 202 Accepted\r\n\r\n");
        for wrong in [
            "HTTP/1.1 202 Accepted\r\n\r\n",
            "HTTP/1.1 500 Oh\r\n\r\n",
            "HTTP/1.1 4",
            "hello",
            second.as_str(),
        ] {
            assert!(matches!(classify(wrong.as_bytes()), End::Wrong(_)), "{wrong}");
        }
    }

    #[test]
    fn wrong_conversations_are_counted_and_some_kept() {
        let mut tally = Tally::default();
        let way = Origin::Unix("gateway-1.sock".into());
        tally.take("half", &way, End::Refused(408));
        (0..30).for_each(|_| tally.take("half", &way, End::Wrong("202".to_owned())));
        assert_eq!((tally.count(), tally.wrong_count, tally.wrong.len()), (31, 30, EXAMPLES_MAX));
        assert_eq!(tally.refused_shapes.get("half"), Some(&1));
    }

    #[test]
    fn shapes_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> =
            shapes(Uuid::nil()).into_iter().map(|shape| shape.name).collect();
        assert_eq!(names.len(), shape_count());
    }
}
