//! The API as DESIGN states it: every route, every refusal that a whole request can get.

use super::*;

#[test]
fn a_payment_is_accepted_replayed_or_refused() {
    for driver in drivers() {
        let front = Front::start(driver);
        let first = front.ask("POST", "/payments", &payment(ID, "19.90"));
        assert_eq!((first.status, first.body.as_str()), (202, ""));
        assert_eq!(first.header("idempotent-replayed"), None);
        assert!(first.head.len() < 64, "the hot answer is short: {:?}", first.head);
        let again = front.ask("POST", "/payments", &payment(&ID.to_uppercase(), "19.9"));
        assert_eq!((again.status, again.header("idempotent-replayed")), (202, Some("true")));
        front.ask("POST", "/payments", &payment(ID, "20")).is_problem(422, "conflicting-payment");
        front.ask("POST", "/payments", &payment(&id(1), "0.01")).is_problem(422, "conflicting-payment");
        front.ask("POST", "/payments", &payment(&id(2), "0.02")).is_problem(503, "queue-full");
        front.ask("POST", "/payments", &payment(&id(3), "0.03")).is_problem(503, "ledger-unreachable");
        let expected =
            [(ID.into(), 1990), (ID.into(), 1990), (ID.into(), 2000), (id(1), 1), (id(2), 2), (id(3), 3)];
        assert_eq!(front.payments(), expected);
        assert_eq!(front.statuses(6), [202, 202, 422, 422, 503, 503]);
    }
}

#[test]
fn what_is_no_payment_never_reaches_the_service() {
    for driver in drivers() {
        let front = Front::start(driver);
        for (body, status, kind) in [
            ("", 400, "malformed-json"),
            ("{", 400, "malformed-json"),
            ("\u{feff}{}", 400, "malformed-json"),
            ("[]", 422, "invalid-body"),
            ("{}", 422, "invalid-field"),
            (&payment("x", "1"), 422, "invalid-field"),
            (&payment(ID, "0"), 422, "invalid-field"),
            (&payment(ID, "1.001"), 422, "invalid-field"),
            (&payment(ID, "\"1\""), 422, "invalid-field"),
            (&payment(ID, "1000000000"), 422, "invalid-field"),
        ] {
            front.ask("POST", "/payments", body).is_problem(status, kind);
        }
        assert!(front.ask("POST", "/payments", &payment(ID, "0")).body.ends_with(r#""field":"amount"}"#));
        assert_eq!(front.payments(), []);
    }
}

#[test]
fn the_service_hears_in_which_shift_a_request_came() {
    for driver in drivers() {
        let front = Front::start(driver);
        let mut client = front.connect();
        for header in ["Galo-Shift: 7\r\n", "", "galo-shift: x\r\n", "galo-shift:8\r\n"] {
            client.send(format!("GET /health HTTP/1.1\r\nHost: a\r\n{header}\r\n").as_bytes());
            assert_eq!(client.reply().status, 200);
        }
        assert_eq!(front.record.lock().unwrap().shifts, [7, 8]);
    }
}

#[test]
fn bodies_come_chunked_or_by_length_with_any_content_type_or_none() {
    for driver in drivers() {
        let front = Front::start(driver);
        let body = payment(ID, "19.90");
        let (start, rest) = body.split_at(7);
        let mut client = front.connect();
        let chunked = format!(
            "POST /payments HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n7\r\n{start}\r\n{:X}\r\n{rest}\r\n000\r\n\r\n",
            rest.len()
        );
        client.send(chunked.as_bytes());
        assert_eq!(client.reply().status, 202);
        client.drip(chunked.as_bytes());
        assert_eq!(client.reply().header("idempotent-replayed"), Some("true"));
        client.send(
            format!("POST /payments HTTP/1.1\r\nhost: a\r\nContent-Type: text/plain\r\nCONTENT-LENGTH:{}\r\n\r\n{body}", body.len())
                .as_bytes(),
        );
        assert_eq!(client.reply().status, 202);
        client.send(
            b"POST /payments HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        );
        client.reply().is_problem(422, "invalid-field");
        assert_eq!(client.reply().status, 200);
        assert_eq!(front.payments(), [(ID.to_owned(), 1990), (ID.to_owned(), 1990), (ID.to_owned(), 1990)]);
    }
}

/// With the first of these the codec has nothing to do, with the others it reads the request: nobody may tell by the answer.
#[test]
fn a_payment_gets_the_same_answer_whoever_reads_it() {
    let request =
        |line: &str, framing: &str, body: &str| format!("POST {line}\r\nHost: a\r\n{framing}\r\n\r\n{body}");
    let with_length =
        |line: &str, body: &str| request(line, &format!("Content-Length: {}", body.len()), body);
    let ways: [&dyn Fn(&str) -> String; 4] = [
        &|body| with_length("/payments HTTP/1.1", body),
        &|body| with_length("/payments?x HTTP/1.1", body),
        &|body| with_length("http://galo/payments HTTP/1.1", body),
        &|body| {
            let chunk =
                if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
            request("/payments HTTP/1.1", "Transfer-Encoding: chunked", &format!("{chunk}0\r\n\r\n"))
        },
    ];
    for driver in drivers() {
        let front = Front::start(driver);
        let answers = |number: usize, way: &dyn Fn(&str) -> String| -> Vec<String> {
            let mut client = front.connect();
            // Granted, replayed, a conflict, refused by the ledger, refused by itself.
            ["19.90", "19.90", "20", "0.02", "0.03", "0", "x"]
                .map(|amount| payment(&id(number), amount))
                .into_iter()
                .chain([String::new(), "[]".to_owned()])
                .map(|body| {
                    client.send(way(&body).as_bytes());
                    let reply = client.reply();
                    reply.head + &reply.body
                })
                .collect()
        };
        let by_way: Vec<_> = ways.iter().enumerate().map(|(number, way)| answers(number, way)).collect();
        assert_eq!(by_way[0][0].as_bytes(), answer::ACCEPTED);
        assert_eq!(by_way[0][0].as_bytes(), answer::render_head(&answer::empty(http::StatusCode::ACCEPTED)));
        assert!(by_way.iter().all(|answers| *answers == by_way[0]), "{by_way:#?}");
        // A version or a wish of its own is heard.
        for (number, (version, wish, header)) in
            [("1.0", "keep-alive", Some("keep-alive")), ("1.0", "x", None), ("1.1", "close", Some("close"))]
                .into_iter()
                .enumerate()
        {
            let mut client = front.connect();
            let body = payment(&id(100 + number), "19.90");
            let line = format!("/payments HTTP/{version}\r\nConnection: {wish}");
            client.send(with_length(&line, &body).as_bytes());
            let reply = client.reply();
            assert_eq!((reply.status, reply.header("connection")), (202, header));
            if wish != "keep-alive" {
                client.ends();
            }
        }
    }
}

#[test]
fn a_body_of_the_whole_budget_is_read() {
    for driver in drivers() {
        let front = Front::start(driver);
        let payment = payment(ID, "19.90");
        let head = |length: usize| {
            format!("POST /payments HTTP/1.1\r\nHost: a\r\nContent-Length: {length:05}\r\n\r\n")
        };
        let room = framing::REQUEST_SIZE_MAX - head(0).len();
        let mut client = front.connect();
        for _ in 0..3 {
            client.send(head(room).as_bytes());
            client.send(payment.as_bytes());
            client.send(" ".repeat(room - payment.len()).as_bytes());
            assert_eq!(client.reply().status, 202);
        }
        client.send(head(room + 1).as_bytes());
        client.reply().is_problem(413, "content-too-large");
        client.ends();
        front.is_well();
    }
}

#[test]
fn a_summary_adds_two_processors_up_and_states_its_resolution() {
    for driver in drivers() {
        let front = Front::start(driver);
        let body = r#"{"default":{"totalRequests":43236,"totalAmount":415542345.98},"fallback":{"totalRequests":0,"totalAmount":0.05}}"#;
        let reply = front.ask("GET", "/payments-summary", "");
        assert_eq!((reply.status, reply.body.as_str()), (200, body));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("summary-resolution-ms"), None);
        let range = "?from=2020-07-10T12:34:56.000Z&to=2020-07-10T12:35:56.000%2B00:00";
        assert_eq!(front.ask("GET", &format!("/payments-summary{range}"), "").status, 200);
        assert_eq!(front.ask("GET", "/payments-summary?to=2020-07-10T12:35:56.000+00:00", "").status, 200);
        for query in ["?from=", "?to=x", "?from=2021-01-01T00:00:00Z&to=2020-01-01T00:00:00Z", "?from=%2"] {
            front.ask("GET", &format!("/payments-summary{query}"), "").is_problem(400, "invalid-parameter");
        }
        let (from, to) = (1_594_384_496_000, 1_594_384_556_000);
        let ranges = [(None, None), (Some(from), Some(to)), (None, Some(to))];
        assert_eq!(front.record.lock().unwrap().ranges, ranges);

        let script = Script { resolution_ms: 60_000, ..Script::default() };
        let front = Front::start_with(driver, HttpConfig::default(), script);
        let reply = front.ask("GET", "/payments-summary", "");
        assert_eq!(reply.header("summary-resolution-ms"), Some("60000"));
    }
}

#[test]
fn a_payment_is_looked_up() {
    for driver in drivers() {
        let front = Front::start(driver);
        let get = |id: &str| front.ask("GET", &format!("/payments/{id}"), "");
        get(ID).is_problem(404, "unknown-payment");
        get("x").is_problem(404, "unknown-payment");
        for (number, amount) in [(1, "5"), (2, "6"), (3, "7.1"), (4, "7")] {
            assert_eq!(front.ask("POST", "/payments", &payment(&id(number), amount)).status, 202);
        }
        let expect = |number, rest: &str| {
            let reply = get(&id(number));
            assert_eq!(
                (reply.status, reply.body),
                (200, format!(r#"{{"correlationId":"{}",{rest}}}"#, id(number)))
            );
        };
        expect(
            1,
            r#""amount":5.00,"state":"open","processor":null,"requestedAt":null,"inDoubt":false,"decisions":[],"decisionsForgotten":false"#,
        );
        expect(
            2,
            concat!(
                r#""amount":6.00,"state":"open","processor":"fallback","requestedAt":null,"inDoubt":true,"decisions":["#,
                r#"{"at":"2025-07-15T12:34:50.000Z","processor":"fallback","reason":null,"waitedForMs":0,"outcome":"in_doubt","wasInDoubt":true}"#,
                r#"],"decisionsForgotten":true"#,
            ),
        );
        expect(
            3,
            concat!(
                r#""amount":7.10,"state":"processed","processor":"default","requestedAt":"2025-07-15T12:34:56.789Z","inDoubt":false,"decisions":["#,
                r#"{"at":"2025-07-15T12:34:50.000Z","processor":null,"reason":"awaits_cheaper","waitedForMs":0,"outcome":null,"wasInDoubt":false},"#,
                r#"{"at":"2025-07-15T12:34:56.789Z","processor":"default","reason":"probe","waitedForMs":6789,"outcome":"processed","wasInDoubt":false}"#,
                r#"],"decisionsForgotten":false"#,
            ),
        );
        expect(
            4,
            concat!(
                r#""amount":7.00,"state":"declined","processor":null,"requestedAt":null,"inDoubt":false,"#,
                r#""declined":{"cause":"refused","processor":"fallback","status":402,"at":"2025-07-15T12:34:56.789Z"},"decisions":["#,
                r#"{"at":"2025-07-15T12:34:50.000Z","processor":"fallback","reason":null,"waitedForMs":0,"outcome":"declined","wasInDoubt":false}"#,
                r#"],"decisionsForgotten":false"#,
            ),
        );
    }
}

#[test]
fn a_payment_is_cancelled_unless_a_processor_may_have_it() {
    for driver in drivers() {
        let front = Front::start(driver);
        let delete = |id: &str| front.ask("DELETE", &format!("/payments/{id}"), "");
        delete(ID).is_problem(404, "unknown-payment");
        delete("x").is_problem(404, "unknown-payment");
        for (number, amount) in [(1, "5"), (2, "6"), (3, "7.1"), (4, "7")] {
            assert_eq!(front.ask("POST", "/payments", &payment(&id(number), amount)).status, 202);
        }
        let cancelled = delete(&id(1));
        assert_eq!((cancelled.status, cancelled.header("content-type")), (200, Some("application/json")));
        let body = format!(
            concat!(
                r#"{{"correlationId":"{}","amount":5.00,"state":"declined","processor":null,"requestedAt":null,"inDoubt":false,"#,
                r#""declined":{{"cause":"cancelled","processor":null,"status":null,"at":"2025-07-15T12:34:56.789Z"}},"decisions":[],"decisionsForgotten":false}}"#,
            ),
            id(1)
        );
        assert_eq!(cancelled.body, body);
        delete(&id(2)).is_problem(409, "payment-under-way");
        delete(&id(3)).is_problem(409, "payment-processed");
        let declined = delete(&id(4));
        let get = front.ask("GET", &format!("/payments/{}", id(4)), "");
        assert_eq!((declined.status, declined.body), (200, get.body), "it is declined already");
        let asked = front.record.lock().unwrap().cancelled.clone();
        assert_eq!(asked, [ID.to_owned(), id(1), id(2), id(3), id(4)]);

        let script = Script { is_unreachable: true, ..Script::default() };
        let front = Front::start_with(driver, HttpConfig::default(), script);
        front.ask("DELETE", &format!("/payments/{ID}"), "").is_problem(503, "ledger-unreachable");
    }
}

#[test]
fn health_readiness_metrics_and_purge() {
    for driver in drivers() {
        let front = Front::start(driver);
        front.is_well();
        assert_eq!(front.ask("GET", "/ready", "").status, 200);
        let metrics = front.ask("GET", "/metrics", "");
        assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4"));
        assert_eq!(metrics.body, "galo_payments_open 0\n".repeat(1_000));
        front.ask("POST", "/purge-payments", "").is_problem(403, "purge-not-allowed");

        let script = Script {
            purge_allowed: true,
            not_ready: Some("the \"aggregator\" is away"),
            ..Script::default()
        };
        let front = Front::start_with(driver, HttpConfig::default(), script);
        let reply = front.ask("POST", "/purge-payments", "");
        assert_eq!((reply.status, reply.body.as_str()), (200, ""));
        assert_eq!(front.record.lock().unwrap().purge_count, 1);
        let reply = front.ask("GET", "/ready", "");
        reply.is_problem(503, "not-ready");
        assert!(reply.body.contains(r#"the \"aggregator\" is away"#), "{}", reply.body);

        let script = Script { is_unreachable: true, ..Script::default() };
        let front = Front::start_with(driver, HttpConfig::default(), script);
        for (method, target) in
            [("POST", "/purge-payments"), ("GET", "/payments-summary"), ("GET", &format!("/payments/{ID}"))]
        {
            front.ask(method, target, "").is_problem(503, "ledger-unreachable");
        }
    }
}

#[test]
fn no_page_of_another_site_has_a_browser_purge() {
    for driver in drivers() {
        let script = Script { purge_allowed: true, ..Script::default() };
        let front = Front::start_with(driver, HttpConfig::default(), script);
        let purge = |headers: &str| {
            let mut client = front.connect();
            let head = format!(
                "POST /purge-payments HTTP/1.1\r\nHost: galo:9999\r\n{headers}Content-Length: 0\r\n\r\n"
            );
            client.send(head.as_bytes());
            client.reply()
        };
        for headers in [
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\n",
            "Sec-Fetch-Site: \r\n",
            "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: cross-site\r\nOrigin: http://galo:9999\r\n",
            "Origin: http://elsewhere\r\n",
            "Origin: http://galo\r\n",
            "Origin: http://galo:9999.elsewhere\r\n",
            "Origin: file://galo:9999\r\n",
            "Origin: null\r\n",
            "Origin: http://galo:9999\r\nOrigin: http://elsewhere\r\n",
        ] {
            purge(headers).is_problem(403, "cross-site-request");
        }
        assert_eq!(front.record.lock().unwrap().purge_count, 0);
        for (count, headers) in (1..).zip([
            "",
            "Sec-Fetch-Site: same-origin\r\nOrigin: http://galo:9999\r\n",
            "Sec-Fetch-Site: none\r\n",
            "Origin: http://galo:9999\r\n",
            "Origin: https://galo:9999\r\n",
        ]) {
            assert_eq!(purge(headers).status, 200, "{headers}");
            assert_eq!(front.record.lock().unwrap().purge_count, count);
        }
    }
}

#[test]
fn each_answer_is_observed_with_what_was_asked() {
    for driver in drivers() {
        let front = Front::start(driver);
        let asked = [
            ("POST", "/payments", Endpoint::Payments),
            ("GET", "/payments", Endpoint::Payments),
            ("GET", &format!("/payments/{ID}"), Endpoint::Payment),
            ("GET", "/payments-summary", Endpoint::Summary),
            ("POST", "/notifications/nobody", Endpoint::Notifications),
            ("POST", "/purge-payments", Endpoint::Purge),
            ("GET", "/health", Endpoint::Health),
            ("HEAD", "/ready", Endpoint::Ready),
            ("GET", "/metrics", Endpoint::Metrics),
            ("GET", "/nowhere", Endpoint::Other),
            ("GET", "/ready\t", Endpoint::Other),
        ];
        for (count, (method, target, _)) in (1..).zip(&asked) {
            let mut client = front.connect();
            client.request(method, target, "");
            front.statuses(count);
        }
        assert_eq!(front.record.lock().unwrap().endpoints, asked.map(|(.., endpoint)| endpoint));
    }
}

#[test]
fn unknown_paths_and_wrong_methods() {
    for driver in drivers() {
        let front = Front::start(driver);
        for target in
            ["/", "/payment", "/payments/", "/payments/a/b", "/Payments", "/payments%2f", "//payments", "*"]
        {
            front.ask("GET", target, "").is_problem(404, "not-found");
        }
        for (method, target, allow) in [
            ("GET", "/payments", "POST, OPTIONS"),
            ("PUT", "/payments", "POST, OPTIONS"),
            ("HEAD2", "/payments", "POST, OPTIONS"),
            ("post", "/payments", "POST, OPTIONS"),
            ("POST", "/payments-summary", "GET, HEAD, OPTIONS"),
            ("PUT", "/payments/x", "GET, HEAD, DELETE, OPTIONS"),
            ("DELETE", "/payments-summary", "GET, HEAD, OPTIONS"),
            ("DELETE", "/payments", "POST, OPTIONS"),
            ("GET", "/purge-payments", "POST, OPTIONS"),
        ] {
            let reply = front.ask(method, target, "");
            reply.is_problem(405, "method-not-allowed");
            assert_eq!(reply.header("allow"), Some(allow));
            let options = front.ask("OPTIONS", target, "");
            assert_eq!((options.status, options.header("allow")), (204, Some(allow)));
        }
        assert_eq!(front.ask("GET", "http://galo/health?x", "").status, 200);
    }
}

#[test]
fn head_gets_the_head_alone() {
    for driver in drivers() {
        let front = Front::start(driver);
        let mut client = front.connect();
        for target in ["/metrics", "/health", "/payments-summary"] {
            client.request("GET", target, "");
            let full = client.reply();
            client.request("HEAD", target, "");
            let head = client.reply_to_head();
            let mut lines = (full.head.lines().collect::<Vec<_>>(), head.head.lines().collect::<Vec<_>>());
            lines.0.sort_unstable();
            lines.1.sort_unstable();
            assert_eq!(lines.0, lines.1, "{target}");
        }
        client.request("HEAD", "/payments", "");
        assert_eq!(client.reply_to_head().status, 405);
        client.request("GET", "/health", "");
        assert_eq!(client.reply().body, r#"{"status":"ok"}"#);
    }
}
