//! The model processor behind HTTP/1.1 over TCP.
//!
//! [`serve`] accepts connections, over TLS if asked to, and drives the [`Processor`]: it passes the time in, waits for the model's deadlines and takes
//! answers to whoever asked. Everything runs on one thread, so the model needs no lock and a request costs no
//! hand-over; a request that can be answered at once is answered without a task or a channel of its own.
//!
//! It must never decide anything that the model decides, and it never drops a running request because its caller went away:
//! the request lives in the model, the connection only waits for its answer. The death of a connection, a
//! malformed request or a full descriptor table ends that one connection, not the service.
//!
//! With a [`Provider`] the same service speaks another provider's public API instead, around books of its own.
//!
//! Faults that break HTTP itself leave hyper as an error of the service (`Severed`); the connection then carries
//! them out on the socket that hyper gives back.

mod admin;
mod body;
mod listener;
mod provider;
mod routes;
mod tls;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::processor::{Answer, Processor, RateLimit, RequestId, Step, Terms};

pub use listener::serve;
pub use provider::{Provider, Webhook, WebhookError};
pub use tls::{Tls, TlsError};

/// What a caller gets instead of HTTP when a fault says `garbage`.
pub const GARBAGE: &[u8] = b"\x16\x03\x01\x02\x00\x01\xfc\xff this is no HTTP \0\r\n\r\n{]";

/// Deadline of a timer that is not set.
const NEVER_US: u64 = u64::MAX;

/// How a connection ends without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Severed {
    #[error("closed")]
    Closed,
    #[error("reset")]
    Reset,
    #[error("garbage")]
    Garbage,
}

/// A model processor, and the callers that wait for its answers.
#[derive(Debug)]
pub struct Service {
    model: RefCell<Processor>,
    token: RefCell<String>,
    callers: RefCell<HashMap<RequestId, oneshot::Sender<Answer>>>,
    started: Instant,
    deadline_us: Cell<u64>,
    deadline_moved: Notify,
    bodies: Cell<u32>,
    terms: RefCell<Terms>,
    rate: RefCell<RateLimit>,
    /// Whose public API this is, unless it is the contest's.
    provider: Option<Rc<Provider>>,
    /// Where it listens, or is about to. Whoever watches it hangs up when it changes.
    address: watch::Sender<Option<SocketAddr>>,
}

impl Service {
    /// Wraps a model; `token` opens the paths below `/admin/`. Call inside a tokio runtime with time enabled.
    #[must_use]
    pub fn new(model: Processor, token: String) -> Rc<Self> {
        Service::with(model, token, Terms::default(), None)
    }

    /// The same on terms of its own, and with another provider's public API.
    #[must_use]
    pub fn with(model: Processor, token: String, terms: Terms, provider: Option<Provider>) -> Rc<Self> {
        Rc::new(Service {
            model: RefCell::new(model),
            token: RefCell::new(token),
            callers: RefCell::new(HashMap::new()),
            started: Instant::now(),
            deadline_us: Cell::new(NEVER_US),
            deadline_moved: Notify::new(),
            bodies: Cell::new(0),
            terms: RefCell::new(terms),
            rate: RefCell::default(),
            provider: provider.map(Rc::new),
            address: watch::Sender::new(None),
        })
    }

    /// One step of the model at the present time, and what follows from it for others.
    fn step<Outcome>(&self, step: impl FnOnce(&mut Processor, u64) -> Outcome) -> Outcome {
        let now_us =
            u64::try_from(self.started.elapsed().as_micros()).expect("half a million years of microseconds");
        let mut model = self.model.borrow_mut();
        let outcome = step(&mut model, now_us);
        while let Some((request, answer)) = model.poll_answer() {
            // A caller that has gone took its place in the table along, or drops the answer here.
            if let Some(caller) = self.callers.borrow_mut().remove(&request) {
                caller.send(answer).ok();
            }
        }
        let deadline_us = model.deadline_us().unwrap_or(NEVER_US);
        if deadline_us < self.deadline_us.replace(deadline_us) {
            self.deadline_moved.notify_one();
        }
        outcome
    }

    /// A request to the model, answered at once or when the model says.
    async fn ask(&self, ask: impl FnOnce(&mut Processor, u64) -> Step) -> Answer {
        let request = match self.step(ask) {
            Step::Answered(answer) => return answer,
            Step::Pending(request) => request,
        };
        let (sender, receiver) = oneshot::channel();
        self.callers.borrow_mut().insert(request, sender);
        let place = Place { service: self, request };
        let answer = receiver.await.expect("the model answers each request whose caller is still there");
        drop(place);
        answer
    }

    /// Wakes the model whenever it wants to be woken.
    async fn keep_time(&self) {
        loop {
            self.step(|model, now_us| model.advance(now_us));
            let moved = self.deadline_moved.notified();
            match self.deadline_us.get() {
                NEVER_US => moved.await,
                deadline_us => {
                    let deadline = self.started + Duration::from_micros(deadline_us);
                    // Due or moved, the next round looks again.
                    tokio::time::timeout_at(deadline, moved).await.ok();
                }
            }
        }
    }
}

/// A caller's place in the table. Leaves with the caller, whether it was answered or its connection ended.
struct Place<'service> {
    service: &'service Service,
    request: RequestId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.service.callers.borrow_mut().remove(&self.request).is_some() {
            self.service.step(|model, now_us| {
                model.caller_gone(now_us, self.request);
            });
        }
    }
}

#[cfg(test)]
mod tests;
