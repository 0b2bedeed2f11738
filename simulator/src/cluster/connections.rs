//! Connections to processors that are kept: some day packets vanish on all that are open, or a processor closes one as it is used.
//!
//! Each attempt over a frozen connection is swallowed, whole or without its answer, until the engine has others used. Look-ups and health checks have connections
//! of their own. The engine's word that an attempt is given up ends it here as its timeout would.

use galo_engine::{CorrelationId, Processor};

use super::wire::Ending;
use super::world::{Event, World};

/// Connections of one gateway to one processor that freeze, at most.
const FROZEN_LEN_MAX: u64 = 24;

/// An attempt that was given up.
#[derive(Clone, Copy, Debug)]
pub struct GivenUp {
    id: CorrelationId,
    processor: Processor,
    requested_at_ms: u64,
    /// Until when an answer to it could have come, µs.
    until_us: u64,
}

/// What becomes of an attempt on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Open,
    /// It arrives, and its answer does not.
    There,
    /// It does not arrive.
    Nowhere,
}

impl GivenUp {
    /// Whose.
    pub fn id(&self) -> CorrelationId {
        self.id
    }
}

impl World {
    /// Packets vanish on all connections to a processor that are open.
    pub(super) fn freeze(&mut self) {
        let processor = self.any_processor();
        self.coverage.freezes += 1;
        self.trace(|| format!("all connections to {processor:?} freeze"));
        for gateway in &mut self.gateways {
            gateway.frozen_len[processor.index()] = self.dice.between(1, FROZEN_LEN_MAX);
            for request in &gateway.requests {
                self.requests[*request].mute(processor);
            }
        }
    }

    /// Which way an attempt goes that leaves now.
    pub(super) fn way(&mut self, gateway: usize, processor: Processor) -> Way {
        let frozen_len = &mut self.gateways[gateway].frozen_len[processor.index()];
        if *frozen_len == 0 {
            return Way::Open;
        }
        *frozen_len -= 1;
        if self.dice.one_in(2) { Way::There } else { Way::Nowhere }
    }

    /// Attempts go over other connections from now on.
    pub(super) fn renew(&mut self, gateway: usize, processor: Processor) {
        self.trace(|| format!("gateway {gateway} uses other connections to {processor:?}"));
        self.gateways[gateway].frozen_len[processor.index()] = 0;
    }

    /// An attempt is to end.
    pub(super) fn give_up(&mut self, gateway: usize, slot: u32, processor: Processor) {
        let requests = self.gateways[gateway].requests.iter().copied();
        let found =
            requests.filter_map(|number| Some((number, self.requests[number].attempt_of(slot)?))).next();
        let Some((number, (id, requested_at_ms, sent_us))) = found else { return };
        self.coverage.given_up += 1;
        let until_us = sent_us + self.plan.attempt_timeout_us;
        self.gateways[gateway].given_up.push(GivenUp { id, processor, requested_at_ms, until_us });
        self.after(0, Event::RequestEnds(number, Ending::TimedOut));
    }

    /// Whether an attempt that is sent now is the same as one that was given up, whose answer may still come.
    pub(super) fn is_awaited(
        &mut self,
        gateway: usize,
        id: CorrelationId,
        processor: Processor,
        requested_at_ms: u64,
    ) -> bool {
        let now_us = self.now_us;
        let given_up = &mut self.gateways[gateway].given_up;
        given_up.retain(|it| it.until_us > now_us);
        given_up
            .iter()
            .any(|it| (it.id, it.processor, it.requested_at_ms) == (id, processor, requested_at_ms))
    }
}
