//! Questions for a range, from a gateway's asking to the aggregator's answer, and what the answer may not miss.

use std::collections::HashMap;

use galo_engine::CorrelationId;
use galo_engine::time::UnixMillis;
use galo_wire::Message;
use galo_wire::record::{SummaryQuery, SummaryTotal};

use super::bug::Bug;
use super::invariant::Invariant;
use super::world::World;

/// Payments that a gateway was told are processed, by the connection on which it is to say so.
type Heard = Vec<(usize, CorrelationId)>;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Summaries {
    /// By slot: the range, and what some gateway knew when it was asked for.
    asked: HashMap<u32, (SummaryQuery, Heard)>,
    slot_next: u32,
    /// What gateways have to say.
    heard: Heard,
}

impl World {
    /// A gateway has something to say that no summary may miss from here on.
    pub(super) fn heard(&mut self, number: usize, id: CorrelationId) {
        if let Some(connection) = self.gateways[number].connection() {
            self.summaries.heard.push((connection, id));
        }
    }

    pub(super) fn ask_for_summary(&mut self, number: usize, from_ms: u64, to_ms: u64) {
        let oracle = &self.oracle;
        self.summaries.heard.retain(|(_, id)| !oracle.is_settled(*id));
        let slot = self.summaries.slot_next;
        self.summaries.slot_next += 1;
        let query = SummaryQuery { slot, from_ms, to_ms };
        self.summaries.asked.insert(slot, (query, self.summaries.heard.clone()));
        self.send(number, query);
    }

    /// Summaries made since the count of `unconfirmed` ones was taken leave the aggregator.
    pub(super) fn check_summaries(&mut self, unconfirmed: u64) {
        let Some(coordinator) = &mut self.aggregator.coordinator else { return };
        let confirmed = coordinator.counters().unconfirmed_summaries == unconfirmed;
        let mut replies = Vec::new();
        for (place, (_, message)) in coordinator.messages().iter().enumerate() {
            if let Message::SummaryReply(reply) = *message
                && let Some(asked) = self.summaries.asked.remove(&reply.slot)
            {
                replies.push((place, reply, asked));
            }
        }
        for (place, mut reply, (query, heard)) in replies {
            let totals = place - usize::from(reply.total_count)..place;
            if self.bug == Some(Bug::SummaryExclusive) {
                let to = UnixMillis(query.to_ms.saturating_sub(1));
                let truly = coordinator.ledger().summarize(UnixMillis(query.from_ms), to);
                for (_, message) in &mut coordinator.messages()[totals.clone()] {
                    if let Message::SummaryTotal(total) = message {
                        total.requests = truly.totals[total.processor.index()].count;
                    }
                }
            }
            if self.bug == Some(Bug::ResolutionHidden) {
                reply.resolution_ms = 1;
            }
            coordinator.messages()[place].1 = reply.into();
            let totals: Vec<SummaryTotal> = coordinator.messages()[totals]
                .iter()
                .filter_map(|(_, message)| match message {
                    Message::SummaryTotal(total) => Some(*total),
                    _ => None,
                })
                .collect();
            let whole = totals.len() == usize::from(reply.total_count);
            self.oracle
                .check(Invariant::SummaryIsTrue, whole, || format!("{totals:?} stand before {reply:?}"));
            self.oracle.summarized(query.from_ms, query.to_ms, &totals, &reply);
            self.coverage.summaries += 1;
            if !confirmed {
                self.coverage.unconfirmed_summaries += 1;
                continue;
            }
            let missed = heard.into_iter().find(|(connection, id)| {
                let known = &self.connections[*connection];
                let stands = self.gateways[known.gateway].connection() == Some(*connection);
                known.session.is_some() && stands && !self.oracle.is_settled(*id)
            });
            self.oracle.check(Invariant::SummaryMissesNothing, missed.is_none(), || {
                format!("a gateway knew of {missed:?} before {query:?} was asked, the ledger does not yet")
            });
        }
    }
}
