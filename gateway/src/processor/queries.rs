//! The two questions a processor answers: what it stored for an id, and how it says it feels.
//!
//! Both are rare, so each takes a connection of its own and closes it: an early health check hangs until the next
//! window and must not occupy a lane. Neither decides anything. In particular a `NotFound` proves nothing while an
//! attempt may still be sleeping inside the processor; see `engine`.

use std::cell::Cell;
use std::time::Duration;

use galo_engine::CorrelationId;
use galo_engine::dispatcher::{Stored, Verification};
use galo_engine::time::UnixMillis;
use galo_profile::{Found, HealthReport, Lookup, Said, Search, Secret, State};
use galo_shell::clock::Clock;
use monoio::time::timeout;
use thiserror::Error;

use super::answer::{BODY_SIZE_MAX, Unreadable};
use super::client::Client;

/// How long a lookup may take, or each page of one. The processors' delay does not apply to it.
const LOOKUP_TIMEOUT_MS: u64 = 5000;

/// How long a health check may take: a call made early hangs until its window of 5 s begins. Less than two intervals of
/// the leases (10.2 s): then, however late each check arrives, a processor that lets two wait refuses none.
const HEALTH_TIMEOUT_MS: u64 = 8000;

/// What a request's buffer takes at first.
const REQUEST_SIZE: usize = 512;

/// The body of a list: a hundred payments of three kilobytes, and half as much again.
const LIST_SIZE_MAX: usize = 512 << 10;

/// Queries at once. Beyond, they fail at once: each costs a connection.
const QUERIES_MAX: usize = 32;

/// Why a health check gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HealthError {
    /// The processor cannot be reached, or closed the connection.
    #[error("no connection, or none that lasted")]
    Broken,
    /// No answer within the time that an early call may hang.
    #[error("no answer within 8 s")]
    TimedOut,
    /// An answer other than 200; 429 means that somebody asked within the same five seconds.
    #[error("status {0}")]
    Status(u16),
    /// The processor has no health check.
    #[error("none is configured")]
    NoCheck,
    /// A 200 whose body is no health report.
    #[error("an answer that is no health report")]
    Malformed,
}

/// Lists that are looked through at once. A page takes a processor as much work as dozens of payments, and one that nobody waits for any longer is
/// made all the same: more of them, and doubt by doubt the processor has ever less time for payments, which then are in doubt, too.
const LISTS_MAX: usize = 2;

/// One of the queries that may run at once; gives its place back when dropped.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(places: &'a Cell<usize>, places_max: usize) -> Option<Self> {
        if places.get() >= places_max {
            return None;
        }
        places.set(places.get() + 1);
        Some(Self(places))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Client {
    /// Asks what is stored for an id, page by page where it must, and what the processor calls it. Beyond [`QUERIES_MAX`] at once, [`LISTS_MAX`] of lists, it is not asked, which
    /// says nothing.
    pub async fn lookup(
        &self,
        correlation_id: CorrelationId,
        requested_at: UnixMillis,
        reference: Option<&str>,
    ) -> (Verification, Option<String>) {
        const NO_ANSWER: (Verification, Option<String>) = (Verification::Unanswered, None);
        let Some(lookup) = &self.config.profile.lookup else { return NO_ANSWER };
        let _place = if lookup.is_list() {
            let Some(place) = Place::take(&self.lists, LISTS_MAX) else { return NO_ANSWER };
            Some(place)
        } else {
            None
        };
        match self.search(lookup, lookup.search(correlation_id, requested_at, reference)).await {
            Said::Found(found) => {
                let reference = found.reference.clone();
                (verification(Said::Found(found), lookup), reference)
            }
            said => (verification(said, lookup), None),
        }
    }

    async fn search(&self, lookup: &Lookup, mut search: Search<'_>) -> Said {
        let body_size_max = if lookup.is_list() { LIST_SIZE_MAX } else { BODY_SIZE_MAX };
        loop {
            let mut request = Vec::with_capacity(REQUEST_SIZE);
            let now = Clock.now().unix_ms;
            let token = self.token();
            if search.render(now, token.as_ref(), &mut request).is_err() {
                return Said::Unclear;
            }
            let query = self.query(request, token, body_size_max);
            let answer = timeout(Duration::from_millis(LOOKUP_TIMEOUT_MS), query).await;
            let Ok(Some((status, Ok(body)))) = answer else { return Said::Unclear };
            match search.read(status, &body) {
                Said::Again => {}
                said => return said,
            }
        }
    }

    /// Asks for the processor's own view of its health.
    ///
    /// Whoever calls it holds the lease: one call per interval and processor, across all gateways.
    ///
    /// # Errors
    ///
    /// [`HealthError`] says why there is no report.
    pub async fn check_health(&self) -> Result<HealthReport, HealthError> {
        let health = self.config.profile.health.as_ref().ok_or(HealthError::NoCheck)?;
        let mut request = Vec::with_capacity(REQUEST_SIZE);
        let token = self.token();
        if health.render(token.as_ref(), &mut request).is_err() {
            return Err(HealthError::Broken);
        }
        let query = self.query(request, token, BODY_SIZE_MAX);
        let (status, body) = match timeout(Duration::from_millis(HEALTH_TIMEOUT_MS), query).await {
            Err(_) => return Err(HealthError::TimedOut),
            Ok(None) => return Err(HealthError::Broken),
            Ok(Some((status, body))) => (status, body),
        };
        match health.read(status, body.as_deref().unwrap_or_default()) {
            Some(report) => Ok(report),
            None if (200..=299).contains(&status) => Err(HealthError::Malformed),
            None => Err(HealthError::Status(status)),
        }
    }

    /// Sends a request, which carries `token`, on a connection of its own: the status once it is known, and the body if it came whole.
    async fn query(
        &self,
        request: Vec<u8>,
        token: Option<Secret>,
        body_size_max: usize,
    ) -> Option<(u16, Result<Vec<u8>, Unreadable>)> {
        let _place = Place::take(&self.queries, QUERIES_MAX)?;
        let mut connection = self.connector.connect().await.ok()?;
        connection.allow_body(body_size_max);
        let (result, _) = connection.send(request).await;
        result.ok()?;
        let head = connection.read_head().await.ok()?;
        let status = head.status;
        self.heed_status(status, token.as_ref());
        let mut body = Vec::new();
        let result = connection.read_body(head, |piece| body.extend_from_slice(piece)).await;
        Some((status, result.map(|_| body)))
    }
}

pub(super) fn verification(said: Said, lookup: &Lookup) -> Verification {
    match said {
        // One of an unknown amount, or two of one payment without any: a person looks into it. Neither is booked.
        Said::Found(found) if found.amount.is_none() && (found.copies > 1 || lookup.names_amount()) => {
            Verification::Unanswered
        }
        // The amount of several is what they charged together, which is not the payment's.
        Said::Found(Found { state, amount, requested_at, .. }) => {
            let stored = match state {
                State::Processed => Stored::Processed,
                State::Pending => Stored::Pending,
                State::Declined => Stored::Declined,
            };
            Verification::Found { stored, requested_at, amount }
        }
        Said::NotFound => Verification::NotFound,
        Said::Again | Said::Unclear => Verification::Unanswered,
    }
}
