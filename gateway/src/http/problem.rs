//! Refusals, as RFC 9457 `application/problem+json`.
//!
//! Every refusal that this front can utter stands in the one table below, its body rendered by the compiler. Nothing
//! from a request is ever echoed, so nothing needs escaping and a hostile request cannot choose what we say. The one
//! exception is the reason why a gateway is not ready, which is ours too ([`not_ready`]).
//!
//! `type` is a relative URI that never changes meaning; clients may match on it. `title` belongs to the type,
//! `detail` to the case. `field` names the member or query parameter to mend, where there is one.
//!
//! | `type` | status | when |
//! | --- | --- | --- |
//! | `/problems/malformed-request` | 400 | bytes that are no HTTP/1.1 request, or one that two parsers could read differently |
//! | `/problems/malformed-json` | 400 | the body is no JSON text |
//! | `/problems/invalid-parameter` | 400 | a query parameter cannot be read |
//! | `/problems/bad-signature` | 401 | a notification is not signed, or not as its processor signs |
//! | `/problems/purge-not-allowed` | 403 | purging is switched off |
//! | `/problems/cross-site-request` | 403 | a page of another site has a browser purge |
//! | `/problems/not-found` | 404 | no such path |
//! | `/problems/unknown-payment` | 404 | no such payment |
//! | `/problems/method-not-allowed` | 405 | the path has other methods, see `Allow` |
//! | `/problems/request-timeout` | 408 | the request did not arrive in time |
//! | `/problems/payment-processed` | 409 | a processed payment is not cancelled |
//! | `/problems/payment-under-way` | 409 | a processor may have the payment, which is therefore not cancelled |
//! | `/problems/content-too-large` | 413 | the request exceeds 16 KiB |
//! | `/problems/uri-too-long` | 414 | the target exceeds 4 KiB |
//! | `/problems/expectation-failed` | 417 | an `Expect` other than `100-continue` |
//! | `/problems/invalid-field` | 422 | a member is missing or invalid |
//! | `/problems/invalid-notification` | 422 | a notification names no payment |
//! | `/problems/invalid-body` | 422 | JSON, but no payment |
//! | `/problems/conflicting-payment` | 422 | the same id was accepted with another amount, or with other members for a processor |
//! | `/problems/header-too-large` | 431 | the head exceeds its limits |
//! | `/problems/unsupported-transfer-encoding` | 501 | a transfer encoding other than `chunked` |
//! | `/problems/queue-full` | 503 | too many open payments; nothing was accepted |
//! | `/problems/ledger-unreachable` | 503 | the ledger did not answer; nothing was accepted |
//! | `/problems/too-many-connections` | 503 | the connection bound is reached |
//! | `/problems/not-ready` | 503 | `/ready`: this gateway should get no traffic |
//! | `/problems/unsupported-version` | 505 | neither HTTP/1.0 nor HTTP/1.1 |

/// The media type of every refusal.
pub(super) const CONTENT_TYPE: &str = "application/problem+json";

/// One refusal: a row of the table, with its whole body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// The HTTP status.
    pub(super) status: u16,
    /// The rendered JSON object.
    pub(super) body: &'static str,
}

/// A refusal, as the error of whatever found it.
pub(super) type Refusal = &'static Problem;

macro_rules! problems {
    ($($name:ident = $status:literal $slug:literal $title:literal $(field $field:literal)?: $detail:literal;)*) => {
        $(pub(super) static $name: Problem = Problem {
            status: $status,
            body: concat!(
                "{\"type\":\"/problems/", $slug, "\",\"title\":\"", $title, "\",\"status\":", $status,
                ",\"detail\":\"", $detail, "\"", $(",\"field\":\"", $field, "\"",)? "}"
            ),
        };)*

        /// Every refusal, for the tests that read them all.
        #[cfg(test)]
        pub(super) static ALL: &[Refusal] = &[$(&$name),*];
    };
}

problems! {
    BARE_LF = 400 "malformed-request" "Malformed HTTP request": "a line of the head ends in LF without CR";
    BAD_REQUEST_LINE = 400 "malformed-request" "Malformed HTTP request":
        "the request line is not 'method target HTTP/1.1' with single spaces and a visible ASCII target";
    BAD_TARGET = 400 "malformed-request" "Malformed HTTP request": "the request target is not a valid URI";
    BAD_HEADER = 400 "malformed-request" "Malformed HTTP request":
        "a header is not 'name: value' with a token for its name and no control character in its value";
    FOLDED_HEADER = 400 "malformed-request" "Malformed HTTP request": "a header line is folded";
    BAD_HOST = 400 "malformed-request" "Malformed HTTP request": "an HTTP/1.1 request has exactly one Host";
    BAD_CONTENT_LENGTH = 400 "malformed-request" "Malformed HTTP request":
        "Content-Length must be given at most once, as decimal digits";
    AMBIGUOUS_LENGTH = 400 "malformed-request" "Malformed HTTP request":
        "the length is given twice: by Content-Length and by Transfer-Encoding";
    BAD_TRANSFER_ENCODING = 400 "malformed-request" "Malformed HTTP request":
        "Transfer-Encoding must be given at most once, and not in HTTP/1.0";
    BAD_CHUNK = 400 "malformed-request" "Malformed HTTP request":
        "a chunk is not 'hexadecimal size CRLF data CRLF'; extensions and trailers are not served";
    TRUNCATED = 400 "malformed-request" "Malformed HTTP request": "the connection ended within the request";

    MALFORMED_JSON = 400 "malformed-json" "Malformed JSON": "the body is not one JSON text in UTF-8";
    EMPTY_BODY = 400 "malformed-json" "Malformed JSON": "the body is empty; a JSON object was expected";
    TOO_DEEP = 400 "malformed-json" "Malformed JSON": "the body is nested deeper than 32 levels";

    BAD_QUERY = 400 "invalid-parameter" "Invalid query parameter": "the query is not well percent-encoded";
    BAD_FROM = 400 "invalid-parameter" "Invalid query parameter" field "from":
        "from must be an ISO 8601 timestamp such as 2020-07-10T12:34:56.000Z, given once";
    BAD_TO = 400 "invalid-parameter" "Invalid query parameter" field "to":
        "to must be an ISO 8601 timestamp such as 2020-07-10T12:34:56.000Z, given once";
    FROM_AFTER_TO = 400 "invalid-parameter" "Invalid query parameter" field "from": "from is later than to";

    NOT_SIGNED = 401 "bad-signature" "Bad signature":
        "the header that this processor signs with is missing, or holds no signature";
    BAD_SIGNATURE = 401 "bad-signature" "Bad signature": "the signature is not that of this body by this processor";
    PURGE_NOT_ALLOWED = 403 "purge-not-allowed" "Purging is switched off":
        "this gateway was started without PURGE_ALLOWED=true";
    CROSS_SITE = 403 "cross-site-request" "Cross-site request":
        "a browser sent this for a page of another origin (Sec-Fetch-Site, Origin); nothing was purged";
    NOT_FOUND = 404 "not-found" "Not found": "there is nothing at this path";
    NOBODY_NOTIFIES = 404 "not-found" "Not found": "no processor of this name is configured to notify";
    UNKNOWN_PAYMENT = 404 "unknown-payment" "Unknown payment": "the ledger knows no payment with this id";
    NOT_A_PAYMENT_ID = 404 "unknown-payment" "Unknown payment":
        "no payment has this id: ids are UUIDs written as 8-4-4-4-12 hexadecimal digits";
    METHOD_NOT_ALLOWED = 405 "method-not-allowed" "Method not allowed":
        "this path serves other methods; Allow lists them";
    REQUEST_TIMEOUT = 408 "request-timeout" "Request timeout": "the request did not arrive whole in time";
    PAYMENT_PROCESSED = 409 "payment-processed" "Payment processed": "a processor has this payment; it cannot be cancelled any more";
    PAYMENT_UNDER_WAY = 409 "payment-under-way" "Payment under way":
        "a processor may have this payment; it can be cancelled only while none can";
    CONTENT_TOO_LARGE = 413 "content-too-large" "Content too large":
        "a request may have 16384 bytes, head and body together";
    URI_TOO_LONG = 414 "uri-too-long" "URI too long": "a request target may have 4096 bytes";
    EXPECTATION_FAILED = 417 "expectation-failed" "Expectation failed": "only Expect: 100-continue is served";

    NO_ID = 422 "invalid-notification" "Invalid notification":
        "the body is no JSON object with a payment's id where this processor's profile says";
    ID_MISSING = 422 "invalid-field" "Invalid field" field "correlationId": "correlationId is missing; a UUID string was expected";
    ID_NOT_A_STRING = 422 "invalid-field" "Invalid field" field "correlationId": "correlationId must be a string";
    ID_NOT_A_UUID = 422 "invalid-field" "Invalid field" field "correlationId":
        "correlationId must be a UUID written as 8-4-4-4-12 hexadecimal digits";
    ID_TWICE = 422 "invalid-field" "Invalid field" field "correlationId": "correlationId is given twice";
    AMOUNT_MISSING = 422 "invalid-field" "Invalid field" field "amount": "amount is missing; a number was expected";
    AMOUNT_NOT_A_NUMBER = 422 "invalid-field" "Invalid field" field "amount": "amount must be a JSON number";
    AMOUNT_NOT_POSITIVE = 422 "invalid-field" "Invalid field" field "amount": "amount must be greater than zero";
    AMOUNT_TOO_PRECISE = 422 "invalid-field" "Invalid field" field "amount":
        "amount must have at most two decimals";
    AMOUNT_TOO_LARGE = 422 "invalid-field" "Invalid field" field "amount": "amount must be at most 999999999.99";
    AMOUNT_TWICE = 422 "invalid-field" "Invalid field" field "amount": "amount is given twice";
    DEADLINE_INVALID = 422 "invalid-field" "Invalid field" field "deadline":
        "deadline must be a string with an instant, such as 2026-11-29T12:34:56.789Z (RFC 3339)";
    DEADLINE_TWICE = 422 "invalid-field" "Invalid field" field "deadline": "deadline is given twice";
    DEADLINE_PASSED = 422 "invalid-field" "Invalid field" field "deadline":
        "deadline has passed; this request changed nothing, and GET /payments/{correlationId} tells what became of an earlier one";
    NOT_AN_OBJECT = 422 "invalid-body" "Invalid body": "the body must be a JSON object";
    NUMBER_OUT_OF_RANGE = 422 "invalid-body" "Invalid body": "a number is beyond what 64 bits can hold";
    MEMBER_TWICE = 422 "invalid-body" "Invalid body": "a member that goes to processors is given twice";
    MEMBERS_TOO_LARGE = 422 "invalid-body" "Invalid body":
        "the members that go to processors may have 2048 bytes together: an object of their names and values, without blanks";
    OTHER_PAYMENT = 422 "conflicting-payment" "Conflicting payment":
        "this correlationId was accepted before, with another amount or with other members that go to processors";
    CONFLICT = 422 "conflicting-payment" "Conflicting payment" field "amount":
        "this correlationId was accepted before, with another amount";

    HEADER_TOO_LARGE = 431 "header-too-large" "Header too large":
        "a head may have 8192 bytes and 64 headers, a header's name 256 bytes";
    UNSUPPORTED_TRANSFER_ENCODING = 501 "unsupported-transfer-encoding" "Unsupported transfer encoding":
        "chunked is the only transfer encoding served";
    QUEUE_FULL = 503 "queue-full" "Queue full": "too many payments are open; this one was not accepted";
    LEDGER_UNREACHABLE = 503 "ledger-unreachable" "Ledger unreachable": "the ledger did not answer in time";
    TOO_MANY_CONNECTIONS = 503 "too-many-connections" "Too many connections": "this gateway's connection bound is reached";
    UNSUPPORTED_VERSION = 505 "unsupported-version" "HTTP version not supported":
        "HTTP/1.1 and HTTP/1.0 are served";
}

/// The body that says why this gateway should get no traffic.
pub(super) fn not_ready(reason: &str) -> String {
    let mut body = String::from(
        "{\"type\":\"/problems/not-ready\",\"title\":\"Not ready\",\"status\":503,\"detail\":\"",
    );
    for character in reason.chars() {
        match character {
            '"' | '\\' => body.extend(['\\', character]),
            _ if character.is_control() => body.push(' '),
            _ => body.push(character),
        }
    }
    body.push_str("\"}");
    body
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use simd_json::prelude::*;

    use super::*;

    #[test]
    fn every_body_is_json_that_says_its_own_status_and_each_type_has_one_title() {
        let mut kinds: HashMap<String, (String, u16)> = HashMap::new();
        for problem in ALL {
            let mut text = problem.body.as_bytes().to_vec();
            let value = simd_json::to_borrowed_value(&mut text).unwrap();
            assert_eq!(value.get_u16("status"), Some(problem.status), "{}", problem.body);
            let (kind, title) = (value.get_str("type").unwrap(), value.get_str("title").unwrap());
            assert!(kind.starts_with("/problems/"), "{kind}");
            assert!(value.get_str("detail").is_some_and(|detail| detail.len() > 10));
            let known = kinds.entry(kind.into()).or_insert_with(|| (title.into(), problem.status));
            assert_eq!(*known, (title.to_owned(), problem.status), "{kind} has one title and one status");
        }
    }

    #[test]
    fn the_table_in_the_header_lists_every_type() {
        let header = include_str!("problem.rs");
        for problem in ALL {
            let kind = problem.body.split('"').nth(3).unwrap();
            let row = format!("//! | `{kind}` | {} |", problem.status);
            assert!(header.contains(&row), "{row}");
        }
    }

    #[test]
    fn a_reason_cannot_break_out_of_its_string() {
        let mut text = not_ready("a \"quoted\" \\ reason\n").into_bytes();
        let value = simd_json::to_borrowed_value(&mut text).unwrap();
        assert_eq!(value.get_str("detail"), Some("a \"quoted\" \\ reason "));
    }
}
