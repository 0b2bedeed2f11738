//! Each shipped profile, as somebody would use it, and what its processor really says.

use galo_engine::verdict::{Rules, StatusAlone, Verdict};

use super::*;
use crate::{Found, Lookup, Page, Said, State, shipped};

/// What a profile leaves open, filled in.
fn file(name: &str) -> String {
    let rest = match name {
        "contest" => "url = \"http://bank:8080\"",
        "stripe" | "mercadopago" => "auth.token_file = \"token\"",
        "localstripe" => "url = \"http://127.0.0.1:8420\"\nauth.token_file = \"token\"",
        "adyen" => {
            "url = \"https://x-checkout-live.adyenpayments.com/checkout\"\nauth.value_file = \"token\"\n\
             request.body.merchantAccount = \"Galo\""
        }
        "pix" => {
            "url = \"https://pix.bank.test\"\ntls = { client_cert_file = \"pem\", client_key_file = \"pem\" }\n\
             auth = { token_url = \"https://pix.bank.test/oauth/token\", client_id = \"me\", client_secret_file = \"token\" }\n\
             request.body.chave = \"key@bank.test\""
        }
        other => panic!("nothing is known of the profile {other}"),
    };
    format!("[[processor]]\nname = \"{name}\"\nprofile = \"{name}\"\n{rest}\n")
}

pub(super) fn processor(folder: &Folder, name: &str) -> Processor {
    one_in(&folder.0, &file(name))
}

fn judge(processor: &Processor, status: u16, headers: &[(&str, &[u8])], body: &str) -> Verdict {
    processor.answers.rules.judge(&Page { status, headers: &headers, body: body.as_bytes() })
}

#[test]
fn every_profile_names_its_source_and_the_day_it_was_read() {
    for name in shipped::names() {
        let comment: Vec<&str> =
            shipped::text(name).unwrap().lines().take_while(|line| line.starts_with('#')).collect();
        let comment = comment.join("\n");
        assert!(
            comment.contains("https://") && comment.to_lowercase().contains("read on 2026-11-29"),
            "{name}"
        );
    }
}

/// The example of `docs/processors.md` works as it stands there.
#[test]
fn the_documented_example_is_one() {
    let folder = Folder::new("example");
    std::fs::create_dir(folder.0.join("secrets")).unwrap();
    folder.write("secrets/bank", "b\n");
    folder.write("secrets/stripe", "s\n");
    let page = include_str!("../../../docs/processors.md");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let processors = folder.parse(example).unwrap();
    let bank = processors.by_name("bank").unwrap();
    let expected = format!(r#"{{"reference":"{ID}","amount":1990,"currency":"BRL","payer":{{"id":1}}}}"#);
    assert_eq!(body(bank, 1_990, r#"{"payer":{"id":1}}"#), expected);
    assert_eq!(processors.client_members(), ["customer", "description", "payer", "payment_method"]);
    for name in shipped::names() {
        assert!(page.contains(&format!("profile/profiles/{name}.toml")), "{name} is on no page");
    }
}

/// Only `auth` and `idempotency` are of a kind; a body's members may have any name.
#[test]
fn a_member_called_kind_or_in_replaces_nothing() {
    let folder = Folder::new("members");
    for name in ["stripe", "localstripe"] {
        for member in ["kind", "in"] {
            let lines = format!(
                "request.body.{member} = \"order\"\nrequest.body.metadata.{member} = \"order\"\n\
                 request.body.metadata.deep.{member} = \"order\"\n"
            );
            let processor = one_in(&folder.0, &(file(name) + &lines));
            let form = body(&processor, 1_990, r#"{"payment_method":"pm_1"}"#);
            assert!(form.starts_with("amount=1990&currency=brl&confirm=true&payment_method=pm_1&"), "{form}");
            let expected = format!(
                "metadata%5Border_id%5D={ID}&metadata%5B{member}%5D=order&metadata%5Bdeep%5D%5B{member}%5D=order&{member}=order"
            );
            assert!(form.ends_with(&expected), "{form}");
        }
    }
}

/// What belongs to another kind is gone, and nothing else is.
#[test]
fn another_kind_replaces_what_the_profile_has_of_it() {
    let folder = Folder::new("kinds");
    let own = "auth = { kind = \"basic\", user = \"u\", password_file = \"password\" }\nidempotency.in = \"none\"\n";
    let processor = one_in(&folder.0, &file("stripe").replace("auth.token_file = \"token\"\n", own));
    let request = rendered(&processor, 1_990, "{}");
    assert!(
        request.contains("\r\nAuthorization: Basic ") && !request.contains("Idempotency-Key"),
        "{request}"
    );
    let same = "auth = { kind = \"bearer\", token_file = \"token\" }\nidempotency = { in = \"header\", window_s = 5 }\n";
    let processor = one_in(&folder.0, &file("stripe").replace("auth.token_file = \"token\"\n", same));
    assert!(rendered(&processor, 1_990, "{}").contains("\r\nIdempotency-Key: "));
    assert_eq!(processor.idempotency.window_s, Some(5));
}

/// Nothing that was sent says which payment it was: then that nothing is found must not send it again.
#[test]
fn a_request_without_its_id_is_never_proven_absent() {
    let folder = Folder::new("absent");
    let own = |lines: &str| folder.parse(&(file("localstripe") + lines)).map(|_| ());
    let mistake = own("request.body.metadata.order_id = \"order\"\n").unwrap_err();
    let expected = ": processor.lookup.not_found_after_ms = 10000: expected {id} or {key} in the request";
    assert!(mistake.starts_with("profile localstripe:") && mistake.contains(expected), "{mistake}");
    for lines in [
        "request.body.metadata.order_id = \"order {key}\"\n",
        "request.body.metadata.order_id = \"order\"\nrequest.headers.X-Id = \"{id}\"\n",
        "request.body.metadata.order_id = \"order\"\nrequest.path = \"/v1/payment_intents?id={id}\"\n",
        "request.body.metadata.order_id = \"order\"\nidempotency = { in = \"header\", name = \"Key\" }\n",
        "request.body.metadata.order_id = \"order\"\nlookup.not_found_after_ms = \"never\"\n",
    ] {
        assert_eq!(own(lines), Ok(()), "{lines}");
    }
    // One mistake, not two.
    assert_eq!(
        own("request.path = \"/{id\"\nrequest.body.metadata.order_id = \"order\"")
            .unwrap_err()
            .lines()
            .count(),
        1
    );
}

/// The aggregator's way: it has neither the secrets nor the certificates.
#[test]
fn every_profile_is_read_without_its_secrets() {
    let folder = Folder::new("unread");
    for secret in ["token", "pem"] {
        std::fs::remove_file(folder.0.join(secret)).unwrap();
    }
    let path = folder.0.join("processors.toml");
    for name in shipped::names() {
        folder.write("processors.toml", &file(name));
        let processors = Processors::read_without_secrets(&path).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(processors.by_name(name).is_some());
    }
}

/// By another time than was sent the ledger takes a payment for another one: only where the time is what was sent.
#[test]
fn only_the_contests_look_ups_tell_what_was_sent() {
    let folder = Folder::new("times");
    for name in shipped::names() {
        let processor = processor(&folder, name);
        let tells = processor.lookup.as_ref().is_some_and(Lookup::tells_milliseconds);
        assert_eq!(tells && processor.request.sends_requested_at(), name == "contest", "{name}");
    }
}

#[test]
fn no_profile_takes_a_doubt_for_a_refusal() {
    let folder = Folder::new("doubt");
    for name in shipped::names().filter(|name| *name != "contest") {
        let processor = processor(&folder, name);
        let by_status = |status| judge(&processor, status, &[], "");
        for status in [401, 403, 404, 405, 415] {
            assert_eq!(by_status(status), Verdict::Unavailable, "{name} {status}");
        }
        for status in [100, 200, 202, 301, 408, 425, 499, 500, 502, 503, 504] {
            assert_eq!(by_status(status), Verdict::Unknown, "{name} {status}");
        }
        for status in [400, 409, 422] {
            let verdict = by_status(status);
            assert!(matches!(verdict, Verdict::Unknown | Verdict::Duplicate), "{name} {status}: {verdict:?}");
        }
        if name != "localstripe" {
            assert_eq!(by_status(429), Verdict::Overloaded, "{name}");
        }
        // A duplicate that nothing can look up would never end.
        let judges_duplicate = [400, 402, 409, 422].map(by_status).contains(&Verdict::Duplicate);
        assert!(!judges_duplicate || processor.lookup.is_some(), "{name}");
    }
}

#[test]
fn the_contests_rules_are_the_engines() {
    let processor = processor(&Folder::new("contest"), "contest");
    let rules = Rules::contest();
    assert_eq!(processor.answers.rules, rules);
    for status in 0..=999 {
        assert_eq!(judge(&processor, status, &[], ""), rules.judge(&StatusAlone(status)));
        assert!(!processor.answers.needs_body(status), "its bodies are skipped");
    }
    let mut search = processor.lookup.as_ref().unwrap().search(id(), UnixMillis(0), None);
    let body = format!(
        "{{\"correlationId\":\"{ID}\",\"amount\": 19.9,\"requestedAt\":\"2025-07-15T12:34:56.789Z\"}}"
    );
    let expected = Found {
        state: State::Processed,
        amount: AmountCents::new(1_990),
        requested_at: Some(UnixMillis(1_752_582_896_789)),
        reference: None,
        copies: 1,
    };
    assert_eq!(search.read(200, body.as_bytes()), Said::Found(expected));
    assert_eq!(search.read(404, b""), Said::NotFound);
    assert_eq!(search.read(200, body.replace("4a79", "5a79").as_bytes()), Said::Unclear);
    assert_eq!(search.read(500, b""), Said::Unclear);
    assert_eq!(processor.idempotency.window_s, None);
    assert!(processor.idempotency.concurrent);
    assert_eq!(processor.lookup.as_ref().unwrap().not_found_after_ms, Some(120_000));
}

#[test]
fn stripe() {
    for name in ["stripe", "localstripe"] {
        let processor = processor(&Folder::new(name), name);
        let judge = |status, body: &str| judge(&processor, status, &[], body);
        assert_eq!(
            judge(200, r#"{"id":"pi_1","object":"payment_intent","status":"succeeded"}"#),
            Verdict::Processed
        );
        assert_eq!(judge(200, r#"{"id":"pi_1","status":"processing"}"#), Verdict::Pending);
        assert_eq!(judge(200, r#"{"id":"pi_1","status":"requires_action"}"#), Verdict::Pending);
        assert_eq!(judge(200, r#"{"id":"pi_1","status":"something_new"}"#), Verdict::Unknown);
        let declined =
            r#"{"error":{"code":"card_declined","decline_code":"do_not_honor","type":"card_error"}}"#;
        assert_eq!(judge(402, declined), Verdict::Declined);
        assert_eq!(
            judge(400, r#"{"error":{"type":"invalid_request_error","message":"Bad request"}}"#),
            Verdict::Declined
        );
        assert_eq!(judge(500, r#"{"error":{"type":"api_error"}}"#), Verdict::Unknown);
        assert_eq!(judge(401, r#"{"error":{"type":"invalid_request_error"}}"#), Verdict::Unavailable);

        let request = rendered(&processor, 1_990, r#"{"payment_method":"pm_1","customer":null}"#);
        assert!(request.starts_with("POST /v1/payment_intents HTTP/1.1\r\n"), "{request}");
        let form = request.split_once("\r\n\r\n").unwrap().1;
        assert!(form.starts_with("amount=1990&currency=brl&confirm=true&payment_method=pm_1&"), "{form}");
        assert!(form.ends_with(&format!("metadata%5Border_id%5D={ID}")), "{form}");
        assert_eq!(request.contains(&format!("\r\nIdempotency-Key: {ID}\r\n")), name == "stripe");

        let mut search = processor.lookup.as_ref().unwrap().search(id(), UnixMillis(1_752_582_896_789), None);
        let intent = format!(
            r#"{{"id":"pi_1","amount":1990,"created":1,"metadata":{{"order_id":"{ID}"}},"status":"succeeded"}}"#
        );
        let list = format!(
            r#"{{"object":"list","data":[{{"id":"pi_2","metadata":{{}}}},{intent}],"has_more":true}}"#
        );
        let expected = Found {
            state: State::Processed,
            amount: AmountCents::new(1_990),
            requested_at: None,
            reference: Some("pi_1".to_owned()),
            copies: 1,
        };
        assert_eq!(search.read(200, list.as_bytes()), Said::Found(expected));
    }
    let stripe = processor(&Folder::new("window"), "stripe");
    assert_eq!(stripe.idempotency.window_s, Some(86_400));
    let reused = r#"{"error":{"type":"idempotency_error","message":"Keys for idempotent requests…"}}"#;
    assert_eq!(judge(&stripe, 400, &[], reused), Verdict::Duplicate, "what the key did is to be looked up");
    assert_eq!(judge(&stripe, 409, &[], r#"{"error":{"code":"idempotency_key_in_use"}}"#), Verdict::Unknown);
    let local = processor(&Folder::new("window"), "localstripe");
    assert_eq!(local.idempotency.window_s, Some(0), "it would be charged twice");
}

#[test]
fn adyen() {
    let processor = processor(&Folder::new("adyen"), "adyen");
    let judge = |status, transient: &str, body: &str| {
        judge(&processor, status, &[("Transient-Error", transient.as_bytes())], body)
    };
    assert_eq!(judge(200, "", r#"{"pspReference":"X1","resultCode":"Authorised"}"#), Verdict::Processed);
    assert_eq!(
        judge(200, "", r#"{"resultCode":"Refused","refusalReason":"Expired Card"}"#),
        Verdict::Declined
    );
    for code in ["Error", "Pending", "Received", "RedirectShopper"] {
        assert_eq!(judge(200, "", &format!(r#"{{"resultCode":"{code}"}}"#)), Verdict::Unknown, "{code}");
    }
    let in_progress = r#"{"status":422,"errorCode":"704","message":"request already processed or in progress","errorType":"validation"}"#;
    for status in [409, 422] {
        assert_eq!(judge(status, "true", in_progress), Verdict::Unknown, "the first one may have charged");
    }
    assert_eq!(judge(422, "true", r#"{"errorCode":"905"}"#), Verdict::Unavailable);
    assert_eq!(judge(422, "false", r#"{"errorCode":"130","errorType":"validation"}"#), Verdict::Declined);
    assert_eq!(judge(500, "true", "{}"), Verdict::Unknown);
    assert!(processor.lookup.is_none());
    let text = rendered(&processor, 1_990, r#"{"paymentMethod":{"type":"scheme"}}"#);
    assert!(text.starts_with("POST /checkout/v71/payments HTTP/1.1\r\n"), "{text}");
    let expected = format!(
        r#"{{"reference":"{ID}","paymentMethod":{{"type":"scheme"}},"amount":{{"value":1990,"currency":"BRL"}},"merchantAccount":"Galo"}}"#
    );
    assert_eq!(text.split_once("\r\n\r\n").unwrap().1, expected);
}

#[test]
fn mercadopago() {
    let processor = processor(&Folder::new("mercadopago"), "mercadopago");
    let judge = |status, body: &str| judge(&processor, status, &[], body);
    assert_eq!(
        judge(201, r#"{"id":1,"status":"approved","status_detail":"accredited"}"#),
        Verdict::Processed
    );
    assert_eq!(judge(201, r#"{"id":1,"status":"in_process"}"#), Verdict::Pending);
    assert_eq!(
        judge(201, r#"{"id":1,"status":"rejected","status_detail":"cc_rejected_high_risk"}"#),
        Verdict::Declined
    );
    assert_eq!(judge(400, r#"{"message":"x","error":"bad_request","status":400}"#), Verdict::Declined);
    assert_eq!([judge(402, "{}"), judge(409, "{}")], [Verdict::Duplicate; 2]);
    let text = rendered(&processor, 1_990, r#"{"payer":{"email":"a@b"},"payment_method_id":"pix"}"#);
    assert!(text.contains(&format!("\r\nX-Idempotency-Key: {ID}\r\n")));
    let expected = format!(
        r#"{{"transaction_amount":19.90,"external_reference":"{ID}","payment_method_id":"pix","payer":{{"email":"a@b"}}}}"#
    );
    assert_eq!(text.split_once("\r\n\r\n").unwrap().1, expected);
    let lookup = processor.lookup.as_ref().unwrap();
    let found = format!(
        r#"{{"results":[{{"id":12,"status":"rejected","external_reference":"{ID}","transaction_amount":19.9}}]}}"#
    );
    let Said::Found(found) = lookup.search(id(), UnixMillis(0), None).read(200, found.as_bytes()) else {
        panic!("it is there")
    };
    assert_eq!(
        (found.state, found.amount, found.reference.as_deref()),
        (State::Declined, AmountCents::new(1_990), Some("12"))
    );
}

#[test]
fn pix() {
    let processor = processor(&Folder::new("pix"), "pix");
    let judge = |status, body: &str| judge(&processor, status, &[], body);
    assert_eq!(judge(201, &format!(r#"{{"status":"ATIVA","txid":"{DIGITS}"}}"#)), Verdict::Pending);
    assert_eq!(judge(200, r#"{"status":"CONCLUIDA"}"#), Verdict::Processed);
    let error = |name: &str| {
        format!(r#"{{"type":"https://pix.bcb.gov.br/api/v2/error/{name}","title":"x","status":400}}"#)
    };
    assert_eq!(judge(400, &error("CobOperacaoInvalida")), Verdict::Duplicate);
    assert_eq!(judge(400, &error("RequisicaoInvalida")), Verdict::Declined);
    assert_eq!(judge(503, ""), Verdict::Unknown);
    let text = rendered(&processor, 12_345, "{}");
    assert!(
        text.starts_with(&format!("PUT /v2/cob/{DIGITS} HTTP/1.1\r\n")) && text.contains("Bearer t0ken\r\n"),
        "{text}"
    );
    let expected =
        r#"{"calendario":{"expiracao":3600},"valor":{"original":"123.45"},"chave":"key@bank.test"}"#;
    assert_eq!(text.split_once("\r\n\r\n").unwrap().1, expected);
    assert!(processor.tls.as_ref().unwrap().client.is_some() && processor.request.needs_token());
    let mut search = processor.lookup.as_ref().unwrap().search(id(), UnixMillis(0), None);
    let found = format!(r#"{{"status":"CONCLUIDA","txid":"{DIGITS}","valor":{{"original":"123.45"}}}}"#);
    let Said::Found(found) = search.read(200, found.as_bytes()) else { panic!("it is there") };
    assert_eq!((found.state, found.amount), (State::Processed, AmountCents::new(12_345)));
}
