//! Gateways' connections: bytes in, the coordinator's decisions, bytes out.
//!
//! One task reads each connection and one writes it. A reader hands every record of what it has read to the
//! coordinator, then [`Shared::publish`] moves what came of it into the outboxes: one wake-up and one write serve
//! however many records had gathered. `publish` is the one place that the journal's write goes in front of: nothing
//! leaves but through it, save our own hello, which promises nothing. A gateway that comes back while the disk stands
//! still is connected and claims what it holds; its answers wait like everybody's.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::time::Duration;

use galo_admission::Corrupt;
use galo_engine::coordinator::{Coordinator, Rejection, SESSION_COUNT_MAX, SessionId, Settled, Settlement};
use galo_engine::time::Now;
use galo_shell::clock::Clock;
use galo_shell::exit;
use galo_shell::log::{Repeats, SAID_MAX};
use galo_wire::record::Hello;
use galo_wire::{
    Attached, AttachedError, FRAME_BODY_SIZE_MAX, FRAME_HEADER_SIZE, FrameError, FrameWriter, Message,
    decode_frames,
};
use tokio::sync::{Notify, oneshot};

use crate::journal::queue::Answers;
use crate::journal::writer::Journal;
use crate::stream::{Driver, HangUp, ReadHalf, WriteHalf, split};

/// A reader's buffer: two of the largest frames, so that one is always whole after a read.
const READ_SIZE: usize = 2 * (FRAME_BODY_SIZE_MAX + FRAME_HEADER_SIZE);

/// An assignment in its frame. The most that healthy gateways are owed at once is one for every open payment, where the ledger has all that they claim otherwise.
const ASSIGNMENT_SIZE: usize = 34;

/// What else may wait for them. With 450,000 open payments 23 MiB for all gateways together, and twice what open payments' members have taken at most: who lets more pile up does not read, and
/// whoever has most of it is let go.
const ANSWERS_SIZE_MAX: usize = 8 << 20;

/// What each connection may be owed before all of them are looked at: 8 MiB for 1,024 of them.
const OUTBOX_SIZE_SMALL: usize = ANSWERS_SIZE_MAX / SESSION_COUNT_MAX;

/// While more than that waits to be read by a gateway, nothing more is handed over to it.
const HAND_OVER_SIZE_MAX: usize = 1 << 20;

/// Likewise to any, while so many answers wait for the journal.
const HAND_OVER_LEN_MAX: usize = 16_384;

/// A buffer that a flood has been in is not kept beyond that.
const KEPT_SIZE_MAX: usize = 1 << 20;

/// Between two ticks, however much is due: who has no gateway to give it to tries no more often.
const TICK_US_MIN: u64 = 50_000;

/// How long what can wait for company waits for it. Those are acknowledgements, which nobody is in need of but a gateway that stops.
const COMPANY_WAIT: Duration = Duration::from_millis(100);

/// How long a new connection may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a peer that was let go may take to read what it is still owed.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// What waits to be written to one gateway.
struct Outbox {
    frames: RefCell<FrameWriter>,
    wake: Notify,
    closed: Cell<bool>,
    cut: Cell<bool>,
    /// Bytes of it that the kernel has not taken yet.
    in_flight: Cell<usize>,
    connection: HangUp,
}

impl Outbox {
    fn new(connection: HangUp) -> Rc<Self> {
        Rc::new(Self {
            frames: RefCell::default(),
            wake: Notify::default(),
            closed: Cell::default(),
            cut: Cell::default(),
            in_flight: Cell::default(),
            connection,
        })
    }

    fn size(&self) -> usize {
        self.frames.borrow().size() + self.in_flight.get()
    }

    /// No more after what waits already.
    fn close(&self) {
        self.closed.set(true);
        self.wake.notify_one();
    }

    /// Nothing more at all, at once: a write to a peer that does not read would never end by itself.
    fn cut(&self) {
        self.close();
        self.cut.set(true);
        self.frames.borrow_mut().clear();
        self.hang_up();
    }

    fn hang_up(&self) {
        if let Err(error) = self.connection.hang_up() {
            // The peer has closed it already.
            tracing::debug!("hang up: {error}");
        }
    }
}

/// The coordinator and what its tasks share.
pub struct Shared {
    coordinator: RefCell<Coordinator>,
    outboxes: RefCell<Vec<Option<Rc<Outbox>>>>,
    /// Bytes that may wait in all of them together, beside members.
    outboxes_size_max: usize,
    /// The most that open payments' members have taken since the start: a hand-over sends them all, in parts.
    members_bytes_most: Cell<usize>,
    /// When the next tick is planned.
    tick_at_us: Cell<u64>,
    /// Something is due before that.
    due_earlier: Notify,
    /// Something waits for company.
    waits_for_company: Notify,
    journal: Option<Rc<Journal>>,
    /// Settlements that are under way, by their numbers.
    settlements: RefCell<HashMap<u32, (String, oneshot::Sender<Settled>)>>,
    /// What was said of connections lately.
    repeats: RefCell<Repeats>,
    clock: Clock,
}

impl Shared {
    /// Around a coordinator.
    #[must_use]
    pub fn new(coordinator: Coordinator, journal: Option<Rc<Journal>>, clock: Clock) -> Rc<Self> {
        // A start with a lower bound than the one before may find more open than it would accept, and hands all of that over.
        let ledger = coordinator.ledger();
        let open_len = usize::try_from(ledger.conservation().open.count).expect("they are in memory");
        let outboxes_size_max = ANSWERS_SIZE_MAX + ASSIGNMENT_SIZE * ledger.open_len_max().max(open_len);
        let shared = Rc::new(Self {
            coordinator: RefCell::new(coordinator),
            outboxes: RefCell::default(),
            outboxes_size_max,
            members_bytes_most: Cell::default(),
            tick_at_us: Cell::default(),
            due_earlier: Notify::default(),
            waits_for_company: Notify::default(),
            journal,
            settlements: RefCell::default(),
            repeats: RefCell::default(),
            clock,
        });
        // What it decided before it was shared.
        shared.publish();
        shared
    }

    /// The journal, unless it is kept in memory alone.
    #[must_use]
    pub fn journal(&self) -> Option<&Rc<Journal>> {
        self.journal.as_ref()
    }

    /// The journal has all records before this one.
    pub fn written_until(&self, journal_sequence: u64) {
        self.coordinator.borrow_mut().written(journal_sequence);
    }

    /// The process is about to end: gateways grant nothing by themselves any more.
    pub fn end_grants(&self) {
        self.coordinator.borrow_mut().end_grants();
        self.publish();
    }

    /// Takes in what gateways have granted by themselves, for somebody who looks.
    pub fn take_grants(&self) {
        self.coordinator.borrow_mut().take_grants();
        self.publish();
    }

    /// Looks at the coordinator.
    pub fn look<T>(&self, look: impl FnOnce(&Coordinator) -> T) -> T {
        look(&self.coordinator.borrow())
    }

    /// Lets the coordinator be changed by what decides nothing: a snapshot.
    pub fn with_coordinator<T>(&self, change: impl FnOnce(&mut Coordinator) -> T) -> T {
        change(&mut self.coordinator.borrow_mut())
    }

    /// The present.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Passes on what the coordinator decided: entries to the journal, and messages to their connections, those that
    /// must wait for an entry by way of the journal.
    fn publish(&self) {
        let mut coordinator = self.coordinator.borrow_mut();
        if let Some(corrupt) = coordinator.corrupt() {
            refuse_table(corrupt);
        }
        if coordinator.tick_due_us() < self.tick_at_us.get() {
            self.due_earlier.notify_one();
        }
        self.pass_on(coordinator.settlements());
        let members_bytes = coordinator.ledger().members_bytes();
        self.members_bytes_most.set(self.members_bytes_most.get().max(members_bytes));
        let (entries, messages) = coordinator.decided();
        match &self.journal {
            Some(journal) => journal.push(entries, messages),
            None => entries.clear(),
        }
        self.deliver(messages);
    }

    /// Has a payment settled, unless an attempt may be on its way. What is done is true once it is [written](Self::written).
    pub async fn settle(&self, settlement: Settlement) -> Settled {
        let (sender, receiver) = oneshot::channel();
        let text = settlement.to_string();
        let number = self.coordinator.borrow_mut().settle(settlement, self.now());
        self.settlements.borrow_mut().insert(number, (text, sender));
        self.publish();
        receiver.await.expect("the coordinator answers within its wait")
    }

    /// Waits until everything that has been decided is written.
    pub async fn written(&self) {
        if let Some(journal) = &self.journal {
            journal.written().await;
        }
    }

    fn pass_on(&self, settlements: &mut Vec<(u32, Settled)>) {
        for (number, settled) in settlements.drain(..) {
            let Some((text, sender)) = self.settlements.borrow_mut().remove(&number) else { continue };
            if settled == Settled::Done {
                tracing::info!("an operator settled {text}");
            }
            if sender.send(settled).is_err() {
                tracing::debug!("an operator did not wait for {settled:?} of {text}");
            }
        }
    }

    /// Moves messages into the outboxes, and wakes their writers.
    pub fn deliver(&self, messages: &mut Answers) {
        let outboxes = self.outboxes.borrow();
        for (to, message) in messages.drain(..) {
            let Some(outbox) = outboxes.get(usize::from(to.0)).and_then(Option::as_ref) else { continue };
            if outbox.closed.get() {
                continue;
            }
            let size_max = self.outboxes_size_max + 2 * self.members_bytes_most.get();
            if outbox.size() > OUTBOX_SIZE_SMALL && outboxes_size(&outboxes) > size_max {
                let largest = outboxes.iter().flatten().filter(|outbox| !outbox.cut.get());
                largest.max_by_key(|outbox| outbox.size()).expect("this one is there").cut();
                if outbox.cut.get() {
                    continue;
                }
            }
            outbox.frames.borrow_mut().push(message);
            let whom = if message.can_wait() { &self.waits_for_company } else { &outbox.wake };
            whom.notify_one();
        }
    }

    /// Has nothing more handed over to whoever has much to read, or may have.
    fn hold_up(&self) {
        let mut coordinator = self.coordinator.borrow_mut();
        let waits = self.journal.as_ref().is_some_and(|it| it.answers_len() > HAND_OVER_LEN_MAX);
        for (number, outbox) in (0_u16..).zip(self.outboxes.borrow().iter()) {
            let is_behind = outbox.as_ref().is_some_and(|outbox| outbox.size() > HAND_OVER_SIZE_MAX);
            coordinator.hold_up(SessionId(number), waits || is_behind);
        }
    }

    fn join(&self, session: SessionId, outbox: Rc<Outbox>) {
        let mut outboxes = self.outboxes.borrow_mut();
        let index = usize::from(session.0);
        if outboxes.len() <= index {
            outboxes.resize_with(index + 1, || None);
        }
        outboxes[index] = Some(outbox);
    }

    fn leave(&self, session: SessionId) {
        self.outboxes.borrow_mut()[usize::from(session.0)] = None;
        if let Some(journal) = &self.journal {
            journal.forget(session);
        }
        self.coordinator.borrow_mut().disconnect(session, self.now());
        self.publish();
    }

    /// For the log, unless it was said again and again.
    fn say_info(&self, text: String) {
        if let Some(line) = self.repeats.borrow_mut().line(text, SAID_MAX) {
            tracing::info!("{line}");
        }
    }

    /// Likewise, of a connection that never became a gateway's.
    fn say_refused(&self, end: &End) {
        // Only another start of theirs changes that, and they come back a hundred times a second.
        let is_lasting = matches!(
            end,
            End::Rejected(Rejection::Version { .. } | Rejection::Processors | Rejection::Role(_))
        );
        let said_max = if is_lasting { 1 } else { SAID_MAX };
        if let Some(line) =
            self.repeats.borrow_mut().line(format!("a connection was let go: {end}"), said_max)
        {
            tracing::warn!("{line}");
        }
    }

    /// Of a gateway with the number of another.
    fn say_shared_number(&self, hello: Hello) {
        let text = format!(
            "two processes are connected as gateway {}; if neither is about to end, give each a GATEWAY_INSTANCE of its own",
            hello.instance
        );
        if let Some(line) = self.repeats.borrow_mut().line(text, 1) {
            tracing::warn!("{line}");
        }
    }
}

/// Ends the process: what a gateway was promised by its table cannot be told any more.
pub fn refuse_table(corrupt: Corrupt) -> ! {
    exit::fatal(
        format_args!(
            "the admission table (ADMISSION_TABLE) is damaged: {corrupt}. Stop the gateways; what is in it and in no journal is lost with the file: remove \
             that, and reconcile with the processors' books"
        ),
        exit::JOURNAL,
    )
}

/// Of those that are not being let go already.
fn outboxes_size(outboxes: &[Option<Rc<Outbox>>]) -> usize {
    outboxes.iter().flatten().filter(|outbox| !outbox.cut.get()).map(|outbox| outbox.size()).sum()
}

/// Why a connection ended, for the log.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the gateway")]
    Closed,
    #[error("no hello within {HELLO_TIMEOUT:?}")]
    Silent,
    #[error("it does not read what it is sent")]
    Deaf,
    #[error("read: {0}")]
    Read(#[from] std::io::Error),
    #[error("a bad frame: {0}")]
    Frame(#[from] FrameError),
    #[error("a text that belongs to nothing: {0}")]
    Attached(#[from] AttachedError),
    #[error("refused: {0}")]
    Rejected(#[from] Rejection),
}

/// Accepts gateways until the process ends.
///
/// # Errors
/// If the listener cannot be used at all.
pub async fn serve(listener: UnixListener, driver: Driver, shared: Rc<Shared>) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    // tokio's listener on either driver: tokio-uring's own cannot be made from a bound socket.
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream.into_std()?,
            Err(error) => {
                // Out of file descriptors, most likely: try again soon, without spinning.
                tracing::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match split(stream, driver) {
            Ok((read, write, connection)) => {
                let outbox = Outbox::new(connection);
                tokio::task::spawn_local(attend(read, write, outbox, Rc::clone(&shared)));
            }
            Err(error) => tracing::warn!("a connection was let go: {error}"),
        }
    }
}

/// Gives out leases, ownerless payments and late summaries when they are due.
pub async fn tick(shared: Rc<Shared>) {
    loop {
        let ticked_us = shared.now().monotonic_us;
        loop {
            let tick_at_us = shared.look(Coordinator::tick_due_us).max(ticked_us + TICK_US_MIN);
            shared.tick_at_us.set(tick_at_us);
            let wait = Duration::from_micros(tick_at_us.saturating_sub(shared.now().monotonic_us));
            if tokio::time::timeout(wait, shared.due_earlier.notified()).await.is_err() {
                break;
            }
        }
        shared.hold_up();
        shared.coordinator.borrow_mut().tick(shared.now());
        shared.publish();
    }
}

/// Lets go what waited for company and had none.
pub async fn flush(shared: Rc<Shared>) {
    loop {
        shared.waits_for_company.notified().await;
        tokio::time::sleep(COMPANY_WAIT).await;
        for outbox in shared.outboxes.borrow().iter().flatten() {
            if !outbox.frames.borrow().is_empty() {
                outbox.wake.notify_one();
            }
        }
    }
}

/// One connection, from its first byte to its last.
async fn attend(mut read: ReadHalf, write: WriteHalf, outbox: Rc<Outbox>, shared: Rc<Shared>) {
    let mut writer = tokio::task::spawn_local(write_out(write, Rc::clone(&outbox)));
    let mut session = None;
    let end = converse(&mut read, &outbox, &shared, &mut session).await;
    match session {
        Some(session) => {
            let hello = shared.look(|coordinator| coordinator.session_hello(session));
            let (instance, thread) = hello.map_or((0, 0), |hello| (hello.instance, hello.thread));
            shared.say_info(format!("gateway {instance}, thread {thread}: connection ended: {end}"));
            shared.leave(session);
        }
        None => shared.say_refused(&end),
    }
    outbox.close();
    let written = match tokio::time::timeout(FAREWELL_TIMEOUT, &mut writer).await {
        Ok(written) => written,
        Err(_) => {
            outbox.cut();
            writer.await
        }
    };
    if let Err(error) = written {
        tracing::warn!("a writer ended badly: {error}");
    }
}

async fn converse(
    read: &mut ReadHalf,
    outbox: &Rc<Outbox>,
    shared: &Rc<Shared>,
    session: &mut Option<SessionId>,
) -> End {
    let mut buffer = Vec::with_capacity(READ_SIZE);
    let mut has_been_told = false;
    let mut attached = Attached::default();
    // A peer that says nothing: its write half is closed, which ends the read.
    let watchdog = tokio::task::spawn_local({
        let outbox = Rc::clone(outbox);
        async move {
            tokio::time::sleep(HELLO_TIMEOUT).await;
            outbox.close();
        }
    });
    loop {
        let filled = buffer.len();
        let (result, returned) = read.read(buffer, filled).await;
        buffer = returned;
        let is_closed = outbox.closed.get();
        match result {
            Ok(_) | Err(_) if outbox.cut.get() => return End::Deaf,
            Ok(_) | Err(_) if is_closed && session.is_none() => return End::Silent,
            Ok(0) => return End::Closed,
            Ok(_) if is_closed => return End::Closed,
            Ok(_) => {}
            Err(error) => return End::Read(error),
        }
        let result = take_in(&buffer, &mut attached, outbox, shared, session);
        shared.publish();
        if let Some(journal) = &shared.journal {
            journal.keep_up().await;
        }
        if let Some(session) = *session {
            watchdog.abort();
            has_been_told = has_been_told || warn_of_strays(shared, session);
        }
        match result {
            Ok(used) => drop(buffer.drain(..used)),
            Err(end) => return end,
        }
    }
}

/// Says so if a gateway works on what is not its own. Whether it meddles or has come back late, its name belongs in the log.
fn warn_of_strays(shared: &Shared, session: SessionId) -> bool {
    let (count, hello) =
        shared.look(|coordinator| (coordinator.session_strayed(session), coordinator.session_hello(session)));
    let (Some(hello), true) = (hello, count > 0) else { return false };
    tracing::warn!(
        "gateway {}, thread {}: it named payments that are not its own any more, or never were; they stay where they are \
         (said once a connection)",
        hello.instance,
        hello.thread
    );
    true
}

/// Decodes what has arrived and gives it to the coordinator, record by record. Returns how many bytes were used.
fn take_in(
    bytes: &[u8],
    attached: &mut Attached,
    outbox: &Rc<Outbox>,
    shared: &Rc<Shared>,
    session: &mut Option<SessionId>,
) -> Result<usize, End> {
    let mut coordinator = shared.coordinator.borrow_mut();
    let now = shared.now();
    let (mut rejection, mut misplaced) = (None, None);
    let used = decode_frames(bytes, |message| {
        if rejection.is_some() || misplaced.is_some() {
            return;
        }
        match attached.take_in(&message) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                misplaced = Some(error);
                return;
            }
        }
        let result = match (*session, message) {
            (Some(session), message) => coordinator.handle_with(session, message, attached, now),
            (None, Message::Hello(hello)) => coordinator.connect(hello).map(|new| {
                shared.join(new, Rc::clone(outbox));
                *session = Some(new);
                let (_, greeting) = coordinator.messages().pop().expect("who connects is greeted");
                outbox.frames.borrow_mut().push(greeting);
                outbox.wake.notify_one();
                shared.say_info(format!("gateway {}, thread {}: connected", hello.instance, hello.thread));
                if coordinator.shares_number(new) {
                    shared.say_shared_number(hello);
                }
            }),
            (None, message) => Err(Rejection::Unexpected(Box::new(message))),
        };
        attached.clear();
        rejection = result.err();
    });
    if let Some(error) = misplaced {
        return Err(error.into());
    }
    if let Some(rejection) = rejection {
        // A peer of another version is told ours before it is let go.
        outbox.frames.borrow_mut().push(coordinator.hello());
        outbox.wake.notify_one();
        return Err(End::Rejected(rejection));
    }
    Ok(used?)
}

async fn write_out(mut write: WriteHalf, outbox: Rc<Outbox>) {
    let mut spare = Vec::new();
    loop {
        while !outbox.frames.borrow().is_empty() {
            let bytes = outbox.frames.borrow_mut().take(spare);
            outbox.in_flight.set(bytes.len());
            let (result, returned) = write.write_all(bytes).await;
            outbox.in_flight.set(0);
            spare = if returned.capacity() > KEPT_SIZE_MAX { Vec::new() } else { returned };
            if let Err(error) = result {
                tracing::debug!("write: {error}");
                outbox.closed.set(true);
                break;
            }
        }
        if outbox.closed.get() {
            break;
        }
        outbox.wake.notified().await;
    }
    outbox.hang_up();
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as StdUnixStream;

    use galo_engine::coordinator::CoordinatorConfig;
    use galo_engine::ledger::{Entry, Ledger, LedgerConfig};
    use galo_engine::router::ProcessorSet;
    use galo_wire::record::{Accept, Hello, Role};
    use galo_wire::{CorrelationId, PROCESSORS_LEN_MAX, PROTOCOL_VERSION, Reason, Stage};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::journal::{JournalConfig, Sync, directory};

    const CONFIG: CoordinatorConfig = CoordinatorConfig {
        processors_fingerprint: 0,
        health_checked: ProcessorSet::PAIR,
        ledger: LedgerConfig {
            open_len_max: 10,
            known_len_max: 10,
            bucket_bytes_max: 1 << 20,
            members_bytes_max: 1 << 20,
            processors: ProcessorSet::PAIR,
            hash_seed: 1,
        },
        health_interval_us: [5_000_000; PROCESSORS_LEN_MAX],
        claim_grace_us: 300_000,
        incarnation: 1,
    };

    fn connect(shared: &Rc<Shared>) -> UnixStream {
        let (ours, theirs) = StdUnixStream::pair().expect("a pair of sockets");
        let (read, write, connection) = split(ours, Driver::Epoll).expect("a socket");
        let outbox = Outbox::new(connection);
        tokio::task::spawn_local(attend(read, write, outbox, Rc::clone(shared)));
        theirs.set_nonblocking(true).expect("a socket");
        UnixStream::from_std(theirs).expect("a socket")
    }

    async fn say(stream: &mut UnixStream, message: impl Into<Message>) {
        let mut frames = FrameWriter::default();
        frames.push(message);
        stream.write_all(&frames.take(Vec::new())).await.expect("the aggregator reads");
    }

    fn hello(instance: u8) -> Hello {
        let (protocol_version, role) = (PROTOCOL_VERSION, Role::Gateway);
        Hello { protocol_version, role, instance, thread: 0, processors: 0, incarnation: 1 }
    }

    /// Whether one hello, and nothing else, has come.
    async fn is_greeted(stream: &mut UnixStream) -> bool {
        let mut bytes = vec![0; 1024];
        let reading = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes)).await;
        let Ok(Ok(count)) = reading else { return false };
        let mut messages = Vec::new();
        decode_frames(&bytes[..count], |message| messages.push(message)).expect("whole frames");
        matches!(messages[..], [Message::Hello(_)])
    }

    #[test]
    fn peers_that_do_not_read_share_one_bound_and_others_keep_their_messages() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let shared = Shared::new(Coordinator::new(CONFIG, Clock.now()), None, Clock);
            let mut peers = Vec::new();
            for instance in 1..=4 {
                let mut peer = connect(&shared);
                say(&mut peer, hello(instance)).await;
                assert!(is_greeted(&mut peer).await);
                peers.push(peer);
            }
            // No writer has a turn meanwhile: nothing is read.
            let news = Message::from(galo_wire::record::Purged { generation: 1 });
            let (deaf, quiet) = (0..3, SessionId(3));
            shared.deliver(&mut vec![(quiet, news)]);
            let flood: Answers =
                (0..1_000).flat_map(|_| deaf.clone()).map(|session| (SessionId(session), news)).collect();
            let outboxes = shared.outboxes.borrow().clone();
            let of = |session: u16| outboxes[usize::from(session)].as_ref().expect("it is connected");
            // What the kernel has not taken yet counts too.
            of(0).in_flight.set(shared.outboxes_size_max / 2);
            let mut size = 0;
            while outboxes.iter().flatten().all(|outbox| !outbox.cut.get()) {
                shared.deliver(&mut flood.clone());
                size = outboxes_size(&outboxes).max(size);
                assert!(size <= shared.outboxes_size_max + FRAME_BODY_SIZE_MAX, "{size}");
            }
            let is_cut = [0, 1, 2, 3].map(|session| of(session).cut.get());
            assert_eq!(is_cut, [true, false, false, false], "whoever has most");
            assert!(!of(quiet.0).frames.borrow().is_empty());
        });
    }

    #[test]
    fn more_than_may_be_open_can_be_handed_over_where_a_start_has_found_it() {
        let mut ledger = Ledger::new(CONFIG.ledger);
        let found = 1_000;
        for number in 0..found {
            ledger.apply(Entry::Accepted {
                correlation_id: CorrelationId(u128::to_le_bytes(number)),
                amount_cents: 1,
                decided_at_ms: 0,
                stage: Stage::Waiting,
                in_doubt: false,
                reason: Reason::AwaitsAny,
            });
        }
        let shared = Shared::new(Coordinator::recovered(CONFIG, ledger, Clock.now()), None, Clock);
        const { assert!(CONFIG.ledger.open_len_max < 100) };
        assert_eq!(shared.outboxes_size_max, ANSWERS_SIZE_MAX + 1_000 * ASSIGNMENT_SIZE);
    }

    async fn greet_while_the_disk_stands_still(path: std::path::PathBuf) {
        let journal = JournalConfig {
            directory: path,
            sync: Sync::Never,
            segment_bytes: 1 << 20,
            snapshot_every_bytes: 1 << 20,
            scrub_every: None,
        };
        let opened = directory::open(&journal, CONFIG.ledger, 1).expect("an empty folder");
        // Nobody runs its writer: what is decided is never written.
        let (journal, ledger) = Journal::new(journal, Driver::Epoll, Clock, opened);
        let coordinator = Coordinator::recovered(CONFIG, ledger, Clock.now());
        let shared = Shared::new(coordinator, Some(journal), Clock);
        let mut first = connect(&shared);
        say(&mut first, hello(1)).await;
        assert!(is_greeted(&mut first).await);
        let accept = Accept {
            slot: 1,
            correlation_id: CorrelationId([1; 16]),
            amount_cents: 1_990,
            decided_at_ms: 0,
            expires_at_us: u64::MAX,
            stage: Stage::Waiting,
            reason: Reason::AwaitsAny,
        };
        say(&mut first, accept).await;
        while shared.look(|coordinator| coordinator.ledger().conservation().open.count) == 0 {
            tokio::task::yield_now().await;
        }
        let mut second = connect(&shared);
        say(&mut second, hello(2)).await;
        assert!(is_greeted(&mut second).await, "a hello waits for no write");
        let early = first.try_read(&mut [0; 64]).map_err(|error| error.kind());
        assert_eq!(early, Err(std::io::ErrorKind::WouldBlock), "a grant waits for its write");
    }

    #[test]
    fn a_gateway_is_greeted_while_the_disk_stands_still_and_granted_nothing() {
        let path = std::env::temp_dir().join(format!("galo-greeting-{}", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let test = greet_while_the_disk_stands_still(path.clone());
        tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), test);
        std::fs::remove_dir_all(path).expect("its own folder");
    }
}
