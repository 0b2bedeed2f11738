//! What was decided about each payment, kept beside the run as one plain list, and what a look-up may say of it.
//!
//! Must never: take part in what the engine decides, or share code with it.

use galo_engine::ledger::Entry;
use galo_engine::{
    AttemptState, DECISIONS_LEN_MAX, History, Outcome, PastDecision, Reason, STATUS_EXPIRED, Stage,
};
use galo_wire::record::{LookupReply, Standing};

/// All decisions about one payment since it was accepted.
#[derive(Clone, Default, Debug)]
pub struct Story {
    decisions: Vec<PastDecision>,
    /// More happened than the entries say.
    partial: bool,
    /// The aggregator was restarted since: some of it may be in a snapshot, which leaves it out.
    pub restarted: bool,
}

impl Story {
    /// What an entry about the payment adds.
    pub fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Accepted { stage, decided_at_ms, in_doubt, reason, .. } => {
                *self = Self { partial: reason == Reason::Unstated, ..Self::default() };
                if !(self.partial && stage == Stage::Waiting) {
                    self.push(decided_at_ms, 0, stage, reason);
                    self.doubt(in_doubt);
                }
            }
            Entry::Intended { processor, requested_at_ms, reason, waited_for_ms, .. } => {
                if let Some(last) = self.decisions.last_mut()
                    && last.stage != Stage::Waiting
                    && last.attempt == AttemptState::UnderWay
                {
                    last.attempt = AttemptState::Refused;
                }
                self.push(requested_at_ms, waited_for_ms, Stage::at(processor), reason);
            }
            // That a deadline passed says nothing of the attempts before.
            Entry::Resolved { status: STATUS_EXPIRED, outcome: Outcome::Declined, .. } => {}
            Entry::Resolved { processor, requested_at_ms, outcome, .. } => {
                let is_settled = |it: &PastDecision| match it.attempt {
                    AttemptState::Processed | AttemptState::Declined => true,
                    // A decline is said of what was refused before.
                    AttemptState::Refused => outcome != Outcome::Declined,
                    AttemptState::UnderWay | AttemptState::InDoubt => false,
                };
                let stage = Stage::at(processor);
                let attempt = self.decisions.iter_mut().rfind(|it| it.stage == stage && !is_settled(it));
                match (attempt, outcome) {
                    (Some(it), Outcome::Processed) => it.attempt = AttemptState::Processed,
                    (Some(it), Outcome::Declined) => it.attempt = AttemptState::Declined,
                    (Some(it), Outcome::Refused | Outcome::Absent) => it.attempt = AttemptState::Refused,
                    (Some(it), Outcome::Unknown) => {
                        (it.attempt, it.was_in_doubt) = (AttemptState::InDoubt, true);
                    }
                    (None, Outcome::Processed) => {
                        self.partial = true;
                        self.push(requested_at_ms, 0, stage, Reason::Unstated);
                        self.decisions.last_mut().expect("just pushed").attempt = AttemptState::Processed;
                    }
                    (None, Outcome::Refused | Outcome::Unknown | Outcome::Absent | Outcome::Declined) => {}
                }
            }
            // It was processed long ago, by whichever attempt.
            Entry::KnownBefore { correlation_id, processor, requested_at_ms, .. } => {
                let (outcome, status) = (Outcome::Processed, 0);
                self.apply(Entry::Resolved { correlation_id, processor, requested_at_ms, outcome, status });
            }
            Entry::Purged => *self = Self::default(),
            Entry::Named { .. } | Entry::Note { .. } | Entry::Attached { .. } => {}
        }
    }

    fn push(&mut self, at_ms: u64, waited_for_ms: u32, stage: Stage, reason: Reason) {
        let at_ms = self.decisions.last().map_or(at_ms, |last| last.at_ms.max(at_ms));
        self.decisions.push(PastDecision { at_ms, waited_for_ms, stage, reason, ..PastDecision::NONE });
    }

    fn doubt(&mut self, in_doubt: bool) {
        if let Some(last) = self.decisions.last_mut().filter(|_| in_doubt) {
            (last.attempt, last.was_in_doubt) = (AttemptState::InDoubt, true);
        }
    }

    /// What is wrong with a history that is said to be this payment's.
    pub fn flaw(&self, history: &History) -> Option<&'static str> {
        let told = history.decisions();
        if told.windows(2).any(|pair| pair[0].at_ms > pair[1].at_ms) {
            return Some("times fall");
        }
        let processed = told.iter().filter(|it| it.attempt == AttemptState::Processed);
        if processed.count() > 1 {
            return Some("it is processed twice");
        }
        if !history.forgotten {
            let before_the_last = &told[..told.len().saturating_sub(1)];
            // A doubt that ended as refused was settled: the processor does not have it.
            let stays = |it: &PastDecision| match it.attempt {
                AttemptState::Processed | AttemptState::InDoubt => true,
                AttemptState::UnderWay | AttemptState::Refused | AttemptState::Declined => false,
            };
            if before_the_last.iter().any(stays) {
                return Some("something was decided after an attempt that may have stored it");
            }
            return (told != self.decisions).then_some("it is not what was decided");
        }
        let may_be_partial = self.partial || self.restarted || self.decisions.len() > DECISIONS_LEN_MAX;
        (!may_be_partial).then_some("something was forgotten")
    }
}

/// Whether a look-up's history, if it is whole, ends where the look-up says that the payment is.
pub fn ends_there(reply: &LookupReply, history: &History) -> bool {
    let Some(last) = history.decisions().last().filter(|_| !history.forgotten) else {
        return history.forgotten;
    };
    match (reply.standing, reply.stage, reply.in_doubt) {
        (Standing::Absent, ..) => true,
        (Standing::Processed, stage, _) => last.stage == stage && last.attempt == AttemptState::Processed,
        (Standing::Declined, ..) => {
            matches!(last.attempt, AttemptState::Declined | AttemptState::Refused)
                || last.stage == Stage::Waiting
        }
        (Standing::Open, Stage::Waiting, _) => {
            last.stage == Stage::Waiting || last.attempt == AttemptState::Refused
        }
        (Standing::Open, stage, in_doubt) => {
            let expected = if in_doubt { AttemptState::InDoubt } else { AttemptState::UnderWay };
            last.stage == stage && last.attempt == expected
        }
    }
}
