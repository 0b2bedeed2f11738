//! Processors' notifications: who is heard, and what everybody else is told.

use super::*;

const BODY: &str = r#"{"id":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3","type":"payment.succeeded"}"#;

/// HMAC-SHA256 of [`BODY`] under "secret".
const SIGNATURE: &str = "3f10c48acd931801979ffb1dac4bab8e87465a8613f261d886890aa242b527c5";

/// Likewise of [`NAMELESS`].
const NAMELESS: &str = r#"{"type":"ping"}"#;
const NAMELESS_SIGNATURE: &str = "ef9c85680c299afa94246e60325ec1a8fc10a7fdcc17ff2600c19a3cd7dac2c5";

fn notify(front: &Front, name: &str, signature: Option<&str>, body: &str) -> Reply {
    let header = signature.map(|text| format!("X-Signature: sha256={text}\r\n")).unwrap_or_default();
    let mut client = front.connect();
    client.send(
        format!(
            "POST /notifications/{name} HTTP/1.1\r\nHost: a\r\n{header}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    client.reply()
}

#[test]
fn a_signed_one_is_taken_and_its_payment_named() {
    for driver in drivers() {
        let front = Front::start(driver);
        let reply = notify(&front, "signing", Some(SIGNATURE), BODY);
        assert_eq!((reply.status, reply.body.as_str()), (200, ""));
        // Said again it is the same, and without a secret anyone may say so.
        notify(&front, "signing", Some(SIGNATURE), BODY);
        notify(&front, "open", None, BODY);
        let record = front.record.lock().unwrap();
        assert_eq!(record.notices, [0, 0, 1].map(|number| (number, ID.to_owned())));
        assert_eq!(record.notifications, [NotificationAnswer::Taken; 3]);
    }
}

#[test]
fn nobody_else_is_heard() {
    for driver in drivers() {
        let front = Front::start(driver);
        for name in ["nobody", "silent", "Signing", "signing%20"] {
            notify(&front, name, Some(SIGNATURE), BODY).is_problem(404, "not-found");
        }
        for path in ["/notifications", "/notifications/", "/notifications/signing/", "/notifications/a/b"] {
            front.ask("POST", path, BODY).is_problem(404, "not-found");
        }
        let changed = BODY.replace("succeeded", "refunded!");
        for (signature, body) in
            [(None, BODY), (Some("zz"), BODY), (Some(""), BODY), (Some(SIGNATURE), &changed)]
        {
            let reply = notify(&front, "signing", signature, body);
            reply.is_problem(401, "bad-signature");
            assert_eq!(reply.header("www-authenticate"), Some("HMAC"));
        }
        notify(&front, "signing", Some(NAMELESS_SIGNATURE), NAMELESS).is_problem(422, "invalid-notification");
        for body in ["", "{", "[]", "{\"id\":7}", "{\"id\":\"x\"}", "\u{0}"] {
            notify(&front, "open", None, body).is_problem(422, "invalid-notification");
        }
        front.ask("POST", "/notifications/open", &"x".repeat(17_000)).is_problem(413, "content-too-large");
        let reply = front.ask("GET", "/notifications/open", "");
        reply.is_problem(405, "method-not-allowed");
        assert_eq!(reply.header("allow"), Some("POST, OPTIONS"));
        let record = front.record.lock().unwrap();
        assert_eq!(record.notices, [], "nothing reached the service");
        let count = |end| record.notifications.iter().filter(|it| **it == end).count();
        let ends = [
            NotificationAnswer::Nobody,
            NotificationAnswer::NotSigned,
            NotificationAnswer::BadSignature,
            NotificationAnswer::NoId,
        ];
        assert_eq!(ends.map(count), [4, 2, 2, 7]);
    }
}

#[test]
fn without_a_ledger_the_processor_is_to_say_it_again() {
    for driver in drivers() {
        let script = Script { is_unreachable: true, ..Script::default() };
        let front = Front::start_with(driver, HttpConfig::default(), script);
        let reply = notify(&front, "open", None, BODY);
        reply.is_problem(503, "ledger-unreachable");
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(front.record.lock().unwrap().notifications, [NotificationAnswer::LedgerUnreachable]);
    }
}
