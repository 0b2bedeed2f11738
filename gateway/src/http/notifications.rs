//! `POST /notifications/{processor}`: a processor says that something has happened to a payment.
//!
//! It is never believed. A notification that is signed as the processor's profile says brings the next look-up of its payment forward, with
//! whichever gateway the payment is; that look-up says what happened. One that comes twice, too early, or about a payment that is nobody's costs a
//! look-up at most.

use galo_profile::{Headers, Refusal};
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};

use super::answer::{self, Answer};
use super::problem;
use super::service::{NotificationAnswer, Service, Unreachable};

/// RFC 9110 wants a 401 to say what would do.
const SIGNED: HeaderValue = HeaderValue::from_static("HMAC");

struct Head<'a>(&'a HeaderMap);

impl Headers for Head<'_> {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(HeaderValue::as_bytes)
    }
}

/// Takes a notification of the processor of this name. 200 and nothing else: some providers go on saying the same at any other answer.
pub(super) fn take<S: Service>(service: &S, name: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
    let end = hear(service, name, headers, body);
    service.count_notification(end);
    match end {
        NotificationAnswer::Taken => answer::empty(StatusCode::OK),
        NotificationAnswer::Nobody => answer::refuse(&problem::NOBODY_NOTIFIES),
        NotificationAnswer::NotSigned => unsigned(&problem::NOT_SIGNED),
        NotificationAnswer::BadSignature => unsigned(&problem::BAD_SIGNATURE),
        NotificationAnswer::NoId => answer::refuse(&problem::NO_ID),
        NotificationAnswer::LedgerUnreachable => answer::refuse(&problem::LEDGER_UNREACHABLE),
    }
}

fn hear<S: Service>(service: &S, name: &str, headers: &HeaderMap, body: &[u8]) -> NotificationAnswer {
    let Some((processor, profile)) = service.notifier(name) else { return NotificationAnswer::Nobody };
    let Some(notification) = &profile.notification else { return NotificationAnswer::Nobody };
    match notification.notified(&Head(headers), body) {
        Ok(id) => match service.notice(processor, id) {
            Ok(()) => NotificationAnswer::Taken,
            Err(Unreachable) => NotificationAnswer::LedgerUnreachable,
        },
        Err(Refusal::NoSignature) => NotificationAnswer::NotSigned,
        Err(Refusal::BadSignature) => NotificationAnswer::BadSignature,
        Err(Refusal::NoId) => NotificationAnswer::NoId,
    }
}

fn unsigned(problem: problem::Refusal) -> Answer {
    answer::with_header(answer::refuse(problem), WWW_AUTHENTICATE, SIGNED)
}
