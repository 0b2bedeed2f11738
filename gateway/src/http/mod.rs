//! The gateway's HTTP front: connections in, answers out.
//!
//! It decides nothing about payments; it asks a [`Service`]. One [`Server`] per thread, each on its own monoio
//! runtime, any number of them on one listening socket. The way of a request:
//!
//! ```text
//! socket ─▶ connection ─▶ framing ─▶ gate ─▶ monoio-http ─▶ routes ─▶ payment / query ─▶ Service
//!              ▲ watch: deadlines, stop                       answer / problem ─▶ monoio-http ─▶ socket
//! ```
//!
//! The hot request leaves the codec out, both ways: of a `POST /payments` whose body stands there as it is `framing` has read
//! all that there is to know, and its 202 is always the same 44 bytes. So a payment allocates nothing here.
//!
//! What it must never do: panic on input (that would end the process), read a second request out of a body, or wait
//! without a bound for a client. What it survives: hostile bytes, slow and vanishing clients, running out of descriptors.
//!
//! # Memory
//! A connection at rest has 16 KiB in the codec, 2 KiB in the intake and about 2 KiB of task: 20 KiB, of which 11 were
//! resident in a run with 1,000 connections (`examples/http-cost.rs`). At worst a client
//! holds 16 KiB in the intake, 20 in the decoder and 8 in the encoder: 46 KiB. The default bound of 1,024 connections
//! (HAProxy opens one for each request in flight; the contest has 500) is 20 MiB at rest and 46 MiB under attack.

mod answer;
mod connection;
mod framing;
mod gate;
mod members;
mod notifications;
pub mod offline;
mod payment;
mod problem;
mod query;
mod routes;
pub mod service;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use monoio::io::{AsyncWriteRentExt, Canceller};
use monoio::net::{UnixListener, UnixStream};

use connection::Shared;
use payment::PaymentReader;
pub use service::Service;
use watch::Registry;

/// A turn of the ring, at least.
const CLOSE_WAIT: Duration = Duration::from_millis(1);

/// How long to wait after a failed accept: the next one would most likely fail too, and at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The front's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// From a request's first byte until it is whole, and for writing its answer. Then 408, and the connection closes.
    pub request_timeout_ms: u64,
    /// How long a connection may rest between requests. Longer than HAProxy keeps it, so that HAProxy closes first.
    pub idle_timeout_ms: u64,
    /// Connections of this server. One more is told 503 and closed. See the module's header for what one costs.
    pub connections_max: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { request_timeout_ms: 5_000, idle_timeout_ms: 75_000, connections_max: 1_024 }
    }
}

/// One thread's HTTP server.
pub struct Server {
    registry: Rc<Registry>,
    accepting: Cell<Option<Canceller>>,
}

impl Server {
    /// A server that serves nobody yet.
    #[must_use]
    pub fn new(config: HttpConfig) -> Rc<Self> {
        Rc::new(Self { registry: Rc::new(Registry::new(config)), accepting: Cell::default() })
    }

    /// Connections at this moment.
    #[must_use]
    pub fn connections_len(&self) -> usize {
        self.registry.len()
    }

    /// Stops gracefully: accepts no more, lets idle connections go, and has the others close after the answer that they
    /// are at. [`serve`](Self::serve) returns once the last has gone; whoever cannot wait that long drops it.
    pub fn stop(&self) {
        self.registry.stop();
        if let Some(canceller) = self.accepting.take() {
            drop(canceller.cancel());
        }
    }

    /// Serves until [`stop`](Self::stop), and then until the last connection has gone.
    ///
    /// On the epoll driver `listener` must be non-blocking.
    pub async fn serve<S: Service>(&self, listener: UnixListener, service: Rc<S>) {
        let registry = &self.registry;
        let shared = Rc::new(Shared {
            service,
            reader: RefCell::new(PaymentReader::new()),
            registry: Rc::clone(registry),
        });
        // It ends with its sleep, behind the last connection; nobody waits for that.
        drop(monoio::spawn(Rc::clone(registry).sweep_all()));
        let mut is_failing = false;
        while !registry.is_stopping() {
            let canceller = Canceller::new();
            let accepted = listener.cancelable_accept(canceller.handle());
            self.accepting.set(Some(canceller));
            let accepted = accepted.await;
            let was_failing = std::mem::replace(&mut is_failing, accepted.is_err());
            match accepted {
                Ok((stream, _)) if registry.is_full() => turn_away(stream, &shared).await,
                Ok((stream, _)) => drop(monoio::spawn(connection::serve(stream, Rc::clone(&shared)))),
                Err(_) if registry.is_stopping() => {}
                Err(error) => {
                    if !was_failing {
                        tracing::warn!(%error, connections = registry.len(), "cannot accept connections");
                    }
                    monoio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        registry.drained().await;
        // The last one's close is still to be submitted.
        monoio::time::sleep(CLOSE_WAIT).await;
    }
}

/// Tells a client that there is no room. The socket is fresh, so its send buffer takes the answer without waiting.
async fn turn_away<S: Service>(mut stream: UnixStream, shared: &Shared<S>) {
    let problem = &problem::TOO_MANY_CONNECTIONS;
    if let Err(error) = stream.write_all(answer::render_refusal(problem)).await.0 {
        tracing::debug!(%error, "turning a connection away");
    }
    shared.service.observe(service::Endpoint::Other, problem.status, 0);
}
