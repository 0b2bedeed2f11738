//! Clients that send what they should not: the server refuses, closes, and serves the next one as if nothing had been.

use super::*;

/// Sends `bytes` on a connection of its own and expects one refusal and the end: no second answer.
fn refused(front: &Front, bytes: &[u8], status: u16, kind: &str) {
    let mut client = front.connect();
    client.try_send(bytes);
    let reply = client.reply();
    reply.is_problem(status, kind);
    assert_eq!(reply.header("connection"), Some("close"));
    client.ends();
    front.is_well();
}

#[test]
fn smuggling_shapes_get_one_refusal_and_no_second_answer() {
    for driver in drivers() {
        let front = Front::start(driver);
        let smuggled = format!(
            "POST /payments HTTP/1.1\r\nHost: a\r\nContent-Length: 66\r\n\r\n{}",
            payment(ID, "6.66")
        );
        let hidden = smuggled.len();
        let head = "POST /payments HTTP/1.1\r\nHost: a\r\n";
        for (headers, status, kind) in [
            (format!("Content-Length: 0\r\nContent-Length: {hidden}\r\n"), 400, "malformed-request"),
            (format!("Content-Length: {hidden}\r\nContent-Length: {hidden}\r\n"), 400, "malformed-request"),
            (format!("Content-Length: {hidden}, 0\r\n"), 400, "malformed-request"),
            (format!("Content-Length: +{hidden}\r\n"), 400, "malformed-request"),
            (format!("Content-Length : {hidden}\r\n"), 400, "malformed-request"),
            (format!("Content-Length: {hidden}\r\nTransfer-Encoding: chunked\r\n"), 400, "malformed-request"),
            (format!("Transfer-Encoding: chunked\r\nContent-Length: {hidden}\r\n"), 400, "malformed-request"),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".into(),
                400,
                "malformed-request",
            ),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".into(), 400, "malformed-request"),
            ("Transfer-Encoding: identity\r\n".into(), 501, "unsupported-transfer-encoding"),
            ("Transfer-Encoding: gzip, chunked\r\n".into(), 501, "unsupported-transfer-encoding"),
            ("Transfer-Encoding:\r\n chunked\r\n".into(), 501, "unsupported-transfer-encoding"),
            ("X: y\r\n Transfer-Encoding: chunked\r\n".into(), 400, "malformed-request"),
            ("X: y\nTransfer-Encoding: chunked\r\n".into(), 400, "malformed-request"),
            ("X: y\rTransfer-Encoding: chunked\r\n".into(), 400, "malformed-request"),
            ("Host: b\r\n".into(), 400, "malformed-request"),
            ("Expect: the-unexpected\r\n".into(), 417, "expectation-failed"),
        ] {
            refused(&front, format!("{head}{headers}\r\n0\r\n\r\n{smuggled}").as_bytes(), status, kind);
        }
        for chunks in [
            "\r\n\r\n",
            "0\r\nX: y\r\n\r\n",
            "1;a=b\r\nx\r\n0\r\n\r\n",
            "1\r\nxx\r\n0\r\n\r\n",
            "1\nx\n0\n\n",
            "g\r\n",
            "0x1\r\nx\r\n",
        ] {
            let bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}{smuggled}");
            refused(&front, bytes.as_bytes(), 400, "malformed-request");
        }
        for size in ["4001", "fffffff", "ffffffffffffffff", "10000000000000000"] {
            let bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n{size}\r\n{smuggled}");
            refused(&front, bytes.as_bytes(), 413, "content-too-large");
        }
        assert_eq!(front.payments(), [], "nothing that was hidden in a body was served");
    }
}

#[test]
fn what_is_not_http_is_refused() {
    for driver in drivers() {
        let front = Front::start(driver);
        refused(&front, b"\x16\x03\x01\x02\x00\x01", 400, "malformed-request");
        refused(&front, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unsupported-version");
        refused(&front, b"GET /health HTTP/0.9\r\n\r\n", 505, "unsupported-version");
        refused(&front, b"GET /health\r\n\r\n", 400, "malformed-request");
        refused(&front, b"GET /health HTTP/1.1\n\n", 400, "malformed-request");
        refused(&front, b"GET /health HTTP/1.1\r\n\r\n", 400, "malformed-request");
        refused(&front, b"GET /he\0alth HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed-request");
        refused(&front, b"GET /he<>alth HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed-request");
        refused(&front, b"GET health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed-request");
        refused(&front, b"\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed-request");
        refused(&front, b"{\"amount\":1}\r\n\r\n", 400, "malformed-request");
    }
}

#[test]
fn whatever_has_no_end_is_cut_at_its_bound() {
    for driver in drivers() {
        let front = Front::start(driver);
        let head = "GET /health HTTP/1.1\r\nHost: a\r\n";
        refused(
            &front,
            format!("{head}{}: b\r\n\r\n", "a".repeat(70_000)).as_bytes(),
            431,
            "header-too-large",
        );
        refused(&front, format!("{head}{}: b\r\n\r\n", "a".repeat(300)).as_bytes(), 431, "header-too-large");
        refused(
            &front,
            format!("{head}a: {}\r\n\r\n", "b".repeat(9_000)).as_bytes(),
            431,
            "header-too-large",
        );
        refused(&front, format!("{head}{}\r\n", "a: b\r\n".repeat(100)).as_bytes(), 431, "header-too-large");
        refused(&front, format!("{head}a: {}", "b".repeat(500_000)).as_bytes(), 431, "header-too-large");
        refused(&front, format!("GET /{} HTTP/1.1\r\n", "a".repeat(5_000)).as_bytes(), 414, "uri-too-long");
        refused(&front, "G".repeat(100_000).as_bytes(), 414, "uri-too-long");
        let post = "POST /payments HTTP/1.1\r\nHost: a\r\n";
        for length in ["16385", "1000000", "18446744073709551615", "99999999999999999999999"] {
            refused(
                &front,
                format!("{post}Content-Length: {length}\r\n\r\n").as_bytes(),
                413,
                "content-too-large",
            );
        }
        let drip = "1\r\na\r\n".repeat(100_000);
        refused(
            &front,
            format!("{post}Transfer-Encoding: chunked\r\n\r\n{drip}").as_bytes(),
            413,
            "content-too-large",
        );
        assert_eq!(front.payments(), []);
    }
}

#[test]
fn nothing_cut_short_is_served_wherever_the_cut_is() {
    for driver in drivers() {
        let front = Front::start(driver);
        let whole = client::request("POST", "/payments", &payment(ID, "19.90"));
        for size in 0..whole.len() {
            let mut client = front.connect();
            client.send(&whole.as_bytes()[..size]);
            client.finish_sending();
            if size > 0 {
                client.reply().is_problem(400, "malformed-request");
            }
            client.ends();
        }
        // The same, with a client that does not wait for an answer.
        for size in (0..whole.len()).step_by(7) {
            front.connect().send(&whole.as_bytes()[..size]);
        }
        front.is_well();
        assert_eq!(front.payments(), []);
    }
}

#[test]
fn one_byte_at_a_time_is_as_good_as_all_at_once() {
    for driver in drivers() {
        let front = Front::start(driver);
        let mut client = front.connect();
        for number in 0..3 {
            client.drip(b"\r\n");
            client.drip(client::request("POST", "/payments", &payment(&id(number), "19.90")).as_bytes());
            assert_eq!(client.reply().status, 202);
        }
        assert_eq!(front.payments().len(), 3);
    }
}

#[test]
fn bodies_that_nobody_asked_for_are_not_read_as_requests() {
    for driver in drivers() {
        let front = Front::start(driver);
        let mut client = front.connect();
        let inner = client::request("POST", "/payments", &payment(ID, "6.66"));
        for target in ["/health", "/nowhere", "/payments"] {
            client.request("GET", target, &inner);
            assert_ne!(client.reply().status, 202);
        }
        client.request("GET", "/health", "");
        assert_eq!(client.reply().status, 200);
        assert_eq!(front.payments(), []);
    }
}

/// Random bytes made of the pieces that parsers trip over: never a panic, never a hang, always well afterwards.
#[test]
fn shuffled_fragments_never_hurt() {
    const PIECES: [&str; 22] = [
        "GET ",
        "POST ",
        "/payments",
        "/health",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\n",
        "\r",
        "Host: a",
        ": ",
        " ",
        "\t",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "{\"amount\":1}",
        "\0",
        "é",
        "Connection: close",
        "Expect: 100-continue",
    ];
    for driver in drivers() {
        let front = Front::start(driver);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..2_000 {
            let mut text = String::new();
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut bits = state;
            for _ in 0..12 {
                text.push_str(PIECES[(bits % 22) as usize]);
                bits /= 22;
            }
            let mut client = front.connect();
            client.try_send(text.as_bytes());
            client.finish_sending();
            drop(client);
        }
        front.is_well();
        assert_eq!(front.payments(), []);
    }
}
