//! What a gateway asks on behalf of a client, and the ledger answers without changing.

use galo_wire::record::{LookupReply, Standing, SummaryQuery, SummaryReply, SummaryTotal};
use galo_wire::{Attachment, CorrelationId, History, Processor, Stage, parts};

use super::{Coordinator, SessionId};
use crate::ledger::Known;
use crate::time::UnixMillis;

impl Coordinator {
    /// How a payment stands, and what led there.
    pub(super) fn tell(&mut self, session: SessionId, slot: u32, id: CorrelationId) {
        let known = self.ledger.lookup(id);
        let history = match known {
            Known::Absent => History::EMPTY,
            Known::Open(_) | Known::Processed { .. } | Known::Declined { .. } => self.ledger.history(id),
        };
        history.decisions().iter().for_each(|decision| self.send(session, *decision));
        if !matches!(known, Known::Absent)
            && let Some(reference) = self.ledger.reference(id)
        {
            let parts = parts(Attachment::Reference, &reference).map(|part| (session, part.into()));
            self.messages.extend(parts);
        }
        self.send(session, lookup_reply(slot, id, known, &history));
    }

    pub(super) fn summarize(&mut self, session: SessionId, query: SummaryQuery) {
        let summary = self.ledger.summarize(UnixMillis(query.from_ms), UnixMillis(query.to_ms));
        let mut total_count = 0;
        for (processor, total) in Processor::ALL.into_iter().zip(summary.totals) {
            if total.count > 0 {
                total_count += 1;
                let (requests, amount_cents) = (total.count, total.amount_cents);
                self.send(session, SummaryTotal { processor, requests, amount_cents });
            }
        }
        let resolution_ms = summary.resolution_ms;
        self.send(session, SummaryReply { slot: query.slot, resolution_ms, total_count });
    }
}

fn lookup_reply(slot: u32, correlation_id: CorrelationId, known: Known, history: &History) -> LookupReply {
    let mut refused_with = 0;
    let (standing, amount_cents, requested_at_ms, stage, in_doubt) = match known {
        Known::Absent => (Standing::Absent, 0, 0, Stage::Waiting, false),
        Known::Open(payment) => {
            let requested_at_ms = if payment.stage == Stage::Waiting { 0 } else { payment.requested_at_ms };
            (Standing::Open, payment.amount_cents, requested_at_ms, payment.stage, payment.in_doubt)
        }
        Known::Processed { amount_cents, requested_at_ms, processor } => {
            (Standing::Processed, amount_cents, requested_at_ms, Stage::at(processor), false)
        }
        Known::Declined { amount_cents, ended_at_ms, processor, status } => {
            refused_with = status;
            (Standing::Declined, amount_cents, ended_at_ms, Stage::at(processor), false)
        }
    };
    LookupReply {
        slot,
        correlation_id,
        standing,
        amount_cents,
        requested_at_ms,
        stage,
        in_doubt,
        decision_count: u8::try_from(history.decisions().len()).expect("a few"),
        decisions_forgotten: history.forgotten,
        status: refused_with,
    }
}
