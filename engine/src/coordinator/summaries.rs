//! Summaries that miss nothing: before one is made, the other gateways are asked for what they have heard and not yet said.
//!
//! A gateway keeps what its attempts came to for some milliseconds, so that it leaves with something that is urgent
//! ([`Message::can_wait`](galo_wire::Message::can_wait)). Whoever asks for a summary has said its own before; each other connection is
//! sent a [`Flush`](galo_wire::record::Flush), and the answer is made when all have said
//! [`Flushed`](galo_wire::record::Flushed) or are gone. So a summary shows every payment of which any gateway knew when the question came.
//!
//! One round is under way at a time. Questions that come meanwhile wait for the next, since a gateway may have answered this one
//! before it heard what they must show. However many ask, each gateway is asked once a round.
//!
//! Survives: a gateway that loses its connection within a round and comes back: whoever connects meanwhile is asked too, and says what it
//! had to say before. A gateway that stands still. After [`WAIT_US`] a summary is made without it, and that is counted.

use galo_wire::record::SummaryQuery;

use super::SessionId;

/// How long a round waits: twice the period in which a gateway under a CPU quota may stand still.
pub(super) const WAIT_US: u64 = 200_000;

/// Who asked, and what.
pub(super) type Question = (SessionId, SummaryQuery);

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Summaries {
    /// Wait for the next round.
    next: Vec<Question>,
    round: Option<Round>,
    number: u32,
}

struct Round {
    questions: Vec<Question>,
    /// Who has not answered yet.
    awaited: Vec<SessionId>,
    until_us: u64,
}

impl Summaries {
    pub(super) fn ask(&mut self, from: SessionId, query: SummaryQuery) {
        self.next.push((from, query));
    }

    /// Begins a round if one is due, with those of `sessions` that somebody else asked about. Returns its number, and whom to ask.
    pub(super) fn begin(
        &mut self,
        sessions: impl Iterator<Item = SessionId>,
        now_us: u64,
    ) -> Option<(u32, &[SessionId])> {
        if self.round.is_some() || self.next.is_empty() {
            return None;
        }
        let questions = std::mem::take(&mut self.next);
        let awaited = sessions.filter(|session| questions.iter().any(|(from, _)| from != session)).collect();
        self.number = self.number.wrapping_add(1);
        let round = self.round.insert(Round { questions, awaited, until_us: now_us + WAIT_US });
        Some((self.number, &round.awaited))
    }

    /// A gateway connected. It may be one that was awaited on a former connection: it is asked too, under the number that is returned.
    pub(super) fn join(&mut self, session: SessionId) -> Option<u32> {
        self.round.as_mut()?.awaited.push(session);
        Some(self.number)
    }

    /// A gateway has said everything. An answer to an earlier round, which was over by then, says nothing about this one.
    pub(super) fn flushed(&mut self, session: SessionId, number: u32) {
        if let Some(round) = &mut self.round
            && number == self.number
        {
            round.awaited.retain(|awaited| *awaited != session);
        }
    }

    /// A connection closed: nothing is to be had from it, and nothing owed to it.
    pub(super) fn leave(&mut self, session: SessionId) {
        self.next.retain(|(from, _)| *from != session);
        if let Some(round) = &mut self.round {
            round.questions.retain(|(from, _)| *from != session);
            round.awaited.retain(|awaited| *awaited != session);
        }
    }

    /// Until when the round that is under way waits.
    pub(super) fn until_us(&self) -> Option<u64> {
        self.round.as_ref().map(|round| round.until_us)
    }

    /// The questions of a round that is over, and how many gateways had not answered.
    pub(super) fn end(&mut self, now_us: u64) -> Option<(Vec<Question>, usize)> {
        let round = self.round.take_if(|round| round.awaited.is_empty() || now_us >= round.until_us)?;
        Some((round.questions, round.awaited.len()))
    }
}
