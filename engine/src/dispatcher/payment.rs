//! A payment in a gateway's hands, and where it stands there.

use galo_wire::record::Completion;
use galo_wire::{CorrelationId, Processor};

use crate::money::AmountCents;
use crate::outlook::{Reservation, Sent};
use crate::texts::Texts;
use crate::time::{Now, UnixMillis};

/// A place at a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) processor: Processor,
    pub(super) reservation: Reservation,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Waits for the ledger's grant; the planned processor, if any, is reserved.
    Accepting(Option<Place>),
    /// In the queue.
    Waiting,
    /// Waits for the ledger to have the intent; the processor is reserved.
    Intending(Place),
    /// On its way.
    Attempting(Processor, Sent, GivenUp),
    /// Left the queue for a while.
    Deferred,
    /// May be with a processor; waits for the next try.
    Doubtful(Doubt),
    /// Likewise, being looked up.
    Verifying(Doubt),
}

/// What is not known of a payment that may be with a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Doubt {
    pub(super) processor: Processor,
    /// When an attempt may last have been sent.
    pub(super) sent_us: u64,
    pub(super) about: About,
    /// How often the processor said that it is not to be found.
    pub(super) not_found: u8,
    pub(super) cause: Cause,
}

/// How an attempt ended that leaves a payment in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// In no way that says where the fault lies.
    Usual,
    /// The processor closed a connection that was kept as it was used.
    HungUp,
    /// It was given up: its answer may still come, to nobody.
    GivenUp,
    /// As usual, and one before it was given up.
    GivenUpBefore,
}

/// Whether an attempt of this doubt was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GivenUp {
    No,
    /// This one: its end is awaited.
    Now,
    /// One before. This one is waited for, as long as it takes: if it is silent as well, then for another reason.
    Before,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum About {
    /// Whether it came there.
    Arrival,
    /// The processor took it; what became of it.
    Result,
    /// The processor has an id like this; whether it is this payment.
    Identity,
    /// The processor has this id with another amount, or another `requestedAt`, than was sent. The ledger has been asked what that means.
    Discrepancy,
    /// Likewise, and the ledger knows nothing of it: a person decides.
    Contradiction,
}

impl State {
    /// What is to be known of an attempt that is made now.
    pub(super) const fn given_up(self) -> GivenUp {
        match self {
            Self::Doubtful(Doubt { cause: Cause::GivenUp | Cause::GivenUpBefore, .. }) => GivenUp::Before,
            _ => GivenUp::No,
        }
    }
}

impl Doubt {
    pub(super) const fn sent(processor: Processor, sent_us: u64) -> Self {
        Self { processor, sent_us, about: About::Arrival, not_found: 0, cause: Cause::Usual }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Payment {
    /// The handle by which shell and ledger name it: its place here, and a number that the next payment in that place
    /// does not have.
    pub(super) slot: u32,
    pub(super) correlation_id: CorrelationId,
    pub(super) amount: AmountCents,
    /// Of the recorded or planned attempt.
    pub(super) requested_at: UnixMillis,
    /// When it came here.
    pub(super) arrived_us: u64,
    /// How long after that its `requestedAt` was stamped, ms; 0 where that was done elsewhere. In 32 bits, so that a payment is no larger for it: beyond 49
    /// days an attempt counts as older than it is.
    pub(super) stamped_after_ms: u32,
    /// The POST that waits for the grant.
    pub(super) ticket: Option<u32>,
    /// Attempts or lookups in a row without a clear answer.
    pub(super) tries: u16,
    /// How often it was refused since it is in doubt, which does not end that.
    pub(super) refusals_in_doubt: u8,
    /// How often in a row the ledger's answer came too late for what was planned.
    pub(super) late: u8,
    pub(super) state: State,
    /// An attempt at the recorded processor ended as unknown: the ledger knows.
    pub(super) in_doubt: bool,
    /// It was sent to find out whether a processor works again.
    pub(super) probed: bool,
    /// No longer ours: only its attempt's end is awaited, to free the place.
    pub(super) withdrawn: bool,
    /// An operator is about to settle it: once its attempt has ended, it rests for a while.
    pub(super) is_asked_for: bool,
}

/// ARCHITECTURE.md and `DispatcherConfig::queue_len_max` name it.
const _: () = assert!(size_of::<Payment>() == 88);

/// The `requestedAt` of a payment that waits without an attempt that was recorded and refused, of which a claim would tell.
pub(super) const NO_ATTEMPT: UnixMillis = UnixMillis(0);

/// A payment as a POST brings it.
pub(super) struct NewPayment {
    pub(super) correlation_id: CorrelationId,
    pub(super) amount: AmountCents,
    /// Where it is to be sent as soon as it is granted.
    pub(super) plan: Option<Place>,
    /// The POST, if it is not answered yet.
    pub(super) ticket: Option<u32>,
}

impl NewPayment {
    /// It comes now; its slot is not known yet.
    pub(super) fn at(self, now: Now) -> Payment {
        let Self { correlation_id, amount, plan, ticket } = self;
        Payment {
            slot: 0,
            correlation_id,
            amount,
            requested_at: if plan.is_some() { now.unix_ms } else { NO_ATTEMPT },
            arrived_us: now.monotonic_us,
            stamped_after_ms: 0,
            ticket,
            tries: 0,
            refusals_in_doubt: 0,
            late: 0,
            state: State::Accepting(plan),
            in_doubt: false,
            probed: plan.is_some_and(|place| place.reservation == Reservation::Probe),
            withdrawn: false,
            is_asked_for: false,
        }
    }
}

impl Payment {
    /// Gives it the `requestedAt` of its next attempt.
    pub(super) fn stamp(&mut self, requested_at: UnixMillis, now: Now) {
        self.requested_at = requested_at;
        let after_ms = now.monotonic_us.saturating_sub(self.arrived_us) / 1_000;
        self.stamped_after_ms = u32::try_from(after_ms).unwrap_or(u32::MAX);
    }

    /// How old its `requestedAt` is, by whichever clock says more, ms: the wall clock may have been stepped back since, and the monotonic one knows nothing
    /// of the time before the payment came here.
    pub(super) fn stamped_ago_ms(&self, now: Now) -> u64 {
        let here_ms = now.monotonic_us.saturating_sub(self.arrived_us) / 1_000;
        let by_monotonic_ms = here_ms.saturating_sub(u64::from(self.stamped_after_ms));
        by_monotonic_ms.max(now.unix_ms.0.saturating_sub(self.requested_at.0))
    }
}

/// A completion that the ledger has not acknowledged, with what it takes to say it again to a ledger that forgot.
#[derive(Clone, Debug)]
pub(super) struct Unacknowledged {
    pub(super) completion: Completion,
    pub(super) amount_cents: u64,
    /// The `requestedAt` of the attempt that the ledger may have recorded.
    pub(super) attempted_at_ms: u64,
    /// The payment's, if it has any.
    pub(super) texts: Option<Box<Texts>>,
}
