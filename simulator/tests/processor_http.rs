//! The `processor` program over real TCP: statuses, bodies, faults, limits, start and end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{ID, Processor, TOKEN, payment, payment_number, request};

const STORED_AT: &str = "2025-07-15T12:34:56.120Z";

#[test]
fn a_payment_and_its_duplicate() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    let stored = connection.exchange(&payment(ID, "19.9", STORED_AT));
    assert_eq!((stored.status, stored.is_chunked()), (200, true));
    assert_eq!(stored.text(), r#"{"message":"payment processed successfully"}"#);
    assert_eq!(stored.header("content-type"), Some("application/json; charset=utf-8"));

    let again = connection.exchange(&payment(ID, "5", "2025-07-15T12:35:00Z"));
    assert_eq!((again.status, again.is_chunked()), (422, true));
    assert!((1900..2100).contains(&again.body.len()), "{}", again.body.len());

    let found = connection.exchange(&request("GET", &format!("/payments/{ID}"), "", ""));
    assert_eq!(found.status, 200);
    // No Z and no trailing zero, as the original writes it.
    assert_eq!(
        found.text(),
        format!(r#"{{"correlationId":"{ID}","amount":19.90,"requestedAt":"2025-07-15T12:34:56.12"}}"#)
    );
    let unknown =
        connection.exchange(&request("GET", "/payments/00000000-0000-0000-0000-000000000000", "", ""));
    assert_eq!((unknown.status, unknown.header("content-length")), (404, Some("0")));
}

#[test]
fn answers_on_one_connection_do_not_run_into_each_other() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    // Sent at once, so that late last chunks and whole answers arrive as the kernel packs them.
    let requests: String = (0..64).map(|number| payment_number(number % 48)).collect();
    connection.send(&requests);
    for number in 0..64 {
        assert_eq!(connection.receive().status, if number < 48 { 200 } else { 422 }, "{number}");
    }
}

#[test]
fn what_is_no_payment_is_refused() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    let body = format!(r#"{{"correlationId":"{ID}","amount":1,"requestedAt":"{STORED_AT}"}}"#);
    let len = body.len();
    for (status, request) in [
        (400, request("POST", "/payments", "", "{")),
        (400, request("POST", "/payments", "", &body.replace("4a79", "xa79"))),
        (400, request("POST", "/payments", "", &body.replace("2025-07", "2025-17"))),
        (400, request("POST", "/payments", "", &body.replace(":1,", ":\"one\","))),
        (400, request("POST", "/payments", "Content-Length: 0\r\n", "")),
        (415, format!("POST /payments HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n{body}")),
        (
            415,
            format!(
                "POST /payments HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\n\r\n{body}"
            ),
        ),
        (
            400,
            format!(
                "POST /payments HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
            ),
        ),
        (405, request("GET", "/payments", "", "")),
        (405, request("POST", "/payments/service-health", "", "")),
        (404, request("GET", "/nothing", "", "")),
        (400, request("GET", "/payments/nothing", "", "")),
    ] {
        let response = connection.exchange(&request);
        assert_eq!((response.status, response.body.len()), (status, 0), "{request}");
    }
    assert_eq!((processor.statistic("posts"), processor.statistic("inserted")), (0, 0));
    // A body in chunks, with a charset: neither is an error.
    let chunked = format!(
        "POST /payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n{body}\r\n0\r\n\r\n"
    );
    assert_eq!(connection.exchange(&chunked).status, 200);
}

#[test]
fn the_contest_script_finds_its_statuses() {
    let processor = Processor::start(&["--fee", "0.15"]);
    let no_json = processor.connect().exchange(&format!(
        "POST /admin/purge-payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 0\r\n{TOKEN}\r\n"
    ));
    assert_eq!((no_json.status, no_json.text().as_str()), (200, r#"{"message":"All payments purged."}"#));
    let delay = processor.admin("PUT", "/admin/configurations/delay", r#"{"delay":7}"#);
    assert_eq!((delay.status, delay.text().as_str()), (200, r#"{"config":"delay","was":0,"is":7}"#));
    let failure = processor.admin("PUT", "/admin/configurations/failure", r#"{"failure":true}"#);
    assert_eq!(
        (failure.status, failure.text().as_str()),
        (200, r#"{"config":"failure","was":false,"is":true}"#)
    );
    let health = processor.connect().exchange(&request("GET", "/payments/service-health", "", ""));
    assert_eq!((health.status, health.text().as_str()), (200, r#"{"failing":true,"minResponseTime":7}"#));
    let failed = processor.connect().exchange(&payment_number(1));
    assert_eq!((failed.status, failed.header("content-length")), (500, Some("0")));

    let token = processor.admin("PUT", "/admin/configurations/token", r#"{"token":"new"}"#);
    assert_eq!(token.status, 204);
    assert_eq!(processor.admin("GET", "/admin/payments-summary", "").status, 401);
    let renewed = request("GET", "/admin/payments-summary", "X-Rinha-Token: new\r\n", "");
    assert_eq!(processor.connect().exchange(&renewed).status, 200);
}

#[test]
fn every_admin_path_wants_the_token() {
    let processor = Processor::start(&[]);
    for (method, path, body) in [
        ("PUT", "/admin/configurations/token", r#"{"token":"x"}"#),
        ("PUT", "/admin/configurations/delay", r#"{"delay":1}"#),
        ("PUT", "/admin/configurations/failure", r#"{"failure":true}"#),
        ("PUT", "/admin/configurations/faults", "{}"),
        ("POST", "/admin/purge-payments", ""),
        ("GET", "/admin/payments-summary", ""),
        ("GET", "/admin/payments", ""),
        ("GET", "/admin/statistics", ""),
    ] {
        for token in ["", "X-Rinha-Token: 124\r\n"] {
            let response = processor.connect().exchange(&request(method, path, token, body));
            assert_eq!((response.status, response.body.len()), (401, 0), "{path} {token}");
        }
        let wrong_method = processor.admin("DELETE", path, "");
        assert_eq!(
            (wrong_method.status, wrong_method.header("allow")),
            (405, Some(method.to_lowercase().as_str()))
        );
    }
    assert_eq!(processor.admin("GET", "/admin/statistics", "").status, 200);
}

#[test]
fn the_summary_is_exact_and_inclusive() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    for (id, amount, at) in [
        ("00000000-0000-4000-8000-000000000001", "0.01", "2025-07-15T12:00:00.000Z"),
        ("00000000-0000-4000-8000-000000000002", "19.9", "2025-07-15T12:00:01.000Z"),
        ("00000000-0000-4000-8000-000000000003", "1234567.89", "2025-07-15T12:00:02.500Z"),
        ("00000000-0000-4000-8000-000000000004", "1e2", "2025-07-15T12:00:03.000Z"),
        ("00000000-0000-4000-8000-000000000005", "0.125", "2025-07-15T12:00:03.001Z"),
    ] {
        assert_eq!(connection.exchange(&payment(id, amount, at)).status, 200);
    }
    for (query, expected) in [
        (
            "",
            r#"{"totalAmount":1234687.92,"totalRequests":5,"totalFee":61734.3960,"feePerTransaction":0.05}"#,
        ),
        (
            "?from=2025-07-15T12:00:01.000Z&to=2025-07-15T12:00:03.000Z",
            r#"{"totalAmount":1234687.79,"totalRequests":3,"totalFee":61734.3895,"feePerTransaction":0.05}"#,
        ),
        (
            "?from=2025-07-15T12%3A00%3A01.001Z&to=2025-07-15T12%3A00%3A02.999Z",
            r#"{"totalAmount":1234567.89,"totalRequests":1,"totalFee":61728.3945,"feePerTransaction":0.05}"#,
        ),
        (
            "?from=2025-07-15T13:00:00Z&to=2025-07-15T12:00:00Z",
            r#"{"totalAmount":0.00,"totalRequests":0,"totalFee":0.0000,"feePerTransaction":0.05}"#,
        ),
        // One bound alone counts for none, in the original too.
        (
            "?from=2025-07-15T12:00:03.001Z",
            r#"{"totalAmount":1234687.92,"totalRequests":5,"totalFee":61734.3960,"feePerTransaction":0.05}"#,
        ),
    ] {
        let summary = processor.admin("GET", &format!("/admin/payments-summary{query}"), "");
        assert_eq!((summary.status, summary.text().as_str()), (200, expected), "{query}");
    }
    assert_eq!(processor.admin("GET", "/admin/payments-summary?from=yesterday", "").status, 400);
}

#[test]
fn the_delay_is_waited_out() {
    let processor = Processor::start(&["--delay-ms", "60"]);
    let mut connection = processor.connect();
    for number in 0..3 {
        let sent = Instant::now();
        assert_eq!(connection.exchange(&payment_number(number)).status, 200);
        assert!(sent.elapsed() >= Duration::from_millis(60), "{:?}", sent.elapsed());
    }
}

#[test]
fn a_payment_is_stored_although_its_caller_has_gone() {
    let processor = Processor::start(&["--delay-ms", "1000"]);
    let mut connection = processor.connect();
    connection.send(&payment_number(1));
    // The counter is read on another connection: once it stands at 1 the request runs, and only then we leave.
    while processor.statistic("posts") == 0 {}
    drop(connection);
    assert_eq!(processor.statistic("inserted"), 0);
    let deadline = Instant::now() + Duration::from_secs(10);
    while processor.statistic("inserted") == 0 {
        assert!(Instant::now() < deadline, "never stored");
    }
}

#[test]
fn a_caller_that_leaves_the_queue_is_not_stored() {
    let processor = Processor::start(&["--delay-ms", "1500", "--running-max", "1", "--waiting-max", "2"]);
    let mut runs = processor.connect();
    runs.send(&payment_number(1));
    while processor.statistic("posts") < 1 {}
    // Only the first sleeps, long enough for the others to queue up behind it on a busy machine.
    assert_eq!(processor.admin("PUT", "/admin/configurations/delay", r#"{"delay":0}"#).status, 200);
    let mut leaves = processor.connect();
    leaves.send(&payment_number(2));
    while processor.statistic("posts") < 2 {}
    let mut stays = processor.connect();
    stays.send(&payment_number(3));
    while processor.statistic("posts") < 3 {}
    let refused = processor.connect().exchange(&payment_number(4));
    assert_eq!((refused.status, refused.header("retry-after"), refused.is_chunked()), (429, Some("5"), true));
    drop(leaves);
    assert_eq!((runs.receive().status, stays.receive().status), (200, 200));
    assert_eq!((processor.statistic("inserted"), processor.statistic("refused429")), (2, 1));
    assert_eq!((processor.statistic("runningMax"), processor.statistic("waitingMax")), (1, 2));
}

#[test]
fn the_usual_descriptor_limit_does_not_stop_it() {
    // More connections than the soft limit leaves.
    let processor = Processor::start_limited(256, &[]);
    let mut callers: Vec<_> = (0..400).map(|_| processor.connect()).collect();
    for (number, caller) in (0..).zip(&mut callers) {
        assert_eq!(caller.exchange(&payment_number(number)).status, 200);
    }
}

#[test]
fn early_health_calls_wait_and_more_are_refused() {
    let processor = Processor::start(&["--health-window-ms", "1000"]);
    let started = Instant::now();
    let call = request("GET", "/payments/service-health", "", "");
    let mut callers: Vec<_> = (0..4).map(|_| processor.connect()).collect();
    assert_eq!(callers[0].exchange(&call).status, 200);
    for (number, caller) in (2..).zip(&mut callers[1..]) {
        caller.send(&call);
        while processor.statistic("healthCalls") < number {}
    }
    assert_eq!(callers[3].receive().status, 429);
    assert_eq!(callers[1].receive().status, 200);
    assert_eq!(callers[2].receive().status, 200);
    assert!(started.elapsed() >= Duration::from_millis(2000), "{:?}", started.elapsed());
    assert_eq!((processor.statistic("healthCalls"), processor.statistic("health429")), (4, 1));
}

#[test]
fn faults_are_switched_at_run_time() {
    let processor = Processor::start(&[]);
    let set = |faults: &str| {
        let response = processor.admin("PUT", "/admin/configurations/faults", faults);
        assert_eq!(response.status, 200, "{}", response.text());
    };
    let mut number = 0;
    let mut next = || {
        number += 1;
        payment_number(number)
    };

    for (faults, stored) in [(r#"{"closeBeforeInsert":1,"seed":1}"#, 0), (r#"{"closeAfterInsert":1}"#, 20)] {
        set(faults);
        let mut resets = 0;
        for _ in 0..20 {
            let mut connection = processor.connect();
            connection.send(&next());
            let (bytes, reset) = connection.drain();
            assert_eq!(bytes, b"", "{faults}");
            resets += u32::from(reset);
        }
        assert!((3..=17).contains(&resets), "{resets} of 20 closes were resets");
        assert_eq!(processor.statistic("inserted"), stored, "{faults}");
    }

    set(r#"{"garbage":1}"#);
    let mut connection = processor.connect();
    connection.send(&next());
    let (bytes, _) = connection.drain();
    assert_eq!(bytes, galo_simulator::service::GARBAGE);
    assert_eq!(processor.statistic("inserted"), 21);

    set(r#"{"random500":1}"#);
    assert_eq!(processor.connect().exchange(&next()).status, 500);
    set(r#"{"random429":1}"#);
    assert_eq!(processor.connect().exchange(&next()).status, 429);
    assert_eq!(processor.statistic("inserted"), 21);

    set(r#"{"hangAfterInsert":1,"hangMs":120}"#);
    let mut connection = processor.connect();
    let sent = Instant::now();
    connection.send(&next());
    while processor.statistic("inserted") < 22 {}
    assert_eq!(connection.receive().status, 200);
    assert!(sent.elapsed() >= Duration::from_millis(120));

    set(r#"{"hangBeforeInsert":1,"hangMs":120}"#);
    let sent = Instant::now();
    assert_eq!(processor.connect().exchange(&next()).status, 200);
    assert!(sent.elapsed() >= Duration::from_millis(120));

    set("{}");
    assert_eq!(processor.connect().exchange(&next()).status, 200);
    for (wrong, reason) in [(r#"{"garbage":2}"#, "garbage is 2"), (r#"{"grabage":1}"#, "unknown field")] {
        let refused = processor.admin("PUT", "/admin/configurations/faults", wrong);
        assert_eq!(refused.status, 400);
        assert!(refused.text().contains(reason), "{}", refused.text());
    }
}

#[test]
fn the_listing_is_whole_and_goes_on_at_its_cursor() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    for number in 0..1500 {
        assert_eq!(connection.exchange(&payment_number(number)).status, 200);
    }
    let all = processor.admin("GET", "/admin/payments", "");
    assert_eq!((all.status, all.header("x-next-cursor")), (200, Some("1500")));
    let text = all.text();
    assert_eq!(text.lines().count(), 1500);
    assert_eq!(
        text.lines().nth(7).unwrap(),
        r#"{"correlationId":"00000000-0000-4000-8000-000000000007","amountCents":1990,"requestedAtMs":1752582896120}"#
    );
    let part = processor.admin("GET", "/admin/payments?cursor=1000&limit=300", "");
    assert_eq!(part.header("x-next-cursor"), Some("1300"));
    assert_eq!(
        part.text().lines().collect::<Vec<_>>(),
        text.lines().skip(1000).take(300).collect::<Vec<_>>()
    );
    let beyond = processor.admin("GET", "/admin/payments?cursor=1500", "");
    assert_eq!((beyond.text().as_str(), beyond.header("x-next-cursor")), ("", Some("1500")));
}

#[test]
fn a_signal_ends_it_at_once() {
    for name in ["-TERM", "-INT"] {
        let mut processor = Processor::start(&["--delay-ms", "60000"]);
        let mut connection = processor.connect();
        connection.send(&payment_number(1));
        while processor.statistic("posts") == 0 {}
        let asked = Instant::now();
        assert!(Command::new("kill").args([name, &processor.pid().to_string()]).status().unwrap().success());
        assert_eq!(processor.wait().code(), Some(0));
        // 100 ms is the promise; a loaded machine may take longer to let us look.
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    }
}

#[test]
fn what_keeps_it_from_serving_is_said_in_one_line() {
    let processor = Processor::start(&[]);
    let listen = processor.address.to_string();
    let refused = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_processor"))
            .args(arguments)
            .envs(variable)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        (child.wait().unwrap().code(), text)
    };
    let (code, text) = refused(&["--listen", &listen, "--name", "second"], None);
    assert_eq!(code, Some(1));
    assert!(
        text.starts_with(&format!("processor second: cannot listen on {listen}: Address already in use")),
        "{text}"
    );
    let (code, text) = refused(&["--fee", "5%"], None);
    assert_eq!(code, Some(78));
    assert!(text.contains("'5%' for '--fee <FEE>': expected a fraction from 0 to 1"), "{text}");
    let (code, text) = refused(&[], Some(("PROCESSOR_LISTEN", "nowhere")));
    assert_eq!(code, Some(78));
    assert!(text.contains("nowhere") && text.contains("--listen"), "{text}");
    // Where nobody reads why, the status still says it.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_processor")).args(["--fee", "5%"]).stderr(full).status();
    assert_eq!(status.unwrap().code(), Some(78));
}
