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
use super::service::{Notified, Service, Unreachable};

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
        Notified::Taken => answer::empty(StatusCode::OK),
        Notified::Nobody => answer::refuse(&problem::NOBODY_NOTIFIES),
        Notified::NotSigned => unsigned(&problem::NOT_SIGNED),
        Notified::BadSignature => unsigned(&problem::BAD_SIGNATURE),
        Notified::NoId => answer::refuse(&problem::NO_ID),
        Notified::LedgerUnreachable => answer::refuse(&problem::LEDGER_UNREACHABLE),
    }
}

fn hear<S: Service>(service: &S, name: &str, headers: &HeaderMap, body: &[u8]) -> Notified {
    let Some((processor, profile)) = service.notifier(name) else { return Notified::Nobody };
    let Some(notification) = &profile.notification else { return Notified::Nobody };
    match notification.notified(&Head(headers), body) {
        Ok(id) => match service.notice(processor, id) {
            Ok(()) => Notified::Taken,
            Err(Unreachable) => Notified::LedgerUnreachable,
        },
        Err(Refusal::NoSignature) => Notified::NotSigned,
        Err(Refusal::BadSignature) => Notified::BadSignature,
        Err(Refusal::NoId) => Notified::NoId,
    }
}

fn unsigned(problem: problem::Refusal) -> Answer {
    answer::with_header(answer::refuse(problem), WWW_AUTHENTICATE, SIGNED)
}
