//! Records of gateways that mean harm, or are broken: claims of what is another's, completions of what was never sent, everything again.
//!
//! Whatever is said, the ledger must stay right by its own rules: the books add up, every change that it made can be replayed from
//! its journal to the same state, a payment in doubt does not go elsewhere, a question has one answer, a stranger's word does not move
//! an owner's payment, and a snapshot that is taken meanwhile is the state of one moment.

use galo_engine::router::ProcessorSet;
use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use galo_engine::coordinator::{Coordinator, CoordinatorConfig, Rejection, SessionId};
use galo_engine::ledger::snapshot::Progress;
use galo_engine::ledger::{Entry, Known, Ledger, LedgerConfig};
use galo_engine::time::{Now, UnixMillis};
use galo_engine::{CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor, Stage};
use galo_wire::journal::{BLOCK_SIZE, Record};
use galo_wire::record::{
    ANY_SLOT, Accept, Claim, Completion, HealthReport, HealthSource, Hello, Intent, LookupQuery, PurgeQuery,
    Ready, Release, Role, SummaryQuery, Withdrawal,
};
use galo_wire::{Attached, Attachment, Message, PROTOCOL_VERSION, Reason};

const STEPS_MAX: usize = 200;
const IDS: u8 = 8;
const SESSIONS_MAX: usize = 4;
const CONFIG: LedgerConfig = LedgerConfig {
    open_len_max: 6,
    known_len_max: 4,
    bucket_bytes_max: 1 << 16,
    members_bytes_max: 400,
    processors: ProcessorSet::PAIR,
    hash_seed: 3,
};

/// One thing that is said, or happens.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Step {
    what: u8,
    who: u8,
    id: u8,
    flags: u8,
    amount: u16,
    at: u16,
}

struct World {
    coordinator: Coordinator,
    sessions: Vec<SessionId>,
    journal: Vec<Entry>,
    now_us: u64,
    /// The changes that a snapshot under way is the state after, and its bytes so far.
    snapshot: Option<(usize, Vec<u8>)>,
    /// Who asked for a summary under which slot, and has no answer.
    questions: Vec<(SessionId, u32)>,
}

/// The steps are the fuzzer's bytes.
pub fn run(data: &[u8]) {
    let mut world = World {
        coordinator: coordinator(0),
        sessions: Vec::new(),
        journal: Vec::new(),
        now_us: 0,
        snapshot: None,
        questions: Vec::new(),
    };
    let mut steps = Unstructured::new(data);
    for _ in 0..STEPS_MAX {
        if steps.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut steps) else { break };
        world.step(step);
    }
    world.export(u8::MAX);
    let replayed = replay(&world.journal);
    assert_same(world.coordinator.ledger(), &replayed);
}

fn coordinator(now_us: u64) -> Coordinator {
    let config = CoordinatorConfig {
        processors_fingerprint: 0,
        health_checked: ProcessorSet::PAIR,
        ledger: CONFIG,
        health_interval_us: [5_000_000; PROCESSORS_LEN_MAX],
        claim_grace_us: 300_000,
        incarnation: 1,
    };
    Coordinator::new(config, now(now_us))
}

fn now(us: u64) -> Now {
    Now { monotonic_us: us, unix_ms: UnixMillis(1_700_000_000_000 + us / 1_000) }
}

fn id_of(number: u8) -> CorrelationId {
    CorrelationId([number % IDS; 16])
}

fn replay(journal: &[Entry]) -> Ledger {
    let mut ledger = Ledger::new(CONFIG);
    journal.iter().for_each(|entry| ledger.apply(*entry));
    ledger
}

/// Owners are no part of the journal.
fn known(ledger: &Ledger, number: u8) -> Known {
    match ledger.lookup(id_of(number)) {
        Known::Open(mut payment) => {
            payment.owner = None;
            Known::Open(payment)
        }
        other => other,
    }
}

fn assert_same(one: &Ledger, other: &Ledger) {
    assert_eq!(one.conservation(), other.conservation());
    assert_eq!(one.members_bytes(), other.members_bytes());
    for number in 0..IDS {
        assert_eq!(known(one, number), known(other, number));
        let texts = |ledger: &Ledger| (ledger.texts(id_of(number)).cloned(), ledger.reference(id_of(number)));
        assert_eq!(texts(one), texts(other));
    }
    let (start, middle, end) = (UnixMillis(0), UnixMillis(30_000), UnixMillis(u64::MAX));
    assert_eq!(one.summarize(start, end), other.summarize(start, end));
    assert_eq!(one.summarize(start, middle), other.summarize(start, middle));
}

impl World {
    fn step(&mut self, step: Step) {
        let Step { what, who, id, flags, amount, at } = step;
        match what % 20 {
            0 => return self.connect(flags),
            1 => return self.export(flags),
            2 => return self.restart(),
            3 => {
                self.now_us += u64::from(amount) * 10;
                let now = now(self.now_us);
                let ticked = self.watched(None, |coordinator| {
                    coordinator.tick(now);
                    Ok(())
                });
                return assert_eq!(ticked, Ok(()));
            }
            _ => {}
        }
        if self.sessions.is_empty() {
            return self.connect(0);
        }
        let index = usize::from(who) % self.sessions.len();
        let (session, now) = (self.sessions[index], now(self.now_us));
        if what % 20 == 4 {
            return self.disconnect(index);
        }
        let correlation_id = id_of(id);
        let processor = Processor::PAIR[usize::from(flags & 1)];
        let stage = [Stage::Waiting, Stage::At0, Stage::At1][usize::from(flags >> 1) % 3];
        let in_doubt = flags & 8 != 0;
        let outcomes =
            [Outcome::Processed, Outcome::Refused, Outcome::Unknown, Outcome::Absent, Outcome::Declined];
        let outcome = outcomes[usize::from(flags >> 4) % 5];
        // Few values, so that they meet; now and then one from the edge of what fits.
        let amount_cents = match amount {
            0 => 0,
            u16::MAX => u64::MAX,
            65_534 => 99_999_999_999,
            65_533 => 100_000_000_000,
            other => u64::from(other % 3) + 1,
        };
        let requested_at_ms = match at {
            u16::MAX => u64::MAX,
            65_534 => 1 << 63,
            other => u64::from(other),
        };
        let slot = u32::from(who);
        let reason = Reason::ALL[usize::from(amount) % Reason::ALL.len()];
        let message: Message = match what % 20 {
            5..=7 => {
                let expires_at_us = self.now_us + u64::from(flags & 64);
                Accept {
                    slot,
                    correlation_id,
                    amount_cents,
                    decided_at_ms: requested_at_ms,
                    expires_at_us,
                    stage,
                    reason,
                }
                .into()
            }
            8 | 9 => {
                let waited_for_ms = u32::from(amount);
                Intent { slot, correlation_id, requested_at_ms, processor, reason, waited_for_ms }.into()
            }
            10..=12 => Completion {
                sequence: u64::from(at),
                correlation_id,
                requested_at_ms,
                processor,
                outcome,
                status: 0,
            }
            .into(),
            13 | 14 => Claim { slot, correlation_id, amount_cents, requested_at_ms, stage, in_doubt }.into(),
            15 => Ready { held_len_max: u64::from(amount) }.into(),
            16 => Release { correlation_id }.into(),
            17 => LookupQuery { slot, correlation_id }.into(),
            18 if flags % 16 == 0 => PurgeQuery { slot }.into(),
            18 => SummaryQuery { slot, from_ms: u64::from(amount), to_ms: requested_at_ms }.into(),
            _ if in_doubt => self.coordinator.hello().into(),
            _ => {
                let source = if flags & 2 == 0 { HealthSource::Check } else { HealthSource::Traffic };
                HealthReport {
                    processor,
                    source,
                    failing: flags & 4 != 0,
                    response_ms: u32::from(at),
                    retry_after_ms: 0,
                }
                .into()
            }
        };
        // Few texts, too.
        let mut attached = Attached::default();
        let texts = [(Attachment::Members, r#"{"payer":1}"#), (Attachment::Reference, "pi_1")];
        for (attachment, text) in texts {
            let takes = match message {
                Message::Accept(_) => attachment == Attachment::Members,
                Message::Claim(_) => true,
                Message::Completion(_) => attachment == Attachment::Reference,
                _ => false,
            };
            if takes && at % 3 > 0 {
                let text = if at % 3 == 1 { text } else { &text[..1] };
                attached.push(attachment, text.as_bytes()).expect("short");
            }
        }
        if let Message::SummaryQuery(query) = message {
            self.questions.push((session, query.slot));
        }
        if self
            .watched(Some((session, message)), |coordinator| {
                coordinator.handle_with(session, message, &attached, now)
            })
            .is_err()
        {
            // As the shell does.
            self.disconnect(index);
        }
    }

    fn disconnect(&mut self, index: usize) {
        let (session, now) = (self.sessions.swap_remove(index), now(self.now_us));
        self.questions.retain(|(asker, _)| *asker != session);
        let closed = self.watched(None, |coordinator| {
            coordinator.disconnect(session, now);
            Ok(())
        });
        assert_eq!(closed, Ok(()));
    }

    fn connect(&mut self, flags: u8) {
        if self.sessions.len() == SESSIONS_MAX {
            return;
        }
        let hello = Hello {
            protocol_version: if flags == 255 { PROTOCOL_VERSION + 1 } else { PROTOCOL_VERSION },
            role: if flags == 254 { Role::Aggregator } else { Role::Gateway },
            instance: flags,
            thread: 0,
            processors: 0,
            incarnation: 0,
        };
        let session = self.watched(None, |coordinator| coordinator.connect(hello));
        assert_eq!(session.is_ok(), flags < 254, "who is let in");
        self.sessions.extend(session.ok());
    }

    /// The aggregator dies and reads its journal.
    fn restart(&mut self) {
        self.sessions.clear();
        self.questions.clear();
        self.snapshot = None;
        self.coordinator = coordinator(self.now_us);
        self.journal.iter().for_each(|entry| self.coordinator.restore(*entry));
    }

    /// Goes on with a snapshot, or begins one; a whole one is read back.
    fn export(&mut self, rows: u8) {
        let ledger = self.coordinator.ledger_mut();
        if self.snapshot.is_none() {
            ledger.begin_export();
            self.snapshot = Some((self.journal.len(), Vec::new()));
        }
        let (len, mut bytes) = self.snapshot.take().expect("begun above");
        let progress = loop {
            match ledger.export(usize::from(rows) + 1, &mut bytes) {
                Progress::More if rows == u8::MAX => {}
                progress => break progress,
            }
        };
        match progress {
            Progress::More => self.snapshot = Some((len, bytes)),
            Progress::Gone => {}
            Progress::Done => {
                let mut ledger = Ledger::new(CONFIG);
                ledger.begin_replay();
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (block, behind) = rest.split_at(BLOCK_SIZE);
                    let record = Record::decode(block).expect("a snapshot is made of records");
                    let (page, behind) = behind.split_at(record.fact.page().map_or(0, |(size, _)| size));
                    match record.fact {
                        fact if fact.page().is_some() => ledger.import_page(fact, page),
                        fact => ledger.import(fact),
                    }
                    .expect("a snapshot fits");
                    rest = behind;
                }
                ledger.end_replay();
                assert_same(&ledger, &replay(&self.journal[..len]));
            }
        }
    }

    /// Does something to the coordinator, and looks at what changed.
    fn watched<T>(
        &mut self,
        said: Option<(SessionId, Message)>,
        act: impl FnOnce(&mut Coordinator) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let before: Vec<Known> =
            (0..IDS).map(|number| self.coordinator.ledger().lookup(id_of(number))).collect();
        let result = act(&mut self.coordinator);
        let entries = std::mem::take(self.coordinator.entries());
        let messages = std::mem::take(self.coordinator.messages());
        for (number, before) in (0..IDS).zip(&before) {
            self.check_change(number, *before, said, &entries);
        }
        for (to, message) in &messages {
            if let Message::SummaryReply(reply) = message {
                let asked = self.questions.iter().position(|question| *question == (*to, reply.slot));
                self.questions.swap_remove(asked.expect("a summary answers a question, once"));
            }
        }
        if let Some((session, message)) = said
            && result.is_ok()
        {
            check_answers(session, &message, &messages, self.coordinator.ledger());
        }
        let ledger = self.coordinator.ledger();
        let open_len =
            (0..IDS).filter(|number| matches!(ledger.lookup(id_of(*number)), Known::Open(_))).count();
        assert_eq!(ledger.conservation().open.count, open_len as u64, "ids that nobody named");
        self.journal.extend(entries);
        let all = ledger.summarize(UnixMillis(0), UnixMillis(u64::MAX)).totals;
        assert_eq!(all, ledger.conservation().processed, "the summary of all time is the books");
        result
    }

    fn check_change(&self, number: u8, before: Known, said: Option<(SessionId, Message)>, entries: &[Entry]) {
        let after = self.coordinator.ledger().lookup(id_of(number));
        let is_purged = entries.contains(&Entry::Purged);
        match (before, after) {
            (Known::Open(before), Known::Open(after)) if !is_purged => {
                assert_eq!(before.amount_cents, after.amount_cents, "an amount stays");
                let says_absent = |(speaker, message)| match message {
                    Message::Completion(completion) => {
                        completion.outcome == Outcome::Absent && before.owner == Some(speaker)
                    }
                    _ => false,
                };
                if before.in_doubt && !said.is_some_and(says_absent) {
                    assert!(
                        after.in_doubt,
                        "doubt ends with a yes, or with the owner's word that it is not there"
                    );
                    assert_eq!(before.stage, after.stage, "a payment in doubt stays with its processor");
                }
                // Only its owner moves a payment that has one, or its owner's end.
                if let (Some(owner), Some((speaker, _))) = (before.owner, said)
                    && owner != speaker
                    && before.stage != Stage::Waiting
                    && !after.in_doubt
                {
                    assert_eq!(
                        (before.stage, before.requested_at_ms),
                        (after.stage, after.requested_at_ms),
                        "a stranger moved it"
                    );
                }
                if let (Some(owner), Some((speaker, _))) = (before.owner, said)
                    && owner != speaker
                {
                    assert_eq!(after.owner, before.owner, "a stranger took it");
                }
            }
            (
                Known::Processed { .. } | Known::Declined { .. },
                Known::Processed { .. } | Known::Declined { .. },
            ) => {
                assert_eq!(before, after, "what has ended stays")
            }
            (Known::Open(before), Known::Declined { .. }) => {
                assert!(!before.in_doubt && before.stage == Stage::Waiting, "it may be charged: {before:?}");
            }
            (Known::Open(_), Known::Absent) => assert!(is_purged, "an open payment was lost"),
            // Known ids are few here, and the oldest is forgotten.
            (Known::Processed { .. } | Known::Declined { .. }, Known::Absent)
            | (Known::Absent, _)
            | (Known::Open(_), _) => {}
            (Known::Processed { .. } | Known::Declined { .. }, Known::Open(_)) => {
                panic!("a payment that has ended is open again")
            }
        }
    }
}

/// A question has one answer, and nobody else gets it. (Summaries: see [`World::questions`].)
fn check_answers(from: SessionId, said: &Message, messages: &[(SessionId, Message)], ledger: &Ledger) {
    let mut answers: BTreeMap<u8, u32> = BTreeMap::new();
    for (to, message) in messages {
        *answers.entry(message.kind() as u8).or_default() += 1;
        match message {
            Message::Assignment(_)
            | Message::Part(_)
            | Message::Purged(_)
            | Message::HealthNews(_)
            | Message::Lease(_) => {}
            // A summary asks the others first, and is made when the last of them answers.
            Message::Flush(_) | Message::SummaryTotal(_) | Message::SummaryReply(_) => {}
            // Whoever has a payment is told that another has ended it.
            Message::Withdrawal(Withdrawal { slot: ANY_SLOT, correlation_id }) if *to != from => {
                let ends = |it: &Completion| {
                    it.correlation_id == *correlation_id && it.outcome == Outcome::Processed
                };
                assert!(matches!(said, Message::Completion(it) if ends(it)), "nothing ended it: {said:?}");
                assert!(!matches!(ledger.lookup(*correlation_id), Known::Open(_)), "it is open");
            }
            _ => assert_eq!(*to, from, "an answer goes to who asked"),
        }
        if let Message::Assignment(assignment) = message {
            let Known::Open(payment) = ledger.lookup(assignment.correlation_id) else {
                panic!("what is assigned is open");
            };
            assert_eq!(payment.owner, Some(*to));
            assert_eq!((payment.amount_cents, payment.stage), (assignment.amount_cents, assignment.stage));
            assert!(
                assignment.in_doubt || assignment.stage == Stage::Waiting,
                "a recorded attempt of another's is in doubt"
            );
        }
    }
    let mut count = |kind: galo_wire::Kind| answers.remove(&(kind as u8)).unwrap_or(0);
    use galo_wire::Kind;
    match said {
        Message::Accept(accept) if (1..=99_999_999_999).contains(&accept.amount_cents) => {
            assert_eq!(count(Kind::Grant), 1);
        }
        Message::Intent(_) => assert_eq!(count(Kind::IntentRecorded) + count(Kind::Withdrawal), 1),
        Message::Completion(_) => assert_eq!(count(Kind::Acknowledgement), 1),
        Message::LookupQuery(_) => assert_eq!(count(Kind::LookupReply), 1),
        Message::PurgeQuery(_) => assert_eq!(count(Kind::PurgeReply), 1),
        _ => {}
    }
}
