//! What every test here needs: both drivers, and servers that do exactly as a script says.
//!
//! The servers are plain blocking sockets on threads of their own, so that nothing of what is tested serves it.
//! Where one pauses between two pieces of an answer, that is the stimulus; no test relies on how long it takes.

mod answers;
mod bank;
mod decoder;
mod dispatch_cost;
mod handshakes;
mod lanes;
mod moves;
mod queries;
mod reach;
mod renewals;
mod sealed;
mod tokens;

use std::cell::RefCell;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use galo_engine::verdict::{End, Rules};
use galo_engine::{CorrelationId, Processor};
use galo_profile::{Processor as Profile, Processors};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::{Attempt, AttemptEnd, Client, ClientConfig, Endpoint, SocketOptions};
use crate::beat::Beat;

/// An answer as the real processors send it, with its body in one chunk.
const ANSWER_200: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nDate: Tue, 15 Jul 2025 12:34:56 GMT\r\n\
     Server: Kestrel\r\nTransfer-Encoding: chunked\r\n\r\n2d\r\n{\"message\":\"payment processed successfully\"}\n\r\n0\r\n\r\n";

/// An answer with a length.
const ANSWER_500: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\noops!";

/// Runs a test on io_uring and on epoll. A test that hangs fails.
fn on_both_drivers<F: Future<Output = ()>>(test: impl Fn() -> F) {
    let limited = || async {
        monoio::time::timeout(Duration::from_secs(60), test()).await.expect("the test must not hang");
    };
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(256)
        .enable_timer()
        .build()
        .unwrap()
        .block_on(limited());
    RuntimeBuilder::<LegacyDriver>::new().enable_timer().build().unwrap().block_on(limited());
}

/// Waits until `condition` holds, letting the runtime work.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        monoio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A listener on a port of its own.
fn listen() -> TcpListener {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..1000 {
        let port = 18300 + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            // The standard library's queue of 128 drops some of several hundred connects at once.
            // SAFETY: the descriptor is open and listening; calling listen again only lengthens its queue.
            assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1024) }, 0);
            return listener;
        }
    }
    panic!("no free port");
}

/// A server whose connections are each handled by `script` on a thread; the connection's number counts from 0.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Connections whose script has returned.
    done: Arc<AtomicUsize>,
    /// Whether a script has panicked, which is no client's doing.
    failed: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(script: impl Fn(usize, &mut Peer) + Send + Sync + 'static) -> Self {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let (connections, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let failed = Arc::new(AtomicBool::new(false));
        let script = Arc::new(script);
        let acceptor = thread::spawn({
            let (connections, done, stop) = (Arc::clone(&connections), Arc::clone(&done), Arc::clone(&stop));
            let failed = Arc::clone(&failed);
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let stream = stream.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let number = connections.fetch_add(1, Ordering::SeqCst);
                    let (script, done) = (Arc::clone(&script), Arc::clone(&done));
                    let failing = Failing(Arc::clone(&failed));
                    thread::spawn(move || {
                        let _failing = failing;
                        script(number, &mut Peer { stream, unread: Vec::new() });
                        done.fetch_add(1, Ordering::SeqCst);
                    });
                }
            }
        });
        Self { address, connections, done, failed, stop, acceptor: Some(acceptor) }
    }

    /// A server that numbers the requests of all its connections and answers each by `answer`.
    fn answering(answer: impl Fn(usize, &Request, &mut Peer) + Send + Sync + 'static) -> Self {
        let requests = AtomicUsize::new(0);
        Self::start(move |_, peer| {
            while let Some(request) = peer.request() {
                answer(requests.fetch_add(1, Ordering::SeqCst), &request, peer);
            }
        })
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the acceptor.
        drop(TcpStream::connect(self.address));
        self.acceptor.take().unwrap().join().unwrap();
        assert!(thread::panicking() || !self.failed.load(Ordering::SeqCst), "a server's script has failed");
    }
}

/// Notes a panic of the thread that owns it.
struct Failing(Arc<AtomicBool>);

impl Drop for Failing {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

/// The server's side of one connection. All its methods tolerate that the client has gone.
struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// A request as it arrived.
struct Request {
    text: String,
}

impl Request {
    /// The amount in cents, from the body's digits.
    fn cents(&self) -> u64 {
        let (_, rest) = self.text.split_once("\"amount\":").unwrap();
        rest.split(',').next().unwrap().replace('.', "").parse().unwrap()
    }

    fn id(&self) -> &str {
        let (_, rest) = self.text.split_once("\"correlationId\":\"").unwrap();
        &rest[..36]
    }
}

impl Peer {
    /// The next whole request, `None` when the client has closed.
    fn request(&mut self) -> Option<Request> {
        loop {
            if let Some(size) = whole_request(&self.unread) {
                let text = String::from_utf8(self.unread.drain(..size).collect()).unwrap();
                return Some(Request { text });
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
            }
        }
    }

    fn send(&mut self, text: impl AsRef<[u8]>) {
        // The client may have gone; some scripts want just that.
        drop(self.stream.write_all(text.as_ref()));
    }

    /// Sends and closes its side properly (FIN).
    fn close(&mut self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// Closes with a reset (RST).
    fn reset(&mut self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: the descriptor is open, and the option's value is a `linger` of that size.
        let result = unsafe {
            libc::setsockopt(
                self.stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                u32::try_from(size_of::<libc::linger>()).unwrap(),
            )
        };
        assert_eq!(result, 0);
        // SAFETY: connecting to an unspecified address dissolves the connection, with a reset because of the linger;
        // the descriptor stays open for its owner to close.
        unsafe {
            let mut address: libc::sockaddr = std::mem::zeroed();
            address.sa_family = u16::try_from(libc::AF_UNSPEC).unwrap();
            let size = u32::try_from(size_of::<libc::sockaddr>()).unwrap();
            assert_eq!(libc::connect(self.stream.as_raw_fd(), &raw const address, size), 0);
        }
    }

    /// Waits until the client has closed.
    fn wait_for_close(&mut self) {
        let mut buffer = [0; 4096];
        while matches!(self.stream.read(&mut buffer), Ok(1..)) {}
    }
}

/// The size of the whole request at the front of `bytes`, if there is one.
fn whole_request(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    let body = text
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |value| value.parse().unwrap());
    (bytes.len() >= head + body).then_some(head + body)
}

/// A processor of the contest's, at this URL.
fn profile(url: &str) -> Arc<Profile> {
    let both = Processors::contest(url, url, [0, 0], 64, 30_000).unwrap();
    Arc::new(both.by_number(0).unwrap().clone())
}

/// Of a client that has all the time in the world.
fn config(url: &str) -> ClientConfig {
    ClientConfig {
        processor: Processor::FALLBACK,
        endpoint: Endpoint::at(url),
        profile: profile(url),
        token_endpoint: None,
        lanes_max: 64,
        attempt_timeout_ms: 30_000,
        connect_timeout_ms: 1000,
        idle_ms_max: 30_000,
        socket: SocketOptions::default(),
    }
}

/// A client and what it reported.
struct Bench {
    client: Rc<Client>,
    ends: Rc<RefCell<Vec<AttemptEnd>>>,
}

impl Bench {
    fn new(url: &str) -> Self {
        Self::with(url, |_| {})
    }

    fn with(url: &str, change: impl FnOnce(&mut ClientConfig)) -> Self {
        let mut config = config(url);
        change(&mut config);
        let ends: Rc<RefCell<Vec<AttemptEnd>>> = Rc::default();
        let client = Client::new(config, Beat::eager(), {
            let ends = Rc::clone(&ends);
            Rc::new(move |end| ends.borrow_mut().push(end))
        });
        Self { client, ends }
    }

    /// One attempt from start to end.
    async fn one(&self, slot: u32) -> End {
        let before = self.ends.borrow().len();
        self.client.start(attempt(slot));
        self.client.drained().await;
        let ends = self.ends.borrow();
        assert_eq!(ends.len(), before + 1, "one end for one start");
        assert_eq!((ends[before].slot, ends[before].processor), (slot, Processor::FALLBACK));
        ends[before].end
    }
}

/// An attempt whose amount is its slot plus one cent.
fn attempt(slot: u32) -> Attempt {
    let mut id = [0x11; 16];
    id[..4].copy_from_slice(&slot.to_be_bytes());
    Attempt {
        slot,
        correlation_id: CorrelationId(id),
        amount_cents: AmountCents::new(u64::from(slot) + 1).unwrap(),
        requested_at: UnixMillis(1_752_582_896_789),
        members: None,
    }
}

fn answered(status: u16) -> End {
    End::of_status(&Rules::contest(), status)
}
