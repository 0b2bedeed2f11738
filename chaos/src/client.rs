//! A small asynchronous HTTP client: keep-alive connections to one origin, as many as are needed at once, up to a bound.
//!
//! Connections rest in the order in which they were last used, so that all of them stay in use. One that the other side
//! closed while it rested is dropped before anything is written to it; one that breaks with a request on it makes that
//! request fail, and nothing here repeats it: whoever sent it decides, since only a payment's sender knows what a second
//! copy means. A request that timed out closes its connection.
//!
//! The bound stays below what HAProxy takes in (`maxconn 1300`). Beyond that, connections wait in its backlog while those that
//! rest keep their places, and whoever waits there hears nothing at all: after a stall of two seconds at 1,000 payments a
//! second that was one POST in nine, and it was the client's doing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Who is asked.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The answer, if its status is 200.
    pub(crate) fn ok(self, what: &str) -> Result<Self, String> {
        if self.status == 200 { Ok(self) } else { Err(format!("{what}: {} {}", self.status, self.text())) }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// Nobody listens: not one byte was sent.
    Refused,
    /// The connection ended before the answer did.
    Broken,
    /// It took too long.
    Late,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::Broken => "connection broken",
            Self::Late => "no answer in time",
        })
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// Connections with a request on them at most, unless it is told otherwise; further requests wait their turn.
pub(crate) const CONNECTIONS_MAX: usize = 512;

/// Connections to one origin. Lives on one thread, inside a `LocalSet`.
#[derive(Debug)]
pub(crate) struct Client {
    origin: Origin,
    idle: RefCell<VecDeque<Sender>>,
    turns: Semaphore,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(origin: Origin, timeout: Duration) -> Self {
        Self::bounded(origin, timeout, CONNECTIONS_MAX)
    }

    pub(crate) fn bounded(origin: Origin, timeout: Duration, connections_max: usize) -> Self {
        Self { origin, idle: RefCell::default(), turns: Semaphore::new(connections_max), timeout }
    }

    /// Opens connections in advance, so that the first requests do not pay for them.
    pub(crate) async fn open(&self, count: usize) -> Result<(), Failure> {
        for _ in 0..count {
            let sender = self.connect().await?;
            self.idle.borrow_mut().push_back(sender);
        }
        Ok(())
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.send(Method::GET, path, HeaderMap::new(), Bytes::new()).await
    }

    /// Closes the connections that rest.
    pub(crate) fn close_idle(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Sends one request, when it has its turn, and waits for the whole answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let _turn = self.turns.acquire().await.expect("nobody closes it");
        timeout(self.timeout, self.exchange(method, path, headers, body)).await.unwrap_or(Err(Failure::Late))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("the paths of this program are paths");
        *request.headers_mut() = headers;
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("galo"));
        let mut sender = match self.take_idle().await {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let response = sender.send_request(request).await.map_err(|_| Failure::Broken)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|_| Failure::Broken)?.to_bytes();
        if !sender.is_closed() {
            self.idle.borrow_mut().push_back(sender);
        }
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// The connection that has rested longest and still stands.
    async fn take_idle(&self) -> Option<Sender> {
        loop {
            let mut sender = self.idle.borrow_mut().pop_front()?;
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        match &self.origin {
            Origin::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(|_| Failure::Refused)?;
                stream.set_nodelay(true).map_err(|_| Failure::Refused)?;
                shake_hands(TokioIo::new(stream)).await
            }
            Origin::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|_| Failure::Refused)?;
                shake_hands(TokioIo::new(stream)).await
            }
        }
    }
}

async fn shake_hands<S>(stream: TokioIo<S>) -> Result<Sender, Failure>
where
    TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(|_| Failure::Broken)?;
    tokio::task::spawn_local(async move {
        // Its end, good or bad, shows in the sender.
        drop(connection.await);
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, future)
    }

    /// A server that gives each connection these answers, one for each request, and then closes it.
    fn server(answers: &'static [&'static [u8]]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                for answer in answers {
                    let mut request = [0; 4096];
                    assert!(stream.read(&mut request).unwrap() > 0);
                    stream.write_all(answer).unwrap();
                }
            }
        });
        address
    }

    #[test]
    fn a_connection_closed_at_rest_is_replaced() {
        let address = server(&[b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"]);
        run(async {
            let client = Client::new(Origin::Tcp(address), Duration::from_secs(5));
            for _ in 0..3 {
                assert_eq!(client.get("/").await.unwrap().text(), "hi");
                // The end of the connection is on its way: taking it out waits for no clock.
                while !client.idle.borrow().iter().all(SendRequest::is_closed) {
                    tokio::task::yield_now().await;
                }
            }
        });
    }

    #[test]
    fn no_more_connections_than_the_bound() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        run(async {
            let client = std::rc::Rc::new(Client::new(Origin::Tcp(address), Duration::from_secs(60)));
            for _ in 0..CONNECTIONS_MAX + 3 {
                let client = std::rc::Rc::clone(&client);
                tokio::task::spawn_local(async move { drop(client.get("/").await) });
            }
            while client.turns.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            assert!(timeout(Duration::ZERO, client.get("/")).await.is_err(), "it waits for its turn");
        });
    }

    #[test]
    fn each_failure_has_its_name() {
        let broken = server(&[b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi"]);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        run(async {
            let limit = Duration::from_secs(5);
            let failure = |address, limit| async move {
                Client::new(Origin::Tcp(address), limit).get("/").await.unwrap_err()
            };
            assert_eq!(failure(broken, limit).await, Failure::Broken);
            assert_eq!(failure(refused, limit).await, Failure::Refused);
            assert_eq!(failure(silent.local_addr().unwrap(), Duration::from_millis(20)).await, Failure::Late);
        });
    }
}
