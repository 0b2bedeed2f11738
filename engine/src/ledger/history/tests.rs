use proptest::prelude::*;

use super::*;

fn id(number: u8) -> CorrelationId {
    CorrelationId([number; 16])
}

fn past(at_ms: u64, waited_for_ms: u32, stage: Stage, reason: Reason, attempt: AttemptState) -> PastDecision {
    PastDecision { at_ms, waited_for_ms, stage, reason, attempt, was_in_doubt: false }
}

use AttemptState::{InDoubt, Processed, Refused, UnderWay};

#[test]
fn a_payment_that_waited_was_a_probe_and_went_elsewhere() {
    let mut histories = Histories::new(1, 4);
    histories.accepted(id(1), 100, Stage::Waiting, Reason::AwaitsCheaper, false);
    histories.intended(id(1), 300, Processor::DEFAULT, Reason::Probe, 199);
    histories.resolved(id(1), 300, Processor::DEFAULT, Outcome::Refused);
    histories.intended(id(1), 1_100, Processor::FALLBACK, Reason::PatienceOver, 999);
    let expected = [
        past(100, 0, Stage::Waiting, Reason::AwaitsCheaper, UnderWay),
        past(300, 199, Stage::At0, Reason::Probe, Refused),
        past(1_100, 999, Stage::At1, Reason::PatienceOver, UnderWay),
    ];
    assert_eq!(histories.of(id(1)).decisions(), expected);
    histories.resolved(id(1), 1_100, Processor::FALLBACK, Outcome::Processed);
    let history = histories.of(id(1));
    assert_eq!((history.decisions()[2].attempt, history.forgotten), (Processed, false));
}

/// Its gateway died; the other one sends the same attempt again, which is no new decision.
#[test]
fn an_attempt_that_was_in_doubt_is_one_attempt_and_says_so() {
    let mut histories = Histories::new(1, 4);
    histories.accepted(id(1), 100, Stage::At0, Reason::Cheaper, false);
    histories.resolved(id(1), 100, Processor::DEFAULT, Outcome::Unknown);
    let doubtful = PastDecision { was_in_doubt: true, ..past(100, 0, Stage::At0, Reason::Cheaper, InDoubt) };
    assert_eq!(histories.of(id(1)).decisions(), [doubtful]);
    histories.resolved(id(1), 100, Processor::DEFAULT, Outcome::Processed);
    assert_eq!(histories.of(id(1)).decisions(), [PastDecision { attempt: Processed, ..doubtful }]);
    assert!(!histories.of(id(1)).forgotten);
}

#[test]
fn whoever_moves_on_from_an_attempt_saw_it_refused() {
    let mut histories = Histories::new(1, 4);
    histories.accepted(id(1), 100, Stage::At0, Reason::Cheaper, false);
    histories.intended(id(1), 200, Processor::FALLBACK, Reason::Quiet, 100);
    assert_eq!(histories.of(id(1)).decisions()[0].attempt, Refused);
}

#[test]
fn of_many_decisions_the_first_and_the_newest_are_kept_and_it_is_said_that_others_were_there() {
    let mut histories = Histories::new(1, 4);
    histories.accepted(id(1), 100, Stage::Waiting, Reason::AwaitsAny, false);
    for number in 1..=5 {
        histories.intended(id(1), 100 + number, Processor::DEFAULT, Reason::Probe, 1);
    }
    assert!(!histories.of(id(1)).forgotten, "six are kept");
    for number in 6..=9 {
        histories.intended(id(1), 100 + number, Processor::DEFAULT, Reason::Probe, 1);
    }
    let history = histories.of(id(1));
    let times: Vec<u64> = history.decisions().iter().map(|decision| decision.at_ms).collect();
    assert_eq!((times, history.forgotten), (vec![100, 105, 106, 107, 108, 109], true));
}

#[test]
fn no_decision_is_before_the_one_that_it_followed() {
    let mut histories = Histories::new(1, 4);
    histories.accepted(id(1), 1_000, Stage::Waiting, Reason::AwaitsAny, false);
    // Another gateway's clock is behind.
    histories.intended(id(1), 700, Processor::DEFAULT, Reason::Cheaper, 5);
    histories.intended(id(1), 1_002, Processor::DEFAULT, Reason::Cheaper, 5);
    histories.intended(id(1), 1_001, Processor::DEFAULT, Reason::Cheaper, 5);
    // Beyond what is counted: 49 days.
    histories.intended(id(1), u64::MAX, Processor::DEFAULT, Reason::Cheaper, 5);
    let times: Vec<u64> = histories.of(id(1)).decisions().iter().map(|decision| decision.at_ms).collect();
    assert_eq!(times, [1_000, 1_000, 1_002, 1_002, 1_000 + u64::from(u32::MAX)]);
}

#[test]
fn what_is_not_known_is_said_to_be_forgotten() {
    let mut histories = Histories::new(1, 4);
    assert_eq!(histories.of(id(1)), History::FORGOTTEN);
    histories.resolved(id(1), 5, Processor::DEFAULT, Outcome::Processed);
    assert_eq!(histories.of(id(1)), History::FORGOTTEN, "nothing is begun with an end");
    // It was in a snapshot.
    histories.intended(id(1), 7, Processor::DEFAULT, Reason::Cheaper, 3);
    let history = histories.of(id(1));
    assert_eq!(history.decisions(), [past(7, 3, Stage::At0, Reason::Cheaper, UnderWay)]);
    assert!(history.forgotten);
    // Claims, and journals of version 1, state no reason.
    histories.accepted(id(2), 0, Stage::Waiting, Reason::Unstated, false);
    assert_eq!(histories.of(id(2)), History::FORGOTTEN);
    histories.accepted(id(3), 9, Stage::At1, Reason::Unstated, true);
    let history = histories.of(id(3));
    let doubtful = PastDecision { was_in_doubt: true, ..past(9, 0, Stage::At1, Reason::Unstated, InDoubt) };
    assert_eq!((history.decisions(), history.forgotten), (&[doubtful][..], true));
    // Processed by an attempt that nobody told of.
    histories.resolved(id(3), 4, Processor::DEFAULT, Outcome::Processed);
    let history = histories.of(id(3));
    assert_eq!(history.decisions()[1], past(9, 0, Stage::At0, Reason::Unstated, Processed));
}

#[test]
fn the_last_payments_have_one_and_the_others_none() {
    let mut histories = Histories::new(3, 64);
    for number in 0..200_u8 {
        histories.accepted(id(number), number.into(), Stage::At0, Reason::Cheaper, false);
        for known in 0..=number {
            let is_kept = !histories.of(id(known)).forgotten;
            assert_eq!(is_kept, number - known < 64, "{known} after {number}");
        }
    }
    histories.clear();
    assert!((0..200).all(|number| histories.of(id(number)) == History::FORGOTTEN));
    histories.accepted(id(1), 1, Stage::At0, Reason::Cheaper, false);
    assert_eq!(histories.of(id(1)).decisions().len(), 1);
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Accepted(u8, u64, Stage, Reason, bool),
    Intended(u8, u64, Processor, Reason, u32),
    Resolved(u8, u64, Processor, Outcome),
}

/// All that was decided about a payment since it took its place.
struct Life {
    id: u8,
    all: Vec<PastDecision>,
    forgotten: bool,
}

impl Life {
    fn kept(&self) -> Vec<usize> {
        let newest = self.all.len().saturating_sub(5).max(1);
        (0..self.all.len()).filter(|index| *index == 0 || *index >= newest).collect()
    }

    fn push(&mut self, mut decision: PastDecision) {
        decision.at_ms = decision.at_ms.max(self.all.last().map_or(0, |last| last.at_ms));
        self.all.push(decision);
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Accepted(_, at, stage, reason, doubt) => {
                let attempt = if doubt { InDoubt } else { UnderWay };
                if reason != Reason::Unstated || stage != Stage::Waiting {
                    let decision = past(at, 0, stage, reason, attempt);
                    self.push(PastDecision { was_in_doubt: doubt, ..decision });
                }
            }
            Event::Intended(_, at, processor, reason, waited) => {
                match self.all.last_mut() {
                    Some(last) if last.stage != Stage::Waiting && last.attempt == UnderWay => {
                        last.attempt = Refused;
                    }
                    _ => {}
                }
                self.push(past(at, waited, Stage::at(processor), reason, UnderWay));
            }
            Event::Resolved(_, at, processor, outcome) => {
                let attempt = [Processed, Refused, InDoubt][outcome as usize];
                let open = self.kept().into_iter().rev().find(|index| {
                    let it = self.all[*index];
                    it.stage == Stage::at(processor) && [UnderWay, InDoubt].contains(&it.attempt)
                });
                if let Some(index) = open {
                    self.all[index].attempt = attempt;
                    self.all[index].was_in_doubt |= attempt == InDoubt;
                } else if attempt == Processed {
                    self.forgotten = true;
                    self.push(past(at, 0, Stage::at(processor), Reason::Unstated, Processed));
                }
            }
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let processor = prop_oneof![Just(Processor::DEFAULT), Just(Processor::FALLBACK)];
    let stage = prop_oneof![Just(Stage::Waiting), Just(Stage::At0), Just(Stage::At1)];
    let reason = prop_oneof![Just(Reason::Cheaper), Just(Reason::Queued), Just(Reason::Unstated)];
    let outcome = prop_oneof![Just(Outcome::Processed), Just(Outcome::Refused), Just(Outcome::Unknown)];
    // Few ids, often sent again: lives of many decisions, and ends of them.
    let (id, at) = (0_u8..10, 1_000_u64..2_000);
    (0..10, id, at, processor, stage, reason, outcome, any::<bool>()).prop_map(
        |(kind, id, at, processor, stage, reason, outcome, doubt)| match kind {
            0 => Event::Accepted(id, at, stage, reason, doubt && stage != Stage::Waiting),
            1..=5 => Event::Intended(id, at, processor, reason, 7),
            _ => Event::Resolved(id, at, processor, outcome),
        },
    )
}

proptest! {
    /// Against a plain list of all that ever happened; the ring is small, so that places are taken again and again.
    #[test]
    fn they_are_what_a_plain_model_says(events in proptest::collection::vec(event(), 0..300), seed: u64) {
        const LEN: usize = 8;
        let mut histories = Histories::new(seed, LEN);
        // The numbers of places run over somewhere in between.
        let first = 0_u32.wrapping_sub(8 * u32::try_from(seed % 5).unwrap()) + 1;
        histories.next = first;
        histories.heads.fill(first.wrapping_sub(9));
        let mut lives: Vec<Life> = Vec::new();
        for event in events {
            let (Event::Accepted(number, ..) | Event::Intended(number, ..) | Event::Resolved(number, ..)) = event;
            let alive = lives.len().saturating_sub(LEN)..lives.len();
            let present = alive.clone().rfind(|index| lives[*index].id == number);
            match event {
                Event::Accepted(_, at, stage, reason, doubt) => {
                    histories.accepted(id(number), at, stage, reason, doubt);
                    lives.push(Life { id: number, all: Vec::new(), forgotten: reason == Reason::Unstated });
                    lives.last_mut().unwrap().apply(event);
                }
                Event::Intended(_, at, processor, reason, waited) => {
                    histories.intended(id(number), at, processor, reason, waited);
                    let index = present.unwrap_or_else(|| {
                        lives.push(Life { id: number, all: Vec::new(), forgotten: true });
                        lives.len() - 1
                    });
                    lives[index].apply(event);
                }
                Event::Resolved(_, at, processor, outcome) => {
                    histories.resolved(id(number), at, processor, outcome);
                    if let Some(index) = present {
                        lives[index].apply(event);
                    }
                }
            }
            for number in 0..10 {
                let alive = lives.len().saturating_sub(LEN)..lives.len();
                let found = histories.of(id(number));
                match alive.clone().rfind(|index| lives[*index].id == number) {
                    None => prop_assert_eq!(found, History::FORGOTTEN),
                    Some(index) => {
                        let life = &lives[index];
                        let expected: Vec<_> = life.kept().into_iter().map(|at| life.all[at]).collect();
                        prop_assert_eq!(found.decisions(), expected);
                        prop_assert_eq!(found.forgotten, life.forgotten || life.all.len() > DECISIONS_LEN_MAX);
                    }
                }
            }
        }
    }
}
