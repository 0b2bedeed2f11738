//! A payment processor that does as it is told: any bytes, in any pieces, stored or not, and then silence, an end or a
//! reset.
//!
//! Acts are scripted by payment: the first POST with this id gets the first act, and when the script is over the
//! processor is honest again (200 and stored, 422 if it knows the id, as the real ones are). So cases need no order among
//! themselves, and whatever retries come find a processor that works. Where a whole way of life is meant and not one
//! payment's, a [`Manner`] decides instead, from the POST and its number: each fiftieth, these ids for ever, all of them for
//! five seconds. It keeps books of what it stored and of every POST it was sent, when, and what it answered, in which a case
//! reads what Galo did, and notes each request that is not exactly what Galo should send: two requests in one, or half a one,
//! would show there.
//!
//! Connections that are open may be frozen: then packets vanish on them, or answers alone do, without an end.
//!
//! One thread per connection, blocking. It uses nothing of Galo's.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::client::{find, show};

/// How often a connection's thread looks whether it is over.
const STOP_POLL: Duration = Duration::from_millis(200);

/// What follows the bytes of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Nothing: the connection stays open.
    Stay,
    /// The end of the stream.
    Close,
    /// A reset.
    Reset,
    /// Nothing until the processor is healed, which resets what hangs.
    Hang,
}

/// What becomes of connections that freeze: no end and no reset on any of them, and new ones are as ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Freeze {
    /// Packets vanish both ways, and nobody acknowledges any: a firewall that has forgotten its states.
    Vanish,
    /// What is sent is acknowledged and goes no further: a proxy that has lost its other side.
    Swallow,
    /// What is sent arrives, and no answer does.
    Mute,
}

/// The answer to one request.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    /// Whether the payment is stored before the first byte of the answer.
    pub(crate) stores: bool,
    pub(crate) bytes: Vec<u8>,
    /// The answer is written in pieces of this many bytes, each with a pause before it.
    pub(crate) piece_size: usize,
    pub(crate) pause: Duration,
    pub(crate) then: Then,
}

impl Act {
    /// An answer in one piece.
    pub(crate) fn new(stores: bool, bytes: impl Into<Vec<u8>>, then: Then) -> Self {
        Self { stores, bytes: bytes.into(), piece_size: usize::MAX, pause: Duration::ZERO, then }
    }

    pub(crate) fn in_pieces(self, piece_size: usize, pause: Duration) -> Self {
        Self { piece_size, pause, ..self }
    }

    /// The same, so much later.
    pub(crate) fn after(self, pause: Duration) -> Self {
        self.in_pieces(usize::MAX, pause)
    }

    /// The status that it answers; 0 where it answers nothing that has one.
    fn status(&self) -> u16 {
        let text = self.bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        text.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or_default()
    }
}

/// A POST, as a [`Manner`] sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'books> {
    pub(crate) id: &'books str,
    /// One for the first POST of all.
    pub(crate) number: u64,
    /// Since the first POST of all.
    pub(crate) since_first: Duration,
    /// This id is stored already.
    pub(crate) is_known: bool,
    /// One for the first request of its connection.
    pub(crate) on_connection: u64,
}

impl Asked<'_> {
    /// What an honest processor does.
    pub(crate) fn honestly(&self) -> Act {
        Act::new(true, if self.is_known { known_already() } else { processed() }, Then::Stay)
    }
}

type Judge = dyn Fn(&Asked<'_>) -> Option<Act> + Send;

/// A way of life: what every POST without a script gets; `None` for honesty.
struct Manner(Box<Judge>);

impl std::fmt::Debug for Manner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Manner")
    }
}

/// One POST of a payment, and what it was told.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) id: String,
    /// 0: nothing that has a status.
    pub(crate) status: u16,
}

/// A payment as it was sent or stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) amount_cents: u64,
    pub(crate) requested_at_ms: i64,
}

/// What a processor remembers.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) stored: BTreeMap<String, Payment>,
    /// Every POST, in the order of arrival.
    pub(crate) posts: HashMap<String, Vec<Payment>>,
    /// The member `payer` of each, as it stood there.
    payers: HashMap<String, Vec<Option<String>>>,
    /// Likewise, of all ids together.
    pub(crate) arrivals: Vec<Arrival>,
    /// When the last byte of the first answer was written that says of a stored payment that it is stored.
    pub(crate) answered: HashMap<String, Instant>,
    /// Requests that Galo should never send.
    pub(crate) anomalies: Vec<String>,
    pub(crate) health_count: u64,
    pub(crate) lookup_count: u64,
    scripts: HashMap<String, VecDeque<Act>>,
    /// Look-ups of each id.
    pub(crate) looked_up: HashMap<String, usize>,
    lookups: HashMap<String, (Act, usize)>,
    health: Option<Act>,
    /// What everyone gets who has no script, instead of honesty.
    mood: Option<Act>,
    manner: Option<Manner>,
}

/// A processor that listens.
#[derive(Debug)]
pub(crate) struct Processor {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    books: Mutex<Books>,
    is_over: AtomicBool,
    /// How often it was healed.
    heal_count: AtomicU64,
    /// The connections that were open lately, in the order in which they came.
    lines: Mutex<Vec<Weak<Line>>>,
}

/// A connection, as seen from outside its thread.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    freeze: OnceLock<Freeze>,
}

impl Line {
    fn freeze(&self, how: Freeze) -> std::io::Result<()> {
        if how == Freeze::Vanish {
            // A filter of one instruction: of every packet nothing is let in, before TCP sees it.
            let nothing = nix::libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
            SockRef::from(&self.stream).attach_filter(&[nothing])?;
        }
        self.freeze.set(how).map_err(|_| ErrorKind::AlreadyExists.into())
    }

    fn is_frozen(&self) -> bool {
        self.freeze.get().is_some()
    }
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        // A thread that panicked while it held the books has said why already.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Weak<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address that nobody listens on, and that nobody else can take: connecting is refused.
pub(crate) struct Reserved {
    socket: Socket,
    address: SocketAddr,
    fillers: Vec<Socket>,
}

impl Reserved {
    pub(crate) fn new() -> Result<Self, String> {
        let reserve = || -> std::io::Result<Self> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
            let address = socket.local_addr()?.as_socket();
            let address = address.ok_or_else(|| std::io::Error::from(ErrorKind::AddrNotAvailable))?;
            Ok(Self { socket, address, fillers: Vec::new() })
        };
        reserve().map_err(|error| format!("cannot reserve an address: {error}"))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes it a black hole: packets arrive and nobody answers, because the queue of connections to accept is full.
    pub(crate) fn swallow(&mut self) -> Result<(), String> {
        let fill = |fillers: &mut Vec<Socket>| -> std::io::Result<()> {
            self.socket.listen(1)?;
            // One more than the backlog is let in; all beyond find the queue full. They do not wait for that.
            for _ in 0..4 {
                let filler = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                filler.set_nonblocking(true)?;
                match filler.connect(&SockAddr::from(self.address)) {
                    Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
                    _ => fillers.push(filler),
                }
            }
            Ok(())
        };
        fill(&mut self.fillers).map_err(|error| format!("cannot make a black hole: {error}"))
    }

    /// From now on a processor serves here.
    pub(crate) fn serve(self) -> Result<Processor, String> {
        self.socket.listen(1024).map_err(|error| format!("cannot listen: {error}"))?;
        drop(self.fillers);
        Processor::on(self.socket.into())
    }
}

impl Processor {
    /// Starts an honest one on a port of its own.
    pub(crate) fn start() -> Result<Self, String> {
        Reserved::new()?.serve()
    }

    fn on(listener: TcpListener) -> Result<Self, String> {
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        Ok(Self { address, shared })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.shared.books()
    }

    /// What the next POSTs with this id get, one after the other.
    pub(crate) fn script(&self, id: &str, acts: impl IntoIterator<Item = Act>) {
        self.books().scripts.insert(id.to_owned(), acts.into_iter().collect());
    }

    /// What the next lookups of this id get, so many of them.
    pub(crate) fn script_lookups(&self, id: &str, act: Act, count: usize) {
        self.books().lookups.insert(id.to_owned(), (act, count));
    }

    /// From now on lookups of this id are answered honestly.
    pub(crate) fn heal_lookups(&self, id: &str) {
        self.books().lookups.remove(id);
    }

    /// How often this id was looked up.
    pub(crate) fn lookups(&self, id: &str) -> usize {
        self.books().looked_up.get(id).copied().unwrap_or_default()
    }

    /// What every health check gets.
    pub(crate) fn script_health(&self, act: Option<Act>) {
        self.books().health = act;
    }

    /// What every POST without a script gets; `None` for honesty.
    pub(crate) fn set_mood(&self, act: Option<Act>) {
        self.books().mood = act;
    }

    /// How it treats every POST without a script from now on.
    pub(crate) fn set_manner(&self, manner: impl Fn(&Asked<'_>) -> Option<Act> + Send + 'static) {
        self.books().manner = Some(Manner(Box::new(manner)));
    }

    /// From now on it is honest to all, and what hangs is reset.
    pub(crate) fn heal(&self) {
        self.shared.heal_count.fetch_add(1, Ordering::Relaxed);
        let mut books = self.books();
        (books.manner, books.mood) = (None, None);
        books.scripts.clear();
    }

    /// Freezes those of the connections that are open whose number among them is picked; how many that are.
    pub(crate) fn freeze(&self, how: Freeze, picks: impl Fn(usize) -> bool) -> Result<usize, String> {
        let lines = self.shared.lines();
        let open = lines.iter().filter_map(Weak::upgrade).filter(|line| !line.is_frozen());
        let picked: Vec<_> = open.enumerate().filter(|(number, _)| picks(*number)).collect();
        for (_, line) in &picked {
            line.freeze(how).map_err(|error| format!("cannot freeze a connection: {error}"))?;
        }
        Ok(picked.len())
    }

    pub(crate) fn stored(&self, id: &str) -> Option<Payment> {
        self.books().stored.get(id).copied()
    }

    /// The member `payer` of every POST with this id.
    pub(crate) fn payers(&self, id: &str) -> Vec<Option<String>> {
        self.books().payers.get(id).cloned().unwrap_or_default()
    }

    pub(crate) fn posts(&self, id: &str) -> Vec<Payment> {
        self.books().posts.get(id).cloned().unwrap_or_default()
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the accepting thread; if it cannot be reached it is awake already.
        drop(TcpStream::connect_timeout(&self.address, STOP_POLL));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        let shared = Arc::clone(shared);
        std::thread::spawn(move || serve(stream, &shared));
    }
}

/// Serves one connection to its end. An error means that the peer has gone, which is its right.
fn serve(mut stream: TcpStream, shared: &Shared) {
    if stream.set_read_timeout(Some(STOP_POLL)).and(stream.set_nodelay(true)).is_err() {
        return;
    }
    let Ok(line) = stream.try_clone() else { return };
    let line = Arc::new(Line { stream: line, freeze: OnceLock::new() });
    let mut lines = shared.lines();
    lines.retain(|line| line.strong_count() > 0);
    lines.push(Arc::downgrade(&line));
    drop(lines);
    let (mut unread, mut on_connection) = (Vec::new(), 0);
    while let Some(request) = read_request(&mut stream, &mut unread, shared) {
        if matches!(line.freeze.get(), Some(Freeze::Vanish | Freeze::Swallow)) {
            continue;
        }
        on_connection += 1;
        // Before the answer is decided upon: whoever is healed in between does not hang.
        let heal_count = shared.heal_count.load(Ordering::Relaxed);
        let (act, id) = respond(&request, on_connection, shared);
        if act.bytes.is_empty() {
            std::thread::sleep(act.pause);
        }
        for piece in act.bytes.chunks(act.piece_size.min(act.bytes.len()).max(1)) {
            std::thread::sleep(act.pause);
            if line.is_frozen() {
                break;
            }
            if stream.write_all(piece).is_err() {
                return;
            }
        }
        if line.is_frozen() {
            continue;
        }
        if let Some(id) = id
            && matches!(act.status(), 200..=299 | 409 | 422)
        {
            let mut books = shared.books();
            if books.stored.contains_key(&id) {
                books.answered.entry(id).or_insert_with(Instant::now);
            }
        }
        match act.then {
            Then::Stay => {}
            Then::Close => return,
            Then::Reset => return reset(&stream),
            Then::Hang => {
                // Ends by a heal, by the other side's leaving, or with the processor.
                let is_healed = || shared.heal_count.load(Ordering::Relaxed) != heal_count;
                while !is_healed() && !shared.is_over.load(Ordering::Relaxed) {
                    match stream.read(&mut [0]) {
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        }
                        _ => return,
                    }
                }
                return reset(&stream);
            }
        }
    }
}

fn reset(stream: &TcpStream) {
    // A close that does not linger is a reset.
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap_or_default();
}

#[derive(Debug)]
struct Request {
    line: String,
    body: Vec<u8>,
}

fn read_request(stream: &mut TcpStream, unread: &mut Vec<u8>, shared: &Shared) -> Option<Request> {
    loop {
        if let Some(at) = find(unread, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&unread[..at]).into_owned();
            let length: usize = head
                .split("\r\n")
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .and_then(|(_, value)| value.trim().parse().ok())
                .unwrap_or(0);
            if unread.len() >= at + 4 + length {
                let body = unread[at + 4..at + 4 + length].to_vec();
                unread.drain(..at + 4 + length);
                if !unread.is_empty() {
                    shared.books().anomalies.push(format!("bytes after a request: {}", show(unread)));
                }
                return Some(Request { line: head.lines().next().unwrap_or_default().to_owned(), body });
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => {
                if !unread.is_empty() {
                    shared.books().anomalies.push(format!("half a request: {}", show(unread)));
                }
                return None;
            }
            Ok(size) => unread.extend_from_slice(&buffer[..size]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if shared.is_over.load(Ordering::Relaxed) {
                    return None;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PaymentBody<'body> {
    correlation_id: &'body str,
    #[serde(borrow)]
    amount: &'body RawValue,
    requested_at: &'body str,
    /// Of those that were told to forward it.
    #[serde(borrow, default)]
    payer: Option<&'body RawValue>,
}

/// Decides upon an answer, and stores the payment where the act says so; whose POST it is, if it is one.
fn respond(request: &Request, on_connection: u64, shared: &Shared) -> (Act, Option<String>) {
    let mut books = shared.books();
    if request.line == "POST /payments HTTP/1.1" {
        return take_payment(&mut books, &request.body, on_connection);
    }
    (tell(request, &mut books), None)
}

/// What is asked without a payment.
fn tell(request: &Request, books: &mut Books) -> Act {
    let target = match request.line.strip_suffix(" HTTP/1.1").and_then(|line| line.split_once(' ')) {
        Some(("GET", target)) if request.body.is_empty() => target,
        _ => {
            books.anomalies.push(format!("an unknown request: {request:?}"));
            return Act::new(false, plain(400, "Bad Request", ""), Then::Close);
        }
    };
    if target == "/payments/service-health" {
        books.health_count += 1;
        let honest = || Act::new(false, json(200, r#"{"failing":false,"minResponseTime":0}"#), Then::Stay);
        return books.health.clone().unwrap_or_else(honest);
    }
    let Some(id) = target.strip_prefix("/payments/") else {
        books.anomalies.push(format!("an unknown target: {target}"));
        return Act::new(false, plain(404, "Not Found", ""), Then::Stay);
    };
    books.lookup_count += 1;
    *books.looked_up.entry(id.to_owned()).or_default() += 1;
    if let Some((act, left)) = books.lookups.get_mut(id)
        && let Some(fewer) = left.checked_sub(1)
    {
        *left = fewer;
        return act.clone();
    }
    match books.stored.get(id) {
        Some(payment) => Act::new(false, json(200, &stored_json(id, *payment)), Then::Stay),
        None => Act::new(false, plain(404, "Not Found", ""), Then::Stay),
    }
}

fn take_payment(books: &mut Books, body: &[u8], on_connection: u64) -> (Act, Option<String>) {
    let Some((id, payment, payer)) = read_payment(body) else {
        books.anomalies.push(format!("no payment: {}", show(body)));
        return (Act::new(false, plain(400, "Bad Request", ""), Then::Stay), None);
    };
    books.posts.entry(id.clone()).or_default().push(payment);
    books.payers.entry(id.clone()).or_default().push(payer);
    let at = Instant::now();
    let asked = Asked {
        id: &id,
        number: books.arrivals.len() as u64 + 1,
        since_first: books.arrivals.first().map_or(Duration::ZERO, |first| at - first.at),
        is_known: books.stored.contains_key(&id),
        on_connection,
    };
    let scripted = books.scripts.get_mut(&id).and_then(VecDeque::pop_front);
    let scripted = scripted.or_else(|| books.manner.as_ref().and_then(|manner| manner.0(&asked)));
    let act = scripted.or_else(|| books.mood.clone()).unwrap_or_else(|| asked.honestly());
    if act.stores && !asked.is_known {
        books.stored.insert(id.clone(), payment);
    }
    books.arrivals.push(Arrival { at, id: id.clone(), status: act.status() });
    (act, Some(id))
}

fn read_payment(body: &[u8]) -> Option<(String, Payment, Option<String>)> {
    let body: PaymentBody<'_> = serde_json::from_slice(body).ok()?;
    let amount_cents = cents_of(body.amount.get())?;
    let requested_at: jiff::Timestamp = body.requested_at.parse().ok()?;
    // Exactly the form that Galo writes: 24 bytes, milliseconds, Z.
    let is_exact = body.requested_at.len() == 24 && body.requested_at.ends_with('Z');
    let payment = Payment { amount_cents, requested_at_ms: requested_at.as_millisecond() };
    let payer = body.payer.map(|payer| payer.get().to_owned());
    (is_exact && body.correlation_id.len() == 36).then(|| (body.correlation_id.to_owned(), payment, payer))
}

/// Cents of a decimal number with two places, the form that Galo writes.
pub(crate) fn cents_of(text: &str) -> Option<u64> {
    let (whole, cents) = text.split_once('.')?;
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || cents.len() != 2 || !is_digits(whole) || !is_digits(cents) {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(cents.parse().ok()?)
}

pub(crate) fn stored_json(id: &str, payment: Payment) -> String {
    let at = jiff::Timestamp::from_millisecond(payment.requested_at_ms).unwrap_or_default();
    let Payment { amount_cents, .. } = payment;
    format!(
        r#"{{"correlationId":"{id}","amount":{}.{:02},"requestedAt":"{at}"}}"#,
        amount_cents / 100,
        amount_cents % 100
    )
}

/// The real ones' yes: chunked, with the last chunk.
pub(crate) fn processed() -> Vec<u8> {
    json(200, r#"{"message":"payment processed successfully"}"#)
}

/// The real ones' "I have it": 2 KB of text.
pub(crate) fn known_already() -> Vec<u8> {
    let text = "Payment exists. ".repeat(128);
    format!(
        "HTTP/1.1 422 Unprocessable Entity\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n",
        text.len()
    )
    .into_bytes()
}

fn json(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} OK\r\nContent-Type: application/json; charset=utf-8\r\nServer: Kestrel\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    )
    .into_bytes()
}

/// An answer with a length.
pub(crate) fn plain(status: u16, reason: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} {reason}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_galo_writes_is_money() {
        assert_eq!(cents_of("19.90"), Some(1990));
        for text in ["19.9", "19", ".90", "1e2", "-1.00", "1.000", "\"1.00\"", "1.0x"] {
            assert_eq!(cents_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_stored_payment_is_known_and_a_script_ends() {
        let mut books = Books::default();
        let id = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";
        let body =
            format!(r#"{{"correlationId":"{id}","amount":19.90,"requestedAt":"2025-07-15T12:34:56.789Z"}}"#);
        books.scripts.insert(id.to_owned(), VecDeque::from([Act::new(false, "x", Then::Reset)]));
        assert_eq!(take_payment(&mut books, body.as_bytes(), 1).0.bytes, b"x");
        assert!(books.stored.is_empty());
        assert_eq!(take_payment(&mut books, body.as_bytes(), 1).0.bytes, processed());
        assert_eq!(take_payment(&mut books, body.as_bytes(), 1).0.bytes, known_already());
        assert_eq!((books.stored.len(), books.posts[id].len(), books.anomalies.len()), (1, 3, 0));
        take_payment(&mut books, b"{}", 1);
        assert_eq!(books.anomalies.len(), 1);
        let statuses: Vec<u16> = books.arrivals.iter().map(|arrival| arrival.status).collect();
        assert_eq!(statuses, [0, 200, 422]);
    }

    #[test]
    fn a_manner_counts_posts_and_gives_way_to_a_script() {
        let mut books = Books::default();
        let refuse = |asked: &Asked<'_>| {
            let refusal = Act::new(false, plain(400, "X", ""), Then::Stay);
            (asked.number.is_multiple_of(2) && !asked.is_known).then_some(refusal)
        };
        books.manner = Some(Manner(Box::new(refuse)));
        let body = |number: u64| {
            format!(
                r#"{{"correlationId":"4a7901b8-7d26-4d9d-aa19-{number:012x}","amount":19.90,"requestedAt":"2025-07-15T12:34:56.789Z"}}"#
            )
        };
        books.scripts.insert(
            "4a7901b8-7d26-4d9d-aa19-000000000004".to_owned(),
            VecDeque::from([Act::new(true, "", Then::Close)]),
        );
        let told: Vec<u16> =
            (1..=5).map(|number| take_payment(&mut books, body(number).as_bytes(), 1).0.status()).collect();
        assert_eq!((told, books.stored.len()), (vec![200, 400, 200, 0, 200], 4));
        assert_eq!(take_payment(&mut books, body(5).as_bytes(), 1).0.status(), 422);
    }
}
