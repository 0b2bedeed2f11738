//! Payments that people end: clients cancel what no processor can have, or set a deadline, operators settle what is in doubt.
//!
//! **A cancellation** is decided here alone, and at once. A payment that waits, with no attempt recorded and none in doubt, ends; its owner
//! is told, and if its [`Intent`](galo_wire::record::Intent) is on its way already, that is answered with a withdrawal. An intent that came before has
//! made the payment one that a processor may have.
//!
//! **A deadline** is a cancellation that comes by itself: at that moment of the aggregator's clock, or when an attempt that was under way or in doubt then
//! has turned out to have charged nothing. No attempt is recorded afterwards.
//!
//! **A settlement** must not meet an attempt that is on its way: the person has looked at what the processor had before. So every gateway is asked to
//! [`Yield`] the payment, and answers whether it is idle; the owner has dropped the payment then, and sends it no more. When all are idle the
//! settlement is applied. If one is not, or is silent for [`WAIT_US`], or if any connection comes or goes meanwhile, nothing is changed, the owner gets the payment
//! back, and the operator tries again.
//!
//! Survives: an owner that answers after its round is over (it gets the payment back, unless it has been given it again since), and one whose
//! intent crosses the question. Does not see: a gateway that lives and has no connection. What such a one hears afterwards is
//! counted as a contradiction.

use galo_wire::journal::NOTE_SIZE;
use galo_wire::record::{ANY_SLOT, Withdrawal, Yield, Yielded};
use galo_wire::{CorrelationId, Outcome, Processor, STATUS_CANCELLED, STATUS_EXPIRED, STATUS_SETTLED, Stage};

use super::{Coordinator, SessionId};
use crate::ledger::{Entry, Known, OpenPayment};
use crate::texts::Texts;
use crate::time::Now;

/// The longest reason of a settlement, bytes.
pub const REASON_SIZE_MAX: usize = 200;

/// How long gateways may take to answer: twice what a summary waits, and well below the second after which the operator's request ends.
const WAIT_US: u64 = 400_000;

/// Rounds at once: they are asked for by hand.
const ROUNDS_LEN_MAX: usize = 16;

/// How an operator says that a payment ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SettledAs {
    /// A processor has it.
    Processed {
        /// Which.
        processor: Processor,
        /// As stored there.
        requested_at_ms: u64,
    },
    /// No processor has it, and nothing was charged.
    Declined,
}

/// What an operator says of a payment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settlement {
    correlation_id: CorrelationId,
    settled_as: SettledAs,
    reason: String,
}

impl Settlement {
    /// `None` unless the reason has 1 to [`REASON_SIZE_MAX`] bytes, and no control characters.
    #[must_use]
    pub fn new(correlation_id: CorrelationId, settled_as: SettledAs, reason: String) -> Option<Self> {
        let is_valid = (1..=REASON_SIZE_MAX).contains(&reason.len()) && !reason.chars().any(char::is_control);
        is_valid.then_some(Self { correlation_id, settled_as, reason })
    }

    /// How it ended.
    #[must_use]
    pub fn settled_as(&self) -> SettledAs {
        self.settled_as
    }

    /// The reason, as it stands in the journal.
    fn notes(&self) -> impl Iterator<Item = Entry> {
        (0_u8..).zip(self.reason.as_bytes().chunks(NOTE_SIZE)).map(|(part, bytes)| {
            let mut text = [0; NOTE_SIZE];
            text[..bytes.len()].copy_from_slice(bytes);
            Entry::Note { part, text }
        })
    }
}

/// For the log.
impl std::fmt::Display for Settlement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { correlation_id, settled_as, reason } = self;
        match settled_as {
            SettledAs::Processed { processor, requested_at_ms } => {
                let number = processor.index();
                write!(
                    f,
                    "{correlation_id} as processed by processor {number} at {requested_at_ms} ms: {reason}"
                )
            }
            SettledAs::Declined => write!(f, "{correlation_id} as declined: {reason}"),
        }
    }
}

/// What became of a settlement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// It is so now.
    Done,
    /// It was so already; nothing is changed, and nothing written.
    Already,
    /// The ledger does not know the payment.
    Absent,
    /// It is open, and not in doubt.
    NotInDoubt,
    /// It has ended, and otherwise.
    Otherwise,
    /// An attempt is on its way, or may be; try again.
    UnderWay,
    /// There is no gateway that could say whether an attempt is on its way.
    NoGateway,
}

/// A settlement about which gateways were asked.
struct Round {
    number: u32,
    settlement: Settlement,
    /// Who has not answered.
    awaited: Vec<SessionId>,
    /// The owner that has dropped the payment.
    dropped_by: Option<SessionId>,
    /// Who was given the payment after having been asked.
    given_to: Option<SessionId>,
    /// The operator has his answer. Others are still to come: by a claim, any of those may have become the owner that has dropped it.
    is_over: bool,
    until_us: u64,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Endings {
    number: u32,
    rounds: Vec<Round>,
    done: Vec<(u32, Settled)>,
}

impl Endings {
    /// When the next round has waited long enough.
    pub(super) fn until_us(&self) -> Option<u64> {
        self.rounds.iter().filter(|round| !round.is_over).map(|round| round.until_us).min()
    }

    /// A connection closed: nothing is to be had from it.
    pub(super) fn leave(&mut self, session: SessionId) {
        for round in &mut self.rounds {
            round.awaited.retain(|awaited| *awaited != session);
            round.dropped_by = round.dropped_by.filter(|owner| *owner != session);
            round.given_to = round.given_to.filter(|owner| *owner != session);
        }
        self.tidy();
    }

    fn of_number(&mut self, number: u32) -> Option<&mut Round> {
        self.rounds.iter_mut().find(|round| round.number == number)
    }

    /// Forgets the rounds of which nothing more is to be heard.
    fn tidy(&mut self) {
        self.rounds.retain(|round| !round.is_over || !round.awaited.is_empty());
    }
}

impl Coordinator {
    /// A client cancels a payment.
    pub(super) fn cancel(&mut self, correlation_id: CorrelationId, now: Now) {
        if self.end_unsent(correlation_id, STATUS_CANCELLED, now) {
            self.counters.cancelled += 1;
        }
    }

    /// Ends payments whose deadlines have passed. What a processor may have goes on; if it turns out that none has it, it ends then.
    pub(super) fn expire(&mut self, now: Now) {
        while let Some(correlation_id) = self.ledger.take_expired(now.unix_ms) {
            if self.end_unsent(correlation_id, STATUS_EXPIRED, now) {
                self.counters.past_deadline += 1;
            }
        }
    }

    /// A gateway is about to send a payment: not behind its deadline.
    pub(super) fn expire_intended(&mut self, session: SessionId, correlation_id: CorrelationId, now: Now) {
        let deadline_ms = self.ledger.texts(correlation_id).and_then(Texts::deadline_ms);
        if deadline_ms.is_none_or(|deadline_ms| now.unix_ms.0 < deadline_ms) {
            return;
        }
        if let Known::Open(payment) = self.ledger.lookup(correlation_id)
            && let (Some(processor), false) = (payment.stage.processor(), payment.in_doubt)
            && payment.owner == Some(session)
        {
            // By moving on from the recorded attempt it says that this was refused or never sent.
            let (requested_at_ms, outcome) = (payment.requested_at_ms, Outcome::Refused);
            self.apply(Entry::Resolved { correlation_id, processor, requested_at_ms, outcome, status: 0 });
        }
        if self.end_unsent(correlation_id, STATUS_EXPIRED, now) {
            self.counters.past_deadline += 1;
        }
    }

    /// Ends a payment that no processor can have; any other stays as it is.
    fn end_unsent(&mut self, correlation_id: CorrelationId, status: u16, now: Now) -> bool {
        let Known::Open(payment) = self.ledger.lookup(correlation_id) else { return false };
        if payment.stage != Stage::Waiting || payment.in_doubt {
            return false;
        }
        self.apply(Entry::Resolved {
            correlation_id,
            processor: Processor::DEFAULT,
            requested_at_ms: now.unix_ms.0,
            outcome: Outcome::Declined,
            status,
        });
        if let Some(owner) = payment.owner {
            self.send(owner, Withdrawal { slot: ANY_SLOT, correlation_id });
        }
        true
    }

    /// An operator settles a payment in doubt. What becomes of that is among [`Self::settlements`], now or later, under the number returned.
    pub fn settle(&mut self, settlement: Settlement, now: Now) -> u32 {
        self.take_grants();
        self.endings.number = self.endings.number.wrapping_add(1);
        let (number, id) = (self.endings.number, settlement.correlation_id);
        let awaited = self.session_ids(|session| !session.superseded);
        let rounds = &self.endings.rounds;
        let is_busy =
            rounds.len() >= ROUNDS_LEN_MAX || rounds.iter().any(|it| it.settlement.correlation_id == id);
        let refusal = match self.find_in_doubt(&settlement) {
            Err(settled) => settled,
            Ok(_) if awaited.is_empty() => Settled::NoGateway,
            Ok(_) if is_busy => Settled::UnderWay,
            Ok(_) => {
                for session in &awaited {
                    self.send(*session, Yield { number, correlation_id: id });
                }
                self.endings.rounds.push(Round {
                    number,
                    settlement,
                    awaited,
                    dropped_by: None,
                    given_to: None,
                    is_over: false,
                    until_us: now.monotonic_us + WAIT_US,
                });
                return number;
            }
        };
        self.endings.done.push((number, refusal));
        number
    }

    /// What has become of settlements, by number. What is done is among [`Self::entries`] too: it is true once that is written.
    pub fn settlements(&mut self) -> &mut Vec<(u32, Settled)> {
        &mut self.endings.done
    }

    /// The payment, if it may be settled; else what there is to say.
    fn find_in_doubt(&self, settlement: &Settlement) -> Result<OpenPayment, Settled> {
        match (self.ledger.lookup(settlement.correlation_id), settlement.settled_as) {
            (Known::Open(payment), _) if payment.in_doubt => Ok(payment),
            (Known::Open(payment), _) if payment.stage != Stage::Waiting => Err(Settled::UnderWay),
            (Known::Open(_), _) => Err(Settled::NotInDoubt),
            (Known::Absent, _) => Err(Settled::Absent),
            (
                Known::Processed { processor: known, requested_at_ms: known_ms, .. },
                SettledAs::Processed { processor, requested_at_ms },
            ) if (known, known_ms) == (processor, requested_at_ms) => Err(Settled::Already),
            (Known::Declined { .. }, SettledAs::Declined) => Err(Settled::Already),
            (Known::Processed { .. } | Known::Declined { .. }, _) => Err(Settled::Otherwise),
        }
    }

    /// A gateway says whether anything of a payment is on its way.
    pub(super) fn yielded(&mut self, session: SessionId, yielded: Yielded, now: Now) {
        let Yielded { number, correlation_id, idle } = yielded;
        let known = self.ledger.lookup(correlation_id);
        let is_owner = matches!(known, Known::Open(payment) if payment.owner == Some(session));
        let Some(round) = self.endings.of_number(number) else { return };
        if round.settlement.correlation_id != correlation_id || !round.awaited.contains(&session) {
            return;
        }
        round.awaited.retain(|awaited| *awaited != session);
        let is_dropped = idle && is_owner && round.given_to != Some(session);
        if is_dropped {
            round.dropped_by = Some(session);
        }
        if round.is_over {
            self.endings.tidy();
            if is_dropped {
                self.give_back(session, correlation_id);
            }
        } else if !idle {
            self.refuse_settlement(number);
        } else if round.awaited.is_empty() {
            self.conclude(number, now);
        }
    }

    /// All are idle, and nobody has been given the payment since.
    fn conclude(&mut self, number: u32, now: Now) {
        let index = self.endings.rounds.iter().position(|round| round.number == number);
        let Round { settlement, dropped_by, .. } =
            self.endings.rounds.swap_remove(index.expect("it has just been answered"));
        let settled = match self.find_in_doubt(&settlement) {
            Ok(payment) => {
                self.apply_settlement(&settlement, payment, now);
                Settled::Done
            }
            // What the owner had said before its answer.
            Err(settled) => {
                if let Some(owner) = dropped_by {
                    self.give_back(owner, settlement.correlation_id);
                }
                settled
            }
        };
        self.endings.done.push((number, settled));
    }

    fn apply_settlement(&mut self, settlement: &Settlement, payment: OpenPayment, now: Now) {
        let (processor, requested_at_ms, outcome, status) = match settlement.settled_as {
            SettledAs::Processed { processor, requested_at_ms } => {
                (processor, requested_at_ms, Outcome::Processed, 0)
            }
            SettledAs::Declined => {
                let processor = payment.stage.processor().expect("what is in doubt is with a processor");
                (processor, now.unix_ms.0, Outcome::Declined, STATUS_SETTLED)
            }
        };
        let correlation_id = settlement.correlation_id;
        self.apply(Entry::Resolved { correlation_id, processor, requested_at_ms, outcome, status });
        settlement.notes().for_each(|note| self.apply(note));
        self.counters.settled += 1;
    }

    /// Ends the rounds that have waited long enough.
    pub(super) fn end_settlements(&mut self, now: Now) {
        let late = |round: &&Round| round.until_us <= now.monotonic_us;
        let numbers: Vec<_> = self.endings.rounds.iter().filter(late).map(|round| round.number).collect();
        numbers.into_iter().for_each(|number| self.refuse_settlement(number));
    }

    /// A connection came or went: who is asked now, and who answers for what, is not what it was.
    pub(super) fn refuse_settlements(&mut self) {
        let numbers: Vec<_> = self.endings.rounds.iter().map(|round| round.number).collect();
        numbers.into_iter().for_each(|number| self.refuse_settlement(number));
    }

    /// A payment is about to be given to a gateway, which may send it.
    pub(super) fn refuse_settlement_of(&mut self, id: CorrelationId, given_to: SessionId) {
        let round = self.endings.rounds.iter_mut().find(|round| round.settlement.correlation_id == id);
        let Some(round) = round else { return };
        // Whatever it dropped, it has it again now.
        (round.given_to, round.dropped_by) = (Some(given_to), None);
        let number = round.number;
        self.refuse_settlement(number);
    }

    fn refuse_settlement(&mut self, number: u32) {
        let Some(round) = self.endings.of_number(number).filter(|round| !round.is_over) else { return };
        round.is_over = true;
        let dropped_by = round.dropped_by;
        let id = round.settlement.correlation_id;
        self.endings.done.push((number, Settled::UnderWay));
        self.endings.tidy();
        if let Some(owner) = dropped_by {
            self.give_back(owner, id);
        }
    }

    /// Gives a payment back to the owner that has dropped it.
    fn give_back(&mut self, owner: SessionId, id: CorrelationId) {
        if let Known::Open(payment) = self.ledger.lookup(id)
            && payment.owner == Some(owner)
        {
            self.assign(owner, id, payment);
        }
    }
}
