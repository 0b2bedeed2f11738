//! `processor --profile NAME` over real TCP: what each provider's public API says to what its shipped profile sends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "shared with processor_http, which uses all of it")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use common::{Processor, Response};
use serde_json::Value;

/// What a profile sends, and what its provider says to it.
struct Api {
    name: &'static str,
    method: &'static str,
    /// `{id}` and `{bare}` are the payment's id with and without hyphens; `{cents}` and `{amount}` what it is about.
    path: &'static str,
    body: &'static str,
    credential: &'static str,
    key: Option<&'static str>,
    /// Status, pointer and value of a payment that is taken, declined, or decided on later.
    paid: Said,
    declined: Said,
    pending: Said,
    /// Of the same key with other content; of one that is refused; of one without credentials.
    conflict: Said,
    refused: Said,
    /// A look-up's path, with `{reference}` from the answer's `/id`; where its state is and what it is when it is paid.
    lookup: Option<(&'static str, &'static str, &'static str)>,
}

type Said = (u16, &'static str, &'static str);

const FORM: &str =
    "amount={cents}&currency=brl&confirm=true&payment_method=pm_card_visa&metadata[order_id]={id}";
const BEARER: &str = "Authorization: Bearer sk_test_galo\r\n";
const INVALID_REQUEST: Said = (400, "/error/type", "invalid_request_error");
const NOT_PIX: &str = "https://pix.bcb.gov.br/api/v2/error/RequisicaoInvalida";
const TXID_IN_USE: &str = "https://pix.bcb.gov.br/api/v2/error/CobOperacaoInvalida";

const STRIPE: Api = Api {
    name: "stripe",
    method: "POST",
    path: "/v1/payment_intents",
    body: FORM,
    credential: BEARER,
    key: Some("Idempotency-Key"),
    paid: (200, "/status", "succeeded"),
    declined: (402, "/error/code", "card_declined"),
    pending: (200, "/status", "processing"),
    conflict: (400, "/error/type", "idempotency_error"),
    refused: INVALID_REQUEST,
    lookup: Some(("/v1/payment_intents/{reference}", "/status", "succeeded")),
};

const APIS: [Api; 5] = [
    STRIPE,
    Api {
        name: "localstripe",
        key: None,
        lookup: Some(("/v1/payment_intents?limit=100", "/data/0/status", "succeeded")),
        ..STRIPE
    },
    Api {
        name: "adyen",
        method: "POST",
        path: "/v71/payments",
        body: r#"{"reference":"{id}","merchantAccount":"Galo","paymentMethod":{"type":"scheme"},"amount":{"value":{cents},"currency":"BRL"}}"#,
        credential: "X-API-Key: sk_test_galo\r\n",
        key: Some("Idempotency-Key"),
        paid: (200, "/resultCode", "Authorised"),
        declined: (200, "/resultCode", "Refused"),
        pending: (200, "/resultCode", "Received"),
        conflict: (422, "/errorCode", "704"),
        refused: (422, "/errorType", "validation"),
        lookup: None,
    },
    Api {
        name: "mercadopago",
        method: "POST",
        path: "/v1/payments",
        body: r#"{"transaction_amount":{amount},"external_reference":"{id}","payment_method_id":"pix","payer":{"email":"a@example.com"}}"#,
        credential: BEARER,
        key: Some("X-Idempotency-Key"),
        paid: (201, "/status", "approved"),
        declined: (201, "/status", "rejected"),
        pending: (201, "/status", "in_process"),
        conflict: (409, "/error", "idempotency_key_already_used"),
        refused: (400, "/error", "bad_request"),
        lookup: Some((
            "/v1/payments/search?sort=date_created&criteria=desc&limit=50&external_reference={id}",
            "/results/0/status",
            "approved",
        )),
    },
    Api {
        name: "pix",
        method: "PUT",
        path: "/v2/cob/{bare}",
        body: r#"{"calendario":{"expiracao":3600},"valor":{"original":"{amount}"},"chave":"galo@example.com"}"#,
        credential: "",
        key: None,
        paid: (201, "/status", "ATIVA"),
        declined: (201, "/status", "ATIVA"),
        pending: (201, "/status", "ATIVA"),
        conflict: (400, "/type", TXID_IN_USE),
        refused: (400, "/type", NOT_PIX),
        lookup: Some(("/v2/cob/{bare}", "/status", "CONCLUIDA")),
    },
];

/// Ids end so if they are declined, refused or decided on later.
const DECLINED: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b0";
const REFUSED: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b1";
const LATER: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b4";
const PAID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b7";

impl Api {
    fn start(&self, flags: &[&str]) -> Processor {
        let credential = if self.name == "pix" { "galo:sk_test_galo" } else { "sk_test_galo" };
        let mut all = vec!["--profile", self.name, "--credential", credential];
        all.extend(["--decline", "ends:0", "--refuse", "ends:1", "--later", "ends:4"]);
        all.extend(flags);
        Processor::start(&all)
    }

    fn fill(text: &str, id: &str, cents: u64) -> String {
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        let text = text.replace("{id}", id).replace("{bare}", &id.replace('-', ""));
        text.replace("{cents}", &cents.to_string()).replace("{amount}", &amount)
    }

    /// The credential's header; of Pix, one with a token that was asked for first.
    fn credential(&self, processor: &Processor) -> String {
        if self.name != "pix" {
            return self.credential.to_owned();
        }
        // galo:sk_test_galo
        let headers = "Authorization: Basic Z2Fsbzpza190ZXN0X2dhbG8=\r\n";
        let form = "grant_type=client_credentials&scope=cob.write+cob.read";
        let answer = ask(processor, "POST", "/oauth/token", headers, form);
        let token = json(&answer)["access_token"].as_str().unwrap().to_owned();
        format!("Authorization: Bearer {token}\r\n")
    }

    fn pay(&self, processor: &Processor, key: &str, id: &str, cents: u64) -> Response {
        let mut headers = self.credential(processor);
        if let Some(name) = self.key {
            headers.push_str(&format!("{name}: {key}\r\n"));
        }
        let (path, body) = (Api::fill(self.path, id, cents), Api::fill(self.body, id, cents));
        ask(processor, self.method, &path, &headers, &body)
    }

    fn state(&self, processor: &Processor, id: &str, reference: &str) -> Option<String> {
        let (path, pointer, _) = self.lookup?;
        let path = Api::fill(path, id, 0).replace("{reference}", reference);
        let answer = ask(processor, "GET", &path, &self.credential(processor), "");
        assert_eq!(answer.status, 200, "{}: {}", self.name, answer.text());
        Some(json(&answer).pointer(pointer)?.as_str()?.to_owned())
    }
}

fn ask(processor: &Processor, method: &str, path: &str, headers: &str, body: &str) -> Response {
    let kind = if body.starts_with('{') { "json" } else { "x-www-form-urlencoded" };
    let content = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: application/{kind}\r\nContent-Length: {}\r\n", body.len())
    };
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}{content}\r\n{body}");
    processor.connect().exchange(&request)
}

fn json(answer: &Response) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"))
}

fn check(api: &Api, what: &str, answer: &Response, (status, pointer, value): Said) {
    let found = json(answer);
    let found = found.pointer(pointer).and_then(Value::as_str);
    assert_eq!((answer.status, found), (status, Some(value)), "{} {what}: {answer:?}", api.name);
}

/// What is charged, by the processor's own books.
fn charged(processor: &Processor) -> String {
    let text = processor.admin("GET", "/admin/payments-summary", "").text();
    text.split(",\"totalFee\"").next().unwrap().to_owned()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_payment_is_taken_declined_or_refused() {
    for api in &APIS {
        let processor = api.start(&["--later-ms", "0"]);
        check(
            api,
            "paid",
            &api.pay(&processor, "k1", PAID, 1990),
            if api.name == "pix" { (201, "/txid", "4a7901b87d264d9daa194dc1c7cf60b7") } else { api.paid },
        );
        if api.name != "pix" {
            check(api, "declined", &api.pay(&processor, "k2", DECLINED, 2000), api.declined);
        } else {
            api.pay(&processor, "k2", DECLINED, 2000);
            assert_eq!(api.state(&processor, DECLINED, "").as_deref(), Some("REMOVIDA_PELO_PSP"));
        }
        check(api, "refused", &api.pay(&processor, "k3", REFUSED, 3000), api.refused);
        assert_eq!(charged(&processor), r#"{"totalAmount":19.90,"totalRequests":1"#, "{}", api.name);
    }
}

#[test]
fn what_is_decided_on_later_is_pending_first() {
    for api in &APIS {
        let pay = |later_ms: &str| {
            let processor = api.start(&["--later-ms", later_ms]);
            let answer = api.pay(&processor, "k", LATER, 1990);
            check(api, "pending", &answer, api.pending);
            let reference = json(&answer)["id"].as_str().unwrap_or_default().to_owned();
            (processor, reference)
        };
        let (processor, reference) = pay("600000");
        assert_eq!(charged(&processor), r#"{"totalAmount":0.00,"totalRequests":0"#, "{}", api.name);
        let Some((_, _, paid)) = api.lookup else {
            let (processor, _) = pay("300");
            until("it is paid", || charged(&processor).ends_with(":1"));
            continue;
        };
        assert_ne!(api.state(&processor, LATER, &reference).as_deref(), Some(paid), "{}", api.name);
        let (processor, reference) = pay("300");
        until("a look-up says that it is paid", || {
            api.state(&processor, LATER, &reference).as_deref() == Some(paid)
        });
        assert_eq!(charged(&processor), r#"{"totalAmount":19.90,"totalRequests":1"#, "{}", api.name);
    }
}

#[test]
fn a_key_brings_the_same_answer_until_it_expires() {
    for api in &APIS {
        let processor = api.start(&[]);
        let first = api.pay(&processor, "k", PAID, 1990);
        let again = api.pay(&processor, "k", PAID, 1990);
        let other = api.pay(&processor, "k", PAID, 1991);
        if api.name == "localstripe" {
            // It knows no keys: three requests are three charges.
            assert_eq!(charged(&processor), r#"{"totalAmount":59.71,"totalRequests":3"#);
            continue;
        }
        if api.key.is_some() {
            assert_eq!((again.status, again.text()), (first.status, first.text()), "{}", api.name);
            assert_eq!(again.header("idempotent-replayed").is_some(), api.name == "stripe");
        } else {
            check(api, "again", &again, api.conflict);
        }
        check(api, "conflict", &other, api.conflict);
        assert_eq!(processor.statistic("inserted"), 1, "{}", api.name);
        if api.key.is_some() {
            let terms = processor.admin("PUT", "/admin/configurations/terms", r#"{"keysS":0}"#);
            assert_eq!(terms.status, 200, "{}", terms.text());
            api.pay(&processor, "another", PAID, 1990);
            api.pay(&processor, "another", PAID, 1990);
            assert_eq!(charged(&processor), r#"{"totalAmount":59.70,"totalRequests":3"#, "{}", api.name);
        }
    }
}

#[test]
fn a_request_under_way_holds_its_key() {
    let api = &STRIPE;
    let processor = api.start(&["--delay-ms", "600000"]);
    let body = Api::fill(api.body, PAID, 1990);
    let mut first = processor.connect();
    first.send(&format!(
        "POST {} HTTP/1.1\r\nHost: x\r\n{BEARER}Idempotency-Key: k\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        api.path,
        body.len()
    ));
    until("the first sleeps", || processor.statistic("posts") == 1);
    assert_eq!(processor.admin("PUT", "/admin/configurations/delay", r#"{"delay":0}"#).status, 200);
    let second = api.pay(&processor, "k", PAID, 1990);
    check(api, "second", &second, (409, "/error/code", "idempotency_key_in_use"));
    check(api, "with another key", &api.pay(&processor, "other", PAID, 1990), api.paid);
    assert_eq!(processor.statistic("inserted"), 1);
}

#[test]
fn strangers_strange_paths_and_too_many_are_turned_away() {
    for api in &APIS {
        let processor = api.start(&[]);
        let path = Api::fill(api.path, PAID, 1990);
        let body = Api::fill(api.body, PAID, 1990);
        for headers in ["", "Authorization: Bearer sk_other\r\nX-API-Key: sk_other\r\n"] {
            assert_eq!(ask(&processor, api.method, &path, headers, &body).status, 401, "{}", api.name);
        }
        let credential = api.credential(&processor);
        assert_eq!(ask(&processor, "GET", "/v1/nothing", &credential, "").status, 404, "{}", api.name);
        assert_eq!(ask(&processor, "GET", "/payments/service-health", &credential, "").status, 404);
        let terms = processor.admin("PUT", "/admin/configurations/terms", r#"{"ratePerS":1}"#);
        assert_eq!(terms.status, 200);
        let limited = |answer: &Response| answer.status == 429 && answer.header("retry-after") == Some("1");
        until("one of many is limited", || limited(&ask(&processor, api.method, &path, &credential, &body)));
    }
}

#[test]
fn a_list_is_paged_newest_first_by_stripe_and_oldest_first_by_localstripe() {
    for (api, order) in [(&APIS[0], [4, 3, 2, 1, 0]), (&APIS[1], [0, 1, 2, 3, 4])] {
        let processor = api.start(&[]);
        for number in 0..5_u64 {
            api.pay(&processor, &number.to_string(), PAID, 1000 + number);
        }
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/payment_intents?limit=2{after}");
            let page = json(&ask(&processor, "GET", &path, api.credential, ""));
            let data = page["data"].as_array().unwrap();
            seen.extend(data.iter().map(|intent| intent["amount"].as_u64().unwrap() - 1000));
            if page["has_more"] == Value::Bool(false) {
                break;
            }
            after = format!("&starting_after={}", data.last().unwrap()["id"].as_str().unwrap());
        }
        assert_eq!(seen, order, "{}", api.name);
    }
}

#[test]
fn a_lost_answer_leaves_the_payment_stored_and_a_broken_request_does_not() {
    for api in APIS.iter().filter(|api| api.name != "pix") {
        let processor = api.start(&[]);
        let lose = |fault: &str| {
            let body = format!(r#"{{"{fault}":1.0}}"#);
            assert_eq!(processor.admin("PUT", "/admin/configurations/faults", &body).status, 200);
            let mut headers = api.credential(&processor);
            headers.push_str(&format!("{}: k\r\n", api.key.unwrap_or("X-None")));
            let body = Api::fill(api.body, PAID, 1990);
            let kind = if body.starts_with('{') { "json" } else { "x-www-form-urlencoded" };
            let mut connection = processor.connect();
            connection.send(&format!(
                "POST {} HTTP/1.1\r\nHost: x\r\n{headers}Content-Type: application/{kind}\r\nContent-Length: {}\r\n\r\n{body}",
                api.path,
                body.len()
            ));
            assert!(connection.drain().0.is_empty(), "{}: an answer", api.name);
        };
        lose("closeBeforeInsert");
        assert_eq!(processor.statistic("inserted"), 0, "{}", api.name);
        lose("closeAfterInsert");
        assert_eq!(processor.statistic("inserted"), 1, "{}", api.name);
        assert_eq!(processor.admin("PUT", "/admin/configurations/faults", "{}").status, 200);
        // The key that broke was free again; the one that was answered into the void is kept.
        check(api, "again", &api.pay(&processor, "k", PAID, 1990), api.paid);
        let expected = if api.key.is_some() { 1 } else { 2 };
        assert_eq!(processor.statistic("inserted"), expected, "{}", api.name);
    }
}

#[test]
fn a_notification_is_signed_sent_again_and_lost_on_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/notifications/stripe", listener.local_addr().unwrap());
    let secret = std::env::temp_dir().join(format!("galo-webhook-secret-{}", std::process::id()));
    std::fs::write(&secret, "whsec_galo\n").unwrap();
    let flags = ["--notify", &url, "--notify-secret-file", secret.to_str().unwrap()];
    let processor = STRIPE.start(&[&flags[..], &["--lose-notifications", "cents:55"]].concat());
    STRIPE.pay(&processor, "lost", PAID, 55);
    STRIPE.pay(&processor, "told", PAID, 1990);
    let hear = |status: &str| {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        let (head, body) = loop {
            let len = stream.read(&mut buffer).unwrap();
            bytes.extend(&buffer[..len]);
            let text = String::from_utf8(bytes.clone()).unwrap();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && serde_json::from_str::<Value>(body).is_ok()
            {
                break (head.to_owned(), body.to_owned());
            }
        };
        stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
        (head, body)
    };
    let (head, body) = hear("503 No");
    assert!(head.starts_with("POST /notifications/stripe HTTP/1.1\r\n"), "{head}");
    let signature = head.lines().find_map(|line| line.strip_prefix("Stripe-Signature: t=")).unwrap();
    let (time, tag) = signature.split_once(",v1=").unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"whsec_galo");
    let expected = ring::hmac::sign(&key, format!("{time}.{body}").as_bytes());
    let hex: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(tag, hex);
    let event: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(event["type"], "payment_intent.succeeded");
    assert_eq!(event["data"]["object"]["metadata"]["order_id"], PAID);
    assert_eq!(event["data"]["object"]["amount"], 1990);
    // It was not taken, so it comes again.
    assert_eq!(hear("200 OK").1.len(), body.len());
    until("it is counted", || processor.statistic("notified") == 1);
    assert_eq!((processor.statistic("lost"), processor.statistic("unheard")), (1, 0));
    std::fs::remove_file(secret).unwrap();
}

#[test]
fn a_token_holds_for_as_long_as_it_says() {
    let api = &APIS[4];
    let processor = api.start(&["--token-life-s", "1"]);
    let wrong = "Authorization: Basic Z2FsbzpzZWNyZXQ=\r\n";
    let form = "grant_type=client_credentials";
    let refused = ask(&processor, "POST", "/oauth/token", wrong, form);
    assert_eq!((refused.status, json(&refused)["error"].as_str()), (401, Some("invalid_client")));
    // The client's own credentials may stand in the body, too.
    let in_body = format!("{form}&client_id=galo&client_secret=sk_test_galo");
    let answer = ask(&processor, "POST", "/oauth/token", "", &in_body);
    assert_eq!(json(&answer)["expires_in"], 1);
    let headers = format!("Authorization: Bearer {}\r\n", json(&answer)["access_token"].as_str().unwrap());
    let status = || ask(&processor, "GET", "/v2/cob/4a7901b87d264d9daa194dc1c7cf60b7", &headers, "").status;
    until("its time is over", || status() == 401);
    assert!(processor.statistic("tokens") == 1 && processor.statistic("unauthorized") >= 2);
}

#[test]
fn the_contest_refuses_declines_and_limits_on_request() {
    let flags = ["--refuse", "ends:1", "--decline", "ends:2", "--other-amount", "ends:3", "--rate", "1000"];
    let processor = Processor::start(&flags);
    let pay = |number| processor.connect().exchange(&common::payment_number(number));
    assert_eq!([1, 2, 3, 4].map(|number| pay(number).status), [400, 402, 200, 200]);
    let text = processor.admin("GET", "/admin/payments", "").text();
    assert_eq!(text.matches("\"amountCents\":1991").count(), 1);
    assert_eq!(text.lines().count(), 2);
    let terms = processor.admin("PUT", "/admin/configurations/terms", r#"{"later":"all"}"#);
    assert_eq!((terms.status, terms.text().starts_with("later: ")), (400, true));
    let terms = processor.admin("PUT", "/admin/configurations/terms", r#"{"ratePerS":1}"#);
    assert_eq!(terms.status, 200);
    until("one of many is limited", || {
        let answer = pay(5);
        answer.status == 429 && answer.header("retry-after") == Some("5")
    });
}

#[test]
fn what_a_profile_does_not_know_is_said_at_the_start() {
    for (flags, expected) in [
        (
            &["--profile", "paypal"][..],
            "expected one of contest, stripe, adyen, mercadopago, pix, localstripe",
        ),
        (&["--refuse", "some"], "expected none, all, or a list of ends:HEXDIGITS"),
        (&["--later", "all"], "later: the contest's processors decide at once"),
        (&["--credential", "x"], "--credential means nothing with --profile contest"),
        (&["--profile", "stripe", "--running-max", "3"], "--running-max means nothing with --profile stripe"),
        (&["--profile", "pix", "--keys-s", "3"], "keysS: this provider keeps a name for ever"),
        (&["--profile", "stripe", "--notify", "https://x"], "expected http://host[:port][/path]"),
        (&["--profile", "stripe", "--notify-secret-file", "x"], "is given without --notify"),
    ] {
        let program = env!("CARGO_BIN_EXE_processor");
        let output = std::process::Command::new(program).args(flags).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.lines().count()), (Some(78), 1), "{flags:?}: {error}");
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
}
