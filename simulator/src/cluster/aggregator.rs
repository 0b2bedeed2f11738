//! The aggregator's process: the shell around the real coordinator, and its journal.
//!
//! One write is under way at a time; what is decided meanwhile waits for the next. Messages leave when the entries
//! decided before them are on disk, and go to the *connection* that they were meant for: a session's number may
//! belong to another gateway by then. A kill during a write leaves any part of its entries on disk.

use galo_engine::coordinator::{Coordinator, CoordinatorConfig, Rejection, SessionId};
use galo_engine::ledger::{Entry, LedgerConfig};
use galo_engine::time::Now;
use galo_engine::{History, Outcome};
use galo_wire::record::{Admission, Completion};
use galo_wire::{Attached, FrameWriter, Message, PROCESSORS_LEN_MAX, decode_frames};

use super::bug::Bug;
use super::clock::Clock;
use super::dice::Dice;
use super::disk::Disk;
use super::gateway::as_replayed;
use super::invariant::Invariant;
use super::link::{Chunk, Side};
use super::plan::{Plan, Sync};
use super::world::{Event, World};

/// Decisions, and what may leave once they are on disk.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    messages: Vec<(usize, SessionId, Message)>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.messages.is_empty()
    }
}

/// See the module's documentation.
pub struct Aggregator {
    /// Counts starts and deaths.
    pub life: u32,
    /// `None` while it is down.
    pub coordinator: Option<Coordinator>,
    /// Its clocks.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    /// Power was lost since the last start.
    power_lost: bool,
    writing: Option<Batch>,
    waiting: Batch,
    /// The connection of each session.
    sessions: Vec<Option<usize>>,
    hash_seed: u64,
    /// Ids that it was told to remember at its last start.
    known_len_max: usize,
    /// When it looked at the time last.
    ticked: Now,
    /// What the last look-up found, for a planted bug.
    last_history: Option<History>,
}

impl Aggregator {
    /// An aggregator that has not started.
    pub fn new(plan: &Plan, dice: &mut Dice) -> Self {
        let clock = Clock::new(dice);
        Self {
            life: 0,
            coordinator: None,
            clock,
            disk: Disk::new(plan.known_len_max),
            power_lost: false,
            writing: None,
            waiting: Batch::default(),
            sessions: Vec::new(),
            hash_seed: dice.number(),
            known_len_max: plan.known_len_max,
            ticked: clock.now(0),
            last_history: None,
        }
    }

    /// Whether nothing waits to be written.
    pub fn is_written(&self) -> bool {
        self.writing.is_none() && self.waiting.is_empty()
    }

    /// What its coordinator is told.
    pub fn config(&self, plan: &Plan) -> CoordinatorConfig {
        CoordinatorConfig {
            processors_fingerprint: 0,
            health_checked: plan.processors(),
            ledger: LedgerConfig {
                open_len_max: plan.open_len_max,
                known_len_max: self.known_len_max,
                bucket_bytes_max: plan.bucket_bytes_max,
                members_bytes_max: 1 << 20,
                processors: plan.processors(),
                hash_seed: self.hash_seed,
            },
            health_interval_us: [plan.health_interval_us; PROCESSORS_LEN_MAX],
            claim_grace_us: plan.claim_grace_us,
            incarnation: u64::from(self.life),
        }
    }
}

impl World {
    pub(super) fn start_aggregator(&mut self) {
        if self.aggregator.coordinator.is_some() {
            return;
        }
        self.aggregator.life += 1;
        let now = self.aggregator.clock.now(self.now_us);
        self.aggregator.ticked = now;
        if self.plan.known_len_varies {
            self.aggregator.known_len_max = self.dice.index(60) + 1;
        }
        let config = self.aggregator.config(&self.plan);
        let stated = if self.has(Bug::RetentionMisstated) { 40 } else { config.ledger.known_len_max };
        let syncs = !self.has(Bug::RecoveredUnsynced);
        let found = self.aggregator.disk.recover(config.ledger, stated, syncs, &mut self.dice);
        let power_lost = std::mem::take(&mut self.aggregator.power_lost);
        let readable = !found.hopeless && (power_lost || found.damages.is_empty());
        self.oracle.check(Invariant::JournalIsReadable, readable, || format!("{:?}", found.damages));
        // What is synced before each answer promises nothing that a loss of power could take.
        if power_lost && self.plan.power_loss == Some(Sync::Interval) {
            self.oracle.lost_power(&found.lost);
        }
        let entries = self.aggregator.disk.entries();
        self.trace(|| format!("the aggregator starts, with {} entries", entries.len()));
        self.oracle.restarted(entries, &found.ledger);
        let coordinator = Coordinator::recovered(config, found.ledger, now);
        self.aggregator.coordinator = Some(coordinator);
        self.open_table();
        self.collect(false);
        self.compare_totals();
        let life = self.aggregator.life;
        self.after(50_000, Event::AggregatorTick(life));
    }

    /// SIGKILL. What was written stays; of a write under way, any part.
    pub(super) fn kill_aggregator(&mut self) {
        if self.aggregator.coordinator.is_none() {
            return;
        }
        self.count_coordinator();
        self.aggregator.coordinator = None;
        self.aggregator.life += 1;
        self.trace(|| "the aggregator dies".to_owned());
        if let Some(batch) = self.aggregator.writing.take() {
            let done = self.dice.index(batch.entries.len() + 1);
            let torn = batch.entries.get(done).copied();
            batch.entries.into_iter().take(done).for_each(|entry| self.write_entry(entry));
            if let Some(torn) = torn {
                self.aggregator.disk.write_torn(torn, &mut self.dice);
            }
        }
        self.aggregator.disk.abandon();
        self.aggregator.waiting = Batch::default();
        if self.has(Bug::CrashLosesTail) {
            let lost = self.dice.index(10);
            self.aggregator.disk.lose_tail(lost);
        }
        for connection in std::mem::take(&mut self.aggregator.sessions).into_iter().flatten() {
            self.connections[connection].session = None;
        }
        for connection in 0..self.connections.len() {
            if self.connections[connection].open[Side::Aggregator as usize] {
                self.close(connection, Side::Aggregator, true);
            }
        }
        let away_us = self.dice.skewed(self.plan.restart_us);
        self.after(away_us, Event::AggregatorStart);
    }

    /// What a coordinator counted, before it is gone.
    pub(super) fn count_coordinator(&mut self) {
        let Some(coordinator) = &self.aggregator.coordinator else { return };
        let counters = coordinator.counters();
        self.coverage.expired += counters.expired;
        self.coverage.handed_over += counters.handed_over;
        self.coverage.claimed += counters.claimed;
        self.coverage.withdrawn += counters.withdrawn;
    }

    pub(super) fn tick_aggregator(&mut self, life: u32) {
        if self.aggregator.life != life {
            return;
        }
        let now = self.aggregator.clock.now(self.now_us);
        self.aggregator.ticked = now;
        if let Some(coordinator) = &mut self.aggregator.coordinator {
            let unconfirmed = coordinator.counters().unconfirmed_summaries;
            coordinator.tick(now);
            self.check_summaries(unconfirmed);
        }
        self.publish();
        self.keep_snapshots();
        if self.plan.power_loss == Some(Sync::Interval) && self.dice.one_in(4) {
            self.aggregator.disk.sync();
        }
        self.after(50_000, Event::AggregatorTick(life));
    }

    pub(super) fn aggregator_receives(&mut self, connection: usize, chunk: Chunk) {
        let bytes = match chunk {
            Chunk::Bytes(bytes) => bytes,
            Chunk::End => {
                self.aggregator_disconnected(connection);
                return;
            }
        };
        let mut inbox = std::mem::take(&mut self.connections[connection].inbox[Side::Aggregator as usize]);
        inbox.extend(bytes);
        let mut messages = Vec::new();
        let used = decode_frames(&inbox, |message| messages.push(message));
        self.oracle.check(Invariant::NoRejection, used.is_ok(), || format!("{used:?}"));
        inbox.drain(..used.unwrap_or(0));
        self.connections[connection].inbox[Side::Aggregator as usize] = inbox;
        for message in messages {
            let mut attached =
                std::mem::take(&mut self.connections[connection].attached[Side::Aggregator as usize]);
            match attached.take_in(&message) {
                Ok(true) => {
                    self.aggregator_told(connection, message, &attached);
                    attached.clear();
                }
                Ok(false) => {}
                Err(error) => {
                    self.oracle.check(Invariant::NoRejection, false, || format!("{error}: {message:?}"))
                }
            }
            self.connections[connection].attached[Side::Aggregator as usize] = attached;
        }
        self.publish();
    }

    fn aggregator_told(&mut self, connection: usize, message: Message, attached: &Attached) {
        let mut now = if self.has(Bug::ClockIsStale) {
            self.aggregator.ticked
        } else {
            self.aggregator.clock.now(self.now_us)
        };
        if self.has(Bug::DeadlineMissed) && matches!(message, Message::Intent(_)) {
            now.unix_ms.0 = 0;
        }
        let gateway = self.connections[connection].gateway;
        self.trace(|| format!("the aggregator hears from gateway {gateway}: {message:?}"));
        let mut greeting = None;
        let Some(coordinator) = &mut self.aggregator.coordinator else { return };
        let unconfirmed = coordinator.counters().unconfirmed_summaries;
        let result = match (self.connections[connection].session, message) {
            (None, Message::Hello(hello)) => coordinator.connect(hello).map(|session| {
                let index = usize::from(session.0);
                let sessions = &mut self.aggregator.sessions;
                sessions.resize(sessions.len().max(index + 1), None);
                sessions[index] = Some(connection);
                self.connections[connection].session = Some(session);
                // A hello promises nothing and waits for no write.
                greeting = coordinator.messages().pop();
            }),
            (Some(session), message) => coordinator.handle_with(session, message, attached, now),
            (None, _) => Ok(()),
        };
        if result == Err(Rejection::Superseded) {
            self.aggregator_disconnected(connection);
            return;
        }
        self.oracle.check(Invariant::NoRejection, result.is_ok(), || format!("{result:?}"));
        if let Some((_, greeting)) = greeting {
            let mut frames = FrameWriter::default();
            frames.push(greeting);
            self.write(connection, Side::Aggregator, frames.take(Vec::new()));
        }
        self.coverage.purges += u64::from(matches!(message, Message::PurgeQuery(_)));
        let claimed = matches!(message, Message::Claim(_));
        self.collect(claimed);
        if claimed {
            self.oracle.claim_handled();
        }
        self.compare_totals();
        if matches!(message, Message::LookupQuery(_)) {
            self.compare_history();
        }
        self.check_summaries(unconfirmed);
    }

    /// A look-up's answer is about to leave: some decisions, and the reply behind them.
    fn compare_history(&mut self) {
        let swaps = self.has(Bug::HistoryOfAnother);
        let Some(coordinator) = &mut self.aggregator.coordinator else { return };
        let messages = coordinator.messages();
        let Some((session, Message::LookupReply(mut reply))) = messages.pop() else { return };
        // What belongs to the reply itself.
        let parts_len = messages.iter().rev().take_while(|(_, it)| matches!(it, Message::Part(_))).count();
        let parts = messages.split_off(messages.len() - parts_len);
        let begin = messages.len().saturating_sub(reply.decision_count.into());
        let mut gathering = History::EMPTY;
        for (_, message) in messages.drain(begin..) {
            if let Message::PastDecision(decision) = message {
                gathering.push(decision);
            }
        }
        let mut history = gathering.complete(&reply);
        let before = self.aggregator.last_history.replace(history);
        if let Some(before) = before.filter(|_| swaps) {
            history = before;
            reply.decision_count = u8::try_from(history.decisions().len()).expect("a few");
            reply.decisions_forgotten = history.forgotten;
        }
        messages.extend(history.decisions().iter().map(|decision| (session, (*decision).into())));
        messages.extend(parts);
        messages.push((session, reply.into()));
        self.oracle.looked_up(&reply, &history);
    }

    fn compare_totals(&mut self) {
        let bounds = self.aggregator.config(&self.plan).ledger;
        if let Some(coordinator) = &self.aggregator.coordinator {
            self.oracle.compare_totals(coordinator, bounds);
        }
    }

    /// Takes the entries that were just decided.
    fn collect(&mut self, claimed: bool) {
        let now_ms = self.aggregator.clock.now(self.now_us).unix_ms.0;
        let Some(coordinator) = &mut self.aggregator.coordinator else { return };
        for entry in coordinator.entries().drain(..) {
            self.oracle.decided(entry, claimed, now_ms);
            self.aggregator.waiting.entries.push(entry);
        }
    }

    fn aggregator_disconnected(&mut self, connection: usize) {
        let gateway = self.connections[connection].gateway;
        self.trace(|| format!("the aggregator has lost gateway {gateway}"));
        self.close(connection, Side::Aggregator, false);
        let Some(session) = self.connections[connection].session.take() else { return };
        let now = self.aggregator.clock.now(self.now_us);
        if self.has(Bug::HandOverForgotten) {
            return;
        }
        self.aggregator.sessions[usize::from(session.0)] = None;
        let Some(coordinator) = &mut self.aggregator.coordinator else { return };
        if self.bug == Some(Bug::DeathIsRefusal) {
            let owned: Vec<_> = coordinator.ledger().open_of(Some(session)).collect();
            for (correlation_id, payment) in owned {
                if let Some(processor) = payment.stage.processor() {
                    let refused = Completion {
                        sequence: 0,
                        correlation_id,
                        requested_at_ms: payment.requested_at_ms,
                        processor,
                        outcome: Outcome::Refused,
                        status: 0,
                    };
                    let told = coordinator.handle(session, refused.into(), now);
                    assert!(told.is_ok(), "a completion is no offence");
                }
            }
        }
        let unconfirmed = coordinator.counters().unconfirmed_summaries;
        coordinator.disconnect(session, now);
        self.collect(false);
        self.check_summaries(unconfirmed);
        self.publish();
    }

    /// Sends what was decided on its way: to disk first.
    fn publish(&mut self) {
        self.collect(false);
        self.compare_totals();
        let interval_us = self.plan.health_interval_us;
        let Some(coordinator) = &mut self.aggregator.coordinator else { return };
        let to_all: Vec<SessionId> = (0_u16..)
            .zip(&self.aggregator.sessions)
            .filter(|(_, connection)| connection.is_some())
            .map(|(index, _)| SessionId(index))
            .collect();
        let already_len = self.aggregator.waiting.messages.len();
        for (session, message) in coordinator.messages().drain(..) {
            if self.bug == Some(Bug::MembersLeftBehind) && matches!(message, Message::Part(_)) {
                continue;
            }
            let mut receivers = vec![session];
            if let Message::Lease(lease) = message {
                if self.bug == Some(Bug::LeaseToAll) {
                    receivers.clone_from(&to_all);
                }
                receivers.iter().for_each(|_| self.oracle.leased(lease.processor, interval_us));
            }
            for receiver in receivers {
                if let Some(Some(connection)) = self.aggregator.sessions.get(usize::from(receiver.0)) {
                    self.aggregator.waiting.messages.push((*connection, receiver, message));
                }
            }
        }
        if self.has(Bug::ThreadsConfused) {
            for place in already_len..self.aggregator.waiting.messages.len() {
                let connection = self.aggregator.waiting.messages[place].0;
                self.aggregator.waiting.messages[place].0 = self.first_threads(connection);
            }
        }
        if self.has(Bug::AnswersBeforeWrite) {
            let messages = std::mem::take(&mut self.aggregator.waiting.messages);
            self.release(messages);
        }
        self.write_next();
    }

    fn write_next(&mut self) {
        while self.aggregator.writing.is_none() && !self.aggregator.waiting.is_empty() {
            let batch = std::mem::take(&mut self.aggregator.waiting);
            let delay_us =
                if batch.entries.is_empty() { 0 } else { self.dice.skewed(self.plan.write_delay_us) };
            self.aggregator.writing = Some(batch);
            if delay_us > 0 {
                let life = self.aggregator.life;
                self.after(delay_us, Event::WriteEnded(life));
                return;
            }
            self.finish_write();
        }
    }

    pub(super) fn write_ended(&mut self, life: u32) {
        if self.aggregator.life == life {
            self.finish_write();
            self.write_next();
        }
    }

    fn finish_write(&mut self) {
        let Some(batch) = self.aggregator.writing.take() else { return };
        batch.entries.into_iter().for_each(|entry| self.write_entry(entry));
        if self.plan.power_loss == Some(Sync::Always) {
            self.aggregator.disk.sync();
        }
        self.tell_written();
        self.release(batch.messages);
    }

    fn write_entry(&mut self, entry: Entry) {
        self.trace(|| format!("written: {entry:?}"));
        self.oracle.written(entry);
        if self.has(Bug::EntryDropped) && self.dice.one_in(50) {
            return;
        }
        let as_what = if self.has(Bug::JournalFloat) { through_float(entry) } else { entry };
        self.aggregator.disk.write(entry, as_what);
        let processed = matches!(entry, Entry::Resolved { outcome: Outcome::Processed, .. });
        if self.has(Bug::CountTwice) && processed {
            self.oracle.written(entry);
            self.aggregator.disk.write(entry, entry);
        }
    }

    /// Now and then a snapshot is taken, step by step while everything goes on.
    fn keep_snapshots(&mut self) {
        let late = self.has(Bug::SnapshotLate);
        let Aggregator { coordinator: Some(coordinator), disk, writing, waiting, .. } = &mut self.aggregator
        else {
            return;
        };
        let waiting_len = waiting.entries.len() + writing.as_ref().map_or(0, |batch| batch.entries.len());
        if disk.is_busy() {
            disk.step_snapshot(coordinator.ledger_mut(), late, &mut self.dice);
        } else if self.dice.chance(self.plan.snapshots) {
            disk.begin_snapshot(coordinator.ledger_mut(), waiting_len);
            self.coverage.snapshots += 1;
        }
    }

    fn release(&mut self, messages: Vec<(usize, SessionId, Message)>) {
        let mut frames: Vec<(usize, FrameWriter)> = Vec::new();
        for (connection, session, message) in messages {
            let message = match message {
                Message::Grant(grant)
                    if grant.admission == Admission::Conflict && self.has(Bug::ConflictIsReplay) =>
                {
                    as_replayed(grant).into()
                }
                message => message,
            };
            let connection = if self.has(Bug::WrongSession) {
                let Some(Some(present)) = self.aggregator.sessions.get(usize::from(session.0)) else {
                    continue;
                };
                *present
            } else {
                connection
            };
            if !self.connections[connection].open[Side::Aggregator as usize] {
                continue;
            }
            match frames.iter_mut().find(|(to, _)| *to == connection) {
                Some((_, writer)) => writer.push(message),
                None => {
                    let mut writer = FrameWriter::default();
                    writer.push(message);
                    frames.push((connection, writer));
                }
            }
        }
        for (connection, mut writer) in frames {
            self.write(connection, Side::Aggregator, writer.take(Vec::new()));
        }
    }

    /// The machine's power goes: every process, and what the disk had not synced.
    pub(super) fn lose_power(&mut self) {
        self.coverage.power_losses += 1;
        self.trace(|| "power is lost".to_owned());
        (0..self.plan.gateway_count).for_each(|process| self.kill_process(process, true));
        self.kill_aggregator();
        self.aggregator.disk.lose_power(&mut self.dice);
        self.aggregator.power_lost = true;
    }
}

/// A float's cent: what `(amount * 100.0) as u64` does to some amounts.
fn through_float(entry: Entry) -> Entry {
    match entry {
        Entry::Accepted { correlation_id, amount_cents, stage, decided_at_ms, in_doubt, reason }
            if amount_cents % 100 == 29 =>
        {
            Entry::Accepted {
                correlation_id,
                amount_cents: amount_cents - 1,
                stage,
                decided_at_ms,
                in_doubt,
                reason,
            }
        }
        entry => entry,
    }
}
