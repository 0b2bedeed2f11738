//! Where a processor's name leads: to an address that changes, of which each gateway learns in its own time.
//!
//! Behind the new address are the same books: what is in doubt is looked up, and sent again, at the processor that has it. The old
//! one still serves them for a while, refuses, or swallows what is sent there, until a gateway has asked for the name again. The
//! engine knows of none of this. A planted bug lets a look-up believe an address behind which others' books lie.

use galo_engine::{CorrelationId, Processor};
use uuid::Uuid;

use super::bug::Bug;
use super::world::World;

/// A gateway asks for a name again every few seconds, µs.
const RESOLVE_US: u64 = 5_000_000;

/// What is at a processor's former address.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Former {
    /// The same processor.
    #[default]
    Serves,
    /// Nobody: connections are refused.
    Refuses,
    /// Nobody: what is sent is never answered.
    Hangs,
}

/// A processor's move, if it ever moved.
#[derive(Clone, Copy, Default, Debug)]
pub struct Moved {
    former: Former,
    /// How many payments it had by then.
    stored_len: usize,
}

impl World {
    /// A processor's name leads elsewhere from now on.
    pub(super) fn move_processor(&mut self) {
        let processor = self.any_processor();
        let former = self.dice.pick(&[Former::Serves, Former::Refuses, Former::Hangs]);
        self.coverage.moves += 1;
        self.trace(|| format!("{processor:?} has another address; the former one: {former:?}"));
        let upstream = &mut self.upstreams[processor.index()];
        upstream.moved = Moved { former, stored_len: upstream.model.store().len() };
        for gateway in &mut self.gateways {
            gateway.stale_until_us[processor.index()] = self.now_us + self.dice.skewed(RESOLVE_US);
        }
    }

    /// Everybody knows a processor's address.
    pub(super) fn resolve(&mut self, processor: Processor) {
        self.gateways.iter_mut().for_each(|gateway| gateway.stale_until_us[processor.index()] = 0);
    }

    /// What is at the address that this gateway knows of a processor.
    pub(super) fn meets(&self, gateway: usize, processor: Processor) -> Former {
        let is_stale = self.now_us < self.gateways[gateway].stale_until_us[processor.index()];
        if is_stale { self.upstreams[processor.index()].moved.former } else { Former::Serves }
    }

    /// A planted bug: behind the new address are another processor's books, without what was stored before.
    pub(super) fn is_unknown_there(&self, gateway: usize, processor: Processor, id: CorrelationId) -> bool {
        let upstream = &self.upstreams[processor.index()];
        let stored = upstream.model.store().list(0);
        let before = &stored[..upstream.moved.stored_len.min(stored.len())];
        self.has(Bug::AddressOfAnother)
            && self.now_us >= self.gateways[gateway].stale_until_us[processor.index()]
            && before.iter().any(|payment| payment.correlation_id == Uuid::from_bytes(id.0))
    }
}
