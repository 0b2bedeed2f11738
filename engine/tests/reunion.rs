//! A real dispatcher and a real coordinator, parted and joined again: what was granted is still worked on.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod gateways;

use galo_engine::coordinator::{Coordinator, SessionId};
use galo_engine::dispatcher::{Action, Dispatcher, DispatcherConfig, ProcessorPolicy, Verification};
use galo_engine::ledger::{Conservation, Entry};
use galo_engine::money::AmountCents;
use galo_engine::router::RouterConfig;
use galo_engine::time::{Now, UnixMillis};
use galo_engine::verdict::{End, Verdict};
use galo_engine::{CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor};
use galo_wire::record::{Hello, Role};
use galo_wire::{Message, PROTOCOL_VERSION};

const OK: End = End { verdict: Verdict::Processed, status: 200, retry_after_ms: 0 };
const FAILED: End = End { verdict: Verdict::Unavailable, status: 500, retry_after_ms: 0 };

fn id(number: u8) -> CorrelationId {
    CorrelationId([number; 16])
}

fn coordinator(now: Now, journal: &[Entry]) -> Coordinator {
    let mut config = gateways::coordinator_config();
    config.ledger.known_len_max = 100;
    let mut coordinator = Coordinator::new(config, now);
    journal.iter().for_each(|entry| coordinator.restore(*entry));
    coordinator
}

/// One gateway, one aggregator and what both processors do.
struct World {
    now_us: u64,
    dispatcher: Dispatcher,
    coordinator: Coordinator,
    session: Option<SessionId>,
    journal: Vec<Entry>,
    attempts: Vec<(u32, Processor, CorrelationId)>,
    answers: u32,
}

impl World {
    fn new() -> Self {
        let config = DispatcherConfig {
            // Without patience: what cannot go to default goes to fallback at once.
            router: RouterConfig { patience_us: 0, ..RouterConfig::pair([500, 1500]) },
            queue_len_max: 100,
            processors: [ProcessorPolicy::contest(8); PROCESSORS_LEN_MAX],
            accept_wait_us_max: 1_000_000,
            seed: 1,
        };
        let now_us = 1_000_000;
        let now = Now { monotonic_us: now_us, unix_ms: UnixMillis(1_700_000_000_000) };
        Self {
            now_us,
            dispatcher: Dispatcher::new(config),
            coordinator: coordinator(now, &[]),
            session: None,
            journal: Vec::new(),
            attempts: Vec::new(),
            answers: 0,
        }
    }

    fn now(&self) -> Now {
        Now { monotonic_us: self.now_us, unix_ms: UnixMillis(1_700_000_000_000 + self.now_us / 1_000) }
    }

    fn connect(&mut self) {
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            role: Role::Gateway,
            instance: 1,
            thread: 0,
            processors: 0,
            incarnation: 1,
        };
        self.session = Some(self.coordinator.connect(hello).unwrap());
        self.coordinator.messages().clear();
        let now = self.now();
        self.dispatcher.connected(now);
        self.exchange();
    }

    /// Carries everything from one to the other, all that is under way at a time, as frames do, until both are silent.
    fn exchange(&mut self) {
        let now = self.now();
        loop {
            let actions: Vec<Action> = self.dispatcher.actions().drain(..).collect();
            let mut sent = Vec::new();
            for action in actions {
                match action {
                    Action::Send(message) => sent.push(message),
                    Action::Answer { .. } => self.answers += 1,
                    Action::Attempt { slot, processor, correlation_id, .. } => {
                        self.attempts.push((slot, processor, correlation_id));
                    }
                    Action::Verify { slot, .. } => {
                        self.dispatcher.verified(slot, Verification::Unanswered, now);
                    }
                    Action::CheckHealth { .. } | Action::Renew { .. } | Action::GiveUp { .. } => {}
                }
            }
            if let Some(session) = self.session {
                for message in sent {
                    self.coordinator.handle(session, message, now).unwrap();
                }
            }
            self.journal.append(self.coordinator.entries());
            let replies: Vec<(SessionId, Message)> = self.coordinator.messages().drain(..).collect();
            for (_, message) in &replies {
                self.dispatcher.handle(*message, now);
            }
            if replies.is_empty() && self.dispatcher.actions().is_empty() {
                return;
            }
        }
    }

    fn end_attempts(&mut self, reply: impl Fn(Processor) -> End) {
        for (slot, processor, _) in std::mem::take(&mut self.attempts) {
            let now = self.now();
            self.dispatcher.attempt_ended(slot, reply(processor), 1_000, now);
            self.exchange();
        }
    }

    fn pass(&mut self, us: u64) {
        self.now_us += us;
        let now = self.now();
        self.dispatcher.tick(now);
        self.coordinator.tick(now);
        self.exchange();
    }
}

/// Three payments at default; the ledger dies, and they are refused while it is away. Then it is back, from `journal`.
fn refused_while_the_ledger_is_away(journal: impl Fn(&mut Vec<Entry>)) -> (usize, Conservation) {
    let mut world = World::new();
    world.connect();
    for number in 1..=3 {
        let now = world.now();
        world.dispatcher.accept(u32::from(number), id(number), AmountCents::new(1990).unwrap(), now);
        world.exchange();
    }
    assert_eq!((world.answers, world.attempts.len()), (3, 3));

    world.dispatcher.disconnected();
    world.session = None;
    world.end_attempts(|_| FAILED);
    let now = world.now();
    world.dispatcher.health_checked(Processor::DEFAULT, Some((true, 0)), now);
    world.now_us += 1_000;
    journal(&mut world.journal);
    world.coordinator = coordinator(world.now(), &world.journal);
    world.connect();

    let mut attempted_elsewhere = 0;
    for _ in 0..2_000 {
        attempted_elsewhere +=
            world.attempts.iter().filter(|(_, processor, _)| *processor == Processor::FALLBACK).count();
        world.end_attempts(|_| OK);
        world.pass(5_000);
    }
    (attempted_elsewhere, world.coordinator.ledger().conservation())
}

/// The claim says which attempt was refused, so the payments are free to go where they can.
#[test]
fn what_was_refused_while_the_ledger_was_away_may_go_elsewhere() {
    let (attempted_elsewhere, books) = refused_while_the_ledger_is_away(|_| {});
    assert_eq!(attempted_elsewhere, 3);
    assert_eq!((books.open.count, books.processed[1].count), (0, 3));
}

/// The ledger has them in doubt at default; the gateway knows only that they were refused, and would rather send them to
/// fallback. Its intents cross the ledger's word that they stay at default.
#[test]
fn what_is_in_doubt_for_the_ledger_stays_and_is_still_worked_on() {
    let (attempted_elsewhere, books) = refused_while_the_ledger_is_away(|journal| {
        let doubts: Vec<Entry> = journal
            .iter()
            .filter_map(|entry| match *entry {
                Entry::Accepted { correlation_id, decided_at_ms: requested_at_ms, .. } => {
                    Some(Entry::Resolved {
                        correlation_id,
                        processor: Processor::DEFAULT,
                        requested_at_ms,
                        outcome: Outcome::Unknown,
                        status: 0,
                    })
                }
                Entry::Intended { .. }
                | Entry::Resolved { .. }
                | Entry::KnownBefore { .. }
                | Entry::Purged
                | Entry::Named { .. }
                | Entry::Attached { .. }
                | Entry::Note { .. } => None,
            })
            .collect();
        journal.extend(doubts);
    });
    assert_eq!(attempted_elsewhere, 0, "for the ledger they may be at default");
    assert_eq!((books.open.count, books.processed[0].count), (0, 3), "nobody works on what is left");
}
