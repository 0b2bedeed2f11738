//! The front over real unix sockets, on both drivers, against clients that mean well and clients that do not.
//!
//! A [`Front`] is a thread with a monoio runtime, a [`Server`] and a service that records what reaches it; the tests are
//! blocking clients. A client that waits for more than ten seconds fails its test. Each hostile case ends with a good
//! request on a new connection, and a check of what the service was asked to do.

pub(crate) mod allocation;
mod api;
mod client;
mod hostile;
mod lifecycle;
mod notifications;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;

use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use galo_engine::{
    AttemptState, CorrelationId, History, PROCESSORS_LEN_MAX, PastDecision, Processor, Reason, Stage,
};
use galo_profile::Processors;
use galo_shell::processors::Names;
use monoio::io::AsyncReadRent;

use super::service::{
    Accepted, DeclineCause, Endpoint, NotificationAnswer, PaymentState, PaymentView, PurgeError, Service,
    Summary, Totals, Unreachable,
};
use super::*;
use client::{Client, Reply};

/// A payment's id as the tests spell it.
const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

/// Amounts, in cents, that the service treats in a way of its own.
const CONFLICT: u64 = 1;
const QUEUE_FULL: u64 = 2;
const UNREACHABLE: u64 = 3;
/// Held until [`Front::release`].
const HELD: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    Epoll,
    IoUring,
}

/// The drivers that this machine has. Without io_uring half of the tests say so and check less.
fn drivers() -> Vec<Driver> {
    if monoio::utils::detect_uring() {
        return vec![Driver::Epoll, Driver::IoUring];
    }
    eprintln!("io_uring is not available here: testing epoll alone");
    vec![Driver::Epoll]
}

/// What reached the service.
#[derive(Default)]
struct Record {
    payments: Vec<(String, u64)>,
    shifts: Vec<u64>,
    ranges: Vec<(Option<u64>, Option<u64>)>,
    statuses: Vec<u16>,
    endpoints: Vec<Endpoint>,
    purge_count: usize,
    cancelled: Vec<String>,
    /// By processor.
    notices: Vec<(usize, String)>,
    notifications: Vec<NotificationAnswer>,
}

/// How the service answers what does not depend on an amount.
#[derive(Clone, Copy, Default)]
struct Script {
    is_unreachable: bool,
    purge_allowed: bool,
    not_ready: Option<&'static str>,
    resolution_ms: u32,
}

struct Recorder {
    names: Names,
    notifiers: Processors,
    record: Arc<Mutex<Record>>,
    script: Script,
    known: RefCell<HashMap<CorrelationId, u64>>,
    is_released: Cell<bool>,
    held: RefCell<Vec<Waker>>,
}

impl Recorder {
    fn release(&self) {
        self.is_released.set(true);
        self.held.take().into_iter().for_each(Waker::wake);
    }
}

impl Service for Recorder {
    fn names(&self) -> &Names {
        &self.names
    }

    fn in_shift(&self, shift: u64) {
        self.record.lock().unwrap().shifts.push(shift);
    }

    async fn accept(&self, id: CorrelationId, amount: AmountCents, _members: Option<Arc<str>>) -> Accepted {
        self.record.lock().unwrap().payments.push((id.to_string(), amount.get()));
        match amount.get() {
            CONFLICT => return Accepted::Conflict,
            QUEUE_FULL => return Accepted::QueueFull,
            UNREACHABLE => return Accepted::LedgerUnreachable,
            HELD => {
                std::future::poll_fn(|context| {
                    if self.is_released.get() {
                        return Poll::Ready(());
                    }
                    self.held.borrow_mut().push(context.waker().clone());
                    Poll::Pending
                })
                .await;
            }
            _ => {}
        }
        match self.known.borrow_mut().insert(id, amount.get()) {
            None => Accepted::Granted,
            Some(known) if known == amount.get() => Accepted::Replayed,
            Some(_) => Accepted::Conflict,
        }
    }

    async fn summarize(
        &self,
        from: Option<UnixMillis>,
        to: Option<UnixMillis>,
    ) -> Result<Summary, Unreachable> {
        if self.script.is_unreachable {
            return Err(Unreachable);
        }
        self.record.lock().unwrap().ranges.push((from.map(|at| at.0), to.map(|at| at.0)));
        let mut totals = [Totals::default(); PROCESSORS_LEN_MAX];
        totals[0] = Totals { total_requests: 43_236, total_amount_cents: 41_554_234_598 };
        totals[1] = Totals { total_requests: 0, total_amount_cents: 5 };
        Ok(Summary { totals, resolution_ms: self.script.resolution_ms })
    }

    async fn lookup(&self, id: CorrelationId) -> Result<Option<PaymentView>, Unreachable> {
        if self.script.is_unreachable {
            return Err(Unreachable);
        }
        let Some(amount_cents) = self.known.borrow().get(&id).copied() else { return Ok(None) };
        let state = match amount_cents {
            500 => PaymentState::Open { processor: None, in_doubt: false },
            700 => PaymentState::Declined {
                cause: DeclineCause::Refused { processor: Processor::FALLBACK, status: Some(402) },
                at: UnixMillis(1_752_582_896_789),
            },
            600 => PaymentState::Open { processor: Some(Processor::FALLBACK), in_doubt: true },
            _ => PaymentState::Processed {
                processor: Processor::DEFAULT,
                requested_at: UnixMillis(1_752_582_896_789),
            },
        };
        let first = PastDecision { at_ms: 1_752_582_890_000, ..PastDecision::NONE };
        let mut history = History::EMPTY;
        history.forgotten = amount_cents == 600;
        match state {
            PaymentState::Open { processor: None, .. } => {}
            PaymentState::Open { .. } => {
                let (stage, attempt) = (Stage::At1, AttemptState::InDoubt);
                history.push(PastDecision { stage, attempt, was_in_doubt: true, ..first });
            }
            PaymentState::Declined { .. } => {
                let (stage, attempt) = (Stage::At1, AttemptState::Declined);
                history.push(PastDecision { stage, attempt, ..first });
            }
            PaymentState::Processed { .. } => {
                history.push(PastDecision { reason: Reason::AwaitsCheaper, ..first });
                history.push(PastDecision {
                    at_ms: 1_752_582_896_789,
                    waited_for_ms: 6_789,
                    stage: Stage::At0,
                    reason: Reason::Probe,
                    attempt: AttemptState::Processed,
                    was_in_doubt: false,
                });
            }
        }
        Ok(Some(PaymentView { amount_cents, state, reference: None, history }))
    }

    async fn cancel(&self, id: CorrelationId) -> Result<Option<PaymentView>, Unreachable> {
        self.record.lock().unwrap().cancelled.push(id.to_string());
        let view = self.lookup(id).await?;
        // What waits is cancelled by that.
        Ok(view.map(|view| match view.state {
            PaymentState::Open { processor: None, .. } => {
                let (cause, at) = (DeclineCause::Cancelled, UnixMillis(1_752_582_896_789));
                PaymentView { state: PaymentState::Declined { cause, at }, ..view }
            }
            PaymentState::Open { .. } | PaymentState::Processed { .. } | PaymentState::Declined { .. } => {
                view
            }
        }))
    }

    fn notifier(&self, name: &str) -> Option<(Processor, Arc<galo_profile::Processor>)> {
        let profile = self.notifiers.by_name(name)?;
        Some((Processor::ALL[usize::from(profile.number)], Arc::new(profile.clone())))
    }

    fn notice(&self, processor: Processor, id: CorrelationId) -> Result<(), Unreachable> {
        if self.script.is_unreachable {
            return Err(Unreachable);
        }
        self.record.lock().unwrap().notices.push((processor.index(), id.to_string()));
        Ok(())
    }

    fn count_notification(&self, end: NotificationAnswer) {
        self.record.lock().unwrap().notifications.push(end);
    }

    async fn purge(&self) -> Result<(), PurgeError> {
        if self.script.is_unreachable {
            return Err(PurgeError::Unreachable);
        }
        if !self.script.purge_allowed {
            return Err(PurgeError::NotAllowed);
        }
        self.record.lock().unwrap().purge_count += 1;
        Ok(())
    }

    fn ready(&self) -> Result<(), &'static str> {
        self.script.not_ready.map_or(Ok(()), Err)
    }

    fn metrics(&self) -> String {
        // Beyond the encoder's 8 KiB, as real metrics are.
        "galo_payments_open 0\n".repeat(1_000)
    }

    fn observe(&self, endpoint: Endpoint, status: u16, _elapsed_us: u64) {
        let mut record = self.record.lock().unwrap();
        record.statuses.push(status);
        record.endpoints.push(endpoint);
    }
}

/// A server in a thread of its own.
struct Front {
    path: PathBuf,
    record: Arc<Mutex<Record>>,
    control: StdStream,
    thread: Option<JoinHandle<()>>,
}

impl Front {
    fn start(driver: Driver) -> Self {
        Self::start_with(driver, HttpConfig::default(), Script::default())
    }

    fn start_with(driver: Driver, config: HttpConfig, script: Script) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("galo-http-{}-{}.sock", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let listener = StdListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let record = Arc::new(Mutex::new(Record::default()));
        let (control, remote) = StdStream::pair().unwrap();
        let recorded = Arc::clone(&record);
        let thread = std::thread::spawn(move || match driver {
            Driver::Epoll => monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
                .enable_timer()
                .build()
                .unwrap()
                .block_on(run(listener, remote, config, script, recorded)),
            Driver::IoUring => monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
                .with_entries(256)
                .enable_timer()
                .build()
                .unwrap()
                .block_on(run(listener, remote, config, script, recorded)),
        });
        Self { path, record, control, thread: Some(thread) }
    }

    fn connect(&self) -> Client {
        Client::new(StdStream::connect(&self.path).unwrap())
    }

    /// One request on a connection of its own.
    fn ask(&self, method: &str, target: &str, body: &str) -> Reply {
        let mut client = self.connect();
        client.request(method, target, body);
        client.reply()
    }

    /// Checks that a new client gets a good answer: the server is alive and in its right mind.
    fn is_well(&self) {
        let reply = self.ask("GET", "/health", "");
        assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"status":"ok"}"#));
    }

    fn payments(&self) -> Vec<(String, u64)> {
        self.record.lock().unwrap().payments.clone()
    }

    /// The statuses observed, once there are this many. (An answer is observed after it was written.)
    fn statuses(&self, count: usize) -> Vec<u16> {
        loop {
            let statuses = self.record.lock().unwrap().statuses.clone();
            if statuses.len() >= count {
                return statuses;
            }
            std::thread::yield_now();
        }
    }

    fn stop(&mut self) {
        self.control.write_all(b"s").unwrap();
    }

    fn release(&mut self) {
        self.control.write_all(b"r").unwrap();
    }

    /// Waits until `serve` has returned.
    fn join(&mut self) {
        self.thread.take().unwrap().join().expect("the server's thread ends without a panic");
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            drop(self.control.write_all(b"rs"));
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("the server panicked");
            }
        }
        drop(std::fs::remove_file(&self.path));
    }
}

async fn run(
    listener: StdListener,
    control: StdStream,
    config: HttpConfig,
    script: Script,
    record: Arc<Mutex<Record>>,
) {
    let service = Rc::new(Recorder {
        names: Names::pair(),
        notifiers: notifiers(),
        record,
        script,
        known: RefCell::default(),
        is_released: Cell::new(false),
        held: RefCell::default(),
    });
    let server = Server::new(config);
    control.set_nonblocking(true).unwrap();
    let mut control = UnixStream::from_std(control).unwrap();
    let (commanded, commander) = (Rc::clone(&service), Rc::clone(&server));
    monoio::spawn(async move {
        loop {
            let (result, bytes) = control.read(vec![0; 16]).await;
            if result.unwrap() == 0 {
                break;
            }
            for byte in bytes {
                match byte {
                    b'r' => commanded.release(),
                    _ => commander.stop(),
                }
            }
        }
    });
    server.serve(UnixListener::from_std(listener).unwrap(), service).await;
    assert_eq!(server.connections_len(), 0);
}

/// One that signs, one that does not, and one that says nothing.
fn notifiers() -> Processors {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("galo-notifiers-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("secret"), "secret\n").unwrap();
    let one = |name: &str, notification: &str| {
        format!(
            "[[processor]]\nname = \"{name}\"\nprofile = \"contest\"\nurl = \"http://{name}\"\n{notification}\n"
        )
    };
    let hmac = r#"notification = { id = "/id", hmac = { header = "X-Signature", secret_file = "secret", prefix = "sha256=" } }"#;
    let text = [one("signing", hmac), one("open", r#"notification.id = "/id""#), one("silent", "")].concat();
    let processors = Processors::parse(&text, "processors.toml", &folder).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    processors
}

fn payment(id: &str, amount: &str) -> String {
    format!(r#"{{"correlationId":"{id}","amount":{amount}}}"#)
}

/// An id of its own for each number.
fn id(number: usize) -> String {
    format!("{:08x}-7d26-4d9d-aa19-4dc1c7cf60b3", number)
}
