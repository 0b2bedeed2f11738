//! The load: payments at a constant rate, whatever becomes of the earlier ones, and a memory of every answer.
//!
//! Open loop: the moment of each payment is fixed before the run, by a thread that does nothing else, and latency
//! counts from that moment, so that a stall shows in all requests that it delays. A POST that got no answer or a 5xx is sent
//! once more with the same id, after the `Retry-After` that came with it, as a real client would; if that fails too, the payment
//! may or may not have been accepted, and the referee allows either.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::client::{Client, Failure};
use crate::payment::{Payment, Payments, Sent, decimal};

/// How long a client waits that was not told how long.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// What is sent, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Payments a second; their copies come on top.
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
}

/// How one POST ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// 2xx, with what it said about the id.
    Yes {
        replayed: bool,
    },
    /// 422: the id with another amount.
    Conflict,
    /// 5xx.
    Error(u16),
    /// Anything else that is no answer to such a request.
    Other(u16),
    NoAnswer(Failure),
}

impl Reply {
    pub(crate) fn is_yes(self) -> bool {
        matches!(self, Self::Yes { .. })
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Yes { replayed: false } => "202".to_owned(),
            Self::Yes { replayed: true } => "202 replayed".to_owned(),
            Self::Conflict => "422".to_owned(),
            Self::Error(status) | Self::Other(status) => status.to_string(),
            Self::NoAnswer(failure) => failure.to_string(),
        }
    }
}

/// One POST with its retry. Times in µs since the run's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Post {
    pub(crate) intended_us: u64,
    pub(crate) answered_us: u64,
    pub(crate) first: Reply,
    pub(crate) retry: Option<Reply>,
}

impl Post {
    pub(crate) fn failed_at_first(&self) -> bool {
        !self.first.is_yes()
    }

    pub(crate) fn failed_in_the_end(&self) -> bool {
        self.failed_at_first() && !self.retry.is_some_and(Reply::is_yes)
    }
}

/// Everything that was sent and heard.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) sent: Vec<Sent>,
    pub(crate) posts: Vec<Post>,
    /// Replies to first sends, by name.
    pub(crate) replies: BTreeMap<String, u64>,
    /// Ids sent again with another amount after a yes.
    pub(crate) contradicted_count: u64,
    pub(crate) contradiction_refused_count: u64,
    /// Those of them that were answered, and not with 422.
    pub(crate) contradiction_accepted: Vec<Uuid>,
    /// Requests under the right amount that were answered 422 or 4xx.
    pub(crate) refused: Vec<(Uuid, Reply)>,
}

/// Shared by the tasks of one load.
#[derive(Debug)]
pub(crate) struct Load {
    client: Client,
    start: Instant,
    log: RefCell<Log>,
}

impl Load {
    pub(crate) fn new(client: Client, start: Instant) -> Rc<Self> {
        Rc::new(Self { client, start, log: RefCell::default() })
    }

    /// What was sent and heard. Its connections are closed, so that they take no places from those that ask afterwards.
    pub(crate) fn take_log(&self) -> Log {
        self.client.close_idle();
        self.log.take()
    }

    fn now_us(&self) -> u64 {
        micros(self.start.elapsed())
    }

    /// Sends everything and waits for every answer.
    pub(crate) async fn run(self: &Rc<Self>, plan: Plan, mut payments: Payments) {
        let (sender, mut moments) = unbounded_channel();
        let start = self.start;
        let pacer = std::thread::spawn(move || {
            let step_ns = 1_000_000_000 / u64::from(plan.rate);
            for number in 0..u64::from(plan.rate) * u64::from(plan.seconds) {
                let due = start + Duration::from_nanos(number * step_ns);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if sender.send(due).is_err() {
                    break;
                }
            }
        });
        let mut tasks = JoinSet::new();
        while let Some(due) = moments.recv().await {
            let payment = Rc::new(payments.draw());
            let index = self.register(&payment);
            for copy in 0..payment.copies {
                let (load, payment) = (Rc::clone(self), Rc::clone(&payment));
                let intended_us = micros(due - start);
                tasks.spawn_local(async move { load.pay(index, copy, &payment, intended_us).await });
            }
            // Those that ended need no place any more.
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
        pacer.join().expect("the pacer only sleeps and sends");
    }

    fn register(&self, payment: &Payment) -> usize {
        let sent = &mut self.log.borrow_mut().sent;
        sent.push(Sent { id: payment.id, cents: payment.cents, yes_count: 0, granted_count: 0 });
        sent.len() - 1
    }

    /// One copy of a payment, from its first send to its last word.
    async fn pay(&self, index: usize, copy: u8, payment: &Payment, intended_us: u64) {
        let (first, retry_after) = self.post(payment.id, &payment.amount).await;
        let answered_us = self.now_us();
        self.note(index, first);
        let retry = match first {
            Reply::Error(_) | Reply::NoAnswer(_) => {
                tokio::time::sleep(retry_after.unwrap_or(RETRY_PAUSE)).await;
                let (retry, _) = self.post(payment.id, &payment.amount).await;
                self.note(index, retry);
                Some(retry)
            }
            Reply::Yes { .. } | Reply::Conflict | Reply::Other(_) => None,
        };
        {
            let mut log = self.log.borrow_mut();
            *log.replies.entry(first.name()).or_default() += 1;
            log.posts.push(Post { intended_us, answered_us, first, retry });
        }
        if payment.contradicted && copy == 0 && (first.is_yes() || retry.is_some_and(Reply::is_yes)) {
            self.contradict(payment).await;
        }
    }

    fn note(&self, index: usize, reply: Reply) {
        let mut log = self.log.borrow_mut();
        let sent = &mut log.sent[index];
        match reply {
            Reply::Yes { replayed } => {
                sent.yes_count += 1;
                sent.granted_count += u8::from(!replayed);
            }
            Reply::Conflict | Reply::Other(_) => {
                let id = sent.id;
                log.refused.push((id, reply));
            }
            Reply::Error(_) | Reply::NoAnswer(_) => {}
        }
    }

    /// The same id with a cent more, which the ledger must know better than to accept.
    async fn contradict(&self, payment: &Payment) {
        let (reply, _) = self.post(payment.id, &decimal(payment.cents + 1)).await;
        let mut log = self.log.borrow_mut();
        log.contradicted_count += 1;
        match reply {
            Reply::Conflict => log.contradiction_refused_count += 1,
            Reply::Yes { .. } | Reply::Other(_) => log.contradiction_accepted.push(payment.id),
            Reply::Error(_) | Reply::NoAnswer(_) => {}
        }
    }

    async fn post(&self, id: Uuid, amount: &str) -> (Reply, Option<Duration>) {
        let body = Bytes::from(format!(r#"{{"correlationId":"{id}","amount":{amount}}}"#));
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = match self.client.send(Method::POST, "/payments", headers, body).await {
            Ok(answer) => answer,
            Err(failure) => return (Reply::NoAnswer(failure), None),
        };
        let header = |name| answer.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let reply = match answer.status {
            200..300 => Reply::Yes { replayed: header("idempotent-replayed") == Some("true") },
            422 => Reply::Conflict,
            status @ 500..600 => Reply::Error(status),
            status => Reply::Other(status),
        };
        let retry_after = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        (reply, retry_after)
    }
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
