//! What an attempt's end means: the one place where a processor's reply is classified.
//!
//! The rule (invariant 7): *unknown is not failed*. Only a reply that proves that nothing was stored frees a payment
//! to go elsewhere. Whatever leaves a doubt (a timeout, a reset after the first byte, bytes that are no answer) keeps
//! the payment with that processor, with the same id and the same `requestedAt`, until it answers 2xx or 422.

pub use galo_wire::Outcome;

/// What the transport saw of one attempt: everything that a shell can report, and nothing it concludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A whole HTTP answer with this status arrived.
    Answered {
        /// The HTTP status code.
        status: u16,
    },
    /// The attempt ended before one byte of the request was written: connection refused, no route, no free socket.
    NotSent,
    /// The request was written, in part or whole, and no whole answer came: reset, end of stream, garbage.
    Broken,
    /// No answer within the hard timeout; the connection is closed.
    TimedOut,
}

/// Classifies the end of an attempt.
///
/// | reply | outcome | why |
/// | --- | --- | --- |
/// | 2xx, 422 | processed | 422 says that this id is stored already |
/// | not sent | refused | no byte left |
/// | other 4xx (429 and 408 included) | refused | turned away before the insert |
/// | 500 | refused | the failure switch is read before the insert |
/// | other 5xx, 1xx, 3xx | unknown | a proxy may say so after the processor stored it |
/// | broken, timed out | unknown | the insert happens even if the caller has gone |
#[must_use]
pub const fn classify(reply: Reply) -> Outcome {
    match reply {
        Reply::Answered { status: 200..=299 | 422 } => Outcome::Processed,
        Reply::Answered { status: 400..=500 } | Reply::NotSent => Outcome::Refused,
        Reply::Answered { .. } | Reply::Broken | Reply::TimedOut => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_classified_as_the_table_says() {
        for status in 0..=u16::MAX {
            let expected = match status {
                200..=299 | 422 => Outcome::Processed,
                400..=500 => Outcome::Refused,
                _ => Outcome::Unknown,
            };
            assert_eq!(classify(Reply::Answered { status }), expected, "status {status}");
        }
    }

    #[test]
    fn only_an_unsent_request_is_refused_without_an_answer() {
        assert_eq!(classify(Reply::NotSent), Outcome::Refused);
        assert_eq!(classify(Reply::Broken), Outcome::Unknown);
        assert_eq!(classify(Reply::TimedOut), Outcome::Unknown);
    }
}
