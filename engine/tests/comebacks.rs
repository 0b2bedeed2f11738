//! Ids that were forgotten and come back: what their processor has since before is not booked again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod gateways;

use galo_engine::coordinator::{Coordinator, CoordinatorConfig, SessionId};
use galo_engine::ledger::snapshot::Progress;
use galo_engine::ledger::{Entry, Known, Ledger, Tally};
use galo_engine::time::UnixMillis;
use galo_engine::{Attached, Outcome, Processor, STATUS_TAKEN_BACK, Stage};
use galo_wire::journal::{BLOCK_SIZE, Record};
use galo_wire::record::{
    ANY_SLOT, Accept, Admission, Claim, Completion, Contradiction, Discrepancy, Intent, PurgeQuery, Ready,
    Withdrawal,
};
use galo_wire::{Attachment, Message, Reason};
use gateways::{at, completion, coordinator_config, hello, id, join, told};

const FIRST_MS: u64 = 1_000;
const P0: Processor = Processor::DEFAULT;

/// A ledger that remembers three ids, whose first payment was processed, and forgotten since.
struct Scene {
    coordinator: Coordinator,
    one: SessionId,
    journal: Vec<Entry>,
}

fn config() -> CoordinatorConfig {
    let mut config = coordinator_config();
    config.ledger.known_len_max = 3;
    config
}

impl Scene {
    fn new() -> Self {
        let mut coordinator = Coordinator::new(config(), at(0));
        let one = join(&mut coordinator, 1);
        let mut scene = Self { coordinator, one, journal: Vec::new() };
        scene.process(1, FIRST_MS, 100);
        for number in 2..5 {
            scene.process(number, FIRST_MS + u64::from(number), 100);
        }
        assert_eq!(scene.coordinator.ledger().lookup(id(1)), Known::Absent, "it is forgotten");
        scene
    }

    fn told(&mut self, message: impl Into<Message>) -> Vec<Message> {
        let heard = told(&mut self.coordinator, self.one, message);
        self.journal.append(self.coordinator.entries());
        heard
    }

    fn accept(&mut self, number: u8, decided_at_ms: u64, amount_cents: u64) -> Admission {
        let accept = Accept {
            slot: number.into(),
            correlation_id: id(number),
            amount_cents,
            decided_at_ms,
            expires_at_us: u64::MAX,
            stage: Stage::At0,
            reason: Reason::Cheaper,
        };
        let heard = self.told(accept);
        let [Message::Grant(grant)] = heard[..] else { panic!("{heard:?}") };
        grant.admission
    }

    fn process(&mut self, number: u8, at_ms: u64, amount_cents: u64) {
        assert_eq!(self.accept(number, at_ms, amount_cents), Admission::Granted);
        let done = completion(number, P0, Outcome::Processed);
        self.told(Completion { requested_at_ms: at_ms, ..done });
    }

    /// A look-up at the processor shows what it has under this id.
    fn find(&mut self, number: u8, requested_at_ms: u64, amount_cents: u64) -> Vec<Message> {
        let correlation_id = id(number);
        let (slot, processor, is_new) = (number.into(), P0, true);
        self.told(Discrepancy { slot, correlation_id, processor, requested_at_ms, amount_cents, is_new })
    }

    /// Likewise, and it tells what the processor calls it.
    fn find_named(&mut self, number: u8, requested_at_ms: u64, amount_cents: u64, reference: &str) {
        let correlation_id = id(number);
        let (slot, processor, is_new) = (number.into(), P0, true);
        let discrepancy =
            Discrepancy { slot, correlation_id, processor, requested_at_ms, amount_cents, is_new };
        let mut attached = Attached::default();
        attached.push(Attachment::Reference, reference.as_bytes()).unwrap();
        self.coordinator.handle_with(self.one, discrepancy.into(), &attached, at(0)).unwrap();
        self.journal.append(self.coordinator.entries());
        self.coordinator.messages().clear();
    }

    /// The ledger by way of a snapshot's bytes.
    fn snapshot(&self) -> Ledger {
        let mut replayed = Ledger::new(config().ledger);
        self.journal.iter().for_each(|entry| replayed.apply(*entry));
        let mut bytes = Vec::new();
        replayed.begin_export();
        while replayed.export(2, &mut bytes) == Progress::More {}
        let mut imported = Ledger::new(config().ledger);
        for block in bytes.chunks(BLOCK_SIZE) {
            imported.import(Record::decode(block).expect("few rows are no page").fact).unwrap();
        }
        imported
    }

    fn processed(&self) -> Tally {
        let ledger = self.coordinator.ledger();
        let all = ledger.summarize(UnixMillis(0), UnixMillis(u64::MAX)).totals[0];
        assert_eq!(all, ledger.conservation().processed[0]);
        all
    }

    fn known_before(&self) -> Tally {
        self.coordinator.ledger().conservation().known_before
    }
}

const fn tally(count: u64, amount_cents: u64) -> Tally {
    Tally { count, amount_cents }
}

fn taken_back(number: u8) -> Message {
    Withdrawal { slot: ANY_SLOT, correlation_id: id(number) }.into()
}

#[test]
fn what_its_processor_has_since_before_ends_as_known_before_and_is_booked_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.accept(1, 2_000, 100), Admission::Granted, "nobody knows it any more");
    assert_eq!(scene.find(1, FIRST_MS, 100), [taken_back(1)]);
    assert_eq!((scene.processed(), scene.known_before()), (tally(4, 400), tally(1, 100)));
    let known = Known::Processed { amount_cents: 100, requested_at_ms: FIRST_MS, processor: P0 };
    assert_eq!(scene.coordinator.ledger().lookup(id(1)), known);
    assert_eq!(scene.accept(1, 3_000, 100), Admission::Replayed, "now it is remembered");
    assert_eq!(scene.find(1, FIRST_MS, 100), [], "and said once");
    assert_eq!(scene.coordinator.counters().disputed, 0);
}

#[test]
fn with_another_amount_it_ends_so_too_and_the_first_amount_counts() {
    let mut scene = Scene::new();
    assert_eq!(scene.accept(1, 2_000, 250), Admission::Granted);
    assert_eq!(scene.find(1, FIRST_MS, 100), [taken_back(1)]);
    assert_eq!((scene.processed(), scene.known_before()), (tally(4, 400), tally(1, 250)));
    let books = scene.coordinator.ledger().conservation();
    assert_eq!((books.accepted, books.open), (tally(5, 650), tally(0, 0)));
    assert_eq!(scene.accept(1, 3_000, 250), Admission::Conflict);
    assert_eq!(scene.accept(1, 3_000, 100), Admission::Replayed);
}

#[test]
fn what_the_totals_do_not_hold_is_a_contradiction_and_stays_open() {
    // Another moment; another amount at that moment; one that is remembered; later than anything that was forgotten; no time at all.
    for (amount_cents, found_ms, found_cents) in [
        (100, FIRST_MS - 1, 100),
        (100, FIRST_MS, 99),
        (100, FIRST_MS + 2, 100),
        (250, 1_900, 100),
        (250, 0, 100),
    ] {
        let mut scene = Scene::new();
        scene.accept(1, 2_000, amount_cents);
        let contradiction =
            Contradiction { slot: 1, correlation_id: id(1), processor: P0, amount_cents: found_cents };
        assert_eq!(scene.find(1, found_ms, found_cents), [contradiction.into()], "{found_ms}: {found_cents}");
        assert!(matches!(scene.coordinator.ledger().lookup(id(1)), Known::Open(_)));
        assert_eq!((scene.processed(), scene.known_before()), (tally(4, 400), tally(0, 0)));
        assert_eq!(scene.coordinator.counters().disputed, 1);
    }
}

#[test]
fn what_was_stored_since_it_was_accepted_is_new_money() {
    // An attempt of this life that was taken for refused.
    let mut scene = Scene::new();
    scene.accept(1, 2_000, 100);
    assert_eq!(scene.find(1, 2_001, 100), [taken_back(1)]);
    assert_eq!((scene.processed(), scene.known_before()), (tally(5, 500), tally(0, 0)));
}

#[test]
fn a_late_completion_of_its_former_life_does_not_end_it() {
    let mut scene = Scene::new();
    let two = join(&mut scene.coordinator, 2);
    scene.accept(1, 2_000, 250);
    let late = completion(1, P0, Outcome::Processed);
    let late = Completion { requested_at_ms: FIRST_MS, ..late };
    told(&mut scene.coordinator, two, late);
    assert!(matches!(scene.coordinator.ledger().lookup(id(1)), Known::Open(_)));
    assert_eq!(scene.coordinator.counters().stale_completions, 1);
    told(&mut scene.coordinator, scene.one, Completion { status: STATUS_TAKEN_BACK, ..late });
    assert!(
        matches!(scene.coordinator.ledger().lookup(id(1)), Known::Open(_)),
        "of a copy that it had before"
    );
    assert_eq!(scene.coordinator.counters().stale_completions, 2);
    assert_eq!(scene.processed(), tally(4, 400));
    // Its owner's is of this life, by the clock of a processor that stamps payments itself.
    told(&mut scene.coordinator, scene.one, late);
    assert!(matches!(scene.coordinator.ledger().lookup(id(1)), Known::Processed { .. }));
}

/// A gateway stood still, and its payment was ended elsewhere, forgotten, and came anew with another amount; then that gateway died.
#[test]
fn a_claim_of_another_amount_is_of_a_former_life() {
    let mut scene = Scene::new();
    scene.accept(1, 2_000, 250);
    scene.coordinator.disconnect(scene.one, at(1));
    let two = scene.coordinator.connect(hello(2)).unwrap();
    scene.coordinator.messages().clear();
    let claim = Claim {
        slot: 1,
        correlation_id: id(1),
        amount_cents: 100,
        requested_at_ms: 2_000,
        stage: Stage::At0,
        in_doubt: true,
    };
    let heard = told(&mut scene.coordinator, two, claim);
    assert_eq!(heard, [Withdrawal { slot: 1, correlation_id: id(1) }.into()]);
    let heard = told(&mut scene.coordinator, two, Ready { held_len_max: 1 });
    let is_due = |message: &Message| matches!(message, Message::Assignment(it) if it.amount_cents == 250);
    assert!(heard.iter().any(is_due), "as it was accepted: {heard:?}");
}

/// A gateway did not hear that its completion was taken; the payment was forgotten, came anew at another gateway, and that one died.
#[test]
fn a_claim_of_an_attempt_from_before_is_of_a_former_life_and_so_is_its_completion() {
    let mut scene = Scene::new();
    scene.accept(1, 2_000, 100);
    scene.coordinator.disconnect(scene.one, at(1));
    let two = scene.coordinator.connect(hello(2)).unwrap();
    scene.coordinator.messages().clear();
    let claim = Claim {
        slot: ANY_SLOT,
        correlation_id: id(1),
        amount_cents: 100,
        requested_at_ms: FIRST_MS,
        stage: Stage::At0,
        in_doubt: false,
    };
    assert_eq!(told(&mut scene.coordinator, two, claim), [taken_back(1)]);
    let done = completion(1, P0, Outcome::Processed);
    told(&mut scene.coordinator, two, Completion { requested_at_ms: FIRST_MS, ..done });
    assert_eq!(scene.processed(), tally(4, 400), "it is booked already");
    assert!(matches!(scene.coordinator.ledger().lookup(id(1)), Known::Open(_)));
    let heard = told(&mut scene.coordinator, two, Ready { held_len_max: 1 });
    let is_due =
        |message: &Message| matches!(message, Message::Assignment(it) if it.requested_at_ms == 2_000);
    assert!(heard.iter().any(is_due), "as it was sent in this life: {heard:?}");
}

#[test]
fn where_nobody_knows_any_more_when_it_was_accepted_the_totals_tell() {
    for (found_ms, is_held) in [(FIRST_MS, true), (FIRST_MS - 1, false)] {
        let mut scene = Scene::new();
        scene.accept(1, 2_000, 100);
        // Snapshots leave histories out.
        scene.coordinator = Coordinator::recovered(config(), scene.snapshot(), at(0));
        scene.one = scene.coordinator.connect(hello(1)).unwrap();
        let (correlation_id, amount_cents) = (id(1), 100);
        let claim = Claim {
            slot: 1,
            correlation_id,
            amount_cents,
            requested_at_ms: 2_000,
            stage: Stage::At0,
            in_doubt: true,
        };
        scene.told(claim);
        assert_eq!(scene.find(1, found_ms, 100), [taken_back(1)]);
        let (processed, known_before) = if is_held { (4, 1) } else { (5, 0) };
        assert_eq!(scene.processed(), tally(processed, processed * 100), "{found_ms}");
        assert_eq!(scene.known_before(), tally(known_before, known_before * 100));
    }
}

#[test]
fn what_is_found_where_the_payment_is_not_any_more_is_no_secret() {
    // It was refused there, and is on its way to the other one.
    let elsewhere = |scene: &mut Scene, amount_cents| {
        scene.accept(1, 2_000, amount_cents);
        let refused = completion(1, P0, Outcome::Refused);
        scene.told(Completion { requested_at_ms: 2_000, ..refused });
        let (correlation_id, processor, reason) = (id(1), Processor::FALLBACK, Reason::PatienceOver);
        scene.told(Intent {
            slot: 1,
            correlation_id,
            requested_at_ms: 2_001,
            processor,
            reason,
            waited_for_ms: 1,
        });
    };
    let mut scene = Scene::new();
    elsewhere(&mut scene, 100);
    assert_eq!(scene.find(1, 2_000, 100), [taken_back(1)], "it has it all the same, since this acceptance");
    assert_eq!((scene.processed(), scene.coordinator.counters().contradictions), (tally(5, 500), 1));
    let mut scene = Scene::new();
    elsewhere(&mut scene, 250);
    assert!(matches!(scene.find(1, 2_000, 100)[..], [Message::Contradiction(_)]), "another amount");
    assert_eq!(scene.coordinator.counters().disputed, 1);
    // What is from before ends nothing while another processor may have it.
    let mut scene = Scene::new();
    elsewhere(&mut scene, 100);
    assert_eq!(scene.find(1, FIRST_MS, 100), []);
    assert!(matches!(scene.coordinator.ledger().lookup(id(1)), Known::Open(_)));
}

#[test]
fn several_of_one_moment_hold_what_leaves_a_cent_for_each_of_the_others() {
    let mut coordinator = Coordinator::new(config(), at(0));
    let one = join(&mut coordinator, 1);
    let mut scene = Scene { coordinator, one, journal: Vec::new() };
    for (number, amount_cents) in [(1, 100), (2, 50), (3, 10), (4, 10), (5, 10), (6, 10)] {
        scene.process(number, if number < 3 { FIRST_MS } else { 1_500 + u64::from(number) }, amount_cents);
    }
    scene.accept(1, 2_000, 100);
    assert!(scene.coordinator.ledger().holds_forgotten(P0, FIRST_MS, 149));
    assert!(!scene.coordinator.ledger().holds_forgotten(P0, FIRST_MS, 150), "the other one has some, too");
    assert_eq!(scene.find(1, FIRST_MS, 100), [taken_back(1)]);
}

#[test]
fn a_purge_forgets_what_was_forgotten() {
    let mut scene = Scene::new();
    scene.told(PurgeQuery { slot: 1 });
    scene.accept(1, 2_000, 100);
    assert!(matches!(scene.find(1, FIRST_MS, 100)[..], [Message::Contradiction(_)]));
}

#[test]
fn journal_and_snapshot_keep_it() {
    let mut scene = Scene::new();
    scene.accept(1, 2_000, 250);
    scene.find(1, FIRST_MS, 100);
    // Open, and would be known before.
    scene.process(6, 2_500, 100);
    scene.accept(2, 2_600, 100);
    let ledger = scene.coordinator.ledger();
    let is_same = |other: &Ledger| {
        assert_eq!(other.conservation(), ledger.conservation());
        (1..7).for_each(|number| {
            let ownerless = |known| match known {
                Known::Open(payment) => {
                    Known::Open(galo_engine::ledger::OpenPayment { owner: None, ..payment })
                }
                known => known,
            };
            assert_eq!(other.lookup(id(number)), ownerless(ledger.lookup(id(number))), "{number}");
        });
        assert!(other.holds_forgotten(P0, FIRST_MS + 2, 100));
        assert!(!other.holds_forgotten(P0, FIRST_MS + 2, 99));
    };
    let mut replayed = Ledger::new(config().ledger);
    scene.journal.iter().for_each(|entry| replayed.apply(*entry));
    is_same(&replayed);
    is_same(&scene.snapshot());
}

#[test]
fn what_its_processor_calls_it_is_known_again() {
    let mut scene = Scene::new();
    scene.accept(1, 2_000, 250);
    scene.find_named(1, FIRST_MS, 100, "pi_1");
    let mut replayed = Ledger::new(config().ledger);
    scene.journal.iter().for_each(|entry| replayed.apply(*entry));
    for ledger in [scene.coordinator.ledger(), &replayed] {
        assert_eq!(ledger.conservation().known_before, tally(1, 250));
        assert_eq!(ledger.reference(id(1)).as_deref(), Some("pi_1"));
    }
}
